"""Training an embedder: sentence-transformers with in-batch negatives, through a LoRA adapter or the whole model.

The loss is that of Henderson et al. 2017 (arXiv 1705.00652): of all passages in the batch, the query's own is to be the
most similar; hard negatives are further passages that are wrong. Cached in pieces (Gao et al. 2021, arXiv 2101.06983)
where the recipe says so. Knows how a recipe becomes a trainer. Knows nothing of how its outcome is reported.
"""

import json
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers.sentence_transformer import losses
from sentence_transformers.sentence_transformer.trainer import SentenceTransformerTrainer
from sentence_transformers.sentence_transformer.training_args import SentenceTransformerTrainingArguments
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState, set_seed

from sage_studio.errors import naming_full_disk
from sage_studio.files import write_atomically
from sage_studio.training import embedder, environment, health, queries, saving
from sage_studio.training.base_model import target_modules
from sage_studio.training.exam import examine
from sage_studio.training.fitting import arguments_of, fit
from sage_studio.training.optimizer import settled
from sage_studio.training.progress import Phase
from sage_studio.training.queries import Exam
from sage_studio.training.recipes import EmbeddingRecipe
from sage_studio.training.reporting import Reporter
from sage_studio.training.run import Run

EVALUATION = "evaluation.json"
SMOKE_PASSAGES = 32


class PairTrainer(SentenceTransformerTrainer):  # type: ignore[misc]  # no types that mypy can follow
    """A SentenceTransformerTrainer that counts the tokens it reads and writes no model cards."""

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """None: the task folder says how the model came about."""

    def compute_loss(self, model: Any, inputs: dict[str, Any], *rest: Any, **options: Any) -> Any:
        """The loss of the batch."""
        masks = (value for name, value in inputs.items() if name.endswith("attention_mask"))
        self.state.num_input_tokens_seen += sum(int(mask.sum()) for mask in masks)
        return super().compute_loss(model, inputs, *rest, **options)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        embedder.save_embedder(self.model, Path(output_dir or self.args.output_dir))


class Examiner(TrainerCallback):  # type: ignore[misc]  # transformers ships no types
    """Measures every so many steps, for the plots."""

    def __init__(self, run: Run[EmbeddingRecipe], exam: Exam) -> None:
        self._run, self._exam = run, exam

    def on_step_end(self, _: Any, state: TrainerState, __: TrainerControl, model: Any, **___: Any) -> None:
        """After a step; the last one is measured once the training is over."""
        every = self._run.recipe.eval_steps
        if every and state.global_step % every == 0 and state.global_step < state.max_steps:
            measure(self._run, model, self._exam, state.global_step)


def train(run: Run[EmbeddingRecipe]) -> None:
    """Train, save, and check the embedder. Raises `Stopped` when asked to stop, with a checkpoint written."""
    recipe = run.recipe
    saving.check_output(recipe.output_dir)
    run = settled(run, lambda: 0, environment.card_bytes())
    dtype = environment.compute_type(recipe.precision)
    set_seed(recipe.seed)

    run.progress.phase(Phase.READING_DATA)
    rows = queries.read_queries(Path(run.job.data_path), recipe.max_samples)
    kept, held = queries.split(rows, recipe.eval_share, recipe.seed)
    exam = queries.exam_of(held, kept, recipe.eval_passages, recipe.seed)
    pairs = Dataset.from_dict(queries.columns_of(kept, recipe.hard_negatives, recipe.seed))
    run.tally.rows = len(rows)

    run.progress.phase(Phase.LOADING_MODEL)
    model = embedder.load_embedder(run.job.model_location, run.job.trust_remote_code, _device())
    length = embedder.limit_length(model, recipe.max_length)
    figures = {"pairs": len(pairs), "held_out": len(held), "passages": len(exam.corpus), "tokens_read": length}
    _introduce(run, model, figures, dtype)
    before = _first_measure(run, model, exam)
    run.tally.details.update(figures, held_out_before=before)
    _prepare(run, model)

    fit(run, _trainer(run, model, pairs, exam, dtype))
    after = measure(run, model, exam, run.tally.steps)
    run.tally.details["held_out_after"] = after

    run.progress.phase(Phase.SAVING)
    with naming_full_disk(run.folder):
        embedder.save_embedder(model, run.folder)
    write_atomically(run.folder / EVALUATION, json.dumps({"before": before, "after": after}, indent=2))
    saving.write_arguments(run, "", {**figures, "held_out_before": before, "held_out_after": after})

    run.progress.phase(Phase.CHECKING)
    health.check_weights(run.folder, str(run.tally.model_kind))
    _check(run, model, list(exam.corpus.values())[:SMOKE_PASSAGES])
    saving.copy_output(run)


