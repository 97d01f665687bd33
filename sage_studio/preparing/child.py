"""Preparing child: runs the steps and writes, last of all, how it ended."""

import contextlib
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from sage_studio.errors import StudioError
from sage_studio.text import Text
from sage_studio.training.failures import Action, explain, is_expected, next_action
from sage_studio.training.progress import Phase, ProgressWriter, Result, TrainingJob, read_job, result_for, write_result
from sage_studio.training.run import Stopped, StopRequest

STOPPED = Text("It was stopped while it was being prepared.")
FETCHED = Text("The model is on this machine.")
CONTINUE = Text("Continue it: what was downloaded or unpacked already is not done again.")


def prepare(folder: Path, stop: StopRequest) -> int:
    """Make the task in a folder ready and mark its orders as prepared, or write ``result.json``.

    Returns:
        The exit code: 0 unless the task cannot be trained.
    """

    def work(progress: ProgressWriter) -> None:
        progress.phase(_first(read_job(folder)))
        from sage_studio.preparing.steps import make_ready

        make_ready(folder, progress)

    return _live(folder, stop, work, STOPPED, CONTINUE)


def download(folder: Path, stop: StopRequest) -> int:
    """Fetch the model that a download's folder orders, and write ``result.json`` in any case; else as `prepare`."""
    from sage_studio.downloads import CANCELLED, GO_ON, fetch_ordered

    def work(progress: ProgressWriter) -> None:
        fetch_ordered(folder, progress)
        write_result(folder, Result(status="completed", message=FETCHED.pair()))

    return _live(folder, stop, work, CANCELLED, GO_ON)


def _live(folder: Path, stop: StopRequest, work: Callable[[ProgressWriter], None], stopped: Text, hint: Text) -> int:
    began = time.monotonic()
    try:
        stop.interrupt()
        work(ProgressWriter(folder))
        stop.wait()
        print(f"done in {time.monotonic() - began:.1f} s")
        return 0
    except Stopped:
        result = Result(
            status="stopped", message=stopped.pair(), hint=hint.pair(), action=Action.RESUME, seconds=_since(began)
        )
    except Exception as error:  # the process ends here: whatever it was, the person must learn of it
        result = _failed(error, began)
    stop.requested = False
    stop.wait()
    with contextlib.suppress(OSError):  # a full disk must not keep the result from being written
        print(" ".join(part for part in (f"{result.status}:", result.message[0], result.hint[0]) if part))
    write_result(folder, result)
    return 1 if result.status == "failed" else 0


def _first(job: TrainingJob) -> Phase:
    """What is probably done first; said at once, for the steps take a moment to be imported."""
    model = Path(job.model_location)
    if not model.is_absolute():
        return Phase.DOWNLOADING
    if not model.exists():
        return Phase.UNPACKING
    return Phase.READING_FILE if job.source else Phase.CHECKING_ROWS


def _failed(error: Exception, began: float) -> Result:
    with contextlib.suppress(OSError):
        if not is_expected(error) and not isinstance(error, StudioError):
            traceback.print_exc(file=sys.stdout)
    reason, message, hint = explain(error)
    return result_for(message, hint, reason=reason, action=next_action(reason, {}), seconds=_since(began))


def _since(began: float) -> float:
    return time.monotonic() - began
