"""Long work on a dataset: a thread each, and a folder in which it can be found again and gone on with.

A job's folder holds ``order.json`` (what was asked), ``state.json`` (how it stands) and whatever the work writes there.
Work that was cut off, by a person, a fault or the end of the studio, is started again on the same folder and goes on by
what lies in it. Knows nothing of what the work is.
"""

import json
import secrets
import shutil
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from time import monotonic, time
from typing import Any

from pydantic import TypeAdapter

from sage_studio.errors import Conflict, NotFound, StudioError
from sage_studio.files import safe_name, write_atomically
from sage_studio.text import NOTHING, Text

ORDER, STATE = "order.json", "state.json"
TELL_SECONDS = 0.3
CLOSE_SECONDS = 30.0
NEWEST = 200
INTERRUPTED = Text("The studio was closed meanwhile.", "期间工作室被关闭。")
UNEXPECTED = Text("An unexpected fault; the log has the details.", "发生意外错误，详情见日志。")


class JobState(StrEnum):
    """How a job stands."""

    RUNNING = "running"
    STOPPED = "stopped"
    COMPLETED = "completed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Job:
    """A piece of long work.

    Attributes:
        kind: ``report``, ``augment`` or ``annotate``.
        dataset_id: the dataset that is worked on.
        done: of ``total`` units; 0 of 0 until it is known.
        result: id of the dataset that was made, once there is one.
        message: why it stopped or failed.
    """

    id: str
    kind: str
    dataset_id: str
    created_at: float
    state: JobState = JobState.RUNNING
    done: int = 0
    total: int = 0
    doing: Text = NOTHING
    message: Text = NOTHING
    hint: Text = NOTHING
    result: str = ""


class JobStopped(Exception):
    """The work was asked to stop."""


class Running:
    """A job as its work sees it.

    Attributes:
        folder: the job's own, to write into.
        order: what was asked.
    """

    def __init__(self, job: Job, folder: Path, order: Mapping[str, Any]) -> None:
        self.job, self.folder, self.order = job, folder, order
        self.stop = threading.Event()
        self._told = 0.0

    def tell(self, done: int, total: int, doing: Text) -> None:
        """Say how far it is. Raises `JobStopped` when it is to stop."""
        self.job = replace(self.job, done=done, total=total, doing=doing)
        if monotonic() - self._told > TELL_SECONDS:
            self._told = monotonic()
            self.keep()
        if self.stop.is_set():
            raise JobStopped

    def keep(self, **changes: Any) -> None:
        """Write the state down."""
        self.job = replace(self.job, **changes)
        write_atomically(self.folder / STATE, AS_JSON.dump_json(self.job).decode())


Work = Callable[[Running], str]
"""Does the job and returns the id of the dataset that it made, or an empty text."""
AS_JSON = TypeAdapter(Job)


