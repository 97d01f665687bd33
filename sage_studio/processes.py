"""Child processes: start one in its own session, recognise it later, end its group."""

import contextlib
import os
import re
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import psutil

from sage_studio.errors import naming_full_disk

REAP_SECONDS = 5.0
POLL_SECONDS = 0.05
CHECK_SECONDS = 0.1
PARENT = "SAGE_STUDIO_PARENT_PIPE"
"""Environment variable: the pipe whose other end the parent holds open as long as it lives."""
SAME_START_SECONDS = 2.0
"""The system computes a process's start from the clock; the same process may read a little different later."""
TAIL_BYTES = 64 << 10
PREFIX = re.compile(
    r"^(\(\w+( pid=\d+)?\)\s*)*((DEBUG|INFO|WARNING|ERROR|CRITICAL)\s+[\d-]+\s+[\d:,]+\s+\[[^\]]*\]\s*)?"
)
CAUSE = re.compile(r"\b(\w*Error|\w*Exception|Killed|out of memory|Address already in use)\b", re.IGNORECASE)
SECONDARY = ("EngineCore initialization failed", "Engine core initialization failed", "See root cause above")


@dataclass(frozen=True, slots=True)
class ChildProcess:
    """A process that leads its own session, so that neither a signal to the studio nor the studio's end reaches it.

    Attributes:
        pid, started: identify it; a pid alone may be given to another process later. ``started`` in Unix seconds.
    """

    pid: int
    started: float
    _process: psutil.Process | None = field(default=None, repr=False, compare=False)
    _popen: "subprocess.Popen[bytes] | None" = field(default=None, repr=False, compare=False)

    def is_alive(self) -> bool:
        """Whether this very process still runs. A zombie, or another process with its pid, does not count."""
        try:
            return self._process is not None and bool(
                self._process.is_running() and self._process.status() != psutil.STATUS_ZOMBIE
            )
        except psutil.NoSuchProcess:
            return False

    def signal(self, number: signal.Signals) -> bool:
        """Signal the whole process group, children's children included; False if the process is gone."""
        return self.is_alive() and _signal_group(self.pid, number)

    def kill_group(self) -> None:
        """Kill what the process left behind in its group. Only to be called soon after its end was seen.

        A group's number is not given to a new process while the group has members: if no process has the number, or
        this one is still a zombie, the members are those that it left.
        """
        is_zombie = self._process is not None and self._process.is_running() and not self.is_alive()
        if not psutil.pid_exists(self.pid) or is_zombie:
            _signal_group(self.pid, signal.SIGKILL)

    def stop(self, grace_seconds: float) -> None:
        """End the process and all that it started: SIGTERM, then SIGKILL for what is left after ``grace_seconds``.

        Also ends what a dead one left behind. Never touches a process that merely got the same pid later.
        """
        members = self.members()
        _signal_each(members, signal.SIGTERM)
        _, left = psutil.wait_procs(members, timeout=grace_seconds)
        left = list({*left, *self.members()})
        _signal_each(left, signal.SIGKILL)
        psutil.wait_procs(left, timeout=grace_seconds)

    def members(self) -> list[psutil.Process]:
        """The process, its children and its session, which outlives it."""
        try:
            found: psutil.Process | None = psutil.Process(self.pid)
            if found is not None and not _started_at(found, self.started):
                return []  # a session id is not given to a new process while a member lives: none of ours is left
            children = found.children(recursive=True) if found is not None else []
        except psutil.NoSuchProcess:
            found, children = None, []
        everyone = {found, *children, *_session(self.pid)}
        return [member for member in everyone if member is not None and member.pid != os.getpid()]

    def wait(self, seconds: float) -> bool:
        """Wait at most ``seconds`` for its end; whether it ended."""
        deadline = time.monotonic() + seconds
        while self.is_alive():
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)
        return True

    def exit_signal(self) -> str:
        """The signal that ended it, e.g. ``SIGKILL``; empty if none did, or if an earlier studio started it."""
        if self._popen is None:
            return ""
        try:
            code = self._popen.wait(REAP_SECONDS)
        except subprocess.TimeoutExpired:
            return ""
        return _signal_name(-code) if code < 0 else ""


def start_detached(command: Sequence[str], env: Mapping[str, str], cwd: Path, output: BinaryIO) -> ChildProcess:
    """Start a child in a session of its own, without input, and reap it when it ends.

    Args:
        env: its whole environment.
        output: gets what it prints.

    Raises:
        OSError: the command cannot be run.
    """
    popen = subprocess.Popen(
        list(command),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        cwd=cwd,
        env=dict(env),
        start_new_session=True,
    )
    process = psutil.Process(popen.pid)  # there even if it ended already: nobody has reaped it yet
    child = ChildProcess(popen.pid, process.create_time(), process, popen)
    threading.Thread(target=popen.wait, name=f"reap-{popen.pid}", daemon=True).start()
    return child


