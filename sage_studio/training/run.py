"""A run in the child: what it was told, how far it has come, and how it says so.

Knows the orders and the tally that every method keeps. Knows nothing of torch, nor of any one method.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from sage_studio.text import NOTHING, Text
from sage_studio.training.progress import Job, ProgressWriter
from sage_studio.training.recipes import Recipe
from sage_studio.training.stopping import StopRequest

AnyRecipe = TypeVar("AnyRecipe", bound=Recipe)


@dataclass(slots=True)
class Tally:
    """What a run has done so far; a failure reports it too.

    Attributes:
        steps, total_steps: optimizer steps, those before a resumption included.
        tokens: tokens read, without padding.
        details: what only some methods have, for ``result.json``.
        place: where it is, in words, while it does something else than steps.
    """

    steps: int = 0
    total_steps: int = 0
    epochs: float = 0.0
    train_loss: float | None = None
    rows: int = 0
    tokens: int = 0
    tokens_per_second: float | None = None
    model_kind: Literal["adapter", "full"] | None = None
    details: dict[str, Any] = field(default_factory=dict)
    place: Text = NOTHING


@dataclass(frozen=True)
class Run(Generic[AnyRecipe]):
    """One training: its orders and its ways to report and to be stopped.

    Attributes:
        rank: of several processes on several cards, which this is; only 0 reports and saves into the task's folder, the
            others have a folder of their own within it.
    """

    folder: Path
    recipe: AnyRecipe
    job: Job
    progress: ProgressWriter
    stop: StopRequest
    tally: Tally = field(default_factory=Tally)
    rank: int = 0

    @property
    def checkpoints(self) -> Path:
        """Where the method keeps what it can resume from."""
        return (self.folder.parent if self.rank else self.folder) / "checkpoints"
