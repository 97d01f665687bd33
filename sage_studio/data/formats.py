"""Which format a record has, told by its keys, and the records of a file as rows of one kind.

Knows the formats and what each needs. How one is read stands in `conversations`, `preferences` and `retrieval`. Knows
nothing of files; row numbers are given to it.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from sage_studio.data import preferences
from sage_studio.data.conversations import read_alpaca, read_judged, read_pair, read_turns
from sage_studio.data.dataset import Dropped, FormatCount, LeftOut
from sage_studio.data.example import DataRow, Origin, RowKind
from sage_studio.data.faults import invalid_row
from sage_studio.data.retrieval import read_retrieval, read_text
from sage_studio.data.values import BadValue, NothingToLearn, kind_of, shown
from sage_studio.errors import InvalidDataset, UnknownColumns
from sage_studio.text import Text

if TYPE_CHECKING:
    from sage_studio.data.mapping import ColumnMapping


@dataclass(frozen=True, slots=True)
class Format:
    """A shape of records.

    Attributes:
        name: as people call it.
        kind: of the rows it gives.
        needs: the keys that make it.
        read: a record as a row. Raises `BadValue`, or `NothingToLearn` for a record to leave out.
        takes: further keys that are read where they are there.
    """

    name: str
    kind: RowKind
    needs: tuple[str, ...]
    read: Callable[[Mapping[str, Any], Origin], DataRow]
    takes: tuple[str, ...] = ()


@dataclass
class Seen:
    """What was seen of a file's records so far; that of two parts can be added up.

    Attributes:
        rows: records read.
        counts: of them per format.
        left_out: those that hold nothing to learn.
        first: the first record's format and row.
        stranger: those of the first record of another kind.
    """

    rows: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    left_out: LeftOut = field(default_factory=LeftOut)
    first: tuple[str, int] | None = None
    stranger: tuple[str, int] | None = None


class RecordReader:
    """Reads the records of one file, counting those that hold nothing to learn.

    Each record's format is told by its own keys, over the whole file: rows of several formats may stand in one file, of
    several kinds not. A record that is nothing but text is a passage.

    Args:
        file: its name, kept in every row's origin.
        mapping: which column is which key, where a person said so; None to go by the keys as they are.

    Example:
        >>> reader = RecordReader("rows.json")
        >>> reader.read({"instruction": "Say hi", "input": "", "output": "Hi"}, row=1).answer
        'Hi'
    """

    def __init__(self, file: str, mapping: "ColumnMapping | None" = None) -> None:
        self.file = file
        self._mapping = mapping
        self.seen = Seen()

    @property
    def rows(self) -> int:
        """Records read so far."""
        return self.seen.rows

    @property
    def dropped(self) -> tuple[Dropped, ...]:
        """What was left out so far, and why."""
        return self.seen.left_out.dropped

    @property
    def formats(self) -> tuple[FormatCount, ...]:
        """The formats of the records so far, the most frequent first."""
        return tuple(FormatCount(name, BY_NAME[name].needs, rows) for name, rows in self.seen.counts.most_common())

    def read(self, record: Any, row: int) -> DataRow | None:
        """One record as a row, or None when it is dropped and counted.

        Raises:
            UnknownColumns: it has the keys of no format.
            InvalidDataset: it is no object, is of another kind than the rows before, or has a value of the wrong kind;
                names ``row``.
        """
        self.seen.rows += 1
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
        self.seen.counts[found.name] += 1
        try:
            return found.read(record, Origin(file=self.file, row=row))
        except BadValue as error:
            raise invalid_row(row, error.message, _value_hint(found)) from error
        except NothingToLearn as nothing:
            self.seen.left_out.add(nothing.reason, str(row))
            return None

    def merge(self, seen: Seen) -> None:
        """Count the records of the next part of the file. Raises as `check_kind` does."""
        for name, row in filter(None, (seen.first, seen.stranger)):
            self.check_kind(BY_NAME[name], row)
        self.seen.rows += seen.rows
        self.seen.counts += seen.counts
        self.seen.left_out.merge(seen.left_out)

    def check_kind(self, found: Format, row: int) -> None:
        """Raise `InvalidDataset` where the rows before are of another kind than this one."""
        name, at = self.seen.first = self.seen.first or (found.name, row)
        if BY_NAME[name].kind != found.kind:
            self.seen.stranger = found.name, row
            what = Text(
                f"it is {found.name}, but row {at} is {name}: they train different things.",
                f"该行是 {found.name} 格式，而第 {at} 行是 {name} 格式，两者用于不同的训练。",
            )
            raise invalid_row(row, what, Text("Put them into two files.", "请分成两个文件。"))


def format_of(record: Mapping[str, Any]) -> Format | None:
    """The format of a record: by the keys that hold something, or else by all; tables give every row every key.

    A ``label`` that is not plainly true or false is a class, and says nothing of an answer, except in KTO's own shape.
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
        preferences.read_retrieved,
        ("retrieval_result", "system"),
    ),
    Format("prompt/chosen/rejected", "preference", ("prompt", *PAIR), preferences.read_prompted, ("system",)),
    Format("Alpaca ranking", "preference", ("instruction", *PAIR), preferences.read_instructed, ASKED),
    Format("ShareGPT ranking", "preference", ("conversations", *PAIR), preferences.read_conversed, ("system",)),
    Format("chosen/rejected", "preference", PAIR, preferences.read_implicit, ("system",)),
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
    what = Text(f"it is {kind_of(record)}, not an object: {shown(record)}", f"应为 JSON 对象，实际为：{shown(record)}")
    return invalid_row(row, what, _keys_hint())


def _unknown_keys(record: Mapping[str, Any], row: int) -> InvalidDataset:
    keys = ", ".join(sorted(map(str, record))[:20]) or "—"
    return UnknownColumns(
        Text(
            f"Row {row}: its keys ({keys}) are those of no known format.",
            f"第 {row} 行：字段（{keys}）不属于任何已知格式。",
        ),
        _keys_hint(),
        row=row,
    )


def _keys_hint() -> Text:
    return Text(
        f"Every row needs the keys of one format: {KNOWN}. Say which column is which, rename the keys, or remove the "
        "row.",
        f"每一行都需要某一种格式的字段：{KNOWN}。请指定各列的含义、修改字段名，或删除该行。",
    )


def _value_hint(found: Format) -> Text:
    return Text(f"The row was read as {found.name}. Correct its value.", f"该行按 {found.name} 读取，请改正其值。")
