"""The retriever: the embedder's process, an index of passages, and the search in it."""

import base64
import contextlib
import hashlib
import json
import os
import secrets
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import httpx
import numpy as np
from numpy.typing import NDArray

from sage_studio.child_environment import Needs, child_environment
from sage_studio.data.chunking import Snippet, snippets_of
from sage_studio.data.dataset import Dataset
from sage_studio.data.store import read_rows
from sage_studio.database import Database
from sage_studio.errors import EmbedderUnavailable, InvalidDataset, NotFound, StudioError, naming_full_disk
from sage_studio.files import write_atomically
from sage_studio.models.model_folder import is_here
from sage_studio.processes import (
    POLL_SECONDS,
    ChildProcess,
    last_words,
    start_with_log,
)
from sage_studio.serving.embedding_server import KEY_VARIABLE
from sage_studio.serving.sockets import HOST, address_of, new_socket, open_client, remove_socket
from sage_studio.serving.types import Source
from sage_studio.settings import PROJECT, Settings
from sage_studio.text import NOTHING, Text

# The embedder's process

Vectors = NDArray[np.float32]
"""Shape (texts, dimensions); each row has length 1, so that a product of two is their cosine."""

BATCH = 64
ANSWER_SECONDS = 300.0
STOP_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class EmbedderModel:
    """What is loaded: a folder or hub id, and whether code that comes with it may run."""

    location: str
    trust_remote_code: bool = False


@dataclass(frozen=True, slots=True)
class _Child:
    model: EmbedderModel
    process: ChildProcess
    socket: Path
    http: httpx.Client

    def end(self) -> None:
        """End the process; nothing of it is left."""
        self.http.close()
        self.process.stop(STOP_SECONDS)
        remove_socket(self.socket)


