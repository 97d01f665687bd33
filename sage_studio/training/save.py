"""What a run leaves in its task folder: model, lineage, checkpoints to resume from."""

import errno
import hashlib
import json
import os
import shutil
import time
import zipfile
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from sage_studio.errors import Conflict, NotFound, StorageFull, naming_full_disk
from sage_studio.files import path_of, write_atomically
from sage_studio.models.model_folder import CONFIG, TOKENIZER, cached_file, is_local
from sage_studio.safetensors_file import is_complete
from sage_studio.text import Text
from sage_studio.training.environment import device_name, versions
from sage_studio.training.progress import JOB, PROGRESS, RECIPE, RESULT
from sage_studio.training.run import Run

ARGUMENTS = "training_args.json"
NOT_COPIED = ("checkpoints", PROGRESS, RESULT, JOB, "*.log", ".*")


class OutputNotEmpty(Conflict):
    """The folder that is to get the copy holds something already."""

    code = "output_taken"


def check_output(folder: str) -> None:
    """Raise `OutputNotEmpty` or `OSError` unless a copy can be put there; called before training, and makes nothing."""
    if not folder:
        return
    path = path_of(folder, "output_dir")
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise OutputNotEmpty(
            Text("output_dir = {folder} is not empty.", folder=folder),
            Text("Name a new or an empty folder."),
        )
    there = next(each for each in (path, *path.absolute().parents) if each.exists())
    if not there.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(there))
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(there))


def save_model(run: Run[Any], model: Any, tokenizer: Any, dtype: Any) -> None:
    """Write weights, tokenizer and chat template; a model trained whole is stored in ``dtype``."""
    with naming_full_disk(run.folder):
        if run.state.model_kind == "adapter":
            model.save_pretrained(run.folder, save_embedding_layers=False, selected_adapters=["default"])
            (run.folder / "README.md").unlink(missing_ok=True)  # peft's empty model card
        else:
            model.config.use_cache = True
            model.to(dtype).save_pretrained(run.folder)
        tokenizer.save_pretrained(run.folder)


def write_arguments(run: Run[Any], template: str, figures: dict[str, Any]) -> None:
    """Write ``lineage.json``, then ``training_args.json``: recipe, orders, versions and counts.

    The latter says that the model before it is whole.
    """
    write_lineage(
        run.folder,
        dataset_id=run.job.dataset_id or run.recipe.dataset_id,
        dataset_sha256=run.job.dataset_sha256,
        docs_commit=run.job.docs_commit,
        rows=run.state.rows,
        base_model=run.recipe.model_name_or_path,
        base_revision=base_revision(run.job.model_location),
        chat_template_sha256=sha256_of(template),
        versions=versions(),
        hardware=device_name(),
        recipe=run.recipe.model_dump(mode="json"),
        reproduces=run.job.reproduces,
    )
    content = {
        "recipe": run.recipe.model_dump(mode="json"),
        "job": run.job.model_dump(mode="json"),
        "versions": versions(),
        "chat_template_sha256": sha256_of(template),
        "model_kind": run.state.model_kind,
        "steps": run.state.steps,
        "tokens": run.state.tokens,
        "rows": run.state.rows,
        **figures,
    }
    write_atomically(run.folder / ARGUMENTS, json.dumps(content, ensure_ascii=False, indent=2))


def copy_output(run: Run[Any]) -> None:
    """Copy the model to the recipe's ``output_dir``, if it names one."""
    if not run.recipe.output_dir:
        return
    target = path_of(run.recipe.output_dir, "output_dir")
    with naming_full_disk(target):
        shutil.copytree(run.folder, target, ignore=shutil.ignore_patterns(*NOT_COPIED), dirs_exist_ok=True)
    print(f"copied to {target} (with {RECIPE} and {ARGUMENTS})")


# Checkpoints

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
    raise StorageFull(
        Text(
            "{kept} checkpoints need {need:.1f} GiB on the disk of {folder}; {free:.1f} GiB are free.",
            kept=kept + 1,
            need=need / GIB,
            folder=folder,
            free=free / GIB,
        ),
        Text("Make room, keep fewer checkpoints (save_total_limit), or train an adapter instead of the whole model."),
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


# Lineage

LINEAGE = "lineage.json"
SAMPLE = 1 << 20
"""Bytes read of each end of a weights file for its fingerprint: all of a large model would take minutes."""
FINGERPRINTED = (CONFIG, TOKENIZER, "*.safetensors", "*.bin")
PRIVATE = ("output_dir", "train_data_path", "input_path", "config_file")
"""Fields of a recipe that are paths of this machine and change nothing about the model."""


class Lineage(BaseModel):
    """The manifest.

    Attributes:
        dataset_sha256: of ``data.jsonl``.
        docs_commit: of the documentation that the rows were made of; empty for other sources.
        base_revision: the hub's commit, or a fingerprint of a local folder.
        reproduces: id of the task whose run this repeats; empty unless it does.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    task: str
    created_at: float
    dataset_id: str
    dataset_sha256: str
    docs_commit: str
    rows: int
    base_model: str
    base_revision: str
    chat_template_sha256: str
    versions: dict[str, str]
    hardware: str
    recipe: dict[str, Any]
    seed: int
    reproduces: str = ""


def write_lineage(folder: Path, **fields: Any) -> None:
    """Write the manifest of the task whose folder it is."""
    recipe = {name: value for name, value in fields.pop("recipe").items() if name not in PRIVATE}
    lineage = Lineage(task=folder.name, created_at=time.time(), recipe=recipe, seed=recipe["seed"], **fields)
    write_atomically(folder / LINEAGE, lineage.model_dump_json(indent=2))


def read_lineage(folder: Path) -> Lineage:
    """The manifest. Raises `NotFound` where there is none, or one of another shape."""
    try:
        return Lineage.model_validate_json((folder / LINEAGE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise NotFound(
            Text("{name} has no readable {lineage}.", name=folder.name, lineage=LINEAGE),
            Text("Only runs that were completed by this version can be told again."),
        ) from error


def base_revision(location: str) -> str:
    """Which version of a base model this is: the hub's commit in the local cache, or a local folder's fingerprint."""
    if not is_local(location):
        config = cached_file(location, CONFIG)
        return "" if config is None else config.parent.name
    folder = Path(location)
    digest = hashlib.sha256()
    for path in sorted(path for pattern in FINGERPRINTED for path in folder.glob(pattern)):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            digest.update(file.read(SAMPLE))
            file.seek(max(0, size - SAMPLE))
            digest.update(file.read(SAMPLE))
    return f"fingerprint:{digest.hexdigest()}"


def changed_versions(lineage: Lineage, now: dict[str, str]) -> str:
    """``trl 1.15 → 1.16``: libraries that are others than they were; empty if none is."""
    names = sorted({*lineage.versions, *now})
    pairs = [(name, lineage.versions.get(name, "–"), now.get(name, "–")) for name in names]
    return ", ".join(f"{name} {before} → {after}" for name, before, after in pairs if before != after)


def sha256_of(text: str) -> str:
    """Of a text in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()
