"""What the methods do alike that train a model which writes text: read, load, fit, save, check.

Knows the order of a run and the settings that such trainers share. Knows nothing of any method's loss: it is told how
rows are read and encoded, and how a trainer is built.
"""

import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import EarlyStoppingCallback, PrinterCallback, set_seed

from sage_studio.errors import InvalidDataset
from sage_studio.text import Text
from sage_studio.training import base_model, environment, health, optimizer, rows, saving
from sage_studio.training.fitting import arguments_of, fit, steps_of
from sage_studio.training.holding_out import held_out
from sage_studio.training.progress import Phase
from sage_studio.training.recipes.generative import GenerativeRecipe
from sage_studio.training.reloading import loaded_again
from sage_studio.training.reporting import Reporter
from sage_studio.training.run import Run

MEASUREMENTS = 10
"""How often the held-out rows are measured in a run, unless the recipe says otherwise."""
NAMED = 10
"""Rows that are named where some were left out."""

Encode = Callable[[list[rows.Row], Any, int, Callable[[int], None]], rows.Encoded]


@dataclass(frozen=True)
class Material:
    """What a trainer is built of: keyword arguments for it, and for its configuration."""

    trainer: Mapping[str, Any]
    config: Mapping[str, Any]


class KeptPlain:
    """A trainer's habits in a task folder: no model card, and of several adapters only the trained one is kept."""

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """None: the task folder says how the model came about."""

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, state_dict)  # type: ignore[misc]  # of the trainer that this is mixed into
        if output_dir is not None:  # with it there, transformers would restore this adapter and not the trained one
            shutil.rmtree(Path(output_dir) / base_model.REFERENCE, ignore_errors=True)


def tune(
    run: Run[Any],
    parts: Callable[[Mapping[str, Any]], rows.Row],
    encode: Encode,
    build: Callable[[Material], Any],
    arrange: Callable[[Dataset], Dataset] | None = None,
) -> None:
    """Train, save, and check a model. Raises `Stopped` when asked to stop, with a checkpoint written.

    Args:
        parts, encode: which parts of a row are read, and how they become token ids.
        build: makes the trainer.
        arrange: makes of the encoded rows what is trained on, where that is something else.
    """
    saving.check_output(run.recipe.output_dir)
    run = with_optimizer(run)
    dtype = environment.compute_type(run.recipe.precision)
    set_seed(run.recipe.seed)

    run.progress.phase(Phase.READING_DATA)
    tokenizer = base_model.load_tokenizer(run.job)
    encoded = read(run, tokenizer, parts, encode)

    model = load(run, dtype)
    model = learn(run, model, tokenizer, encoded, dtype, build, arrange)
    finish(run, model, tokenizer, figures(encoded))


def with_optimizer(run: Run[Any]) -> Run[Any]:
    """The run with its optimizer decided."""
    return optimizer.settled(run, lambda: base_model.count_parameters(run.job), environment.card_bytes())


def read(run: Run[Any], tokenizer: Any, parts: Callable[[Mapping[str, Any]], rows.Row], encode: Encode) -> rows.Encoded:
    """The rows of the run's data as token ids; says which are cut or left out. Raises `InvalidDataset`."""
    rows.check_template(tokenizer)
    found = rows.read_rows(Path(run.job.data_path), run.recipe.max_samples, parts)
    run.tally.rows = len(found)

    def on_rows(done: int) -> None:
        run.stop.check()
        run.progress.write(detail=f"{done}/{len(found)}")

    encoded = encode(found, tokenizer, run.recipe.max_length, on_rows)
    run.tally.details.update(figures(encoded))
    if encoded.dropped:
        print(
            f"{len(encoded.dropped)} of {len(found)} rows left out ({_named(encoded.dropped)}): "
            "max_length cuts off all there is to learn"
        )
    if encoded.truncated:
        print(
            f"{len(encoded.truncated)} of {len(found)} rows are longer than max_length and were cut "
            f"({_named(encoded.truncated)})"
        )
    if encoded.diverging:
        print(f"{encoded.diverging} rows: the chat template changes the prompt once an answer follows")
    return encoded


def figures(encoded: rows.Encoded) -> dict[str, Any]:
    """What is told of the rows."""
    return {
        "rows_used": len(encoded),
        "rows_dropped": len(encoded.dropped),
        "first_dropped": encoded.dropped[:NAMED],
        "rows_truncated": len(encoded.truncated),
        "dataset_tokens": encoded.tokens,
        "answer_tokens": encoded.answer_tokens,
    }


def load(run: Run[Any], dtype: Any) -> Any:
    """The model as it is to be trained, with its adapter on if it gets one."""
    recipe = run.recipe
    run.progress.phase(Phase.LOADING_MODEL)
    model = base_model.load_model(run.job, recipe, dtype)
    set_seed(recipe.seed)
    if recipe.use_lora:
        model = base_model.add_adapter(model, run.job, recipe)
    run.tally.model_kind = "adapter" if recipe.use_lora else "full"
    return model