class Embedder:
    """At most one embedder at a time; safe to use from many threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._log = settings.root / "embedder.log"
        self._lock = threading.Lock()
        self._child: _Child | None = None

    def embed(self, model: EmbedderModel, texts: Sequence[str], query: bool = False) -> Vectors:
        """Vectors of a few texts.

        Raises:
            EmbedderUnavailable: it does not start, or it went away twice; the message quotes its log.
        """
        child = self._ready(model)
        try:
            return self._ask(child, texts, query)
        except httpx.TransportError:
            self._forget(child)
        try:
            return self._ask(self._ready(model), texts, query)
        except httpx.TransportError as error:
            raise self._gone(model) from error

    @property
    def process(self) -> ChildProcess | None:
        """Its process while it runs."""
        child = self._child
        return child.process if child is not None and child.process.is_alive() else None

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._end()

    def _ready(self, model: EmbedderModel) -> _Child:
        with self._lock:
            child = self._child
            if child is not None and child.model == model and child.process.is_alive():
                return child
            self._end()
            self._child = self._start(model)
            return self._child

    def _start(self, model: EmbedderModel) -> _Child:
        socket, key = new_socket(), secrets.token_urlsafe(24)
        command = [sys.executable, "-m", "sage_studio.serving.embedding_server", "--model", model.location]
        command += ["--uds", str(socket), *(["--trust-remote-code"] if model.trust_remote_code else [])]
        quiet = {"OMP_WAIT_POLICY": "PASSIVE", KEY_VARIABLE: key, "PYTHONPATH": str(PROJECT)}
        needs = Needs.LIBRARIES if is_here(model.location) else Needs.HUB
        process = start_with_log(command, child_environment(needs, quiet), self._settings.root, self._log)
        child = _Child(model, process, socket, open_client(address_of(socket), key, timeout=ANSWER_SECONDS))
        self._wait(child)
        return child

    def _wait(self, child: _Child) -> None:
        deadline = time.monotonic() + self._settings.engine_start_seconds
        while True:
            try:
                if child.http.get(f"{HOST}/health").is_success:
                    return
            except httpx.TransportError:
                pass
            if not child.process.is_alive() or time.monotonic() > deadline:
                child.end()
                raise self._gone(child.model)
            time.sleep(POLL_SECONDS)

    def _ask(self, child: _Child, texts: Sequence[str], query: bool) -> Vectors:
        body = {"model": child.model.location, "input": list(texts), "input_type": "query" if query else "passage"}
        try:
            answer = child.http.post("/embeddings", json=body)
        except RuntimeError as error:  # httpx's word for a client that another thread has closed
            raise httpx.TransportError(str(error)) from error
        if answer.is_error:
            raise self._gone(child.model)
        rows = [np.frombuffer(base64.b64decode(row["embedding"]), dtype="<f4") for row in answer.json()["data"]]
        return np.stack(rows).astype(np.float32)

    def _forget(self, child: _Child) -> None:
        """End a child that does not answer, unless another thread has done so."""
        with self._lock:
            if self._child is child:
                self._end()

    def _end(self) -> None:
        if self._child is not None:
            self._child.end()
            self._child = None

    def _gone(self, model: EmbedderModel) -> EmbedderUnavailable:
        name, words = Path(model.location).name, last_words(self._log)
        return EmbedderUnavailable(
            Text("The embedder {name} does not run: {words}", name=name, words=words),
            Text("Try again, choose another retriever, or chat without documents. Log: {log}", log=self._log),
        )


# The index

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
    with contextlib.suppress(OSError):  # a folder that cannot be written keeps all its indexes
        os.utime(path)  # used now: see `_remove_old_indexes`
    return Index(snippets, vectors)


def build_index(path: Path, snippets: Sequence[Snippet], embed: Embed, on_done: Callable[[int], None]) -> Index:
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
    _remove_old_indexes(path)
    return index


def _remove_old_indexes(newest: Path) -> None:
    """Keep the indexes of a dataset that were used last, `INDEXES_KEPT` of them."""
    others = [path for path in newest.parent.glob("retrieval-*.npy") if path != newest]
    for path in sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)[INDEXES_KEPT - 1 :]:
        path.unlink(missing_ok=True)
        path.with_suffix(".jsonl").unlink(missing_ok=True)


def embedder_fingerprint(location: str) -> str:
    """What tells one embedder from another: of a folder the hash of its weights and settings, else the hub id."""
    folder = Path(location)
    if not folder.is_absolute():
        return location
    digest = hashlib.sha256()
    for path in sorted((*folder.glob("*.safetensors"), *folder.glob("*config*.json"), *folder.glob("*/config.json"))):
        if "checkpoints" not in path.parts:
            digest.update(path.name.encode())
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


# The retriever

INDEXES_KEPT = 2
"""Indexes that stay in memory; and on the disk, for each dataset."""


@dataclass(frozen=True, slots=True)
class RetrieverConfig:
    """What looks things up.

    Attributes:
        model: its name for the user.
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

    @property
    def chosen(self) -> RetrieverConfig | None:
        """What was chosen; None while nothing was."""
        rows = self._database.rows("SELECT model, location, trust_remote_code, task_id, dataset_id FROM retriever")
        return (
            RetrieverConfig(**{**dict(rows[0]), "trust_remote_code": bool(rows[0]["trust_remote_code"])})
            if rows
            else None
        )

    def choose(self, choice: RetrieverConfig) -> None:
        """Let another embedder look things up from now on."""
        with self._database.transaction() as sql:
            sql.execute(
                "INSERT OR REPLACE INTO retriever VALUES (1, :model, :location, :trust_remote_code, :task_id, "
                ":dataset_id)",
                asdict(choice),
            )
        self.status = IndexStatus()

    def prepare(self, choice: RetrieverConfig, dataset: Dataset, folder: Path) -> Index:
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
            self._indexes = {**dict(list(self._indexes.items())[1 - INDEXES_KEPT :]), path: index}
            self.status = IndexStatus("ready", dataset.id, len(index.snippets), len(index.snippets))
            return index

    def search(
        self, choice: RetrieverConfig, dataset: Dataset, folder: Path, question: str, count: int
    ) -> list[Source]:
        """The passages of a dataset that are most like a question. Raises as `prepare` does."""
        index = self.prepare(choice, dataset, folder)
        model = EmbedderModel(choice.location, choice.trust_remote_code)
        return index.search(self.embedder.embed(model, [question], query=True)[0], count)

    def close(self) -> None:
        """End the embedder's process."""
        self.embedder.close()

    def _make(self, path: Path, choice: RetrieverConfig, dataset: Dataset) -> Index:
        model = EmbedderModel(choice.location, choice.trust_remote_code)
        self.status = IndexStatus("building", dataset.id)
        try:
            snippets = list(snippets_of(read_rows(path.parent, 0, dataset.stats.total_samples)))
            if not snippets:
                raise InvalidDataset(
                    Text("{id} has no passages to search.", id=dataset.id),
                    Text("Choose another dataset."),
                )
            self.status = replace(self.status, passages=len(snippets))
            return build_index(path, snippets, lambda texts: self.embedder.embed(model, texts), self._done)
        except StudioError as error:
            self.status = IndexStatus("failed", dataset.id, message=error.message)
            raise

    def _done(self, count: int) -> None:
        self.status = replace(self.status, done=count)

    def _fingerprint(self, location: str) -> str:
        weights = [path.stat().st_mtime for path in Path(location).glob("*.safetensors")]
        key = (location, max(weights, default=0.0))
        if key not in self._fingerprints:
            self._fingerprints[key] = embedder_fingerprint(location)
        return self._fingerprints[key]


def _check_folder(choice: RetrieverConfig) -> None:
    folder = Path(choice.location)
    if folder.is_absolute() and not any(folder.glob("*.safetensors")):
        raise NotFound(
            Text("The folder of the retriever {model} is gone: {folder}.", model=choice.model, folder=folder),
            Text("Choose another retriever, or train again."),
        )
