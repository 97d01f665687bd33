"""Task progress: the trainer's reports, read incrementally, as a state and as curves."""

import math
import os
import threading
import time
from array import array
from bisect import bisect_left
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from sage_studio.files import read_from
from sage_studio.tasks.task import Curve, Task, TaskProgress, TaskStatus
from sage_studio.training.progress import PROGRESS, RESULT, Event, Phase, Result, read_result

NONE = math.nan
"""A figure that was not given; kept apart from given ones because a trainer's NaN or infinity is not shown either."""
FIGURES = ("loss", "learning_rate", "tokens_per_second")
MOST_STEPS = 2**62
MOST_FIGURES = 32
"""Names that a run may give figures besides; what a damaged file holds beyond is left out."""
HELD_OUT = "eval_loss"
"""Given at few steps, which thinning must not lose."""
OF_ONE_PHASE = ("detail", "eta_seconds", "done", "total", "unit", "per_second")
"""Fields that say nothing any more once another kind of work has begun."""

_Stamp = tuple[int, int] | None


class ProgressReader:
    """The reports of all tasks, by folder; safe to use from many threads."""

    def __init__(self) -> None:
        self._reports: dict[Path, _Report] = {}
        self._lock = threading.Lock()

    def newest(self, folder: Path) -> Event | None:
        """The newest value of every field; None before the first event. A figure that is not finite is None."""
        return self._read(folder).newest

    def trained_since(self, folder: Path, time: float) -> bool:
        """Whether the trainer was training at or after a time (Unix seconds)."""
        return self._read(folder).trained_at >= time

    def curve(self, folder: Path, points: int) -> Curve:
        """The curves, thinned to at most ``points``; the first and last point, peaks and dips stay."""
        report = self._read(folder)
        with report.lock:
            return report.thinned(points)

    def result(self, folder: Path) -> Result | None:
        """How the run ended; None while it has not, and where the file cannot be understood."""
        report = self._of(folder)
        with report.lock:
            stamp = _stamp(report.result_path)
            if stamp != report.result_stamp:
                report.result_stamp = stamp
                report.result = _result(folder)
            return report.result

    def forget(self, folder: Path) -> None:
        """Drop what is kept of a folder that is no more."""
        with self._lock:
            self._reports.pop(folder, None)

    def _read(self, folder: Path) -> "_Report":
        report = self._of(folder)
        with report.lock:
            report.catch_up()
        return report

    def _of(self, folder: Path) -> "_Report":
        with self._lock:
            if folder not in self._reports:
                self._reports[folder] = _Report(folder)
            return self._reports[folder]


