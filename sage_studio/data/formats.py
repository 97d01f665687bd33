"""Detects the format of each record by its keys and reads the records of a file as rows of one kind."""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from sage_studio.data.dataset import DropCounter, Dropped, FormatCount
from sage_studio.data.format_readers import (
    BadValue,
    NothingToLearn,
    json_type,
    read_alpaca,
    read_conversed,
    read_implicit,
    read_instructed,
    read_judged,
    read_pair,
    read_prompted,
    read_retrieval,
    read_retrieved,
    read_text,
    read_turns,
    shown,
)
from sage_studio.data.rows import DataRow, Origin, RowKind, invalid_row
from sage_studio.errors import InvalidDataset, UnknownColumns
from sage_studio.text import Text

if TYPE_CHECKING:
    from sage_studio.data.column_mapping import ColumnMapping


@dataclass(frozen=True, slots=True)
class Format:
    """A format of records.

    Attributes:
        name: display name.
        kind: kind of the rows.
        needs: required keys.
        read: converts a record to a row. Raises `BadValue`, or `NothingToLearn` for a record to drop.
        takes: optional keys.
    """

    name: str
    kind: RowKind
    needs: tuple[str, ...]
    read: Callable[[Mapping[str, Any], Origin], DataRow]
    takes: tuple[str, ...] = ()


@dataclass
class FormatCounts:
    """Records of a file per format; those of two parts of a file can be merged.

    Attributes:
        rows: records read.
        counts: records per format.
        left_out: dropped records.
        first: format and row of the first record.
        other_kind: format and row of the first record of another kind.
    """

    rows: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    left_out: DropCounter = field(default_factory=DropCounter)
    first: tuple[str, int] | None = None
    other_kind: tuple[str, int] | None = None


class RecordReader:
    """Reads the records of one file and counts those that are dropped.

    The format of each record is detected by its keys; one file may mix formats, but not kinds of rows. A bare string is
    a passage.

    Args:
        file: name of the file, kept in every row's origin.
        mapping: column mapping; None to use the keys as they are.

    Example:
        >>> reader = RecordReader("rows.json")
        >>> reader.read({"instruction": "Say hi", "input": "", "output": "Hi"}, row=1).answer
        'Hi'
    """

    def __init__(self, file: str, mapping: "ColumnMapping | None" = None) -> None:
        self.file = file
        self._mapping = mapping
        self.totals = FormatCounts()

    @property
    def rows(self) -> int:
        """Records read so far."""
        return self.totals.rows

    @property
    def dropped(self) -> tuple[Dropped, ...]:
        """What was dropped so far, per reason."""
        return self.totals.left_out.dropped

    @property
    def formats(self) -> tuple[FormatCount, ...]:
        """The formats of the records so far, the most frequent first."""
        return tuple(FormatCount(name, BY_NAME[name].needs, rows) for name, rows in self.totals.counts.most_common())

    def read(self, record: Any, row: int) -> DataRow | None:
        """One record as a row, or None when it is dropped and counted.

        Raises:
            UnknownColumns: it has the keys of no format.
            InvalidDataset: it is no object, is of another kind than the rows before, or has a value of the wrong kind;
                names ``row``.
        """
        self.totals.rows += 1
        if self._mapping is not None:
            record = self._mapping.apply(record, row)
        if isinstance(record, str):
            record = {"text": record}
        if not isinstance(record, dict):
            raise _not_an_object(record, row)
        found = format_of(record) if self._mapping is None else BY_NAME[self._mapping.format]
        if found is None:
            raise _unknown_keys(record, row)
        self.check_kind(found, row)
        self.totals.counts[found.name] += 1
        try:
            return found.read(record, Origin(file=self.file, row=row))
        except BadValue as error:
            raise invalid_row(row, error.message, _value_hint(found)) from error
        except NothingToLearn as nothing:
            self.totals.left_out.add(nothing.reason, str(row))
            return None

    def merge(self, other: FormatCounts) -> None:
        """Add the counts of the next part of the file. Raises as `check_kind`."""
        for name, row in filter(None, (other.first, other.other_kind)):
            self.check_kind(BY_NAME[name], row)
        self.totals.rows += other.rows
        self.totals.counts += other.counts
        self.totals.left_out.merge(other.left_out)

    def check_kind(self, found: Format, row: int) -> None:
        """Raise `InvalidDataset` if earlier rows are of another kind."""
        name, at = self.totals.first = self.totals.first or (found.name, row)
        if BY_NAME[name].kind != found.kind:
            self.totals.other_kind = found.name, row
            what = Text(
                f"its format is {found.name}, that of row {at} is {name}: they are for different training methods.",
                f"该行是 {found.name} 格式，而第 {at} 行是 {name} 格式，两者用于不同的训练。",
            )
            raise invalid_row(row, what, Text("Put them into two files.", "请分成两个文件。"))


