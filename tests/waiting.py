"""Waiting for something to become true, with a deadline, in place of sleeping and hoping."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
PAUSE = 0.01


def wait_until(condition: Callable[[], T], seconds: float = 20.0) -> T:
    """Ask until the answer is true, and return it. Fails after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"still not so after {seconds} s: {condition}")
        time.sleep(PAUSE)
    return answer