def learn(
    run: Run[Any],
    model: Any,
    tokenizer: Any,
    encoded: rows.Encoded,
    dtype: Any,
    build: Callable[[Material], Any],
    arrange: Callable[[Dataset], Dataset] | None = None,
) -> Any:
    """Train a model on rows, from the newest checkpoint on if resumed. Returns the model; raises as `fit`."""
    learned, held = _split(encoded, run.recipe)
    if arrange is not None:
        learned, held = arrange(learned), held and arrange(held)
        print(f"packed   {len(encoded):,} rows into {len(learned) + len(held or ()):,} sequences")
    _introduce(run, model, encoded, dtype)
    given = {"model": model, "processing_class": tokenizer, "train_dataset": learned, "eval_dataset": held}
    config = {
        "include_num_input_tokens_seen": "non_padding",
        **arguments_of(run, len(learned), dtype),
        **_measuring(run, run.recipe, len(learned)),
    }
    trainer = build(Material({**given, "callbacks": _callbacks(run)}, config))
    trainer.remove_callback(PrinterCallback)
    fit(run, trainer)
    return trainer.model


def finish(run: Run[Any], model: Any, tokenizer: Any, said: dict[str, Any]) -> None:
    """Save a trained model with what is said of its data, and check that it is fit to be used. Raises `Unhealthy`."""
    run.progress.phase(Phase.SAVING)
    saving.save_model(run, model, tokenizer, base_model.published_type(run.job))
    saving.write_arguments(run, str(tokenizer.chat_template), said)

    run.progress.phase(Phase.CHECKING)
    health.check_weights(run.folder, "adapter" if run.recipe.use_lora else "full")
    saved = loaded_again(model, run.folder, run.recipe.use_lora, run.job.trust_remote_code)
    run.tally.details["smoke_answer"] = health.check_answer(saved, tokenizer)
    saving.copy_output(run)


def _named(numbers: list[int]) -> str:
    more = ", …" if len(numbers) > NAMED else ""
    return "row " + ", ".join(map(str, numbers[:NAMED])) + more


def _split(encoded: rows.Encoded, recipe: GenerativeRecipe) -> tuple[Dataset, Dataset | None]:
    """The rows to learn and those held out; the same ones again for the same seed, as a resumption needs.

    Rows with the same question, or with the same long answer, stay on one side.
    """
    whole = Dataset.from_dict(encoded.columns)
    if not recipe.eval_share:
        return whole, None
    if max(1, round(len(whole) * recipe.eval_share)) >= len(whole):
        raise InvalidDataset(
            Text(
                f"With {len(whole)} row there is none to hold out (eval_share = {recipe.eval_share}).",
                f"只有 {len(whole)} 行数据，无法划出验证集（eval_share = {recipe.eval_share}）。",
            ),
            Text("Add rows, or set eval_share to 0.", "请增加数据，或将 eval_share 设为 0。"),
        )
    held = held_out(encoded.said, recipe.eval_share, recipe.seed)
    print(f"held out {len(held):,} rows; where rows share a question or a long answer, all or none of them")
    return whole.select(sorted(set(range(len(whole))) - set(held))), whole.select(held)


def _introduce(run: Run[Any], model: Any, encoded: rows.Encoded, dtype: Any) -> None:
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    whole = sum(parameter.numel() for parameter in model.parameters())
    print(f"model    {run.recipe.model_name_or_path} · {whole / 1e6:,.0f} M parameters, {trained / 1e6:,.1f} M trained")
    if run.job.adapter_location:
        config = model.peft_config[base_model.TRAINED]
        print(f"adapter  goes on from {run.recipe.start_from}: rank {config.r}, alpha {config.lora_alpha}")
    print(f"data     {len(encoded):,} rows · {encoded.tokens:,} tokens, {encoded.answer_tokens:,} of them answers")
    print(
        f"hardware {environment.device_name()} · {str(dtype).removeprefix('torch.')} · base {run.recipe.quantization}"
        f" · {run.recipe.optimizer}"
    )


def _callbacks(run: Run[Any]) -> list[Any]:
    patience = run.recipe.early_stopping_patience
    return [Reporter(run), *([EarlyStoppingCallback(patience)] if patience else [])]


def _measuring(run: Run[Any], recipe: GenerativeRecipe, row_count: int) -> dict[str, Any]:
    """Settings about held-out rows. The best state is kept as a checkpoint, so one is written at each measurement."""
    if not recipe.eval_share:
        return {}
    every = recipe.eval_steps or max(1, math.ceil(steps_of(recipe, row_count) / MEASUREMENTS))
    settings: dict[str, Any] = {
        "eval_strategy": "steps",
        "eval_steps": every,
        "eval_on_start": not run.job.resume,
        "per_device_eval_batch_size": recipe.per_device_train_batch_size,
        "prediction_loss_only": True,
    }
    if recipe.load_best_model:
        settings |= {
            "load_best_model_at_end": True,
            "metric_for_best_model": "eval_loss",
            "greater_is_better": False,
            "save_steps": every,
            "restore_callback_states_from_checkpoint": recipe.early_stopping_patience > 0,
        }
    return settings
