"""``lineage.json``: what a model was made of, without paths of this machine.

A run can be repeated from it: rows, base model, chat template, recipe, seed and library versions. Imports no torch.
"""

import hashlib
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from sage_studio.errors import NotFound
from sage_studio.files import write_atomically
from sage_studio.models.model_folder import CONFIG, TOKENIZER, cached_file, is_local
from sage_studio.text import Text

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
            Text(f"{folder.name} has no readable {LINEAGE}.", f"{folder.name} 没有可读的 {LINEAGE}。"),
            Text("Only runs that were completed by this version can be told again.", "只有本版本完成的任务才能复现。"),
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
