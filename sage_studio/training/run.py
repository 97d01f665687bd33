"""The state of one training run in the child process, and the request to stop it.

Imports only the standard library and `sage_studio.text`, so that a stop is heard before anything slow is imported.
"""

import signal
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from sage_studio.text import NOTHING, Text

if TYPE_CHECKING:
    from sage_studio.training.progress import ProgressWriter, TrainingJob
    from sage_studio.training.recipes import Recipe

AnyRecipe = TypeVar("AnyRecipe", bound="Recipe")


class Stopped(BaseException):
    """The run ends because it was asked to. Not an `Exception`: no library's own handler may swallow it."""


class StopRequest:
    """Remembers SIGTERM; while preparing it interrupts at once, later it waits to be asked."""

    def __init__(self) -> None:
        self.requested = False
        self._interrupts = False

    def listen(self) -> None:
        """Take SIGTERM from now on."""
        signal.signal(signal.SIGTERM, self._heard)

    def interrupt(self) -> None:
        """From here on a stop breaks off whatever is being done: nothing would be lost."""
        self._interrupts = True
        self.check()

    def wait(self) -> None:
        """From here on a stop only sets ``requested``: there is something to save first."""
        self._interrupts = False
        self.check()

    def check(self) -> None:
        """Raise `Stopped` if a stop was requested; for an interruption that a library swallowed."""
        if self.requested:
            raise Stopped

    def _heard(self, _: int, __: FrameType | None) -> None:
        self.requested = True
        if self._interrupts:
            raise Stopped


@dataclass(slots=True)
class RunState:
    """What a run has done so far; it is reported also after a failure.

    Attributes:
        steps, total_steps: optimizer steps, those before a resumption included.
        tokens: tokens read, without padding.
        details: what only some methods have, for ``result.json``.
        place: the stage in words, while it does something else than optimizer steps.
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
    """One training run: recipe, job, progress events and the request to stop.

    Attributes:
        rank: of this process among several, one per GPU; only rank 0 reports and saves into the task folder, the
            others have a folder of their own within it.
    """

    folder: Path
    recipe: AnyRecipe
    job: "TrainingJob"
    progress: "ProgressWriter"
    stop: StopRequest
    state: RunState = field(default_factory=RunState)
    rank: int = 0

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return (self.folder.parent if self.rank else self.folder) / "checkpoints"