class Jobs:
    """Starts and keeps jobs; safe to use from many threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._running: dict[str, tuple[Running, threading.Thread]] = {}

    def start(self, kind: str, dataset_id: str, order: Mapping[str, Any], work: Work) -> Job:
        """Begin. Raises `Conflict` while the same kind of work is done on the same dataset."""
        job = Job(f"{kind}-{int(time())}-{secrets.token_hex(2)}", kind, dataset_id, time())
        with self._lock:
            for other, _ in self._running.values():
                if (other.job.kind, other.job.dataset_id) == (kind, dataset_id):
                    raise Conflict(
                        Text(
                            f"{other.job.id} already works on {dataset_id}.", f"{other.job.id} 正在处理 {dataset_id}。"
                        ),
                        Text("Wait for its end, or stop it.", "请等待其结束，或先停止它。"),
                    )
            folder = self._folder / job.id
            folder.mkdir(parents=True)
            write_atomically(folder / ORDER, json.dumps(dict(order), ensure_ascii=False, indent=1))
            return self._begin(Running(job, folder, order), work)

    def resume(self, job_id: str, work: Work) -> Job:
        """Go on with a job that stopped or failed. Raises `Conflict` where there is nothing to go on with."""
        job = self.get(job_id)
        with self._lock:
            if job_id in self._running or job.state is JobState.COMPLETED:
                raise Conflict(
                    Text(f"{job_id} is {job.state}.", f"{job_id} 的状态是 {job.state}。"),
                    Text("Only a stopped or failed one goes on.", "只有已停止或失败的任务可以继续。"),
                )
            fresh = replace(job, state=JobState.RUNNING, message=NOTHING, hint=NOTHING)
            return self._begin(Running(fresh, self._folder / job_id, self.order(job_id)), work)

    def stop(self, job_id: str) -> Job:
        """Ask a job to stop; it does after the piece at hand. What it has done stays."""
        job = self.get(job_id)
        with self._lock:
            if job_id in self._running:
                self._running[job_id][0].stop.set()
        return job

    def get(self, job_id: str) -> Job:
        """How a job stands. Raises `NotFound`."""
        with self._lock:
            running = self._running.get(job_id)
        if running is not None:
            return running[0].job
        try:
            job = AS_JSON.validate_json((self._folder / safe_name(job_id) / STATE).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise NotFound(
                Text(f"There is no job {job_id}.", f"任务 {job_id} 不存在。"), Text("See the list.", "请查看列表。")
            ) from error
        if job.state is JobState.RUNNING:  # nobody here works on it
            return replace(job, state=JobState.STOPPED, message=INTERRUPTED)
        return job

    def order(self, job_id: str) -> dict[str, Any]:
        """What was asked."""
        order: dict[str, Any] = json.loads((self._folder / safe_name(job_id) / ORDER).read_text(encoding="utf-8"))
        return order

    def list(self, dataset_id: str = "") -> "list[Job]":
        """The newest jobs first, of one dataset or of all."""
        folders = sorted(self._folder.glob("*-*/"), key=lambda path: path.stat().st_mtime, reverse=True)
        jobs = [self.get(path.name) for path in folders[:NEWEST] if (path / STATE).is_file()]
        chosen = [job for job in jobs if not dataset_id or job.dataset_id == dataset_id]
        return sorted(chosen, key=lambda job: job.created_at, reverse=True)

    def delete(self, job_id: str) -> None:
        """Forget a job and what it wrote into its folder. Raises `Conflict` while it runs."""
        job = self.get(job_id)
        if job.state is JobState.RUNNING:
            raise Conflict(
                Text(f"{job_id} is running.", f"{job_id} 正在运行。"), Text("Stop it first.", "请先停止它。")
            )
        shutil.rmtree(self._folder / safe_name(job_id), ignore_errors=True)

    def wait(self, job_id: str, seconds: float = CLOSE_SECONDS) -> Job:
        """Wait for a job's end, and say how it stands then."""
        with self._lock:
            running = self._running.get(job_id)
        if running is not None:
            running[1].join(seconds)
        return self.get(job_id)

    def close(self) -> None:
        """Stop all of them, to be gone on with another time."""
        with self._lock:
            running = list(self._running.values())
        for each, _ in running:
            each.stop.set()
        for _, thread in running:
            thread.join(CLOSE_SECONDS)

    def _begin(self, running: Running, work: Work) -> Job:
        running.keep()
        thread = threading.Thread(target=self._run, args=(running, work), name=running.job.id, daemon=True)
        self._running[running.job.id] = (running, thread)
        thread.start()
        return running.job

    def _run(self, running: Running, work: Work) -> None:
        try:
            running.keep(result=work(running), state=JobState.COMPLETED, done=running.job.total)
        except JobStopped:
            running.keep(state=JobState.STOPPED)
        except StudioError as error:
            running.keep(state=JobState.FAILED, message=error.message, hint=error.hint)
        except BaseException:
            running.keep(state=JobState.FAILED, message=UNEXPECTED)
            raise
        finally:
            with self._lock:
                del self._running[running.job.id]
