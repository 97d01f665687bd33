"""Starting a training child, and knowing it again.

The child lives in a session of its own: a signal to the studio, or the studio's end, does not reach it. Knows how to
start, recognise, signal and reap it on Linux and macOS. Knows nothing of a task but its folder, nor of when to do what.
"""

import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

import psutil

from sage_studio.errors import naming_full_disk
from sage_studio.hardware import VISIBLE
from sage_studio.settings import PREFIX, PROJECT
from sage_studio.training.progress import LOG, read_job

TRAINER = (sys.executable, "-m", "sage_studio.training")
ACCELERATE = PROJECT / "configs" / "accelerate.yaml"
"""Given to ``accelerate launch``, which would otherwise read a person's own default_config.yaml."""
PREPARER = (sys.executable, "-m", "sage_studio.preparing")
SECRETS = (f"{PREFIX}AUTH",)
SECRET_ENDINGS = ("_API_KEY",)
NOT_THE_CHILDS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What a launcher around the studio itself would have set; accelerate sets the child's own."""
ACCELERATE_VARIABLES = "ACCELERATE_"
SHUTDOWN_TIMEOUT = "TORCH_ELASTIC_SHUTDOWN_TIMEOUT"
"""Seconds that torch's agent gives its processes between SIGTERM and SIGKILL; 30 unless it is set."""
CUDA_ORDER = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
"""Numbers GPUs as ``nvidia-smi`` does; CUDA's own order begins with the fastest."""
REAP_SECONDS = 5.0
SAME_START_SECONDS = 2.0
"""The system computes a process's start from the clock; the same process may read a little different later."""


@dataclass(frozen=True, slots=True)
class ChildProcess:
    """A process that leads its own session. Start in Unix seconds; pid and start together identify it."""

    pid: int
    started: float
    _process: psutil.Process = field(repr=False, compare=False)
    _popen: "subprocess.Popen[bytes] | None" = field(default=None, repr=False, compare=False)

    def is_alive(self) -> bool:
        """Whether this very process still runs. A zombie, or another process with its pid, does not count."""
        try:
            return bool(self._process.is_running() and self._process.status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False

    def signal(self, number: signal.Signals) -> bool:
        """Signal the whole process group, children's children included; False if the process is gone."""
        if not self.is_alive():
            return False
        return _signal_group(self.pid, number)

    def end_group(self) -> None:
        """Kill what the process left behind in its group. Only to be called soon after its end was seen.

        A group's number is not given to a new process while the group has members: if no process has the number, or
        this one is still a zombie, the members are those that it left.
        """
        if not psutil.pid_exists(self.pid) or (self._process.is_running() and not self.is_alive()):
            _signal_group(self.pid, signal.SIGKILL)

    def ended_by(self) -> str:
        """The signal that ended it, e.g. ``SIGKILL``; empty if none did, or if an earlier studio started it."""
        if self._popen is None:
            return ""
        try:
            code = self._popen.wait(REAP_SECONDS)
        except subprocess.TimeoutExpired:
            return ""
        return _signal_name(-code) if code < 0 else ""


class Launcher(Protocol):
    """How a child is started. Tests swap it."""

    def launch(self, folder: Path) -> ChildProcess:
        """Start the child for a task folder. Raises OSError or `StorageFull`."""
        ...


class ProcessLauncher:
    """Starts ``python -m sage_studio.training FOLDER``, detached, with its output appended to ``train.log``.

    Args:
        command: what to run in place of the trainer; the folder is added as the last argument.
        stop_grace_seconds: how long a stopped training may take to save; under accelerate torch's agent kills it then.
        environment: variables that the child gets besides the studio's own.
    """

    def __init__(
        self,
        command: Sequence[str] = TRAINER,
        stop_grace_seconds: float = 120.0,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._command, self._grace, self._environment = tuple(command), stop_grace_seconds, dict(environment)

    def launch(self, folder: Path) -> ChildProcess:
        """Start the child. Raises OSError where the folder is gone, `StorageFull` where its log cannot be written."""
        cards = cards_of(folder)
        with naming_full_disk(folder), (folder / LOG).open("ab") as log:
            popen = subprocess.Popen(
                [*command_for(self._command, cards), str(folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=PROJECT,
                env=child_environment(os.environ) | self._environment | cards_environment(cards, self._grace),
                start_new_session=True,
            )
        process = psutil.Process(popen.pid)  # there even if it ended already: nobody has reaped it yet
        child = ChildProcess(popen.pid, process.create_time(), process, popen)
        threading.Thread(target=popen.wait, name=f"reap-{popen.pid}", daemon=True).start()
        return child


def cards_of(folder: Path) -> list[str]:
    """The physical numbers of the GPUs that the task in a folder runs on; none on a machine without one."""
    try:
        gpus = read_job(folder).gpus
    except FileNotFoundError:
        return []
    return gpus.split(",") if gpus else []


def command_for(command: Sequence[str], cards: Sequence[str]) -> list[str]:
    """The trainer's command; on several GPUs a process for each, started by accelerate."""
    if len(cards) < 2:
        return list(command)
    options = ["--config_file", str(ACCELERATE), "--multi_gpu", "--num_processes", str(len(cards))]
    return [command[0], "-m", "accelerate.commands.launch", *options, *command[1:]]


def cards_environment(cards: Sequence[str], stop_grace_seconds: float) -> dict[str, str]:
    """What the child's environment says about its GPUs."""
    if not cards:
        return {}
    said = {VISIBLE: ",".join(cards)}
    return said if len(cards) < 2 else said | {SHUTDOWN_TIMEOUT: str(math.ceil(stop_grace_seconds))}


def child_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The studio's environment without the studio's own secrets and another launcher's variables.

    The model hub's token stays. GPUs are numbered as ``nvidia-smi`` does.

    Threads wait asleep, not spinning: where a training, an engine and a page share few cores, two spinning threads keep
    each other from the core that the work needs, and everything takes many times as long.
    """
    kept = {
        name: value
        for name, value in environment.items()
        if name not in (*SECRETS, *NOT_THE_CHILDS)
        and not name.endswith(SECRET_ENDINGS)
        and not name.startswith(ACCELERATE_VARIABLES)
    }
    return {**kept, **CUDA_ORDER, "PYTHONUNBUFFERED": "1", "OMP_WAIT_POLICY": "PASSIVE"}


def find_child(pid: int | None, started: float | None, folder: Path) -> ChildProcess | None:
    """A child that an earlier studio started, if it still runs.

    Args:
        pid, started: its recorded identity.
        folder: its task folder; by this, its last argument, it is found where the identity was not recorded in time,
            or where the clock has been set since.
    """
    if pid is not None and started is not None:
        child = _child(pid)
        if child is not None and abs(child.started - started) <= SAME_START_SECONDS and child.is_alive():
            return child
    return _child_by_folder(folder)


def _child_by_folder(folder: Path) -> ChildProcess | None:
    for process in psutil.process_iter():
        try:
            mine = process.uids().real == os.getuid() and process.cmdline()[-1:] == [str(folder)]
            if mine and os.getsid(process.pid) == process.pid:
                child = _child(process.pid)
                if child is not None and child.is_alive():
                    return child
        except (psutil.Error, ProcessLookupError):
            continue
    return None


def _child(pid: int) -> ChildProcess | None:
    try:
        process = psutil.Process(pid)
        return ChildProcess(pid, process.create_time(), process)
    except psutil.Error:
        return None


def _signal_name(number: int) -> str:
    names = {member.value: member.name for member in signal.Signals}
    return names.get(number, f"signal {number}")


def _signal_group(group: int, number: signal.Signals) -> bool:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True
