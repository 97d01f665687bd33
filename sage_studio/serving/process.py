"""Process of a model server: its start with a log, a free port, and the log line that says why it ended."""

import os
import re
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from sage_studio.errors import naming_full_disk
from sage_studio.processes import ChildProcess, start_detached

TAIL_BYTES = 64 << 10
PREFIX = re.compile(
    r"^(\(\w+( pid=\d+)?\)\s*)*((DEBUG|INFO|WARNING|ERROR|CRITICAL)\s+[\d-]+\s+[\d:,]+\s+\[[^\]]*\]\s*)?"
)
CAUSE = re.compile(r"\b(\w*Error|\w*Exception|Killed|out of memory|Address already in use)\b", re.IGNORECASE)
SECONDARY = ("EngineCore initialization failed", "Engine core initialization failed", "See root cause above")


def spawn(command: Sequence[str], env: Mapping[str, str], folder: Path, log: Path) -> ChildProcess:
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
            return start_detached(command, {**os.environ, **env}, folder, output)


def free_port() -> int:
    """A port on loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


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
