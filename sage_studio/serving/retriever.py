"""The retriever: which embedder looks things up, in which dataset, and the index that it does so with.

Knows the choice, which survives a restart, and how an index comes about with its progress. Knows nothing of tasks,
of the catalogue or of chats.
"""

import threading
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from sage_studio.data.chunking import snippets_of
from sage_studio.data.dataset import Dataset
from sage_studio.data.row_file import read_rows
from sage_studio.database import Database
from sage_studio.errors import InvalidDataset, NotFound, StudioError
from sage_studio.serving.embedder import Embedder, EmbedderModel
from sage_studio.serving.index import Index, fingerprint_of, index_path, load_index, make_index
from sage_studio.serving.types import Source
from sage_studio.settings import Settings
from sage_studio.text import NOTHING, Text

SCHEMA = """
CREATE TABLE IF NOT EXISTS retriever (
  id INTEGER PRIMARY KEY CHECK (id = 1), model TEXT NOT NULL, location TEXT NOT NULL,
  trust_remote_code INTEGER NOT NULL, task_id TEXT NOT NULL, dataset_id TEXT NOT NULL);
"""
KEPT = 2
"""Indexes that stay in memory."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What looks things up.

    Attributes:
        model: what a person calls it.
        location: its folder or hub id.
        task_id: the task that trained it; empty for a base embedder.
        dataset_id: where it looks unless told otherwise; empty for the documentation, else the newest dataset.
    """

    model: str
    location: str
    trust_remote_code: bool = False
    task_id: str = ""
    dataset_id: str = ""


@dataclass(frozen=True, slots=True)
class IndexStatus:
    """How far an index is.

    Attributes:
        state: nothing asked for yet, being made, ready, or failed.
        done, passages: of so many.
        message: why it failed.
    """

    state: Literal["idle", "building", "ready", "failed"] = "idle"
    dataset_id: str = ""
    done: int = 0
    passages: int = 0
    message: Text = NOTHING


class Retriever:
    """Looks passages up; safe to use from many threads, which wait while an index is made."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self.embedder = Embedder(settings)
        self.status = IndexStatus()
        self._database = database
        self._indexes: dict[Path, Index] = {}
        self._fingerprints: dict[tuple[str, float], str] = {}
        self._building = threading.Lock()
        database.create(SCHEMA)

    @property
    def chosen(self) -> Choice | None:
        """What was chosen; None while nothing was."""
        rows = self._database.rows("SELECT model, location, trust_remote_code, task_id, dataset_id FROM retriever")
        return Choice(**{**dict(rows[0]), "trust_remote_code": bool(rows[0]["trust_remote_code"])}) if rows else None

    def choose(self, choice: Choice) -> None:
        """Let another embedder look things up from now on."""
        with self._database.transaction() as sql:
            sql.execute(
                "INSERT OR REPLACE INTO retriever VALUES (1, :model, :location, :trust_remote_code, :task_id, "
                ":dataset_id)",
                asdict(choice),
            )
        self.status = IndexStatus()

    def prepare(self, choice: Choice, dataset: Dataset, folder: Path) -> Index:
        """The index of a dataset's passages, made first if it is not there.

        Args:
            folder: the dataset's own.

        Raises:
            NotFound: the embedder's folder is gone.
            InvalidDataset: the dataset has no passage.
            EmbedderUnavailable, StorageFull: nothing is kept then.
        """
        _check_folder(choice)
        with self._building:
            path = index_path(folder, self._fingerprint(choice.location), dataset.sha256)
            index = self._indexes.get(path) or load_index(path)
            if index is None:
                index = self._make(path, choice, dataset)
            self._indexes = {**dict(list(self._indexes.items())[1 - KEPT :]), path: index}
            self.status = IndexStatus("ready", dataset.id, len(index.snippets), len(index.snippets))
            return index

    def search(self, choice: Choice, dataset: Dataset, folder: Path, question: str, count: int) -> list[Source]:
        """The passages of a dataset that are most like a question. Raises as `prepare` does."""
        index = self.prepare(choice, dataset, folder)
        model = EmbedderModel(choice.location, choice.trust_remote_code)
        return index.search(self.embedder.embed(model, [question], query=True)[0], count)

    def close(self) -> None:
        """End the embedder's process."""
        self.embedder.close()

    def _make(self, path: Path, choice: Choice, dataset: Dataset) -> Index:
        model = EmbedderModel(choice.location, choice.trust_remote_code)
        self.status = IndexStatus("building", dataset.id)
        try:
            snippets = list(snippets_of(read_rows(path.parent, 0, dataset.stats.total_samples)))
            if not snippets:
                raise InvalidDataset(
                    Text(f"{dataset.id} has no passage to look up.", f"{dataset.id} 中没有可检索的段落。"),
                    Text("Choose another dataset.", "请选择其他数据集。"),
                )
            self.status = replace(self.status, passages=len(snippets))
            return make_index(path, snippets, lambda texts: self.embedder.embed(model, texts), self._done)
        except StudioError as error:
            self.status = IndexStatus("failed", dataset.id, message=error.message)
            raise

    def _done(self, count: int) -> None:
        self.status = replace(self.status, done=count)

    def _fingerprint(self, location: str) -> str:
        weights = [path.stat().st_mtime for path in Path(location).glob("*.safetensors")]
        key = (location, max(weights, default=0.0))
        if key not in self._fingerprints:
            self._fingerprints[key] = fingerprint_of(location)
        return self._fingerprints[key]


def _check_folder(choice: Choice) -> None:
    folder = Path(choice.location)
    if folder.is_absolute() and not any(folder.glob("*.safetensors")):
        raise NotFound(
            Text(
                f"The folder of the retriever {choice.model} is gone: {folder}.",
                f"检索器 {choice.model} 的文件夹已不存在：{folder}。",
            ),
            Text("Choose another retriever, or train again.", "请选择其他检索器，或重新训练。"),
        )
