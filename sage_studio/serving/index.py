"""The passages of a dataset as vectors, kept on disk beside it and searched by cosine.

Knows the files of an index, when one may be used again, and how one is made. Knows nothing of processes: it is given
what embeds.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from sage_studio.data.chunking import Snippet
from sage_studio.errors import naming_full_disk
from sage_studio.files import write_atomically
from sage_studio.serving.embedder import BATCH, Vectors
from sage_studio.serving.types import Source

FORMAT = "1"
"""Changes when passages are cut or embedded in another way, so that old indexes are made anew."""
Embed = Callable[[Sequence[str]], Vectors]


@dataclass(frozen=True)
class Index:
    """Passages and their vectors, in the same order."""

    snippets: tuple[Snippet, ...]
    vectors: Vectors

    def search(self, vector: Vectors, count: int) -> list[Source]:
        """The ``count`` passages most like a question, the most alike first; ``vector`` has shape (dimensions,)."""
        scores = self.vectors @ vector
        best = np.argsort(-scores, kind="stable")[:count]
        return [
            Source(found.text, found.file, found.heading, round(float(scores[place]), 4))
            for place in best
            for found in [self.snippets[place]]
        ]


def index_path(folder: Path, fingerprint: str, dataset_sha256: str) -> Path:
    """Where the vectors of a dataset's passages by one model are kept, under the dataset's folder."""
    digest = hashlib.sha256("\n".join((FORMAT, fingerprint, dataset_sha256)).encode()).hexdigest()
    return folder / f"retrieval-{digest[:24]}.npy"


def load_index(path: Path) -> Index | None:
    """An index as it was kept; None where there is none or where its two files do not belong together."""
    try:
        vectors = np.load(path, allow_pickle=False)
        lines = path.with_suffix(".jsonl").read_text(encoding="utf-8").split("\n")
        snippets = tuple(Snippet(**json.loads(line)) for line in lines if line)
    except (OSError, ValueError, TypeError, EOFError):
        return None
    if vectors.ndim != 2 or len(vectors) != len(snippets) or vectors.dtype != np.float32:
        return None
    return Index(snippets, vectors)


def make_index(path: Path, snippets: Sequence[Snippet], embed: Embed, on_done: Callable[[int], None]) -> Index:
    """Embed passages and keep the index; ``on_done`` hears how many are done. Raises what ``embed`` does."""
    parts = []
    for start in range(0, len(snippets), BATCH):
        parts.append(embed([snippet.read for snippet in snippets[start : start + BATCH]]))
        on_done(min(start + BATCH, len(snippets)))
    index = Index(tuple(snippets), np.concatenate(parts).astype(np.float32))
    with naming_full_disk(path):
        lines = (json.dumps(asdict(snippet), ensure_ascii=False) for snippet in snippets)
        write_atomically(path.with_suffix(".jsonl"), "".join(f"{line}\n" for line in lines))
        unfinished = path.with_name(f".{path.name}.npy")
        np.save(unfinished, index.vectors, allow_pickle=False)
        unfinished.replace(path)
    return index


def fingerprint_of(location: str) -> str:
    """What tells one embedder from another: of a folder the hash of its weights and settings, else the hub id."""
    folder = Path(location)
    if not folder.is_absolute():
        return location
    digest = hashlib.sha256()
    for path in sorted((*folder.glob("*.safetensors"), *folder.glob("*config*.json"), *folder.glob("*/config.json"))):
        if "checkpoints" not in path.parts:
            digest.update(path.name.encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
