"""Trains a text generator: reads and splits the rows, loads the model, fits, saves and checks it.

The methods that train one (SFT, DPO, KBAlign) differ in how rows are encoded and in the TRL trainer that they build.
"""

import math
import os
import random
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from datasets import Dataset
from transformers import EarlyStoppingCallback, PrinterCallback, set_seed

from sage_studio.errors import InvalidDataset
from sage_studio.files import write_atomically
from sage_studio.text import Text
from sage_studio.training import environment, health_checks, model_loading, save, tokenize
from sage_studio.training.callbacks import ProgressCallback
from sage_studio.training.health_checks import reload_saved_model
from sage_studio.training.progress import Phase
from sage_studio.training.recipes import Recipe
from sage_studio.training.recipes.methods import GenerativeRecipe
from sage_studio.training.run import AnyRecipe, Run, Stopped

MEASUREMENTS = 10
"""How often the held-out rows are measured in a run, unless the recipe says otherwise."""
NAMED = 10
"""Rows that are named where some were left out."""

SAME = {
    "num_train_epochs",
    "per_device_train_batch_size",
    "learning_rate",
    "gradient_accumulation_steps",
    "gradient_checkpointing",
    "lr_scheduler_type",
    "weight_decay",
    "max_grad_norm",
    "logging_steps",
    "save_steps",
    "save_total_limit",
    "seed",
}
"""Fields of the recipe that the trainer knows under the same name."""
OPTIMIZER_FILE = ".optimizer"
"""In the task's folder: what ``auto`` came to."""


@dataclass(frozen=True)
class TrainerInputs:
    """Keyword arguments for a TRL trainer and for its config."""

    trainer: Mapping[str, Any]
    config: Mapping[str, Any]


