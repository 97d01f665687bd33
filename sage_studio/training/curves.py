"""What a method plots besides loss and learning rate. Knows names and labels. Knows nothing of points or widgets."""

from collections.abc import Mapping
from dataclasses import dataclass

from sage_studio.text import Text


@dataclass(frozen=True)
class Plot:
    """A plot of the run view.

    Attributes:
        title: what it shows.
        lines: at most three lines: the figure's name in the trainer's logs, and what it is called.
    """

    title: Text
    lines: Mapping[str, Text]


LOSS = Plot(Text("Loss", "损失"), {"loss": Text("training", "训练"), "eval_loss": Text("held out", "验证")})
