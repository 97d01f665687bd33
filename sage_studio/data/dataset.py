"""A stored dataset as the rest of the house sees it: its manifest, never its rows.

Knows what is kept about a dataset. Knows nothing of files or formats.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal, Protocol

from sage_studio.data.example import DataRow, RowKind
from sage_studio.text import Text

OnProgress = Callable[[float, Text], None]
"""Called with the share done (0 to 1) and what is being done."""

NAMED_ROWS = 50
"""Places that a manifest names for each reason."""
MOST_PLACES = 200_000
"""Places that are remembered in all, to be written to the dataset's own list; further ones are only counted."""


def ignore_progress(_: float, __: Text) -> None:
    """For callers who do not watch."""


@dataclass(frozen=True, slots=True)
class Dropped:
    """Rows that were left out for one reason."""

    reason: Text
    count: int
    rows: tuple[str, ...] = ()
    """Where they stood: a row number or ``file › heading``; in a manifest the first `NAMED_ROWS` of them."""

    @property
    def shortened(self) -> "Dropped":
        """As a manifest keeps it."""
        return Dropped(self.reason, self.count, self.rows[:NAMED_ROWS])


@dataclass
class LeftOut:
    """Counts what is left out, per reason, and remembers where the first `MOST_PLACES` of it stood."""

    counts: Counter[Text] = field(default_factory=Counter)
    places: list[tuple[Text, str]] = field(default_factory=list)

    def add(self, reason: Text, place: str) -> None:
        """Count one more."""
        self.counts[reason] += 1
        if len(self.places) < MOST_PLACES:
            self.places.append((reason, place))

    def merge(self, other: "LeftOut") -> None:
        """Count what another one left out after this one."""
        self.counts += other.counts
        self.places += other.places[: MOST_PLACES - len(self.places)]

    @property
    def dropped(self) -> tuple[Dropped, ...]:
        """So far."""
        where: dict[Text, list[str]] = defaultdict(list)
        for reason, place in self.places:
            where[reason].append(place)
        return tuple(Dropped(reason, count, tuple(where[reason])) for reason, count in self.counts.items())


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
    """Whether every row's language was looked at, not those of a sample."""
    dropped: tuple[Dropped, ...] = ()
    duplicates: int = 0


@dataclass(frozen=True, slots=True)
class FormatCount:
    """How many rows of a file had a format, the keys by which it was told, and columns that it does not read."""

    name: str
    keys: tuple[str, ...]
    rows: int
    unread: tuple[str, ...] = ()


SourceKind = Literal["upload", "sage_docs", "quickstart", "documents", "hub", "combined", "augmented", "annotated"]


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset that is ready to train on.

    Attributes:
        id: folder name under ``datasets/``; ends in the version.
        name: what a person calls it.
        version: counts from 1 per name.
        kind: where it came from.
        source: the uploaded file's name, or the repository's address.
        commit: of the documentation; None for uploads.
        sha256: of ``data.jsonl``; empty while that of a large upload is computed, which can be used already.
        size_bytes: of ``data.jsonl``.
        created_at: Unix seconds.
        row_kind: what can be learned from its rows, which are all of one kind.
        container: what the rows were read from: ``JSON``, ``CSV``, ``PDF``, …; empty where nobody wrote it down.
        formats: the formats found in it, the most frequent first.
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
    """Where rows come from. Nothing downstream knows which source it was."""

    @property
    def kind(self) -> SourceKind:
        """What sort of source it is."""
        ...

    @property
    def name(self) -> str:
        """What the dataset is called unless the person says otherwise."""
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
        """What was left out so far; complete once `examples` is exhausted."""
        ...

    @property
    def container(self) -> str:
        """What the rows are read from; known once `examples` has begun."""
        ...

    @property
    def formats(self) -> tuple[FormatCount, ...]:
        """The formats found; complete once `examples` is exhausted."""
        ...

    def examples(self) -> Iterator[DataRow]:
        """The rows, in order. Raises `InvalidDataset` naming the row."""
        ...
