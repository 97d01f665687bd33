"""Merges an adapter into its base model, once, in a child process.

The merged folder is reused while nothing changes.

The child outlives the studio: who is to make the same merge finds it again by the record that is kept of it. torch is
imported only in the child, `sage_studio.serving.merge_child`.
"""

import hashlib
import json
import shutil
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock

from sage_studio.child_environment import Needs, child_environment
from sage_studio.data.jobs import JobStopped, Running, StudioCloses
from sage_studio.errors import EngineUnavailable, InvalidModel, StudioError, naming_full_disk, storage_full
from sage_studio.files import complete_lines, write_atomically
from sage_studio.models.model_folder import CHAT_TEMPLATE, TOKENIZER_CONFIG, is_here, read_config, read_json
from sage_studio.processes import (
    POLL_SECONDS,
    ChildProcess,
    known_process,
    last_words,
    start_detached,
)
from sage_studio.serving.adapter_compat import CONFIG, WEIGHTS, check_full_model, size_on_disk
from sage_studio.serving.types import RegisteredModel
from sage_studio.settings import PROJECT
from sage_studio.text import NOTHING, Text

MERGED = "merged"
MANIFEST = "merged.json"
LOG = "task.log"
STOP_SECONDS = 5.0
DOING = {
    "loading": Text("loading the base model"),
    "merging": Text("adding the adapter"),
    "saving": Text("saving"),
    "saved": Text("checking"),
}
MakeCommand = Callable[[Path, str, Path, Path], list[str]]
"""Adapter, base, destination and progress file -> the child's command line."""


def merge_command(adapter: Path, base: str, dest: Path, progress: Path) -> list[str]:
    """The command line of the child that merges."""
    return [sys.executable, "-m", "sage_studio.serving.merge_child", str(adapter), base, str(dest), str(progress)]


class MergeQueue(Protocol):
    """Has a merge done as a task of the studio."""

    def merge(self, order: Mapping[str, Any]) -> None:
        """Do `Merger.work` as ordered, and wait for its end. Raises as that."""
        ...


class Merger:
    """Merges adapters; `merged` is called by who holds the `SwitchLock`.

    Attributes:
        queue: does the merges; None: they are done at once, in the caller's thread.
    """

    def __init__(self, folder: Path, outputs: Path, seconds: float, command: MakeCommand = merge_command) -> None:
        self._folder = folder
        self._outputs = outputs
        self._seconds = seconds
        self._command = command
        self._closing = threading.Event()
        self._awaited: Mapping[str, Any] | None = None
        self.queue: MergeQueue | None = None

    @property
    def message(self) -> Text:
        """What the merge that a switch waits for is doing, for the status bar; empty while none does."""
        order = self._awaited
        if order is None:
            return NOTHING
        return _message(str(order["model"]), str(order["why"]), _last_step(self._files(order).progress))

    def merged(self, model: RegisteredModel, why: str) -> Path:
        """The folder of the model that an adapter and its base make; made now unless it is there already.

        Args:
            model: an adapter that was found whole.
            why: what the engine cannot serve, for the status and the errors.

        Raises:
            InvalidModel: the two cannot be merged; the message quotes the child.
            StorageFull: no room for it.
            EngineUnavailable: it took too long, or the studio closes.
            Conflict: the merge was stopped.
        """
        dest = self.place(model)
        order = {
            "model": model.name,
            "adapter": model.path,
            "base": model.base,
            "dest": str(dest),
            "sha256": _digest(model.path, model.base),
            "why": why,
            "trust_remote_code": bool(model.config.get("trust_remote_code")),
        }
        if _manifest(dest).get("sha256") != order["sha256"]:
            _check_base(model.base)
            _check_room(dest, model.base)
            self._awaited = order
            try:
                if self.queue is None:
                    self._merge_now(order)
                else:
                    self.queue.merge(order)
            finally:
                self._awaited = None
        check_full_model(dest)
        return dest

    def place(self, model: RegisteredModel) -> Path:
        """Where a merged model lies: with its task, or in the home if the adapter is from elsewhere."""
        folder = Path(model.path)
        if folder.is_relative_to(self._outputs):
            return folder / MERGED
        return self._folder / MERGED / hashlib.sha256(model.path.encode()).hexdigest()[:16]

    def work(self, running: Running, log: str = LOG) -> str:
        """Merge as ordered, or follow the child that does it already. Returns the folder.

        Args:
            running: with an order of `merged`. If it is stopped, the child is ended; if the studio closes, the child
                goes on and is found again.
            log: the file in its folder that gets the child's output.

        Raises:
            InvalidModel, StorageFull, EngineUnavailable: as `merged`.
        """
        order, dest = running.order, Path(str(running.order["dest"]))
        files = self._files(order)
        with naming_full_disk(dest):
            for folder in (files.lock.parent, dest.parent):
                folder.mkdir(parents=True, exist_ok=True)
        with FileLock(files.lock):  # a command may be at it too
            wanted = _digest(str(order["adapter"]), str(order["base"]))
            if _manifest(dest).get("sha256") == wanted:
                return str(dest)
            child = self._child_at_work(files) or self._start(order, files, running.folder / log)
            self._follow(child, order, files, running)
            if _inode(dest) in (None, _record(files).get("before")):
                raise _failed(str(order["model"]), str(order["why"]), Path(str(_record(files)["log"])), dest)
            check_full_model(dest)
            content = {"sha256": wanted, "adapter": order["adapter"], "base": order["base"]}
            write_atomically(dest / MANIFEST, json.dumps(content))
        return str(dest)

    def close(self) -> None:
        """End the child of a switch of this process, if there is one and the studio does not queue it."""
        self._closing.set()

    def open(self) -> None:
        """Allow merging again after `close`."""
        self._closing.clear()

    def _merge_now(self, order: Mapping[str, Any]) -> None:
        """Without a studio around it: closing ends the child, for nobody would look after it."""
        (self._folder / "merge.log").unlink(missing_ok=True)
        try:
            self.work(_Alone(self._folder, order, self._closing), "merge.log")
        except JobStopped as stopped:
            raise self._not_merged(order) from stopped

    def _not_merged(self, order: Mapping[str, Any]) -> StudioError:
        name = order["model"]
        return EngineUnavailable(
            Text(
                "{name} was not merged into its base: studio closing, or more than {seconds:.0f} s.",
                name=name,
                seconds=self._seconds,
            ),
            Text("Raise SAGE_STUDIO_ENGINE_START_SECONDS."),
        )

    def _files(self, order: Mapping[str, Any]) -> "_Files":
        name = hashlib.sha256(str(order["dest"]).encode()).hexdigest()[:16]
        folder = self._folder / "merges"
        return _Files(folder / f"{name}.lock", folder / f"{name}.json", folder / f"{name}.jsonl")

    def _child_at_work(self, files: "_Files") -> ChildProcess | None:
        """The child that this or an earlier studio started for the same merge, if it still runs."""
        record = _record(files)
        child = known_process(record["pid"], record["started"]) if record else None
        return child if child is not None and child.is_alive() else None

    def _start(self, order: Mapping[str, Any], files: "_Files", log: Path) -> ChildProcess:
        dest = Path(str(order["dest"]))
        command = self._command(Path(str(order["adapter"])), str(order["base"]), dest, files.progress)
        if order["trust_remote_code"]:
            command.append("--trust-remote-code")
        with naming_full_disk(dest), log.open("ab") as output:
            files.progress.write_bytes(b"")
            before = _inode(dest)
            needs = Needs.LIBRARIES if is_here(str(order["base"])) else Needs.HUB
            child = start_detached(command, child_environment(needs), PROJECT, output)
            record = {"pid": child.pid, "started": child.started, "log": str(log), "before": before}
            write_atomically(files.record, json.dumps(record))
        return child

    def _follow(self, child: ChildProcess, order: Mapping[str, Any], files: "_Files", running: Running) -> None:
        deadline = time.monotonic() + self._seconds
        try:
            while child.is_alive():
                share, doing = _where(_last_step(files.progress))
                running.tell(round(100 * share), 100, doing)
                if time.monotonic() > deadline:
                    raise self._not_merged(order)
                time.sleep(POLL_SECONDS)
        except StudioCloses:
            raise
        except BaseException:
            child.stop(STOP_SECONDS)
            raise
        finally:
            if not child.is_alive():
                shutil.rmtree(f"{order['dest']}.part", ignore_errors=True)


