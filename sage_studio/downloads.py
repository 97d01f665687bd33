"""Downloads of hub models: a folder and a process each, which outlives the studio.

How bytes are fetched is `sage_studio.fetching`'s.
"""

import json
import logging
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from sage_studio.errors import Conflict, HubUnavailable, InvalidModel, NotFound, StorageFull, StudioError
from sage_studio.fetching import Transfer, fetch
from sage_studio.files import write_atomically
from sage_studio.models.model_folder import snapshot
from sage_studio.processes import ChildProcess
from sage_studio.tasks.launcher import Launcher, find_child
from sage_studio.tasks.progress import ProgressReader
from sage_studio.text import NOTHING, Text
from sage_studio.training.progress import PROGRESS, RESULT, Event, Phase, ProgressWriter, Reason, read_result

logger = logging.getLogger("sage_studio")

ORDER = "download.json"
POLL_SECONDS = 0.2
KINDS: dict[Reason, type[StudioError]] = {Reason.MODEL: InvalidModel, Reason.DISK: StorageFull}
INTERRUPTED = Text("The download was interrupted.")
CANCELLED = Text("The download was cancelled.")
GO_ON = Text("Continue: what was fetched is kept.")


class DownloadState(StrEnum):
    """Where a download stands."""

    RUNNING = "running"
    COMPLETED = "completed"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Download:
    """A download, under way or over.

    Attributes:
        message, hint: why it failed or was stopped, and what to do; empty otherwise.
    """

    name: str
    state: DownloadState
    transfer: Transfer
    started_at: float
    message: Text = NOTHING
    hint: Text = NOTHING


@dataclass(frozen=True, slots=True)
class _Held:
    """What this process knows of a folder."""

    name: str
    started_at: float
    child: ChildProcess | None


class Downloads:
    """All downloads; safe to use from many threads.

    Args:
        folder: holds a folder for each.
        launcher: starts the process that fetches.
    """

    def __init__(self, folder: Path, launcher: Launcher) -> None:
        self._folder, self._launcher = folder, launcher
        self._reports, self._lock = ProgressReader(), threading.Lock()
        self._held: dict[str, _Held] = {}

    def all(self) -> list[Download]:
        """Every download that is not forgotten, the newest first."""
        known = [self._read(path.parent) for path in self._folder.glob(f"*/{ORDER}")]
        return sorted((each for each in known if each is not None), key=lambda each: -each.started_at)

    def running(self) -> list[Download]:
        """Those under way."""
        return [each for each in self.all() if each.state is DownloadState.RUNNING]

    def get(self, name: str) -> Download:
        """One of them. Raises `NotFound`."""
        found = self._read(self._place(name))
        if found is None:
            raise NotFound(
                Text("There is no download of {name!r}.", name=name),
                Text("Take a name from the list of downloads."),
            )
        return found

    def start(self, name: str, trust_remote_code: bool = False) -> Download:
        """Fetch a model in the background, going on where an earlier attempt ended; one under way is left alone."""
        folder = self._place(name)
        with self._lock:
            found = self._read(folder)
            if found is None or found.state is not DownloadState.RUNNING:
                self._begin(name, trust_remote_code, folder)
        return self.get(name)

    def cancel(self, name: str) -> Download:
        """Break a download off; what was fetched is kept. Raises `NotFound`, `Conflict` where it is over."""
        found = self.get(name)
        child = self._held[name].child if name in self._held else None
        if found.state is not DownloadState.RUNNING or child is None:
            raise Conflict(
                Text("The download of {name} is over: {state}.", name=name, state=found.state),
                Text("There is nothing to cancel."),
            )
        child.signal(signal.SIGTERM)
        logger.info("Cancelling download: %s", name)
        return found

    def fetch(self, name: str, trust_remote_code: bool = False) -> Path:
        """Start a download unless the model is here, and wait for its end.

        Returns:
            The model's folder.

        Raises:
            InvalidModel, HubUnavailable, StorageFull: why it failed.
            Conflict: it was cancelled.
        """
        here = snapshot(name)
        if here is not None:
            return here
        found = self.start(name, trust_remote_code)
        while found.state is DownloadState.RUNNING:
            time.sleep(POLL_SECONDS)
            found = self.get(name)
        here = snapshot(name)
        if found.state is DownloadState.COMPLETED and here is not None:
            return here
        if found.state is DownloadState.STOPPED:
            raise Conflict(Text("{name}: {message}", name=name, message=found.message), found.hint)
        result = read_result(self._place(name))
        reason = result.reason if result is not None and result.reason is not None else Reason.NETWORK
        raise KINDS.get(reason, HubUnavailable)(found.message or INTERRUPTED, found.hint or GO_ON)

    def _begin(self, name: str, trust_remote_code: bool, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in (RESULT, PROGRESS):
            (folder / leftover).unlink(missing_ok=True)
        self._reports.forget(folder)
        order: dict[str, Any] = {"name": name, "trust_remote_code": trust_remote_code, "started_at": time.time()}
        write_atomically(folder / ORDER, json.dumps(order))
        child = self._launcher.launch(folder)
        self._held[name] = _Held(name, order["started_at"], child)
        write_atomically(folder / ORDER, json.dumps({**order, "pid": child.pid, "process_started": child.started}))
        logger.info("Downloading model: %s (process %d)", name, child.pid)

    def _read(self, folder: Path) -> Download | None:
        held = self._held.get(_name_of(folder)) or self._adopt(folder)
        if held is None:
            return None
        # Liveness first: a child that ends between the two looks has written its result by the second.
        alive = held.child is not None and held.child.is_alive()
        result = self._reports.result(folder)
        transfer = _transfer(held.name, self._reports.newest(folder))
        if result is not None:
            state = DownloadState(result.status)
            message = (
                (NOTHING, NOTHING) if state is DownloadState.COMPLETED else (result.message_text, result.hint_text)
            )
            return Download(held.name, state, transfer, held.started_at, *message)
        if alive:
            return Download(held.name, DownloadState.RUNNING, transfer, held.started_at)
        return Download(held.name, DownloadState.STOPPED, transfer, held.started_at, INTERRUPTED, GO_ON)

    def _adopt(self, folder: Path) -> _Held | None:
        """A download that an earlier studio started."""
        try:
            order = json.loads((folder / ORDER).read_text(encoding="utf-8"))
            name, pid, started = str(order["name"]), order.get("pid"), order.get("process_started")
            held = _Held(name, float(order["started_at"]), find_child(pid, started, folder))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return self._held.setdefault(name, held)

    def _place(self, name: str) -> Path:
        return self._folder / name.replace("/", "--")


def fetch_ordered(folder: Path, progress: ProgressWriter) -> None:
    """In the child: fetch what a download's folder orders. Raises as `fetch`."""
    order = json.loads((folder / ORDER).read_text(encoding="utf-8"))
    progress.phase(Phase.DOWNLOADING)
    fetch(order["name"], order["trust_remote_code"], telling(progress))


def telling(progress: ProgressWriter) -> Callable[[Transfer], None]:
    """What writes each report of a transfer as an event."""

    def tell(transfer: Transfer) -> None:
        progress.write(
            done=transfer.done,
            total=transfer.total,
            unit="bytes",
            per_second=transfer.per_second,
            eta_seconds=transfer.seconds_left,
        )

    return tell


def _name_of(folder: Path) -> str:
    return folder.name.replace("--", "/", 1)


def _transfer(name: str, now: Event | None) -> Transfer:
    if now is None or now.done is None or now.total is None:
        return Transfer(name, 0, 0)
    return Transfer(name, now.done, now.total, now.per_second, now.eta_seconds)
