"""Which format a record has, told by its keys, and the records of a file as rows of one kind.

Knows the formats and what each needs. How one is read stands in `conversations`, `preferences` and `retrieval`. Knows
nothing of files; row numbers are given to it.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sage_studio.data import preferences
from sage_studio.data.conversations import read_alpaca, read_pair, read_turns
from sage_studio.data.dataset import Dropped, LeftOut
from sage_studio.data.example import DataRow, Origin, RowKind
from sage_studio.data.retrieval import read_retrieval, read_text
from sage_studio.data.values import BadValue, NothingToLearn, kind_of, shown
from sage_studio.errors import InvalidDataset
from sage_studio.text import NOTHING, Text


@dataclass(frozen=True, slots=True)
class Format:
    """A shape of records.

    Attributes:
        name: as people call it.
        kind: of the rows it gives.
        needs: the keys that make it.
        read: a record as a row. Raises `BadValue`, or `NothingToLearn` for a record to leave out.
    """

    name: str
    kind: RowKind
    needs: tuple[str, ...]
    read: Callable[[Mapping[str, Any], Origin], DataRow]


class RecordReader:
    """Reads the records of one file, counting those that hold nothing to learn.

    Each record's format is told by its own keys: rows of several formats may stand in one file, of several kinds not. A
    record that is nothing but text is a passage.

    Example:
        >>> reader = RecordReader("rows.json")
        >>> reader.read({"instruction": "Say hi", "input": "", "output": "Hi"}, row=1).answer
        'Hi'
    """

    def __init__(self, file: str) -> None:
        self._file = file
        self._left_out = LeftOut()
        self._first: tuple[Format, int] | None = None
        self.rows = 0

    @property
    def dropped(self) -> tuple[Dropped, ...]:
        """What was left out so far, and why."""
        return self._left_out.dropped

    def read(self, record: Any, row: int) -> DataRow | None:
        """One record as a row, or None when it is dropped and counted.

        Raises:
            InvalidDataset: it is no object, has the keys of no format, is of another kind than the rows before, or has
                a value of the wrong kind; names ``row``.
        """
        self.rows += 1
        if isinstance(record, str):
            record = {"text": record}
        if not isinstance(record, dict):
            raise _not_an_object(record, row)
        found = detect_format(frozenset(record))
        if found is None:
            raise _unknown_keys(record, row)
        self._check_kind(found, row)
        try:
            return found.read(record, Origin(file=self._file, row=row))
        except BadValue as error:
            raise invalid_row(row, error.message, _value_hint(found)) from error
        except NothingToLearn as nothing:
            self._left_out.add(nothing.reason, str(row))
            return None

    def _check_kind(self, found: Format, row: int) -> None:
        first, at = self._first = self._first or (found, row)
        if first.kind != found.kind:
            what = Text(
                f"it is {found.name}, but row {at} is {first.name}: they train different things.",
                f"该行是 {found.name} 格式，而第 {at} 行是 {first.name} 格式，两者用于不同的训练。",
            )
            raise invalid_row(row, what, Text("Put them into two files.", "请分成两个文件。"))


@lru_cache(maxsize=1024)
def detect_format(keys: Collection[str]) -> Format | None:
    """The format that a record with these keys has; None for none of the known ones."""
    return next((each for each in FORMATS if all(key in keys for key in each.needs)), None)


def invalid_row(row: int, what: Text, hint: Text = NOTHING) -> InvalidDataset:
    """The error for one row, numbered from 1."""
    return InvalidDataset(Text(f"Row {row}: {what.en}", f"第 {row} 行：{what.zh}"), hint, row=row)


PAIR = ("chosen", "rejected")
FORMATS = (
    Format("query/retrieval_result/chosen/rejected", "preference", ("query", *PAIR), preferences.read_retrieved),
    Format("prompt/chosen/rejected", "preference", ("prompt", *PAIR), preferences.read_prompted),
    Format("Alpaca ranking", "preference", ("instruction", *PAIR), preferences.read_instructed),
    Format("ShareGPT ranking", "preference", ("conversations", *PAIR), preferences.read_conversed),
    Format("chosen/rejected", "preference", PAIR, preferences.read_implicit),
    Format("Alpaca", "conversation", ("instruction", "output"), read_alpaca),
    Format("messages", "conversation", ("messages",), read_turns("messages")),
    Format("ShareGPT", "conversation", ("conversations",), read_turns("conversations")),
    Format("prompt/completion", "conversation", ("prompt", "completion"), read_pair("prompt", "completion")),
    Format("question/answer", "conversation", ("question", "answer"), read_pair("question", "answer")),
    Format("query/pos/neg", "retrieval", ("query", "pos"), read_retrieval("query", "pos", "neg")),
    Format("anchor/positive", "retrieval", ("anchor", "positive"), read_retrieval("anchor", "positive", "negative")),
    Format("text", "passage", ("text",), read_text),
)
KNOWN = "; ".join(f"{each.name}: {', '.join(each.needs)}" for each in FORMATS)


def _not_an_object(record: Any, row: int) -> InvalidDataset:
    what = Text(f"it is {kind_of(record)}, not an object: {shown(record)}", f"应为 JSON 对象，实际为：{shown(record)}")
    return invalid_row(row, what, _keys_hint())


def _unknown_keys(record: Mapping[str, Any], row: int) -> InvalidDataset:
    keys = ", ".join(sorted(map(str, record))[:20]) or "—"
    what = Text(f"its keys ({keys}) are those of no known format.", f"字段（{keys}）不属于任何已知格式。")
    return invalid_row(row, what, _keys_hint())


def _keys_hint() -> Text:
    return Text(
        f"Every row needs the keys of one format: {KNOWN}. Rename the keys, or remove the row.",
        f"每一行都需要某一种格式的字段：{KNOWN}。请改字段名，或删除该行。",
    )


def _value_hint(found: Format) -> Text:
    return Text(f"The row was read as {found.name}. Correct its value.", f"该行按 {found.name} 读取，请改正其值。")
