"""Which checkpoint to continue from.

Knows what a whole checkpoint consists of and how to tell one that was cut off while it was written. Imports no torch.
"""

import json
import shutil
import zipfile
from pathlib import Path

WEIGHTS = ("adapter_model.safetensors", "model.safetensors", "model.safetensors.index.json")
STATE = "trainer_state.json"


def newest_checkpoint(folder: Path) -> Path | None:
    """The whole checkpoint with the most steps; broken ones are passed over."""
    return next((path for path in _newest_first(folder) if is_whole(path)), None)


def remove_broken(folder: Path) -> list[Path]:
    """Delete checkpoints that were cut off; they only take room. Returns what was deleted."""
    broken = [path for path in _newest_first(folder) if not is_whole(path)]
    for path in broken:
        shutil.rmtree(path, ignore_errors=True)
    return broken


def step_of(checkpoint: Path) -> int:
    """The optimizer steps done when it was written."""
    return int(checkpoint.name.rpartition("-")[2])


def is_whole(checkpoint: Path) -> bool:
    """Whether nothing is missing: the state is written last, and each file's end must be there."""
    try:
        state = json.loads((checkpoint / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    packed = [checkpoint / "optimizer.pt", checkpoint / "scheduler.pt", *checkpoint.glob("rng_state*.pth")]
    weights = [checkpoint / name for name in WEIGHTS if (checkpoint / name).is_file()]
    return (
        state.get("global_step") == step_of(checkpoint)
        and bool(weights)
        and all(_tensors_whole(path) for path in checkpoint.glob("*.safetensors"))
        and all(zipfile.is_zipfile(path) for path in packed)
    )


def _newest_first(folder: Path) -> list[Path]:
    found = [path for path in folder.glob("checkpoint-*") if path.name.rpartition("-")[2].isdigit()]
    return sorted(found, key=step_of, reverse=True)


def _tensors_whole(path: Path) -> bool:
    """Whether the file is as long as its header says."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        try:
            header = json.loads(file.read(min(size, path.stat().st_size)))
        except ValueError:
            return False
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    return path.stat().st_size == 8 + size + max(ends, default=0)
