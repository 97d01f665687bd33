"""Dataset manifest: what is stored besides the rows; and the protocol of a source."""

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from sage_studio.data.rows import DataRow, RowKind
from sage_studio.text import Text

OnProgress = Callable[[float, Text], None]
"""Called with the fraction done (0 to 1) and a message."""

DROPPED = "dropped.jsonl"
NAMED_ROWS = 50
"""Rows that a manifest names for each reason."""
MOST_PLACES = 200_000
"""Rows that are listed in all, in the dataset's ``dropped.jsonl``; further ones are only counted."""


def ignore_progress(_: float, __: Text) -> None:
    """An `OnProgress` that does nothing."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """Rows that were dropped for one reason."""

    reason: Text
    count: int
    rows: tuple[str, ...] = ()
    """Their places in the source: row numbers or ``file › heading``; in a manifest the first `NAMED_ROWS`."""

    @property
    def shortened(self) -> "Dropped":
        """As in a manifest."""
        return Dropped(self.reason, self.count, self.rows[:NAMED_ROWS])


@dataclass
class DropCounter:
    """Counts dropped rows per reason, with the places of the first `MOST_PLACES`."""

    counts: Counter[Text] = field(default_factory=Counter)
    places: list[tuple[Text, str]] = field(default_factory=list)

    def add(self, reason: Text, place: str) -> None:
        """Count one row."""
        self.counts[reason] += 1
        if len(self.places) < MOST_PLACES:
            self.places.append((reason, place))

    def merge(self, other: "DropCounter") -> None:
        """Add the counts of the next part."""
        self.counts += other.counts
        self.places += other.places[: MOST_PLACES - len(self.places)]

    @property
    def dropped(self) -> tuple[Dropped, ...]:
        """The dropped rows so far, per reason."""
        where: dict[Text, list[str]] = defaultdict(list)
        for reason, place in self.places:
            where[reason].append(place)
        return tuple(Dropped(reason, count, tuple(where[reason])) for reason, count in self.counts.items())


def write_dropped(folder: Path, dropped: Iterable[Dropped]) -> None:
    """Write the dropped rows of a dataset into its folder, one line each."""
    with (folder / DROPPED).open("w", encoding="utf-8") as file:
        for each in dropped:
            for place in each.rows:
                line = {"kind": "dropped", "detail": each.reason.en, "where": place}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")


@dataclass(frozen=True, slots=True)
class DatasetStats:
    """Counts over all rows. Characters are of prompts and completions together."""

    total_samples: int
    total_chars: int
    avg_chars_per_sample: float
    longest_chars: int
    estimated_tokens: int
    tokens_are_exact: bool = False
    tokenizer: str = ""
    token_histogram: tuple[tuple[int, int], ...] = ()
    """(upper bound in tokens, rows above the bound before and up to this one) pairs, ascending."""
    languages: dict[str, int] = field(default_factory=dict)
    """Rows per language of the answer: ``zh``, ``en``, ``other``."""
    languages_are_exact: bool = True
    """False where languages are estimated from a sample."""
    dropped: tuple[Dropped, ...] = ()
    duplicates: int = 0


@dataclass(frozen=True, slots=True)
class FormatCount:
    """Rows of a file per format, with the keys that define it and the non-empty columns that it ignores."""

    name: str
    keys: tuple[str, ...]
    rows: int
    unread: tuple[str, ...] = ()


SourceKind = Literal["upload", "sage_docs", "quickstart", "documents", "hub", "combined", "augmented", "annotated"]


@dataclass(frozen=True, slots=True)
class Dataset:
    """A stored dataset, ready to train on.

    Attributes:
        id: folder name under ``datasets/``; ends in the version.
        name: display name.
        version: counts from 1 per name.
        kind: kind of its source.
        source: the uploaded file's name, or the repository's address.
        commit: of the documentation; None for uploads.
        sha256: of ``data.jsonl``; empty while it is computed in the background (large uploads).
        size_bytes: of ``data.jsonl``.
        created_at: Unix seconds.
        row_kind: kind of its rows, the same for all.
        container: file type of its source: ``JSON``, ``CSV``, ``PDF``, …; empty in datasets of old versions.
        formats: formats found in the source, the most frequent first.
    """

    id: str
    name: str
    version: int
    kind: SourceKind
    source: str
    sha256: str
    size_bytes: int
    created_at: float
    stats: DatasetStats
    commit: str | None = None
    row_kind: RowKind = "conversation"
    container: str = ""
    formats: tuple[FormatCount, ...] = ()


class DatasetSource(Protocol):
    """A source of rows: a file, documents, a Hub dataset or other datasets."""

    @property
    def kind(self) -> SourceKind:
        """The kind of source."""
        ...

    @property
    def name(self) -> str:
        """Default name of the dataset."""
        ...

    @property
    def source(self) -> str:
        """The uploaded file's name, or the repository's address."""
        ...

    @property
    def commit(self) -> str | None:
        """Of the documentation; None for uploads."""
        ...

    @property
    def dropped(self) -> tuple[Dropped, ...]:
        """What was dropped so far; complete once `examples` is exhausted."""
        ...

    @property
    def container(self) -> str:
        """File type; known once `examples` has begun."""
        ...

    @property
    def formats(self) -> tuple[FormatCount, ...]:
        """The formats found; complete once `examples` is exhausted."""
        ...

    def examples(self) -> Iterator[DataRow]:
        """The rows, in order. Raises `InvalidDataset` naming the row."""
        ...
