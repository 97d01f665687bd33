"""How a stage goes through its work: in small lots, each written as it is done, with a count and the time left.

Knows what is still to do by what lies in the stage's file. Knows nothing of what the work is.
"""

import time
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

from sage_studio.text import Text
from sage_studio.training.methods.kbalign.lines import AnyLine, Lines
from sage_studio.training.progress import Phase
from sage_studio.training.recipes.kbalign import KBAlignRecipe
from sage_studio.training.run import Run

Unit = TypeVar("Unit")


def work_through(
    run: Run[KBAlignRecipe],
    phase: Phase,
    lines: Lines[AnyLine],
    units: Sequence[Unit],
    key_of_unit: Callable[[Unit], Hashable],
    key_of_line: Callable[[AnyLine], Hashable],
    work: Callable[[Sequence[Unit]], Sequence[AnyLine]],
    lot: int = 1,
) -> list[AnyLine]:
    """Do what the stage's file does not hold yet.

    Args:
        units: all the work there is; a unit whose key a line has is done, however the line was edited.
        work: does one lot and gives a line a unit.
        lot: units done at once; a stop loses at most so many.

    Returns:
        The lines of all units, in the order of the file.

    Raises:
        Stopped: asked to; every finished lot is in the file.
        InvalidDataset: a line of the file is none.
    """
    done = {key_of_line(line) for line in lines.read()}
    left = [unit for unit in units if key_of_unit(unit) not in done]
    finished, began = len(units) - len(left), time.monotonic()
    run.progress.phase(phase)
    for start in range(0, len(left), lot):
        _tell(run, phase, finished + start, len(units), _seconds_left(began, start, len(left)))
        lines.add(work(left[start : start + lot]))
    _tell(run, phase, len(units), len(units), 0.0)
    print(f"{phase.value.replace('_', ' ')}: {len(units)} done, {finished} of them before · {lines.path.name}")
    wanted = {key_of_unit(unit) for unit in units}
    return [line for line in lines.read() if key_of_line(line) in wanted]


def _tell(run: Run[KBAlignRecipe], phase: Phase, done: int, total: int, eta: float | None) -> None:
    name = phase.value.replace("_", " ")
    run.tally.place = Text(f"in {name}, {done} of {total} done", f"{name} 阶段，已完成 {done}/{total}")
    run.stop.check()
    run.progress.write(done=done, total=total, detail=f"{done:,}/{total:,}", eta_seconds=eta)


def _seconds_left(began: float, done: int, total: int) -> float | None:
    """By the pace so far; None before the first lot."""
    return (time.monotonic() - began) / done * (total - done) if done else None
