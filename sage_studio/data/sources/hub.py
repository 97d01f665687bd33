"""Datasets on the Hugging Face Hub as sources of rows, one file at a time.

Over plain HTTP, by ``HF_ENDPOINT``, ``HF_TOKEN`` and ``HF_HUB_OFFLINE``. Only data files are fetched, never loading
scripts.
"""

import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal
from urllib.parse import quote, urljoin, urlsplit

import httpx

from sage_studio.data.column_mapping import ColumnMapping
from sage_studio.data.dataset import Dropped, FormatCount, OnProgress, ignore_progress
from sage_studio.data.formats import IgnoredColumns, RecordReader
from sage_studio.data.readers.content import CHUNK, FileContent, decompressed_too_large, unsupported_file
from sage_studio.data.readers.file_type import JSONS, TABLES, detect_file_type, read_records
from sage_studio.data.rows import DataRow
from sage_studio.errors import HubUnavailable, InvalidDataset, InvalidInput, NotFound, naming_full_disk
from sage_studio.text import Text

ENDPOINT = "https://huggingface.co"
REPO = re.compile(r"[\w-][\w.-]{0,95}(/[\w-][\w.-]{0,95})?")
SECONDS = 30.0
TRUE = ("1", "true", "yes", "on")
SPLITS = ("train", "test", "validation", "valid", "val", "dev", "eval")
NOT_ROWS = re.compile(r"(^|/)(dataset_infos?|config|metadata|state|\.[^/]*)\.json$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class HubDataFile:
    """One data file: its path in the dataset and its address under the hub."""

    path: str
    address: str


@dataclass(frozen=True, slots=True)
class HubFiles:
    """The files of one split, in order, at one revision."""

    revision: str
    files: tuple[HubDataFile, ...]


class HubClient:
    """HTTP client of the Hub, configured by the environment; a context manager."""

    def __init__(self) -> None:
        self.endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or ENDPOINT
        token = os.environ.get("HF_TOKEN", "")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = httpx.Client(timeout=SECONDS, headers=headers, follow_redirects=True)

    def __enter__(self) -> "HubClient":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def files(self, repo: str, config: str = "", split: str = "") -> HubFiles:
        """The data files of a dataset's split.

        Args:
            repo: ``owner/name``.
            config: one of its configurations; empty for ``default`` or the only one.
            split: empty for ``train`` or the only one.

        Raises:
            InvalidInput: no such configuration or split, naming those there are; or nothing but scripts and pictures.
            NotFound: no such dataset, or it is private or gated.
            HubUnavailable: no answer.
        """
        check_repo(repo)
        info = self._json(f"/api/datasets/{repo}", repo)
        revision = str(info.get("sha") or "main")
        parquet = self._parquet(repo)
        if parquet:
            chosen = _chosen(_chosen(parquet, config, "default", Text("configuration")), split, "train", Text("split"))
            return HubFiles(revision, tuple(self._own(address, n) for n, address in enumerate(chosen)))
        paths = [str(each.get("rfilename", "")) for each in info.get("siblings") or []]
        splits = _by_split([path for path in paths if _holds_rows(path) and config in ("", *PurePosixPath(path).parts)])
        if not splits:
            raise _no_rows(repo)
        base = f"/datasets/{repo}/resolve/{quote(revision)}/"
        return HubFiles(
            revision,
            tuple(
                HubDataFile(path, base + quote(path)) for path in sorted(_chosen(splits, split, "train", Text("split")))
            ),
        )

    def fetch(self, file: HubDataFile, to: Path, max_bytes: int, on_progress: OnProgress) -> None:
        """Download a file. Raises as `files`, and `InvalidDataset` if it is larger than ``max_bytes``."""
        with self._asking(file.path), self._http.stream("GET", self.endpoint + file.address) as answer:
            answer.raise_for_status()
            size, done = int(answer.headers.get("content-length") or 0), 0
            words = Text("Fetching {path}", path=file.path)
            with naming_full_disk(to), to.open("wb") as target:
                for piece in answer.iter_bytes(CHUNK):
                    done += len(piece)
                    if done > max_bytes:
                        raise decompressed_too_large(file.path, max_bytes)
                    target.write(piece)
                    on_progress(min(1.0, done / size) if size else 0.0, words)

    def _own(self, address: str, number: int) -> HubDataFile:
        """A file that the Hub names by a full URL, requested from the endpoint, which may be a mirror."""
        path = urlsplit(urljoin(self.endpoint, address)).path
        return HubDataFile("/".join(path.split("/parquet/")[-1:]) or f"{number}.parquet", path)

    def _parquet(self, repo: str) -> dict[str, dict[str, list[str]]]:
        """URLs of the Hub's Parquet conversion per configuration and split; empty if there is none."""
        try:
            answer = self._http.get(f"{self.endpoint}/api/datasets/{repo}/parquet")
            found = answer.json() if answer.status_code == httpx.codes.OK else {}
        except (httpx.HTTPError, ValueError):
            return {}
        return found if isinstance(found, dict) and all(isinstance(each, dict) for each in found.values()) else {}

    def _json(self, route: str, asked: str) -> dict[str, Any]:
        with self._asking(asked):
            answer = self._http.get(self.endpoint + route)
            answer.raise_for_status()
            found = answer.json()
        if not isinstance(found, dict):
            raise self._unavailable(f"its answer is {type(found).__name__}")
        return found

    @contextmanager
    def _asking(self, asked: str) -> Iterator[None]:
        if os.environ.get("HF_HUB_OFFLINE", "").lower() in TRUE:
            raise self._unavailable("HF_HUB_OFFLINE is set")
        try:
            yield
        except httpx.HTTPStatusError as error:
            status = error.response.status_code
            if status not in (401, 403, 404):
                raise self._unavailable(f"HTTP {status}") from error
            raise NotFound(
                Text(
                    "The hub at {endpoint} has no dataset {asked} for you (HTTP {status}).",
                    endpoint=self.endpoint,
                    asked=asked,
                    status=status,
                ),
                Text("Check the id; for a private or gated dataset accept its terms and set HF_TOKEN."),
            ) from error
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise self._unavailable(str(error) or type(error).__name__) from error

    def _unavailable(self, cause: str) -> HubUnavailable:
        return HubUnavailable(
            Text("The hub at {endpoint} does not answer: {cause}.", endpoint=self.endpoint, cause=cause),
            Text("Check the network, or set HF_ENDPOINT to a mirror; or fetch the files elsewhere and upload them."),
        )


def check_repo(repo: str) -> None:
    """Check the form of a dataset's id. Raises `InvalidInput`."""
    if not REPO.fullmatch(repo) or ".." in repo:
        raise InvalidInput(
            Text("{repo!r} is no dataset's id.", repo=repo[:120]),
            Text("Give it as owner/name, for example tatsu-lab/alpaca."),
        )


def _chosen(offered: dict[str, Any], wanted: str, usual: str, what: Text) -> Any:
    """The offered entry named ``wanted``; if empty, the usual one or the only one."""
    name = wanted or (usual if usual in offered or len(offered) != 1 else next(iter(offered)))
    if name not in offered:
        raise InvalidInput(
            Text("The dataset has no {what} {name!r}.", what=what, name=name),
            Text("There are: {there}.", there=sorted(offered)),
        )
    return offered[name]


def _holds_rows(path: str) -> bool:
    name = path.lower().removesuffix(".gz")
    return name.endswith((*JSONS, *TABLES, ".parquet")) and not NOT_ROWS.search(path)


def _by_split(paths: list[str]) -> dict[str, list[str]]:
    """Paths per split, by their names; those without a split's name are ``train``."""
    found: dict[str, list[str]] = {}
    for path in paths:
        words = re.split(r"[/._-]+", path.lower())
        found.setdefault(next((split for split in SPLITS if split in words), "train"), []).append(path)
    return found


def _no_rows(repo: str) -> InvalidInput:
    return InvalidInput(
        Text("{repo} has no data file that can be read.", repo=repo),
        Text("JSON, JSONL, CSV and Parquet files are read; loading scripts are never run."),
    )


class HubSource:
    """The rows of one split.

    Args:
        repo: ``owner/name``.
        config: empty for ``default`` or the only one.
        split: empty for ``train`` or the only one.
        max_rows: most rows to take; 0 for all. Files behind them are not fetched.
        max_bytes: refuse a larger file, or one that unpacks to more.
        work_dir: where a file lies while it is read.
        mapping: which column is which key; None to go by the columns' names.
    """

    kind: Literal["hub"] = "hub"

    def __init__(
        self,
        repo: str,
        config: str,
        split: str,
        max_rows: int,
        max_bytes: int,
        work_dir: Path,
        mapping: ColumnMapping | None = None,
        on_progress: OnProgress = ignore_progress,
    ) -> None:
        self._config, self._split, self._max_rows, self._max_bytes = config, split, max_rows, max_bytes
        self._work_dir, self._on_progress = work_dir, on_progress
        self._reader, self._ignored = RecordReader(repo, mapping), IgnoredColumns(mapping)
        self.name = PurePosixPath(repo).name or "hub"
        self.source, self.container = repo, ""
        self.commit: str | None = None

    @property
    def dropped(self) -> tuple[Dropped, ...]:
        """What was dropped so far."""
        return self._reader.dropped

    @property
    def formats(self) -> tuple[FormatCount, ...]:
        """The formats so far, each with the columns that it ignores."""
        return self._ignored.annotate(self._reader.formats)

    def examples(self) -> Iterator[DataRow]:
        """The usable rows, in order.

        Raises:
            HubUnavailable, NotFound, InvalidInput: as `HubClient.files`.
            InvalidDataset: a file cannot be used, naming the row; or there is no usable row.
        """
        rows = 0
        for row in self._rows():
            yield row
            rows += 1
            if rows == self._max_rows:
                return
        if not rows:
            raise InvalidDataset(
                Text("{source} has no usable row.", source=self.source),
                Text("Choose another split or dataset."),
            )

    def _rows(self) -> Iterator[DataRow]:
        self._work_dir.mkdir(parents=True, exist_ok=True)
        with HubClient() as hub, tempfile.TemporaryDirectory(dir=self._work_dir, prefix="hub-") as folder:
            found = hub.files(self.source, self._config, self._split)
            self.commit = found.revision
            for file in found.files:
                path = Path(folder) / f"data{''.join(PurePosixPath(file.path).suffixes[-2:])}"
                hub.fetch(file, path, self._max_bytes, self._on_progress)
                yield from self._read(path, file.path)
                path.unlink()

    def _read(self, path: Path, file: str) -> Iterator[DataRow]:
        content = FileContent(path, self._max_bytes)
        kind = detect_file_type(content)
        if not kind.holds_rows:
            raise unsupported_file(content, str(kind))
        self.container, self._reader.file = str(kind), file
        for number, record in enumerate(read_records(content, kind), 1):
            row = self._reader.read(record, number)
            self._ignored.add(record)
            if row is not None:
                yield row
