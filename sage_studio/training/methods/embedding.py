"""Trains an embedding model with in-batch negatives, with LoRA or full fine-tuning.

The trainer is sentence-transformers'.
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
from sage_studio.training import embedding_model, environment, health_checks, retrieval_pairs, save
from sage_studio.training.callbacks import ProgressCallback
from sage_studio.training.model_loading import target_modules
from sage_studio.training.progress import Phase
from sage_studio.training.recipes import EmbeddingRecipe
from sage_studio.training.retrieval_pairs import RetrievalTestSet
from sage_studio.training.run import Run
from sage_studio.training.trainer import decide_optimizer, fit, training_arguments

EVALUATION = "evaluation.json"
SMOKE_PASSAGES = 32
FIGURES = ("recall@1", "recall@5", "recall@10", "mrr@10", "ndcg@10")


class EmbeddingTrainer(SentenceTransformerTrainer):  # type: ignore[misc]  # no types that mypy can follow
    """A SentenceTransformerTrainer that counts the tokens it reads and writes no model cards."""

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """None: the task folder says how the model came about."""

    def compute_loss(self, model: Any, inputs: dict[str, Any], *rest: Any, **options: Any) -> Any:
        """The loss of the batch."""
        masks = (value for name, value in inputs.items() if name.endswith("attention_mask"))
        self.state.num_input_tokens_seen += sum(int(mask.sum()) for mask in masks)
        return super().compute_loss(model, inputs, *rest, **options)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        embedding_model.save_embedder(self.model, Path(output_dir or self.args.output_dir))


class RetrievalEvaluator(TrainerCallback):  # type: ignore[misc]  # transformers ships no types
    """Measures every so many steps, for the plots."""

    def __init__(self, run: Run[EmbeddingRecipe], test_set: RetrievalTestSet) -> None:
        self._run, self._test_set = run, test_set

    def on_step_end(self, _: Any, state: TrainerState, __: TrainerControl, model: Any, **___: Any) -> None:
        """After a step; the last one is measured once the training is over."""
        every = self._run.recipe.eval_steps
        if every and state.global_step % every == 0 and state.global_step < state.max_steps:
            measure(self._run, model, self._test_set, state.global_step)


def train(run: Run[EmbeddingRecipe]) -> None:
    """Train, save, and check the embedder. Raises `Stopped` when asked to stop, with a checkpoint written."""
    recipe = run.recipe
    save.check_output(recipe.output_dir)
    run = decide_optimizer(run, lambda: 0, environment.gpu_bytes())
    dtype = environment.compute_type(recipe.precision)
    set_seed(recipe.seed)

    run.progress.phase(Phase.READING_DATA)
    rows = retrieval_pairs.read_queries(Path(run.job.data_path), recipe.max_samples)
    kept, held = retrieval_pairs.split(rows, recipe.eval_share, recipe.seed)
    test_set = retrieval_pairs.build_test_set(held, kept, recipe.eval_passages, recipe.seed)
    pairs = Dataset.from_dict(retrieval_pairs.columns_of(kept, recipe.hard_negatives, recipe.seed))
    run.state.rows = len(rows)

    run.progress.phase(Phase.LOADING_MODEL)
    model = embedding_model.load_embedder(run.job.model_location, run.job.trust_remote_code, _device())
    length = embedding_model.limit_length(model, recipe.max_length)
    figures = {"pairs": len(pairs), "held_out": len(held), "passages": len(test_set.corpus), "tokens_read": length}
    _introduce(run, model, figures, dtype)
    before = _first_measure(run, model, test_set)
    run.state.details.update(figures, held_out_before=before)
    _prepare(run, model)

    fit(run, _trainer(run, model, pairs, test_set, dtype))
    after = measure(run, model, test_set, run.state.steps)
    run.state.details["held_out_after"] = after

    run.progress.phase(Phase.SAVING)
    with naming_full_disk(run.folder):
        embedding_model.save_embedder(model, run.folder)
    write_atomically(run.folder / EVALUATION, json.dumps({"before": before, "after": after}, indent=2))
    save.write_arguments(run, "", {**figures, "held_out_before": before, "held_out_after": after})

    run.progress.phase(Phase.CHECKING)
    health_checks.check_weights(run.folder, str(run.state.model_kind))
    _check(run, model, list(test_set.corpus.values())[:SMOKE_PASSAGES])
    save.copy_output(run)


def measure(run: Run[EmbeddingRecipe], model: Any, test_set: RetrievalTestSet, step: int) -> dict[str, float]:
    """Examine the model as it is now, and say so."""
    figures = evaluate_retrieval(model, test_set, run.recipe.per_device_train_batch_size)
    run.progress.write(step=step, figures=figures)
    print(f"step {step} · " + " · ".join(f"{name} {value:.3f}" for name, value in figures.items()))
    return figures


def evaluate_retrieval(model: Any, test_set: RetrievalTestSet, batch_size: int = 32) -> dict[str, float]:
    """Rank the test_set's passages for each of its queries by cosine similarity.

    Returns:
        `FIGURES`, each from 0 to 1 and rounded to four digits: recall@k is the share of the right passages among the
        first k, MRR the mean of 1 / rank of the first right one, nDCG the discounted gain against that of a perfect
        ranking.
    """
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
    from sentence_transformers.util import cos_sim

    evaluator = InformationRetrievalEvaluator(
        test_set.queries,
        test_set.corpus,
        test_set.relevant,
        accuracy_at_k=[1],
        precision_recall_at_k=[1, 5, 10],
        mrr_at_k=[10],
        ndcg_at_k=[10],
        map_at_k=[10],
        batch_size=batch_size,
        score_functions={"cosine": cos_sim},
        write_csv=False,
    )
    was_training = model.training
    figures = evaluator(model)
    model.train(was_training)
    return {name: round(float(figures[f"cosine_{name}"]), 4) for name in FIGURES}


def _device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _first_measure(run: Run[EmbeddingRecipe], model: Any, test_set: RetrievalTestSet) -> dict[str, float]:
    """How the untrained model does; of a resumed run it is known already."""
    kept = run.folder / EVALUATION
    if run.job.resume and kept.is_file():
        known: dict[str, float] = json.loads(kept.read_text(encoding="utf-8"))["before"]
        return known
    figures = measure(run, model, test_set, 0)
    write_atomically(kept, json.dumps({"before": figures}, indent=2))
    return figures


def _prepare(run: Run[EmbeddingRecipe], model: Any) -> None:
    """Decide what is trained: the adapter, or every weight."""
    recipe = run.recipe
    set_seed(recipe.seed)
    run.state.model_kind = "adapter" if recipe.use_lora else "full"
    if recipe.use_lora:
        targets = target_modules(model.transformers_model, recipe.lora_target_modules)
        embedding_model.add_adapter(model, recipe.lora_r, recipe.lora_alpha, recipe.lora_dropout, targets)


def _introduce(run: Run[EmbeddingRecipe], model: Any, figures: dict[str, int], dtype: Any) -> None:
    whole = sum(parameter.numel() for parameter in model.parameters())
    print(
        f"model    {run.recipe.model_name_or_path} · {whole / 1e6:,.0f} M parameters, {figures['tokens_read']} tokens"
    )
    print(
        f"data     {figures['pairs']:,} pairs · {figures['held_out']} queries held out, {figures['passages']} passages"
    )
    print(f"hardware {environment.device_name()} · {str(dtype).removeprefix('torch.')}")


def _trainer(
    run: Run[EmbeddingRecipe], model: Any, pairs: Dataset, test_set: RetrievalTestSet, dtype: Any
) -> EmbeddingTrainer:
    trainer = EmbeddingTrainer(
        model=model,
        args=SentenceTransformerTrainingArguments(
            batch_sampler="no_duplicates",
            prompts=_prompts(model, pairs.column_names),
            **training_arguments(run, len(pairs), dtype),
        ),
        train_dataset=pairs,
        loss=_loss(run.recipe, model),
        callbacks=[ProgressCallback(run), RetrievalEvaluator(run, test_set)],
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
    trained = embedding_model.embed_passages(model, passages)
    again = embedding_model.load_embedder(str(run.folder), run.job.trust_remote_code, _device())
    embedding_model.limit_length(again, run.recipe.max_length)
    health_checks.check_vectors(trained, embedding_model.embed_passages(again, passages))
    run.state.details["dimensions"] = int(trained.shape[1])
