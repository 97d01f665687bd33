"""What this machine has: GPUs, memory and cores.

Asks ``nvidia-smi`` and the operating system. Never imports torch, so the web process may use it. A GPU counts only if
our builds of torch and vLLM can use it and ``CUDA_VISIBLE_DEVICES`` shows it; the others are listed with the reason.
"""

import importlib.metadata
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from sage_studio.child_environment import Needs, child_environment

NVIDIA_SMI = "nvidia-smi"
WSL_NVIDIA_SMI = "/usr/lib/wsl/lib/nvidia-smi"
FIELDS = "index,name,memory.total,memory.used,utilization.gpu,driver_version,uuid"
CAPABILITY_FIELD = "compute_cap"
"""Drivers older than 510 refuse a query that names it."""
QUERY_SECONDS = 5.0
VISIBLE = "CUDA_VISIBLE_DEVICES"
OLDEST_DRIVER = 580
"""The oldest driver branch that runs CUDA 13, which torch 2.13 and vLLM 0.32 are built for."""
OLDEST_CAPABILITY = (7, 5)
"""Turing: torch, vLLM and bitsandbytes carry no kernels for older GPUs."""


class Unusable(StrEnum):
    """Why a GPU that is there is not used."""

    OLD_DRIVER = "old_driver"
    OLD_GPU = "old_gpu"
    CPU_TORCH = "cpu_torch"
    HIDDEN = "hidden"
    NO_MEMORY_FIGURE = "no_memory_figure"


@dataclass(frozen=True, slots=True)
class Gpu:
    """One NVIDIA GPU; memory in GiB, load in percent.

    Attributes:
        capability: CUDA compute capability, e.g. ``(8, 6)``; None where the driver does not tell.
        driver: version of the driver, e.g. ``580.95.05``.
        uuid: as ``nvidia-smi`` and ``CUDA_VISIBLE_DEVICES`` write it: ``GPU-…``.
    """

    index: int
    name: str
    memory_gb: float
    used_gb: float
    load_percent: float | None = None
    capability: tuple[int, int] | None = None
    driver: str = ""
    uuid: str = ""

    @property
    def free_gb(self) -> float:
        """Memory that nobody uses."""
        return self.memory_gb - self.used_gb


@dataclass(frozen=True, slots=True)
class Hardware:
    """The machine; memory in GiB.

    Attributes:
        gpus: the GPUs that can be used, in the order of ``CUDA_VISIBLE_DEVICES``.
        set_aside: the GPUs that are there and are not used, each with the reason.
    """

    gpus: tuple[Gpu, ...]
    memory_gb: float
    used_gb: float
    cores: int
    set_aside: tuple[tuple[Gpu, Unusable], ...] = ()

    @property
    def has_gpu(self) -> bool:
        """Whether there is a GPU that can be used."""
        return bool(self.gpus)


def detect_hardware(environment: Mapping[str, str] = os.environ) -> Hardware:
    """Look now. A machine without ``nvidia-smi`` has no GPU."""
    import psutil  # here, so that the doctor can read GPUs before anything is installed

    memory = psutil.virtual_memory()
    usable, set_aside = sort_gpus(parse_gpus(query_gpus()), environment.get(VISIBLE), torch_has_cuda())
    return Hardware(
        gpus=usable,
        memory_gb=memory.total / 2**30,
        used_gb=(memory.total - memory.available) / 2**30,
        cores=psutil.cpu_count() or 1,
        set_aside=set_aside,
    )


def sort_gpus(
    gpus: Sequence[Gpu], visible: str | None, cuda_torch: bool = True
) -> tuple[tuple[Gpu, ...], tuple[tuple[Gpu, Unusable], ...]]:
    """Part the GPUs into those that can be used and the others, each of these with its reason.

    Args:
        gpus: all that ``nvidia-smi`` lists.
        visible: the value of ``CUDA_VISIBLE_DEVICES``; None where it is not set.
        cuda_torch: whether the installed torch is a CUDA build.
    """
    shown = visible_gpus(gpus, visible)
    reasons = {gpu.index: unusable(gpu, cuda_torch) for gpu in gpus}
    usable = tuple(gpu for gpu in shown if reasons[gpu.index] is None)
    others = [(gpu, reasons[gpu.index] or Unusable.HIDDEN) for gpu in gpus if gpu not in usable]
    return usable, tuple(others)


