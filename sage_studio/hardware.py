"""What this machine has: cards, memory and free space.

Knows how to ask ``nvidia-smi`` and the operating system. Never imports torch, so the web process may use it.
"""

import shutil
import subprocess
from dataclasses import dataclass

import psutil

QUERY = [
    "nvidia-smi",
    "--query-gpu=index,name,memory.total,memory.used,utilization.gpu",
    "--format=csv,noheader,nounits",
]
QUERY_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Card:
    """One NVIDIA card; memory in GiB, load in percent."""

    index: int
    name: str
    memory_gb: float
    used_gb: float
    load_percent: float | None = None


@dataclass(frozen=True, slots=True)
class Hardware:
    """The machine; memory in GiB."""

    cards: tuple[Card, ...]
    memory_gb: float
    used_gb: float
    cores: int

    @property
    def has_gpu(self) -> bool:
        """Whether there is an NVIDIA card."""
        return bool(self.cards)


def detect_hardware() -> Hardware:
    """Look now. A machine without ``nvidia-smi`` has no card."""
    memory = psutil.virtual_memory()
    return Hardware(
        cards=parse_cards(_nvidia_smi()),
        memory_gb=memory.total / 2**30,
        used_gb=(memory.total - memory.available) / 2**30,
        cores=psutil.cpu_count() or 1,
    )


def parse_cards(csv: str) -> tuple[Card, ...]:
    """Read what ``nvidia-smi`` printed for `QUERY`; a figure it does not know (``[N/A]``) is left out."""
    rows = [[cell.strip() for cell in line.split(",")] for line in csv.splitlines() if line.count(",") == 4]
    return tuple(
        Card(int(index), name, float(total) / 1024, float(used) / 1024, _number(load))
        for index, name, total, used, load in rows
        if index.isdigit() and _number(total) is not None and _number(used) is not None
    )


def _nvidia_smi() -> str:
    if shutil.which(QUERY[0]) is None:
        return ""
    try:
        return subprocess.run(QUERY, capture_output=True, text=True, timeout=QUERY_SECONDS, check=False).stdout
    except subprocess.TimeoutExpired:
        return ""


def _number(cell: str) -> float | None:
    return float(cell) if cell.replace(".", "", 1).isdigit() else None