class SaveToTaskFolder:
    """Mixin for a trainer in a task folder: no model card, and of several adapters only the trained one is saved."""

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Writes none: the task folder says how the model was made."""

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        super()._save(output_dir, state_dict)  # type: ignore[misc]  # of the trainer that this is mixed into
        if output_dir is not None:  # with it there, transformers would restore this adapter and not the trained one
            shutil.rmtree(Path(output_dir) / model_loading.REFERENCE, ignore_errors=True)


def train_generator(
    run: Run[Any],
    row_format: tokenize.RowFormat,
    build: Callable[[TrainerInputs], Any],
    arrange: Callable[[Dataset], Dataset] | None = None,
) -> None:
    """Train, save, and check a model. Raises `Stopped` when asked to stop, with a checkpoint written.

    Args:
        row_format: which parts of a row are read, and how they become token ids.
        build: makes the trainer.
        arrange: makes of the encoded rows what is trained on, where that is something else.
    """
    save.check_output(run.recipe.output_dir)
    run = with_optimizer(run)
    dtype = environment.compute_type(run.recipe.precision)
    set_seed(run.recipe.seed)

    run.progress.phase(Phase.READING_DATA)
    tokenizer = model_loading.load_tokenizer(run.job)
    encoded = read(run, tokenizer, row_format)

    model = load(run, dtype)
    model = fit_rows(run, model, tokenizer, encoded, dtype, build, arrange)
    finish(run, model, tokenizer, figures(encoded))


def with_optimizer(run: Run[Any]) -> Run[Any]:
    """The run with ``optimizer: auto`` resolved."""
    return decide_optimizer(run, lambda: model_loading.count_parameters(run.job), environment.gpu_bytes())


def read(run: Run[Any], tokenizer: Any, row_format: tokenize.RowFormat) -> tokenize.EncodedRows:
    """The rows of the run as token ids; logs which are truncated or skipped. Raises `InvalidDataset`."""
    tokenize.check_template(tokenizer)
    found = tokenize.read_rows(Path(run.job.data_path), run.recipe.max_samples, row_format.parts)
    run.state.rows = len(found)

    def on_rows(done: int) -> None:
        run.stop.check()
        run.progress.write(detail=f"{done}/{len(found)}")

    encoded = row_format.encode(found, tokenizer, run.recipe.max_length, on_rows)
    run.state.details.update(figures(encoded))
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


def figures(encoded: tokenize.EncodedRows) -> dict[str, Any]:
    """Counts of rows and tokens for ``result.json`` and ``training_args.json``."""
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
    model = model_loading.load_model(run.job, recipe, dtype)
    set_seed(recipe.seed)
    if recipe.use_lora:
        model = model_loading.add_adapter(model, run.job, recipe)
    run.state.model_kind = "adapter" if recipe.use_lora else "full"
    return model


def fit_rows(
    run: Run[Any],
    model: Any,
    tokenizer: Any,
    encoded: tokenize.EncodedRows,
    dtype: Any,
    build: Callable[[TrainerInputs], Any],
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
        **training_arguments(run, len(learned), dtype),
        **_measuring(run, run.recipe, len(learned)),
    }
    trainer = build(TrainerInputs({**given, "callbacks": _callbacks(run)}, config))
    trainer.remove_callback(PrinterCallback)
    fit(run, trainer)
    return trainer.model


def finish(run: Run[Any], model: Any, tokenizer: Any, figures: dict[str, Any]) -> None:
    """Save a trained model and its training arguments, and check it. Raises `ModelHealthError`."""
    run.progress.phase(Phase.SAVING)
    save.save_model(run, model, tokenizer, model_loading.stored_dtype(run.job))
    save.write_arguments(run, str(tokenizer.chat_template), figures)

    run.progress.phase(Phase.CHECKING)
    health_checks.check_weights(run.folder, "adapter" if run.recipe.use_lora else "full")
    saved = reload_saved_model(model, run.folder, run.recipe.use_lora, run.job.trust_remote_code)
    run.state.details["smoke_answer"] = health_checks.check_answer(saved, tokenizer)
    save.copy_output(run)


def _named(numbers: list[int]) -> str:
    more = ", …" if len(numbers) > NAMED else ""
    return "row " + ", ".join(map(str, numbers[:NAMED])) + more


def _split(encoded: tokenize.EncodedRows, recipe: GenerativeRecipe) -> tuple[Dataset, Dataset | None]:
    """The rows to learn and those held out; the same ones again for the same seed, as a resumption needs.

    Rows with the same question, or with the same long answer, stay on one side.
    """
    whole = Dataset.from_dict(encoded.columns)
    if not recipe.eval_share:
        return whole, None
    if max(1, round(len(whole) * recipe.eval_share)) >= len(whole):
        raise InvalidDataset(
            Text(
                "With {count} row there is none to hold out (eval_share = {eval_share}).",
                count=len(whole),
                eval_share=recipe.eval_share,
            ),
            Text("Add rows, or set eval_share to 0."),
        )
    held = hold_out(encoded.text_keys, recipe.eval_share, recipe.seed)
    print(f"held out {len(held):,} rows; where rows share a question or a long answer, all or none of them")
    return whole.select(sorted(set(range(len(whole))) - set(held))), whole.select(held)


def _introduce(run: Run[Any], model: Any, encoded: tokenize.EncodedRows, dtype: Any) -> None:
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    whole = sum(parameter.numel() for parameter in model.parameters())
    print(f"model    {run.recipe.model_name_or_path} · {whole / 1e6:,.0f} M parameters, {trained / 1e6:,.1f} M trained")
    if run.job.adapter_location:
        config = model.peft_config[model_loading.TRAINED]
        print(f"adapter  goes on from {run.recipe.start_from}: rank {config.r}, alpha {config.lora_alpha}")
    print(f"data     {len(encoded):,} rows · {encoded.tokens:,} tokens, {encoded.answer_tokens:,} of them answers")
    print(
        f"hardware {environment.device_name()} · {str(dtype).removeprefix('torch.')} · base {run.recipe.quantization}"
        f" · {run.recipe.optimizer}"
    )


def _callbacks(run: Run[Any]) -> list[Any]:
    patience = run.recipe.early_stopping_patience
    return [ProgressCallback(run), *([EarlyStoppingCallback(patience)] if patience else [])]


def _measuring(run: Run[Any], recipe: GenerativeRecipe, row_count: int) -> dict[str, Any]:
    """Settings about held-out rows. The best state is kept as a checkpoint, so one is written at each measurement."""
    if not recipe.eval_share:
        return {}
    every = recipe.eval_steps or max(1, math.ceil(count_steps(recipe, row_count) / MEASUREMENTS))
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


# The optimizer


def decide_optimizer(run: Run[AnyRecipe], parameters: Callable[[], int], gpu_bytes: float) -> Run[AnyRecipe]:
    """The run with its recipe's ``auto`` decided, on a resumption as it was before.

    Args:
        parameters: counts those of the model; asked only where it matters.
        gpu_bytes: memory of this process's GPU; 0 without one.
    """
    recipe = run.recipe
    if recipe.optimizer != "auto":
        return run
    kept = run.checkpoints.parent / OPTIMIZER_FILE
    if run.job.resume and kept.is_file():
        chosen = cast("environment.Optimizer", kept.read_text(encoding="utf-8").strip())
    elif run.job.resume and save.newest_checkpoint(run.checkpoints) is not None:
        chosen = "adamw"  # of a studio that had no other
    else:
        matters = not recipe.use_lora and gpu_bytes > 0
        chosen = environment.optimizer_for(recipe.model_dump(), parameters() if matters else 0, gpu_bytes)
    if run.rank == 0:
        write_atomically(kept, chosen)
    return replace(run, recipe=recipe.model_copy(update={"optimizer": chosen}))


# The training loop


def training_arguments(run: Run[Any], row_count: int, dtype: Any) -> dict[str, Any]:
    """The arguments that are the same for every kind of trainer.

    Args:
        row_count: rows that are trained on.
        dtype: torch dtype to compute in.
    """
    recipe: Recipe = run.recipe
    return {
        "output_dir": str(run.checkpoints),
        "max_steps": recipe.max_steps or -1,
        "warmup_steps": int(count_steps(recipe, row_count) * recipe.warmup_ratio),
        "bf16": dtype == torch.bfloat16,
        "fp16": dtype == torch.float16,
        "use_cpu": not torch.cuda.is_available(),
        "dataloader_pin_memory": torch.cuda.is_available(),
        "logging_nan_inf_filter": False,
        **({"optim": "adamw_8bit"} if recipe.optimizer == "adamw_8bit" else {}),
        "disable_tqdm": True,
        "report_to": "none",
        **recipe.model_dump(include=SAME),
    }


def count_steps(recipe: Recipe, row_count: int) -> int:
    """Optimizer steps of a whole run; on several GPUs each takes a batch of its own."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    batches = math.ceil(row_count / (recipe.per_device_train_batch_size * processes))
    by_epochs = math.ceil(recipe.num_train_epochs * math.ceil(batches / recipe.gradient_accumulation_steps))
    return recipe.max_steps or by_epochs