@dataclass(frozen=True, slots=True)
class _Files:
    """What is kept of a merge: who is at it, its child, and the child's reports."""

    lock: Path
    record: Path
    progress: Path


@dataclass(slots=True)
class _Alone:
    """A merge that is no task; see `Running`."""

    folder: Path
    order: Mapping[str, Any]
    closing: threading.Event

    def tell(self, _: int, __: int, ___: Text) -> None:
        if self.closing.is_set():
            raise JobStopped


def _record(files: _Files) -> dict[str, Any]:
    """What is known of the child; empty where there was none."""
    try:
        content: dict[str, Any] = json.loads(files.record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content


def _inode(folder: Path) -> int | None:
    """Tells a folder from the one that took its place; None where there is none."""
    try:
        return folder.stat().st_ino
    except FileNotFoundError:
        return None


def _digest(adapter: str, base: str) -> str:
    """What a merged model depends on: the adapter's bytes, its tokenizer's template, and which base it is."""
    found = hashlib.sha256(f"{base}\n{size_on_disk(Path(base))}\n".encode())
    for name in (CONFIG, WEIGHTS, CHAT_TEMPLATE, TOKENIZER_CONFIG):
        path = Path(adapter) / name
        if path.is_file():
            with path.open("rb") as file:
                found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()


def _manifest(dest: Path) -> dict[str, str]:
    return read_json(dest / MANIFEST)  # none, or cut off: merged again


def _check_base(base: str) -> None:
    if read_config(base).get("quantization_config"):  # of a broken one the child says what is wrong
        raise InvalidModel(
            Text("The base {base} is quantized: adapters cannot be merged into it.", base=base),
            Text("Register the adapter with the bf16 base."),
        )


def _check_room(dest: Path, base: str) -> None:
    parent = next(folder for folder in dest.parents if folder.is_dir())
    if shutil.disk_usage(parent).free < 1.1 * size_on_disk(Path(base)):
        raise storage_full(dest)


def _last_step(progress: Path) -> dict[str, object]:
    """The last whole line that the child wrote; empty before the first."""
    step: dict[str, object] = json.loads([b"{}", *complete_lines(progress)][-1])
    return step


def _where(step: Mapping[str, object]) -> tuple[float, Text]:
    """How far the child is, and what it is doing."""
    return float(str(step.get("share", 0.0))), DOING[str(step.get("doing", "loading"))]


def _message(name: str, why: str, step: Mapping[str, object]) -> Text:
    share, doing = _where(step)
    return Text(
        "Merging {name} into its base ({why}): {doing}, {share:.0%}.", name=name, why=why, doing=doing, share=share
    )


def _failed(name: str, why: str, log: Path, dest: Path) -> Exception:
    words = last_words(log)
    if "No space left" in words:
        return storage_full(dest)
    return InvalidModel(
        Text(
            "The engine cannot serve {name} as an adapter ({why}), and merging it failed: {words}",
            name=name,
            why=why,
            words=words,
        ),
        Text("Free memory, or read {log}.", log=log),
    )
