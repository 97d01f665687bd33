"""Finds the newest complete checkpoint to resume from, and whether the disk has room for more.

A checkpoint that was cut off while it was written is recognised and deleted. Imports no torch.
"""

import json
import shutil
import zipfile
from pathlib import Path

from sage_studio.errors import StorageFull
from sage_studio.safetensors_file import is_complete
from sage_studio.text import Text

GIB = 2**30
COPIES = 3
"""A checkpoint holds the trained weights and two moments of each."""
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


def check_room(folder: Path, trained: int, kept: int) -> None:
    """See that a run's checkpoints will fit on the disk, before it spends hours on what it could not save.

    Args:
        folder: where they are written; what lies in it already is given up for new ones.
        trained: bytes of the weights that are trained.
        kept: how many stay; one more is there while it is written.

    Raises:
        StorageFull: saying how much is needed, how much there is, and what to do.
    """
    there = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    need, free = (kept + 1) * COPIES * trained, shutil.disk_usage(folder).free + there
    if need <= free:
        return
    amounts = f"{need / GIB:.1f} GiB", f"{free / GIB:.1f} GiB"
    raise StorageFull(
        Text(
            f"{kept + 1} checkpoints need {amounts[0]} on the disk of {folder}; {amounts[1]} are free.",
            f"{kept + 1} 个检查点需要 {amounts[0]}，{folder} 所在磁盘剩余 {amounts[1]}。",
        ),
        Text(
            "Make room, keep fewer checkpoints (save_total_limit), or train an adapter instead of the whole model.",
            "请腾出空间、减少保留的检查点 (save_total_limit)，或训练适配器而非整个模型。",
        ),
    )


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
        and all(is_complete(path) for path in checkpoint.glob("*.safetensors"))
        and all(zipfile.is_zipfile(path) for path in packed)
    )


def _newest_first(folder: Path) -> list[Path]:
    found = [path for path in folder.glob("checkpoint-*") if path.name.rpartition("-")[2].isdigit()]
    return sorted(found, key=step_of, reverse=True)