class _Report:
    """One run's report. Points lie in flat arrays: 32 bytes a step."""

    def __init__(self, folder: Path) -> None:
        self.lock = threading.Lock()
        self.result_path = folder / RESULT
        self._path = folder / PROGRESS
        self.result: Result | None = None
        self.result_stamp: _Stamp = None
        self.begin()

    def begin(self) -> None:
        """Forget what was read of ``progress.jsonl``."""
        self.newest: Event | None = None
        self.trained_at = -math.inf
        self._stamp: _Stamp = None
        self._offset = 0
        self._steps = array("q")
        self._figures = {name: array("d") for name in FIGURES}
        self._thinned = Curve()
        self._thinned_for = (0, 0, 0)

    def catch_up(self) -> None:
        """Read what was appended since the last time; nothing is opened if the file has not changed."""
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return
        if stamp is None or stamp[0] < self._offset:  # removed, or replaced by another
            self.begin()
        self._stamp = stamp
        while True:
            lines, offset = read_from(self._path, self._offset)
            if offset == self._offset:
                return
            self._offset = offset
            for line in lines:
                self._take(line)

    def thinned(self, points: int) -> Curve:
        """At most ``points`` of the points."""
        asked = (len(self._steps), self._offset, points)
        if asked != self._thinned_for:
            kept = self._kept(points)
            columns = {name: tuple(_given(figures[i]) for i in kept) for name, figures in self._figures.items()}
            known = {name: columns.pop(name) for name in FIGURES}
            self._thinned = Curve(tuple(self._steps[i] for i in kept), **known, figures=columns)
            self._thinned_for = asked
        return self._thinned

    def _kept(self, points: int) -> list[int]:
        """Which points to keep; of the held-out rows up to a quarter of them."""
        measured = self._figures.get(HELD_OUT, array("d"))
        at = [i for i, value in enumerate(measured) if not math.isnan(value)]
        some = {at[i] for i in _kept(array("d", [measured[i] for i in at]), points // 4)}
        return sorted(some.union(_kept(self._figures["loss"], points - len(some))))

    def _take(self, line: bytes) -> None:
        try:
            event = Event.model_validate_json(line)
        except ValidationError:  # half a line of a trainer that was killed while it wrote
            return
        if not math.isfinite(event.time):
            return
        event = event.model_copy(update={name: None for name in event.model_fields_set if not _finite(event, name)})
        if event.figures is not None:
            finite = {name: value for name, value in event.figures.items() if math.isfinite(value)}
            event = event.model_copy(update={"figures": finite})
        self.newest = _merged(self.newest, event)
        if event.phase is Phase.TRAINING:
            self.trained_at = max(self.trained_at, event.time)
        if (
            event.step is not None
            and 0 <= event.step <= MOST_STEPS
            and any(name in event.model_fields_set for name in (*FIGURES, "figures"))
        ):
            self._add(event.step, event)

    def _add(self, step: int, event: Event) -> None:
        """Add a point. A step at or before the last belongs to a resumed run, which replaces what it repeats."""
        at = bisect_left(self._steps, step)
        same = at < len(self._steps) and self._steps[at] == step
        keep = at + 1 if same else at
        del self._steps[keep:]
        if not same:
            self._steps.append(step)
        given = {name: getattr(event, name) for name in FIGURES} | (event.figures or {})
        for name in list(given)[:MOST_FIGURES]:
            self._figures.setdefault(name, array("d", [NONE]) * (len(self._steps) - (not same)))
        for name, figures in self._figures.items():
            del figures[keep:]
            value = given.get(name)
            if not same:
                figures.append(NONE if value is None else value)
            elif value is not None:
                figures[at] = value


def _merged(before: Event | None, event: Event) -> Event:
    if before is None:
        return event
    given = {name: getattr(event, name) for name in event.model_fields_set}
    if before.figures and event.figures:
        given["figures"] = {**before.figures, **event.figures}
    if before.phase is not event.phase:
        given = {**dict.fromkeys(OF_ONE_PHASE), **given}
    return before.model_copy(update=given)


def _finite(event: Event, name: str) -> bool:
    value = getattr(event, name)
    return not isinstance(value, float) or math.isfinite(value)


def _given(figure: float) -> float | None:
    return None if math.isnan(figure) else figure


def _kept(figures: "array[float]", points: int) -> list[int]:
    """Which points to keep: the first, the last, and the lowest and highest of each of equal stretches between."""
    count = len(figures)
    if count <= points:
        return list(range(count))
    if points < 4:
        return [0, count - 1][-points:] if points > 0 else []
    stretches = (points - 2) // 2
    kept = {0, count - 1}
    for number in range(stretches):
        first = 1 + (count - 2) * number // stretches
        last = 1 + (count - 2) * (number + 1) // stretches
        known = [i for i in range(first, last) if not math.isnan(figures[i])] or [first]
        kept |= {min(known, key=figures.__getitem__), max(known, key=figures.__getitem__)}
    return sorted(kept)


def _stamp(path: Path) -> _Stamp:
    try:
        found = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_size, found.st_mtime_ns


def _result(folder: Path) -> Result | None:
    try:
        return read_result(folder)
    except (ValueError, NotADirectoryError):
        return None


def task_progress(task: Task, reports: ProgressReader, place_of: Callable[[str], int | None]) -> TaskProgress:
    """Where a task stands now; cheap enough for many viewers to ask each second."""
    now = reports.newest(task.folder)
    return TaskProgress(
        now=now,
        percent=_percent(task, now),
        queue_place=place_of(task.id) if task.status is TaskStatus.QUEUED else None,
        seconds=_seconds(task),
        result=reports.result(task.folder),
    )


def _percent(task: Task, now: Event | None) -> float:
    if task.status is TaskStatus.COMPLETED:
        return 100.0
    if now is not None and now.done is not None and now.total:
        return min(100.0, max(0.0, 100.0 * now.done / now.total))
    if now is None or now.step is None or not now.total_steps:
        return 0.0
    return min(100.0, max(0.0, 100.0 * now.step / now.total_steps))


def _seconds(task: Task) -> float:
    if task.started_at is None:
        return 0.0
    end = task.finished_at if task.finished_at is not None else time.time()
    return max(0.0, end - task.started_at)