def measure(run: Run[EmbeddingRecipe], model: Any, exam: Exam, step: int) -> dict[str, float]:
    """Examine the model as it is now, and say so."""
    figures = examine(model, exam, run.recipe.per_device_train_batch_size)
    run.progress.write(step=step, figures=figures)
    print(f"step {step} · " + " · ".join(f"{name} {value:.3f}" for name, value in figures.items()))
    return figures


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _first_measure(run: Run[EmbeddingRecipe], model: Any, exam: Exam) -> dict[str, float]:
    """How the untrained model does; of a resumed run it is known already."""
    kept = run.folder / EVALUATION
    if run.job.resume and kept.is_file():
        known: dict[str, float] = json.loads(kept.read_text(encoding="utf-8"))["before"]
        return known
    figures = measure(run, model, exam, 0)
    write_atomically(kept, json.dumps({"before": figures}, indent=2))
    return figures


def _prepare(run: Run[EmbeddingRecipe], model: Any) -> None:
    """Decide what is trained: the adapter, or every weight."""
    recipe = run.recipe
    set_seed(recipe.seed)
    run.tally.model_kind = "adapter" if recipe.use_lora else "full"
    if recipe.use_lora:
        targets = target_modules(model.transformers_model, recipe.lora_target_modules)
        embedder.add_adapter(model, recipe.lora_r, recipe.lora_alpha, recipe.lora_dropout, targets)


def _introduce(run: Run[EmbeddingRecipe], model: Any, figures: dict[str, int], dtype: Any) -> None:
    whole = sum(parameter.numel() for parameter in model.parameters())
    print(
        f"model    {run.recipe.model_name_or_path} · {whole / 1e6:,.0f} M parameters, {figures['tokens_read']} tokens"
    )
    print(
        f"data     {figures['pairs']:,} pairs · {figures['held_out']} queries held out, {figures['passages']} passages"
    )
    print(f"hardware {environment.device_name()} · {str(dtype).removeprefix('torch.')}")


def _trainer(run: Run[EmbeddingRecipe], model: Any, pairs: Dataset, exam: Exam, dtype: Any) -> PairTrainer:
    trainer = PairTrainer(
        model=model,
        args=SentenceTransformerTrainingArguments(
            batch_sampler="no_duplicates",
            prompts=_prompts(model, pairs.column_names),
            **arguments_of(run, len(pairs), dtype),
        ),
        train_dataset=pairs,
        loss=_loss(run.recipe, model),
        callbacks=[Reporter(run), Examiner(run, exam)],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _loss(recipe: EmbeddingRecipe, model: Any) -> Any:
    scale = 1 / recipe.temperature
    if recipe.mini_batch_size:
        return losses.CachedMultipleNegativesRankingLoss(model, scale=scale, mini_batch_size=recipe.mini_batch_size)
    return losses.MultipleNegativesRankingLoss(model, scale=scale)


def _prompts(model: Any, columns: list[str]) -> dict[str, str] | None:
    """What the model wants before a query and before a passage, by column; most want nothing."""
    found = {name: model.prompts.get("query" if name == "query" else "document") for name in columns}
    return {name: prompt for name, prompt in found.items() if prompt} or None


def _check(run: Run[EmbeddingRecipe], model: Any, passages: list[str]) -> None:
    """Load what was saved once more: it must give the vectors of the model that was trained."""
    trained = embedder.embed_passages(model, passages)
    again = embedder.load_embedder(str(run.folder), run.job.trust_remote_code, _device())
    embedder.limit_length(again, run.recipe.max_length)
    health.check_vectors(trained, embedder.embed_passages(again, passages))
    run.tally.details["dimensions"] = int(trained.shape[1])
