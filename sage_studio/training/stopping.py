"""How a training child is stopped: SIGTERM is a request, honoured at the next safe moment.

Knows the signal and whether it may interrupt what is being done. Imports nothing but the standard library, so that a
stop is heard from the first instant on. Knows nothing of checkpoints.
"""

import signal
from types import FrameType


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
