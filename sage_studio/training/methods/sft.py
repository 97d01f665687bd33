"""Supervised fine-tuning: TRL's SFTTrainer on conversational rows, with a LoRA adapter or the whole model.

Knows how a recipe becomes a trainer. Knows nothing of how its outcome is reported.
"""

from pathlib import Path
from typing import Any

import torch.nn.functional as F
from datasets import Dataset
from transformers import PrinterCallback, set_seed
from trl import SFTConfig, SFTTrainer

from sage_studio.training import base_model, environment, health, rows, saving
from sage_studio.training.fitting import arguments_of, fit
from sage_studio.training.progress import Phase
from sage_studio.training.recipes import SFTRecipe
from sage_studio.training.reporting import Reporter
from sage_studio.training.run import Run


class AnswerTrainer(SFTTrainer):  # type: ignore[misc]  # trl ships no types
    """An SFTTrainer that, on a CPU, computes logits for the answers' tokens only.

    TRL's own head saves memory by chunks and also counts entropy and accuracy: right on a card, half the time on a CPU.
    """

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """None: the task folder says how the model came about."""

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The mean loss per answer token of the whole step, like the base class."""
        if not self.args.use_cpu or return_outputs:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        labels = inputs["labels"][:, 1:]
        places = (labels != rows.IGNORED).any(dim=0).nonzero().flatten()
        logits = model(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            logits_to_keep=places,
            use_cache=False,
        ).logits
        labels = labels[:, places]
        learned = labels != rows.IGNORED
        loss = F.cross_entropy(logits[learned].float(), labels[learned], reduction="sum")
        return loss / (learned.sum() if num_items_in_batch is None else num_items_in_batch)


def train(run: Run[SFTRecipe]) -> None:
    """Train, save, and check the model. Raises `Stopped` when asked to stop, with a checkpoint written."""
    recipe = run.recipe
    saving.check_output(recipe.output_dir)
    dtype = environment.compute_type(recipe.precision)
    set_seed(recipe.seed)

    run.progress.phase(Phase.READING_DATA)
    tokenizer = base_model.load_tokenizer(run.job)
    encoded = _read(run, tokenizer)

    run.progress.phase(Phase.LOADING_MODEL)
    model = base_model.load_model(run.job, recipe, dtype)
    set_seed(recipe.seed)
    if recipe.use_lora:
        model = base_model.add_adapter(model, run.job, recipe)
    run.tally.model_kind = "adapter" if recipe.use_lora else "full"
    _introduce(run, model, encoded, dtype)

    trainer = _trainer(run, model, tokenizer, encoded, dtype)
    fit(run, trainer)

    run.progress.phase(Phase.SAVING)
    saving.save_model(run, trainer.model, tokenizer, base_model.published_type(run.job))
    saving.write_arguments(run, str(tokenizer.chat_template), _figures(encoded))

    run.progress.phase(Phase.CHECKING)
    health.check_weights(run.folder, run.tally.model_kind)
    run.tally.details["smoke_answer"] = health.check_answer(trainer.model, tokenizer)
    saving.copy_output(run)


def _read(run: Run[SFTRecipe], tokenizer: Any) -> rows.Encoded:
    rows.check_template(tokenizer)
    read = rows.read_rows(Path(run.job.data_path), run.recipe.max_samples)
    run.tally.rows = len(read)

    def on_rows(done: int) -> None:
        run.stop.check()
        run.progress.write(detail=f"{done}/{len(read)}")

    encoded = rows.encode(read, tokenizer, run.recipe.max_length, on_rows)
    run.tally.details.update(_figures(encoded))
    if encoded.dropped:
        print(f"{encoded.dropped} of {len(read)} rows left out: max_length cuts off their whole answer")
    if encoded.truncated:
        print(f"{encoded.truncated} of {len(read)} rows are longer than max_length and were cut")
    if encoded.diverging:
        print(f"{encoded.diverging} rows: the chat template changes the prompt once an answer follows")
    return encoded


def _figures(encoded: rows.Encoded) -> dict[str, Any]:
    return {
        "rows_used": len(encoded),
        "rows_dropped": encoded.dropped,
        "rows_truncated": encoded.truncated,
        "dataset_tokens": encoded.tokens,
        "answer_tokens": encoded.answer_tokens,
    }


def _introduce(run: Run[SFTRecipe], model: Any, encoded: rows.Encoded, dtype: Any) -> None:
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    whole = sum(parameter.numel() for parameter in model.parameters())
    print(f"model    {run.recipe.model_name_or_path} · {whole / 1e6:,.0f} M parameters, {trained / 1e6:,.1f} M trained")
    print(f"data     {len(encoded):,} rows · {encoded.tokens:,} tokens, {encoded.answer_tokens:,} of them answers")
    print(
        f"hardware {environment.device_name()} · {str(dtype).removeprefix('torch.')} · base {run.recipe.quantization}"
    )


def _trainer(run: Run[SFTRecipe], model: Any, tokenizer: Any, encoded: rows.Encoded, dtype: Any) -> AnswerTrainer:
    reporter = Reporter(run)
    trainer = AnswerTrainer(
        model=model,
        args=_arguments(run, len(encoded), dtype),
        train_dataset=Dataset.from_dict({"input_ids": encoded.input_ids, "labels": encoded.labels}),
        processing_class=tokenizer,
        callbacks=[reporter],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _arguments(run: Run[SFTRecipe], row_count: int, dtype: Any) -> SFTConfig:
    return SFTConfig(
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        include_num_input_tokens_seen="non_padding",
        **arguments_of(run, row_count, dtype),
    )