def fit(run: Run[Any], trainer: Any) -> None:
    """Train, from the newest whole checkpoint on if resumed.

    Raises:
        StorageFull: there is no room for the checkpoints; nothing was trained.
        Stopped: with a checkpoint written.
    """
    newest = save.newest_checkpoint(run.checkpoints) if run.job.resume else None
    for path in save.remove_broken(run.checkpoints):
        print(f"{path.name} was cut off while it was written, and is left out")
    if newest is not None:
        print(f"continuing from {newest.name}")
    run.checkpoints.mkdir(parents=True, exist_ok=True)
    if trainer.args.fp16:
        cast_trained_to_fp32(trainer.model)
    weights = (weight for weight in trainer.model.parameters() if weight.requires_grad)
    trained = sum(weight.numel() * weight.element_size() for weight in weights)
    save.check_room(run.checkpoints, trained, run.recipe.save_total_limit)
    run.stop.wait()
    run.progress.phase(Phase.TRAINING)
    began = time.monotonic()
    outcome = trainer.train(resume_from_checkpoint=str(newest) if newest else None)
    run.state.train_loss = outcome.training_loss
    run.state.details["train_seconds"] = round(time.monotonic() - began, 3)
    if run.stop.requested and run.state.steps < run.state.total_steps:
        raise Stopped


def cast_trained_to_fp32(model: Any) -> None:
    """Cast what is trained to fp32, as fp16 training needs it; frozen weights stay as they are.

    TRL casts the adapter of a quantized model to bf16, which CUDA's gradient scaler has no kernel for, and the scaler
    refuses gradients in fp16. Called before the optimizer is made, for it takes its state's type from the parameters.
    """
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dtype != torch.float32:
            parameter.data = parameter.data.float()


# Held-out rows


def hold_out(rows: Sequence[Iterable[Hashable]], share: float, seed: int) -> list[int]:
    """Numbers, from 0, of the rows to hold out: about ``share`` of them, at least one, and never all.

    The same seed draws the same rows.

    Args:
        rows: for each row what it must not have in common with a row on the other side.

    Example:
        >>> hold_out([["a"], ["b"], ["a"], ["c", "b"]], share=0.5, seed=1)
        [1, 3]
    """
    wanted, found = max(1, round(share * len(rows))), list[int]()
    groups = connected_rows(rows)
    random.Random(seed).shuffle(groups)
    for group in groups:
        if len(found) + len(group) <= wanted:
            found += group
    if not found:  # each family is larger than the share
        found = min(groups, key=len)
    if len(found) == len(rows):  # all rows are of one family: there is no better way to part them
        found = random.Random(seed).sample(range(len(rows)), wanted)
    return sorted(found)


def connected_rows(rows: Sequence[Iterable[Hashable]]) -> list[list[int]]:
    """Numbers of the rows that have something in common, directly or through others; one alone is its own family."""
    parent = list(range(len(rows)))
    first: dict[Hashable, int] = {}
    for number, texts in enumerate(rows):
        for text in texts:
            one, other = _root(parent, first.setdefault(text, number)), _root(parent, number)
            parent[max(one, other)] = min(one, other)
    found = defaultdict[int, list[int]](list)
    for number in range(len(rows)):
        found[_root(parent, number)].append(number)
    return list(found.values())


def _root(parent: list[int], number: int) -> int:
    while parent[number] != number:
        parent[number] = number = parent[parent[number]]
    return number
