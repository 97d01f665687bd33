"""What the methods share that train a model which writes text.

Knows the fields about how the base is loaded. Knows nothing of any one method.
"""

from typing import Literal, Self

from pydantic import model_validator

from sage_studio.text import Text
from sage_studio.training.field import knob
from sage_studio.training.recipes.base import Recipe


class GenerativeRecipe(Recipe):
    """Trains a causal language model."""

    quantization: Literal["none", "8bit", "4bit"] = knob(
        "none",
        "common",
        Text("Quantization", "量化"),
        Text("Load the base in 8 or 4 bits to save memory.", "以 8 或 4 位加载基座以节省显存。"),
    )

    @model_validator(mode="after")
    def _quantized_needs_adapter(self) -> Self:
        if self.quantization != "none" and not self.use_lora:
            raise ValueError("a quantized base can only be trained with use_lora")
        return self
