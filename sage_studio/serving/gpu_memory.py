"""How much of each GPU our own engine holds, as `nvidia-smi` tells, or by what the engine was told to take.

In a container, and under WSL2, `nvidia-smi` names no processes or no figures: then the engine's own share counts.
"""

import shutil
import subprocess
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sage_studio.hardware import NVIDIA_SMI, QUERY_SECONDS, WSL_NVIDIA_SMI, Hardware
from sage_studio.serving.records import EngineRecord

FIELDS = "pid,used_memory,gpu_uuid"


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process holds of a GPU, in GiB; None where the driver does not tell."""

    pid: int
    used_gb: float | None
    uuid: str


def held_by(
    engine: EngineRecord, hardware: Hardware, usage: Sequence[Usage], members: Collection[int]
) -> dict[int, float]:
    """What an engine holds of each GPU, in GiB by index; nothing while it sleeps.

    Args:
        engine: as it is on record.
        usage: what all processes hold.
        members: process ids of the engine.
    """
    if engine.phase == "asleep":
        return {}
    held = {}
    for card in hardware.cards:
        if card.index not in engine.cards:
            continue
        told = [one.used_gb for one in usage if one.uuid == card.uuid and one.pid in members and one.used_gb]
        held[card.index] = min(sum(told) if told else engine.memory_share * card.memory_gb, card.used_gb)
    return held


def query_usage() -> tuple[Usage, ...]:
    """Ask `nvidia-smi` now; empty where there is none, or it fails."""
    command = shutil.which(NVIDIA_SMI) or shutil.which(WSL_NVIDIA_SMI)
    if command is None:
        return ()
    arguments = [command, f"--query-compute-apps={FIELDS}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=QUERY_SECONDS, check=False)
    except (subprocess.TimeoutExpired, OSError):
        return ()
    return parse_usage(done.stdout) if done.returncode == 0 else ()


def parse_usage(csv: str) -> tuple[Usage, ...]:
    """Read what `nvidia-smi` printed for `FIELDS`; MiB become GiB.

    Example:
        >>> parse_usage("4711, 9830, GPU-77af\\n812, [N/A], GPU-77af\\n")[0]
        Usage(pid=4711, used_gb=9.599609375, uuid='GPU-77af')
    """
    found = []
    for line in csv.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) == 3 and cells[0].isdigit():
            used = float(cells[1]) / 1024 if cells[1].replace(".", "", 1).isdigit() else None
            found.append(Usage(int(cells[0]), used, cells[2]))
    return tuple(found)
