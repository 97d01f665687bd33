"""What to do next about a run that did not complete.

Knows which remedy belongs to which class of failure. Knows nothing of tasks or buttons.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from sage_studio.training.progress import Reason

SLOWER = 5.0
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
