"""Classifies what ended a run, explains it to a person and names the next action."""

import errno
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any

from sage_studio.errors import (
    Conflict,
    GpuUnavailable,
    HubUnavailable,
    InvalidDataset,
    InvalidModel,
    InvalidRecipe,
    NotFound,
    StorageFull,
    StudioError,
)
from sage_studio.text import Text
from sage_studio.training.progress import LOG, Reason


class ModelHealthError(StudioError):
    """NaN or infinite weights or loss, or an adapter that learned nothing."""

    code = "unhealthy"


LOWER_LEARNING_RATE = Text("Lower the learning rate, and check the data for rows that are empty or repeat one another.")


def diverged(what: str, value: float, step: int) -> ModelHealthError:
    """The error for a NaN or infinite loss or gradient."""
    return ModelHealthError(
        Text("At step {step} the {what} became {value}: the training diverged.", step=step, what=what, value=value),
        LOWER_LEARNING_RATE,
    )


NO_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "cuda_error_out_of_memory")
NO_ROOM = ("no space left on device", "disk quota exceeded", "os error 28", "os error 122", "inline_container")
"""``inline_container`` is torch.save on a full disk: it names its source file and not the cause."""

REASONS: tuple[tuple[type[StudioError], Reason], ...] = (
    (InvalidDataset, Reason.DATA),
    (InvalidModel, Reason.MODEL),
    (InvalidRecipe, Reason.SETTINGS),
    (NotFound, Reason.DATA),
    (HubUnavailable, Reason.NETWORK),
    (GpuUnavailable, Reason.GPU),
    (ModelHealthError, Reason.UNHEALTHY),
    (StorageFull, Reason.DISK),
    (Conflict, Reason.DISK),
)


def explain(error: BaseException) -> tuple[Reason, Text, Text]:
    """The class of a failure, what happened, and what to do about it, in both languages."""
    chain = tuple(_chain(error))
    if any(isinstance(link, MemoryError) or _says(link, NO_MEMORY) for link in chain):
        return Reason.MEMORY, _memory(error), SMALLER
    if any(_is_full_disk(link) for link in chain) and not isinstance(error, StorageFull):
        return Reason.DISK, DISK, MAKE_ROOM
    if isinstance(error, StudioError):
        reason = next((reason for kind, reason in REASONS if isinstance(error, kind)), Reason.BUG)
        return reason, error.message, error.hint
    return Reason.BUG, _bug(error), SEE_LOG


def is_expected(error: BaseException) -> bool:
    """Whether a person can mend it, so that a traceback would only be noise."""
    return explain(error)[0] is not Reason.BUG


SMALLER = Text("Use a smaller batch or max_length, turn on gradient checkpointing, or load the model in 8 or 4 bits.")
DISK = Text("The disk is full: the run could not be saved.")
MAKE_ROOM = Text("Delete old tasks or datasets, then resume: whole checkpoints were kept.")
SEE_LOG = Text("The details are at the end of {log}; please report them.", log=LOG)


def _memory(error: BaseException) -> Text:
    gpu = "cuda" in f"{type(error).__module__} {error}".lower()
    if gpu:
        return Text("The GPU ran out of memory (OOM).")
    return Text("The machine ran out of memory (OOM).")


def _bug(error: BaseException) -> Text:
    name = type(error).__name__
    return Text("The training broke off with an unexpected {name}.", name=name)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _is_full_disk(error: BaseException) -> bool:
    if isinstance(error, StorageFull):
        return True
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return not isinstance(error, StudioError) and _says(error, NO_ROOM)


def _says(error: BaseException, phrases: tuple[str, ...]) -> bool:
    message = str(error).lower()
    return any(phrase in message for phrase in phrases)


# What to do next


LOWER_RATE_FACTOR = 5.0
"""A run that diverged is tried again at so many times less learning rate."""


class Action(StrEnum):
    """A remedy; the studio can do the first three by itself, for the others a person chooses something else."""

    RESUME = "resume"
    SMALLER_BATCH = "smaller_batch"
    LOWER_RATE = "lower_rate"
    OTHER_SETTINGS = "other_settings"
    OTHER_MODEL = "other_model"
    OTHER_DATA = "other_data"


BY_REASON = {
    Reason.DATA: Action.OTHER_DATA,
    Reason.DISK: Action.RESUME,
    Reason.NETWORK: Action.RESUME,
    Reason.GPU: Action.RESUME,
    Reason.KILLED: Action.RESUME,
    Reason.MODEL: Action.OTHER_MODEL,
    Reason.SETTINGS: Action.OTHER_SETTINGS,
    Reason.UNHEALTHY: Action.LOWER_RATE,
    Reason.BUG: Action.RESUME,
}


def next_action(reason: Reason | None, recipe: Mapping[str, Any]) -> Action:
    """The remedy for a class of failure; None is a run that was stopped."""
    if reason is None:
        return Action.RESUME
    if reason is Reason.MEMORY:
        return Action.SMALLER_BATCH if recipe.get("per_device_train_batch_size", 1) > 1 else Action.OTHER_SETTINGS
    return BY_REASON[reason]


def smaller_batch(recipe: Mapping[str, Any]) -> dict[str, int]:
    """Half the batch and as much more accumulation: at least as many rows make up a step as before."""
    batch, accumulated = recipe["per_device_train_batch_size"], recipe["gradient_accumulation_steps"]
    half = max(1, batch // 2)
    return {"per_device_train_batch_size": half, "gradient_accumulation_steps": -(-batch * accumulated // half)}
