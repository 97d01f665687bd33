"""How fast this machine trains each model, measured once by a child process and kept in a file.

Knows when that is needed, and what makes a kept figure another machine's. Knows nothing of recipes; torch stays in the
child, `sage_studio.training.probe`.
"""

import functools
import hashlib
import json
import threading
import time
from pathlib import Path

import numpy as np

from sage_studio.files import write_atomically
from sage_studio.footprints import answer_of
from sage_studio.hardware import detect_hardware
from sage_studio.training.duration import Pace
from sage_studio.training.environment import CPU_FLAGS, usable_cores, versions
from sage_studio.training.memory import FootprintRequest

PROBE = "sage_studio.training.probe"
PROBE_SECONDS = 120.0
AS_TRAINED = {"OMP_WAIT_POLICY": "PASSIVE"}
"""As the launcher starts a trainer: threads that wait for each other leave the cores to others."""
SIDE, ROUNDS = 1024, 4


class PaceBook:
    """All paces measured so far; safe to use from many threads."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._one_at_a_time = folder, threading.Lock()

    def kept(self, request: FootprintRequest) -> Pace | None:
        """What was measured already; None if nothing was."""
        try:
            return Pace.model_validate_json(self._path(request).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None

    def find(self, request: FootprintRequest) -> Pace:
        """The pace; some ten seconds the first time. Raises `InvalidModel` with what the child said."""
        with self._one_at_a_time:
            found = self.kept(request)
            if found is None:
                found = ask_child(request)
                self._folder.mkdir(parents=True, exist_ok=True)
                write_atomically(self._path(request), found.model_dump_json())
        return found

    def _path(self, request: FootprintRequest) -> Path:
        """A file for each request, machine and set of library versions."""
        asked = request.model_dump_json() + json.dumps(versions()) + machine(request.on_card)
        return self._folder / f"pace-{hashlib.sha256(asked.encode()).hexdigest()[:24]}.json"


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