def unusable(gpu: Gpu, cuda_torch: bool = True) -> Unusable | None:
    """Why our builds cannot use a GPU; None if they can."""
    if gpu.driver and driver_branch(gpu.driver) < OLDEST_DRIVER:
        return Unusable.OLD_DRIVER
    if gpu.capability is not None and gpu.capability < OLDEST_CAPABILITY:
        return Unusable.OLD_GPU
    if not cuda_torch:
        return Unusable.CPU_TORCH
    return Unusable.NO_MEMORY_FIGURE if gpu.memory_gb <= 0 else None


def visible_gpus(gpus: Sequence[Gpu], visible: str | None) -> tuple[Gpu, ...]:
    """The GPUs that ``CUDA_VISIBLE_DEVICES`` shows, in its order. The only reader of that variable.

    As in CUDA: entries are indices or the beginning of a UUID, and the list ends at the first entry that names no GPU
    (so ``-1`` hides all). An empty value hides all, too.

    Example:
        >>> two = (Gpu(0, "A", 24, 0), Gpu(1, "B", 24, 0, uuid="GPU-77af"))
        >>> [gpu.name for gpu in visible_gpus(two, "GPU-77,0")]
        ['B', 'A']
        >>> visible_gpus(two, "-1")
        ()
    """
    if visible is None:
        return tuple(gpus)
    shown: list[Gpu] = []
    for entry in (part.strip() for part in visible.split(",")):
        named = [
            gpu
            for gpu in gpus
            if (str(gpu.index) == entry if entry.isdigit() else entry and gpu.uuid.startswith(entry))
        ]
        if len(named) != 1 or named[0] in shown:
            break
        shown += named
    return tuple(shown)


def driver_branch(version: str) -> int:
    """The branch of a driver version: 580 for ``580.95.05``; 0 if it cannot be read."""
    first = version.partition(".")[0]
    return int(first) if first.isdigit() else 0


def torch_has_cuda() -> bool:
    """Whether the installed torch is a CUDA build, by its version alone: ``2.13.0+cpu`` is none."""
    try:
        return not importlib.metadata.version("torch").endswith("+cpu")
    except importlib.metadata.PackageNotFoundError:
        return False


def parse_gpus(csv: str) -> tuple[Gpu, ...]:
    """Read what ``nvidia-smi`` printed for `FIELDS`, with or without the capability at the end.

    A figure that it does not know (``[N/A]``) is None; unknown memory, as of GPUs that share the machine's, is 0.
    """
    gpus = []
    for line in csv.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) < 7 or not cells[0].isdigit():
            continue
        index, name, total, used, load, driver, uuid, *rest = cells
        gpus.append(
            Gpu(
                int(index),
                name,
                (_number(total) or 0.0) / 1024,
                (_number(used) or 0.0) / 1024,
                _number(load),
                _capability(rest[0]) if rest else None,
                driver,
                uuid,
            )
        )
    return tuple(gpus)


def query_gpus() -> str:
    """What ``nvidia-smi`` prints for `FIELDS`; empty where there is none, or it fails."""
    return ask_nvidia_smi("gpu", f"{FIELDS},{CAPABILITY_FIELD}") or ask_nvidia_smi("gpu", FIELDS)


def ask_nvidia_smi(subject: str, fields: str) -> str:
    """What ``nvidia-smi`` prints about a subject, as CSV without a header; empty where there is none, or it fails.

    Args:
        subject: ``gpu`` or ``compute-apps``.
        fields: names that ``nvidia-smi`` has for the columns, by commas.
    """
    command = shutil.which(NVIDIA_SMI) or shutil.which(WSL_NVIDIA_SMI)
    if command is None:
        return ""
    try:
        done = subprocess.run(
            [command, f"--query-{subject}={fields}", "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=QUERY_SECONDS,
            check=False,
            env=child_environment(Needs.SYSTEM),
        )
    except (subprocess.TimeoutExpired, OSError):
        return ""
    return done.stdout if done.returncode == 0 else ""


def _capability(cell: str) -> tuple[int, int] | None:
    major, _, minor = cell.partition(".")
    return (int(major), int(minor)) if major.isdigit() and minor.isdigit() else None


def _number(cell: str) -> float | None:
    return float(cell) if cell.replace(".", "", 1).isdigit() else None
