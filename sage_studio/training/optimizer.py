"""Which optimizer a run has: AdamW, or AdamW with its state in 8 bits, and with it a whole model's weights in bf16.

A recipe's ``auto`` is decided once and kept in the task's folder, for a checkpoint holds the state of one optimizer and
no other can go on from it. Knows sizes and the recipe. Imports no torch: the web process decides by the same rule.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Literal, cast

from sage_studio.files import write_atomically
from sage_studio.training.checkpoints import newest_checkpoint
from sage_studio.training.run import AnyRecipe, Run

Optimizer = Literal["adamw", "adamw_8bit"]
KEPT = ".optimizer"
"""In the task's folder: what ``auto`` came to."""
BYTES_EACH = 16.0
"""For each parameter of a whole model with AdamW: weight, gradient and two moments, all in fp32."""
MOST_OF_CARD = 0.8
"""The share of the GPU that these may take; the rest is for activations."""


def optimizer_for(recipe: Mapping[str, Any], parameters: int, card_bytes: float) -> Optimizer:
    """What a recipe's ``optimizer`` means for a model on a device.

    ``auto`` is AdamW, unless a whole model that writes text would fill the GPU with it.

    Args:
        recipe: its fields.
        parameters: of the whole model.
        card_bytes: memory of the GPU; 0 without one.
    """
    asked = recipe.get("optimizer", "auto")
    if asked != "auto":
        return cast("Optimizer", asked)
    whole = not recipe["use_lora"] and recipe["type"] != "embedding"
    too_large = card_bytes > 0 and BYTES_EACH * parameters > MOST_OF_CARD * card_bytes
    return "adamw_8bit" if whole and too_large else "adamw"


def settled(run: Run[AnyRecipe], parameters: Callable[[], int], card_bytes: float) -> Run[AnyRecipe]:
    """The run with its recipe's ``auto`` decided, on a resumption as it was before.

    Args:
        parameters: counts those of the model; asked only where it matters.
        card_bytes: memory of this process's GPU; 0 without one.
    """
    recipe = run.recipe
    if recipe.optimizer != "auto":
        return run
    kept = run.checkpoints.parent / KEPT
    if run.job.resume and kept.is_file():
        chosen = cast("Optimizer", kept.read_text(encoding="utf-8").strip())
    elif run.job.resume and newest_checkpoint(run.checkpoints) is not None:
        chosen = "adamw"  # of a studio that had no other
    else:
        matters = not recipe.use_lora and card_bytes > 0
        chosen = optimizer_for(recipe.model_dump(), parameters() if matters else 0, card_bytes)
    if run.rank == 0:
        write_atomically(kept, chosen)
    return replace(run, recipe=recipe.model_copy(update={"optimizer": chosen}))
