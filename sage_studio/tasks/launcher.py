"""Starts the child process of a task, with its GPUs and log, or finds a running one."""

import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from sage_studio.child_environment import Needs, child_environment
from sage_studio.errors import naming_full_disk
from sage_studio.hardware import VISIBLE
from sage_studio.processes import (
    ChildProcess,
    find_session_leader,
    known_process,
    start_detached,
)
from sage_studio.settings import CONFIGS, PROJECT
from sage_studio.training.progress import LOG, read_job

TRAINER = (sys.executable, "-m", "sage_studio.training")
ACCELERATE = CONFIGS / "accelerate.yaml"
"""Given to ``accelerate launch``, which would otherwise read a person's own default_config.yaml."""
PREPARER = (sys.executable, "-m", "sage_studio.preparing")
NOT_THE_CHILDS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What a launcher around the studio itself would have set; accelerate sets the child's own."""
ACCELERATE_VARIABLES = "ACCELERATE_"
SHUTDOWN_TIMEOUT = "TORCH_ELASTIC_SHUTDOWN_TIMEOUT"
"""Seconds that torch's agent gives its processes between SIGTERM and SIGKILL; 30 unless it is set."""
CUDA_ORDER = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
"""Numbers GPUs as ``nvidia-smi`` does; CUDA's own order begins with the fastest."""


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
        gpus = gpus_of_task(folder)
        with naming_full_disk(folder), (folder / LOG).open("ab") as log:
            return start_detached(
                [*command_for(self._command, gpus), str(folder)],
                trainer_environment(self._environment | gpu_environment(gpus, self._grace)),
                PROJECT,
                log,
            )


def gpus_of_task(folder: Path) -> list[str]:
    """The physical numbers of the GPUs that the task in a folder runs on; none on a machine without one."""
    try:
        gpus = read_job(folder).gpus
    except FileNotFoundError:
        return []
    return gpus.split(",") if gpus else []


def command_for(command: Sequence[str], gpus: Sequence[str]) -> list[str]:
    """The trainer's command; on several GPUs a process for each, started by accelerate."""
    if len(gpus) < 2:
        return list(command)
    options = ["--config_file", str(ACCELERATE), "--multi_gpu", "--num_processes", str(len(gpus))]
    return [command[0], "-m", "accelerate.commands.launch", *options, *command[1:]]


def gpu_environment(gpus: Sequence[str], stop_grace_seconds: float) -> dict[str, str]:
    """What the child's environment says about its GPUs."""
    if not gpus:
        return {}
    variables = {VISIBLE: ",".join(gpus)}
    return variables if len(gpus) < 2 else variables | {SHUTDOWN_TIMEOUT: str(math.ceil(stop_grace_seconds))}


def trainer_environment(
    variables: Mapping[str, str] = MappingProxyType({}), environment: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """The studio's environment without secrets and another launcher's variables, and ``variables`` besides.

    The model hub's token stays: a training may have to download its model. GPUs are numbered as ``nvidia-smi`` does.

    Threads wait asleep, not spinning: where a training, an engine and a page share few cores, two spinning threads keep
    each other from the core that the work needs, and everything takes many times as long.
    """
    kept = {
        name: value
        for name, value in environment.items()
        if name not in NOT_THE_CHILDS and not name.startswith(ACCELERATE_VARIABLES)
    }
    ours = {**CUDA_ORDER, "PYTHONUNBUFFERED": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    return child_environment(Needs.HUB, ours | dict(variables), kept)


def find_child(pid: int | None, started: float | None, folder: Path) -> ChildProcess | None:
    """A child that an earlier studio started, if it still runs.

    Args:
        pid, started: its recorded identity.
        folder: its task folder; by this, its last argument, it is found where the identity was not recorded in time,
            or where the clock has been set since.
    """
    if pid is not None and started is not None:
        child = known_process(pid, started)
        if child.is_alive():
            return child
    return find_session_leader(lambda command: command[-1:] == [str(folder)])