def run_to_end(
    command: Sequence[str],
    env: Mapping[str, str],
    cwd: Path,
    *,
    input: str = "",
    seconds: float | None = None,
    check: Callable[[], None] = lambda: None,
) -> "subprocess.CompletedProcess[str]":
    """Run a child that is of use to this process alone, and wait for its end. It must call `end_with_parent`.

    Args:
        input: what it reads from standard input.
        seconds: how long it may take; None for as long as it needs.
        check: asked ten times a second; what it raises ends the child.

    Raises:
        TimeoutExpired: it took longer, and was ended.
    """
    theirs, ours = os.pipe()
    try:
        with tempfile.TemporaryFile() as given:  # `communicate` forgets what is left for a pipe when it is broken off
            given.write(input.encode())
            given.seek(0)
            child = subprocess.Popen(
                list(command),
                stdin=given,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                cwd=cwd,
                env={**env, PARENT: str(theirs)},
                pass_fds=(theirs,),
            )
        try:
            out, err = _outputs(child, seconds, check)
        except BaseException:
            child.kill()
            child.communicate()
            raise
    finally:
        os.close(theirs)
        os.close(ours)
    return subprocess.CompletedProcess(child.args, child.returncode, out, err)


def _outputs(child: "subprocess.Popen[str]", seconds: float | None, check: Callable[[], None]) -> tuple[str, str]:
    deadline = time.monotonic() + (seconds or float("inf"))
    while True:
        try:
            return child.communicate(timeout=CHECK_SECONDS)
        except subprocess.TimeoutExpired:
            if time.monotonic() > deadline:
                raise
        check()


def end_with_parent() -> None:
    """In a child of `run_to_end`: end at once, from now on, when the parent does, even if that is killed."""
    pipe = os.environ.pop(PARENT, "")
    if pipe:
        threading.Thread(target=_end_at_eof, args=(int(pipe),), name="end-with-parent", daemon=True).start()


def _end_at_eof(pipe: int) -> None:
    os.read(pipe, 1)  # nothing is ever written: it returns when the last writer, the parent, is gone
    os._exit(1)


def start_with_log(command: Sequence[str], env: Mapping[str, str], folder: Path, log: Path) -> ChildProcess:
    """Start a child in a session of its own; what it prints goes to ``log``, the log before it to ``log.1``.

    Args:
        env: its whole environment.

    Raises:
        OSError: the command cannot be run.
        StorageFull: no room for the log.
    """
    with naming_full_disk(log):
        folder.mkdir(parents=True, exist_ok=True)
        if log.exists():
            log.replace(log.with_name(f"{log.name}.1"))
        with log.open("ab") as output:
            return start_detached(command, env, folder, output)


def last_words(log: Path) -> str:
    """The line of a log that says best why its process ended: the last that names an error, else the last with text."""
    lines = [PREFIX.sub("", line).strip() for line in _tail(log)]
    lines = [line for line in lines if line and not any(word in line for word in SECONDARY)]
    named = [line for line in lines if CAUSE.search(line)]
    return (named or lines or [""])[-1][:500]


def known_process(pid: int, started: float) -> ChildProcess:
    """The process of a recorded pid and start time; one that is gone is not alive, but may have left a session."""
    try:
        process = psutil.Process(pid)
        return ChildProcess(pid, started, process if _started_at(process, started) else None)
    except psutil.Error:
        return ChildProcess(pid, started)


def find_session_leader(matches: Callable[[list[str]], bool]) -> ChildProcess | None:
    """The living process of this user, leader of its session, whose command line ``matches``."""
    for process in psutil.process_iter():
        try:
            mine = process.uids().real == os.getuid() and matches(process.cmdline())
            if mine and os.getsid(process.pid) == process.pid:
                child = ChildProcess(process.pid, process.create_time(), process)
                if child.is_alive():
                    return child
        except (psutil.Error, ProcessLookupError):
            continue
    return None


def _started_at(process: psutil.Process, started: float) -> bool:
    return bool(abs(process.create_time() - started) <= SAME_START_SECONDS)


def _session(leader: int) -> list[psutil.Process]:
    members = []
    for candidate in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getsid(candidate.pid) == leader:
                members.append(candidate)
    return members


def _signal_each(members: Sequence[psutil.Process], number: signal.Signals) -> None:
    for member in members:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            member.send_signal(number)


def _signal_group(group: int, number: signal.Signals) -> bool:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _signal_name(number: int) -> str:
    names = {member.value: member.name for member in signal.Signals}
    return names.get(number, f"signal {number}")


def _tail(log: Path) -> list[str]:
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL_BYTES))
            return file.read().decode(errors="replace").splitlines()
    except OSError:
        return []
