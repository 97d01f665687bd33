"""The studio in the background: ``sage studio start | stop | restart | status | logs``.

A studio writes ``studio.pid`` when its page is served and removes it at its end, however it was started. A pid file
whose process is gone, or is another one, counts as none.
"""

import json
import os
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import psutil

from sage_studio.child_environment import Needs, child_environment
from sage_studio.errors import Conflict, EngineUnavailable
from sage_studio.files import write_atomically
from sage_studio.processes import ChildProcess, known_process, start_detached
from sage_studio.settings import PREFIX, PROJECT, Settings
from sage_studio.text import Text

PID_FILE = "studio.pid"
OUTPUT = "studio.out"
POLL_SECONDS = 0.2
START_SECONDS = 120.0
STOP_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class RunningStudio:
    """What a studio wrote of itself: its process, when it started (Unix seconds) and where its page is."""

    pid: int
    started: float
    url: str

    @property
    def process(self) -> ChildProcess:
        """Its process, which is this one only if it started when it says."""
        return known_process(self.pid, self.started)


def write_pid_file(settings: Settings, url: str) -> None:
    """Say that this process serves the studio of a home at ``url``."""
    me = RunningStudio(os.getpid(), psutil.Process().create_time(), url)
    write_atomically(settings.root / PID_FILE, json.dumps(asdict(me)))


def remove_pid_file(settings: Settings) -> None:
    """Say that this process serves it no longer."""
    running = running_studio(settings)
    if running is not None and running.pid == os.getpid():
        (settings.root / PID_FILE).unlink(missing_ok=True)


def running_studio(settings: Settings) -> RunningStudio | None:
    """The studio that serves a home now; None if none does."""
    try:
        found = RunningStudio(**json.loads((settings.root / PID_FILE).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None
    return found if found.process.is_alive() else None


def start(settings: Settings, seconds: float = START_SECONDS) -> RunningStudio:
    """Start the studio in the background and wait until its page is served.

    Args:
        seconds: how long to wait.

    Raises:
        Conflict: one runs already.
        EngineUnavailable: it ended, or its page is not served in time; the message quotes its last words.
    """
    running = running_studio(settings)
    if running is not None:
        raise Conflict(
            Text("A studio runs already: {url} (process {pid}).", url=running.url, pid=running.pid),
            Text("Use it, or restart it: sage studio restart"),
        )
    settings.root.mkdir(parents=True, exist_ok=True)
    environment = child_environment(Needs.EVERYTHING, {f"{PREFIX}HOME": str(settings.home)})
    with output_path(settings).open("wb") as output:
        child = start_detached([sys.executable, "-m", "sage_studio.launch"], environment, PROJECT, output)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        running = running_studio(settings)
        if running is not None and running.pid == child.pid and _answers(running.url):
            return running
        if not child.is_alive():
            break
        time.sleep(POLL_SECONDS)
    words = " ".join(last_lines(output_path(settings), 5))
    raise EngineUnavailable(
        Text("The studio did not start: {words}", words=words),
        Text("See {settings} and {log_path}.", settings=output_path(settings), log_path=settings.log_path),
    )


def stop(settings: Settings, seconds: float = STOP_SECONDS) -> bool:
    """Stop the studio and wait for its end. Trainings go on by themselves.

    Args:
        seconds: how long to wait.

    Returns:
        Whether one was running.

    Raises:
        Conflict: it did not end in time.
    """
    running = running_studio(settings)
    if running is None:
        return False
    process = psutil.Process(running.pid)
    process.terminate()  # it alone: its trainings and its engine lead sessions of their own
    if not running.process.wait(seconds):
        raise Conflict(
            Text("The studio (process {pid}) did not end within {seconds:.0f} s.", pid=running.pid, seconds=seconds),
            Text("Wait, or end it: kill -9 {pid}", pid=running.pid),
        )
    (settings.root / PID_FILE).unlink(missing_ok=True)
    return True


def output_path(settings: Settings) -> Path:
    """What a studio in the background prints: its address and, once, a generated password."""
    return settings.root / OUTPUT


def last_lines(path: Path, count: int) -> list[str]:
    """The last lines of a file; none if there is no file."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return [line.rstrip("\n") for line in deque(file, count)]
    except FileNotFoundError:
        return []


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/robots.txt", timeout=5, trust_env=False).is_success
    except httpx.HTTPError:
        return False
