"""The recipe of supervised fine-tuning. Knows its fields. Knows nothing of how it is done (`methods.sft`)."""

from typing import ClassVar, Literal

from sage_studio.data.rows import RowKind
from sage_studio.text import Text
from sage_studio.training.field import knob
from sage_studio.training.recipes.generative import GenerativeRecipe


class SFTRecipe(GenerativeRecipe):
    """Supervised fine-tuning: answers are learned, prompts are only read."""

    title: ClassVar[Text] = Text("SFT", "SFT 指令微调")
    accepts: ClassVar[tuple[RowKind, ...]] = ("conversation", "preference")

    type: Literal["sft"] = "sft"
    packing: bool = knob(
        False,
        "more",
        Text("Packing", "打包"),
        Text(
            "Put short rows together into sequences of max_length: faster where lengths differ much, fewer steps.",
            "将短样本拼接到 max_length：长度差异大时更快，步数更少。",
        ),
    )
