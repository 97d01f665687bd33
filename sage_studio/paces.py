"""How fast this machine trains each model, measured once by a child process and kept in a file.

Knows when that is needed, and what makes a kept figure another machine's. Knows nothing of recipes; torch stays in the
child, `sage_studio.training.probe`.
"""

import functools
import time
from pathlib import Path

import numpy as np

from sage_studio.footprints import ChildAnswers, answer_of
from sage_studio.hardware import detect_hardware
from sage_studio.training.duration import Pace
from sage_studio.training.environment import CPU_FLAGS, usable_cores
from sage_studio.training.memory import FootprintRequest

PROBE = "sage_studio.training.probe"
PROBE_SECONDS = 120.0
AS_TRAINED = {"OMP_WAIT_POLICY": "PASSIVE"}
"""As the launcher starts a trainer: threads that wait for each other leave the cores to others."""
SIDE, ROUNDS = 1024, 4


class PaceBook(ChildAnswers[Pace]):
    """All paces measured so far, each for one machine."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, Pace, prefix="pace-")

    def _ask(self, request: FootprintRequest) -> Pace:
        return ask_child(request)

    def _holds_for(self, request: FootprintRequest) -> str:
        return machine(request.on_card)


def ask_child(request: FootprintRequest) -> Pace:
    """Have a child process train a few steps. Raises `InvalidModel`."""
    return Pace.model_validate_json(answer_of(PROBE, request, AS_TRAINED, PROBE_SECONDS))


@functools.lru_cache(maxsize=2)
def machine(on_card: bool) -> str:
    """What a pace belongs to: the GPU's name, or the processor's with its usable cores."""
    if on_card:
        return detect_hardware().cards[0].name
    lines = CPU_FLAGS.read_text(encoding="utf-8").splitlines() if CPU_FLAGS.is_file() else []
    named = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "cpu")
    return f"{named} x{usable_cores()}"


@functools.lru_cache(maxsize=1)
def operations_per_second() -> float:
    """Of a large matrix product on this processor, in 32-bit floats: a fraction of a second, once."""
    square, best = np.ones((SIDE, SIDE), dtype=np.float32), float("inf")
    for _ in range(ROUNDS):
        began = time.perf_counter()
        square @ square
        best = min(best, time.perf_counter() - began)
    return float(2 * SIDE**3 / best)
