"""Detached child processes: started in a session of their own, known by pid and start time, stopped as a group."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from sage_studio.errors import naming_full_disk

POLL_SECONDS = 0.05
TAIL_BYTES = 64 << 10
PREFIX = re.compile(
    r"^(\(\w+( pid=\d+)?\)\s*)*((DEBUG|INFO|WARNING|ERROR|CRITICAL)\s+[\d-]+\s+[\d:,]+\s+\[[^\]]*\]\s*)?"
)
CAUSE = re.compile(r"\b(\w*Error|\w*Exception|Killed|out of memory|Address already in use)\b", re.IGNORECASE)
SECONDARY = ("EngineCore initialization failed", "Engine core initialization failed", "See root cause above")


@dataclass(frozen=True, slots=True)
class ProcessId:
    """A process that cannot be mistaken for a later one with the same pid.

    Attributes:
        create_time: as the system tells it, Unix seconds.
    """

    pid: int
    create_time: float


def spawn(command: Sequence[str], env: Mapping[str, str], folder: Path, log: Path) -> ProcessId:
    """Start a child in a session of its own; what it prints goes to ``log``, the log before it to ``log.1``.

    Raises:
        OSError: the command cannot be run.
        StorageFull: no room for the log.
    """
    with naming_full_disk(log):
        folder.mkdir(parents=True, exist_ok=True)
        if log.exists():
            log.replace(log.with_name(f"{log.name}.1"))
        with log.open("ab") as output:
            child = subprocess.Popen(
                list(command),
                env={**os.environ, **env},
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    threading.Thread(target=child.wait, name=f"reap-{child.pid}", daemon=True).start()  # else its end leaves a zombie
    try:
        return ProcessId(child.pid, psutil.Process(child.pid).create_time())
    except psutil.NoSuchProcess:
        return ProcessId(child.pid, 0.0)  # it ended at once; is_alive() says so


def is_alive(process: ProcessId) -> bool:
    """Whether this very process still runs."""
    try:
        found = psutil.Process(process.pid)
        return _same(found, process) and found.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def stop(process: ProcessId, grace_seconds: float) -> None:
    """End a process and all that it started: SIGTERM, then SIGKILL for what is left after ``grace_seconds``.

    Also ends what a dead one left behind. Never touches a process that merely got the same pid later.
    """
    members = _members(process)
    _signal(members, signal.SIGTERM)
    _, left = psutil.wait_procs(members, timeout=grace_seconds)
    left = list({*left, *_members(process)})
    _signal(left, getattr(signal, "SIGKILL", signal.SIGTERM))
    psutil.wait_procs(left, timeout=grace_seconds)


def member_pids(process: ProcessId) -> set[int]:
    """The process ids of a process and of all that it started."""
    return {member.pid for member in _members(process)}


def free_port() -> int:
    """A port on loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_dead(process: ProcessId, seconds: float) -> bool:
    """Wait at most ``seconds``; whether it ended."""
    deadline = time.monotonic() + seconds
    while is_alive(process):
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def last_words(log: Path) -> str:
    """The line of a log that says best why its process ended: the last that names an error, else the last with text."""
    lines = [PREFIX.sub("", line).strip() for line in _tail(log)]
    lines = [line for line in lines if line and not any(word in line for word in SECONDARY)]
    named = [line for line in lines if CAUSE.search(line)]
    return (named or lines or [""])[-1][:500]


def _tail(log: Path) -> list[str]:
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL_BYTES))
            return file.read().decode(errors="replace").splitlines()
    except OSError:
        return []


def _members(process: ProcessId) -> list[psutil.Process]:
    """The process and what it started. On POSIX that is its session, which outlives it."""
    try:
        found = psutil.Process(process.pid)
        if not _same(found, process):
            return []  # a session id is not given to a new process while a member lives: none of ours is left
        children = found.children(recursive=True)
    except psutil.NoSuchProcess:
        found, children = None, []
    everyone = {found, *children, *_session(process.pid)} - {None}
    return [member for member in everyone if member is not None and member.pid != os.getpid()]


def _session(leader: int) -> list[psutil.Process]:
    if not hasattr(os, "getsid"):
        return []
    members = []
    for candidate in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getsid(candidate.pid) == leader:
                members.append(candidate)
    return members


def _signal(members: Sequence[psutil.Process], number: int) -> None:
    for member in members:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            member.send_signal(number)


def _same(found: psutil.Process, process: ProcessId) -> bool:
    return bool(abs(found.create_time() - process.create_time) < 1.0)