def format_of(record: Mapping[str, Any]) -> Format | None:
    """The format of a record, by its non-null keys or else by all (in tables every row has every key).

    A ``label`` other than true or false is a class label and ignored, except in KTO's own format.
    """
    if LABEL in record and "completion" not in record and not _is_plain(record[LABEL]):
        record = {key: value for key, value in record.items() if key != LABEL}
    found = detect_format(frozenset(record))
    if found is not None and all(record[key] is not None for key in found.needs):
        return found
    return detect_format(frozenset(key for key, value in record.items() if value is not None)) or found


@lru_cache(maxsize=1024)
def detect_format(keys: Collection[str]) -> Format | None:
    """The format that a record with these keys has; None for none of the known ones."""
    return next((each for each in FORMATS if all(key in keys for key in each.needs)), None)


PAIR = ("chosen", "rejected")
ASKED = ("input", "system", "history")
TAG, LABEL = "kto_tag", "label"
FORMATS = (
    Format(
        "query/retrieval_result/chosen/rejected",
        "preference",
        ("query", *PAIR),
        read_retrieved,
        ("retrieval_result", "system"),
    ),
    Format("prompt/chosen/rejected", "preference", ("prompt", *PAIR), read_prompted, ("system",)),
    Format("Alpaca ranking", "preference", ("instruction", *PAIR), read_instructed, ASKED),
    Format("ShareGPT ranking", "preference", ("conversations", *PAIR), read_conversed, ("system",)),
    Format("chosen/rejected", "preference", PAIR, read_implicit, ("system",)),
    Format("KTO Alpaca", "conversation", ("instruction", "output", TAG), read_judged(read_alpaca, TAG), ASKED),
    Format("KTO messages", "conversation", ("messages", TAG), read_judged(read_turns("messages"), TAG), ("system",)),
    Format(
        "KTO ShareGPT",
        "conversation",
        ("conversations", TAG),
        read_judged(read_turns("conversations"), TAG),
        ("system",),
    ),
    Format(
        "instruction/output/label",
        "conversation",
        ("instruction", "output", LABEL),
        read_judged(read_alpaca, LABEL),
        ASKED,
    ),
    Format(
        "messages/label", "conversation", ("messages", LABEL), read_judged(read_turns("messages"), LABEL), ("system",)
    ),
    Format(
        "conversations/label",
        "conversation",
        ("conversations", LABEL),
        read_judged(read_turns("conversations"), LABEL),
        ("system",),
    ),
    Format("Alpaca", "conversation", ("instruction", "output"), read_alpaca, ASKED),
    Format("messages", "conversation", ("messages",), read_turns("messages"), ("system",)),
    Format("ShareGPT", "conversation", ("conversations",), read_turns("conversations"), ("system",)),
    Format(
        "KTO",
        "conversation",
        ("prompt", "completion", LABEL),
        read_judged(read_pair("prompt", "completion"), LABEL),
        ("system",),
    ),
    Format(
        "prompt/completion", "conversation", ("prompt", "completion"), read_pair("prompt", "completion"), ("system",)
    ),
    Format("question/answer", "conversation", ("question", "answer"), read_pair("question", "answer"), ("system",)),
    Format("query/pos/neg", "retrieval", ("query", "pos"), read_retrieval("query", "pos", "neg"), ("neg",)),
    Format(
        "anchor/positive",
        "retrieval",
        ("anchor", "positive"),
        read_retrieval("anchor", "positive", "negative"),
        ("negative",),
    ),
    Format("text", "passage", ("text",), read_text),
)
BY_NAME = {each.name: each for each in FORMATS}
KNOWN = "; ".join(f"{each.name}: {', '.join(each.needs)}" for each in FORMATS)


