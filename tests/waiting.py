"""Waiting for something to become true, with a deadline, in place of sleeping and hoping.

Every deadline of the suite is one of `patient`: long enough for a machine with other work to do, and stretched in one
place for one that has a lot. No test takes longer for it: only a test that fails waits until a deadline.
"""

import os
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
PAUSE = 0.01
PATIENCE = float(os.environ.get("TEST_PATIENCE", "1"))
"""Stretches every deadline: ``TEST_PATIENCE=3 make test`` on a machine that is very slow or very busy."""
USUAL, TRAINING, ENGINE = 120.0, 1200.0, 1200.0
"""Seconds for what takes an instant on an idle machine, for what trains, and for what starts an engine."""


def patient(seconds: float = USUAL) -> float:
    """A deadline in seconds, stretched by `PATIENCE`; for ``timeout=`` of processes, clients and browsers."""
    return seconds * PATIENCE


def wait_until(condition: Callable[[], T], seconds: float = USUAL) -> T:
    """Ask until the answer is true, and return it. Fails after ``patient(seconds)``."""
    deadline = time.monotonic() + patient(seconds)
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"still not so after {patient(seconds)} s: {condition}")
        time.sleep(PAUSE)
    return answer