def _is_plain(label: Any) -> bool:
    return isinstance(label, bool) or (isinstance(label, str) and label.strip().lower() in ("true", "false"))


def _not_an_object(record: Any, row: int) -> InvalidDataset:
    what = Text(
        f"it is {json_type(record)}, not an object: {shown(record)}", f"应为 JSON 对象，实际为：{shown(record)}"
    )
    return invalid_row(row, what, _keys_hint())


def _unknown_keys(record: Mapping[str, Any], row: int) -> InvalidDataset:
    keys = ", ".join(sorted(map(str, record))[:20]) or "—"
    return UnknownColumns(
        Text(
            f"Row {row}: its keys ({keys}) match no known format.",
            f"第 {row} 行：字段（{keys}）不属于任何已知格式。",
        ),
        _keys_hint(),
        row=row,
    )


def _keys_hint() -> Text:
    return Text(
        f"Every row needs the keys of one format: {KNOWN}. Map the columns, rename the keys, or remove the row.",
        f"每一行都需要某一种格式的字段：{KNOWN}。请指定各列的含义、修改字段名，或删除该行。",
    )


def _value_hint(found: Format) -> Text:
    return Text(f"The row was read as {found.name}. Correct its value.", f"该行按 {found.name} 读取，请改正其值。")


MOST_NAMES = 100
NOTHING: tuple[Any, ...] = (None, "", [], {}, "[]")
"""Values of an empty column; ``[]`` is how ShareGPT writes that there are no tools."""


class IgnoredColumns:
    """Collects the non-empty columns that the detected format does not read: a person may have wanted them.

    Args:
        mapping: column mapping; None to use the keys as they are.

    Example:
        >>> ignored = IgnoredColumns()
        >>> ignored.add({"question": "Why?", "answer": "So.", "context": "Rain."})
        >>> ignored.annotate((FormatCount("question/answer", ("question", "answer"), 1),))[0].unread
        ('context',)
    """

    def __init__(self, mapping: "ColumnMapping | None" = None) -> None:
        self._mapping = mapping
        self._names: defaultdict[str, dict[str, None]] = defaultdict(dict)

    def add(self, record: Any) -> None:
        """Look at a record."""
        if not isinstance(record, Mapping):
            return
        found = format_of(record) if self._mapping is None else BY_NAME[self._mapping.format]
        if found is None:
            return
        names = self._names[found.name]
        for name, value in record.items():
            if value not in NOTHING and len(names) < MOST_NAMES and not self._is_read(name, found):
                names[name] = None

    def add_all(self, records: Iterable[Any]) -> None:
        """Look at records."""
        for record in records:
            self.add(record)

    def annotate(self, formats: Iterable[FormatCount]) -> tuple[FormatCount, ...]:
        """The formats, each with the columns that it ignores."""
        return tuple(replace(each, unread=tuple(self._names.get(each.name, ()))) for each in formats)

    def _is_read(self, name: str, found: Format) -> bool:
        if self._mapping is not None:
            return name in self._mapping.columns.values()
        stem, _, number = str(name).rpartition("_")
        return name in found.needs or name in found.takes or (number.isdecimal() and stem in found.takes)
