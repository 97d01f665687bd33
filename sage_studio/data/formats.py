"""Formats of training data: detected by a record's keys, each read as rows of one kind."""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from sage_studio.data.dataset import DropCounter, Dropped, FormatCount
from sage_studio.data.rows import DataRow, Origin, RowKind, invalid_row
from sage_studio.errors import InvalidDataset, UnknownColumns
from sage_studio.text import Text

if TYPE_CHECKING:
    from sage_studio.data.column_mapping import ColumnMapping

import json
import re
from itertools import count, takewhile

from sage_studio.data.rows import Example, Message, Passage, Preference, Retrieval, Role

# Reading a record

ROLES: Mapping[str, Role] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "developer": "system",
    "prompter": "user",
    "assistant": "assistant",
    **dict.fromkeys(("gpt", "chatgpt", "bing", "bard", "bot", "ai", "model"), "assistant"),
}
"""Compared in lower case: exports of one tool write both ``Human`` and ``human``."""
TOOLS = frozenset(
    {"tool", "tool_call", "tool_calls", "tool_response", "function", "function_call", "observation", "ipython"}
)
"""Roles of tool calls and tool results."""
CALLS = ("tool_calls", "function_call")
TEXT_PARTS = ("text", "input_text", "output_text")
TOOL_CALL = Text("a tool call, which cannot be trained on yet")
NOT_TEXT = Text("an image, audio or file in the conversation")
Turns = list[Message]


class BadValue(Exception):
    """A value of the wrong type for its key."""

    def __init__(self, message: Text) -> None:
        super().__init__(message.en)
        self.message = message


class NothingToLearn(Exception):
    """A well-formed record without anything to train on: it is dropped and counted."""

    def __init__(self, reason: Text) -> None:
        super().__init__(reason.en)
        self.reason = reason


def as_text(value: Any, key: str) -> str:
    """Text; null is empty text. Raises `BadValue`."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadValue(
            Text("{key} must be text, not {kind}: {value}", key=key, kind=json_type(value), value=shown(value))
        )
    return value


def as_list(value: Any, key: str) -> list[Any]:
    """A list; null is an empty one. Raises `BadValue`."""
    if value is not None and not isinstance(value, list):
        raise BadValue(Text("{key} must be a list, not {value}.", key=key, value=json_type(value)))
    return value or []


def as_turns(value: Any, key: str) -> Turns:
    """A list of turns, ``role``/``content`` or ``from``/``value``. Raises `BadValue`, `NothingToLearn`."""
    if not isinstance(value, list):
        raise BadValue(
            Text(
                "{key} must be a list of turns, not {kind}: {value}",
                key=key,
                kind=json_type(value),
                value=shown(value),
            ),
        )
    return [_message(turn, key) for turn in value]


def parsed_list(value: Any) -> Any:
    """A list that was serialized as a string, as some tools write it; other values unchanged."""
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return value
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return value
    return found if isinstance(found, list) else value


def check_characters(texts: Iterable[str]) -> None:
    """Raise `NothingToLearn` for text that cannot be written as UTF-8."""
    try:
        for text in texts:
            text.encode()
    except UnicodeEncodeError as error:
        raise NothingToLearn(BROKEN_CHARACTERS) from error


BROKEN_CHARACTERS = Text("a broken character (lone surrogate), or bytes that are not UTF-8")


def json_type(value: Any) -> str:
    """The JSON type of a value, for messages."""
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def shown(value: Any) -> str:
    """A value for a message, shortened."""
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= 60 else f"{text[:60]}…"


def _message(turn: Any, key: str) -> Message:
    if not isinstance(turn, dict):
        raise BadValue(Text("a turn of {key} is {turn}, not an object.", key=key, turn=json_type(turn)))
    speaker = turn.get("role", turn.get("from"))
    name = speaker.strip().lower() if isinstance(speaker, str) else ""
    if name in TOOLS or any(turn.get(call) for call in CALLS):
        raise NothingToLearn(TOOL_CALL)
    if name not in ROLES:
        raise BadValue(
            Text(
                "{key} has a turn of role {speaker!r}; known are {roles}.",
                key=key,
                speaker=speaker,
                roles=", ".join(ROLES),
            ),
        )
    return Message(ROLES[name], _content(turn.get("content", turn.get("value")), key))


def _content(value: Any, key: str) -> str:
    """Text, or a list of parts of it. Raises `NothingToLearn` for a part of another type."""
    if not isinstance(value, list):
        return as_text(value, key)
    types = {part.get("type") for part in value if isinstance(part, dict) and isinstance(part.get("type"), str)}
    if types - set(TEXT_PARTS):
        raise NothingToLearn(NOT_TEXT)
    return "\n".join(as_text(part.get("text") if isinstance(part, dict) else part, key) for part in value)


NO_ANSWER = Text("empty answer")
NO_QUESTION = Text("empty question")
NO_TURN_BEFORE = Text("no question before the answer")
JUDGED_BAD = Text("marked as a bad answer")
NOT_WEIGHTED = Text("every answer has weight 0")
JUDGEMENTS: Mapping[Any, bool] = {True: True, False: False, "true": True, "false": False, "1": True, "0": False}

Reader = Callable[[Mapping[str, Any], Origin], Example]


def read_alpaca(record: Mapping[str, Any], origin: Origin) -> Example:
    """``instruction``, ``input``, ``output``, with ``system`` and ``history``."""
    return _example([*alpaca_turns(record), Message("assistant", as_text(record["output"], "output"))], origin)


def read_pair(ask: str, answer: str) -> Reader:
    """A reader for a question under one key and its answer under another; each is text or a list of turns."""

    def read(record: Mapping[str, Any], origin: Origin) -> Example:
        return _example([*prompt_turns(record, ask), Message("assistant", answer_text(record, answer))], origin)

    return read


def read_turns(key: str) -> Reader:
    """A reader for a conversation under one key, up to its last answer whose OpenAI ``weight`` is not 0."""

    def read(record: Mapping[str, Any], origin: Origin) -> Example:
        messages = parsed_list(record[key])
        turns = as_turns(messages, key)
        has_answer = any(turn.role == "assistant" for turn in turns)
        while turns and (turns[-1].role != "assistant" or messages[len(turns) - 1].get("weight") == 0):
            turns.pop()
        if has_answer and not turns:
            raise NothingToLearn(NOT_WEIGHTED)
        return _example([*system_turn(record), *turns] if turns else [], origin)

    return read


def read_judged(read: Reader, key: str) -> Reader:
    """A reader for KTO rows, labelled true (good) or false (bad) under ``key``: the good ones are kept."""

    def read_good(record: Mapping[str, Any], origin: Origin) -> Example:
        value = record[key]
        is_good = judgement(value)
        if is_good is None:
            raise BadValue(
                Text("{key} must be true or false, not {value}", key=key, value=shown(value)),
            )
        if not is_good:
            raise NothingToLearn(JUDGED_BAD)
        return read(record, origin)

    return read_good


def judgement(value: Any) -> bool | None:
    """A KTO label: true/false, 1/0 or the same as words; None for anything else."""
    plain = value.strip().lower() if isinstance(value, str) else value
    return JUDGEMENTS.get(plain) if isinstance(plain, bool | int | float | str) else None


def alpaca_turns(record: Mapping[str, Any]) -> Turns:
    """System, history and the instruction with its input. Raises `BadValue`."""
    turns = system_turn(record)
    for pair in as_list(record.get("history"), "history"):
        if not isinstance(pair, list) or len(pair) != 2:
            raise BadValue(Text("history must be a list of [question, answer] pairs."))
        turns += [Message("user", as_text(pair[0], "history")), Message("assistant", as_text(pair[1], "history"))]
    asked = (as_text(record["instruction"], "instruction"), as_text(record.get("input"), "input"))
    return [*turns, Message("user", "\n".join(part for part in asked if part.strip()))]


def prompt_turns(record: Mapping[str, Any], key: str) -> Turns:
    """A prompt that is text or a list of turns, after the record's ``system``. Raises `BadValue`."""
    value = record[key]
    asked = as_turns(value, key) if isinstance(value, list) else [Message("user", as_text(value, key))]
    return [*system_turn(record), *asked]


def answer_text(record: Mapping[str, Any], key: str) -> str:
    """An answer that is text or a list whose last turn it is. Raises `BadValue`."""
    value = record[key]
    turns = as_turns(value, key)[-1:] if isinstance(value, list) and value else []
    return turns[0].content if turns else as_text(value, key)


def system_turn(record: Mapping[str, Any]) -> Turns:
    """The record's ``system`` as a turn; none without. Raises `BadValue`."""
    system = as_text(record.get("system"), "system")
    return [Message("system", system)] if system.strip() else []


def check_prompt(turns: Turns) -> None:
    """Raise `NothingToLearn` unless the last turn is a question."""
    if not turns or turns[-1].role != "user":
        raise NothingToLearn(NO_TURN_BEFORE)
    if not turns[-1].content.strip():
        raise NothingToLearn(NO_QUESTION)


def _example(turns: Turns, origin: Origin) -> Example:
    if not turns or not turns[-1].content.strip():
        raise NothingToLearn(NO_ANSWER)
    check_prompt(turns[:-1])
    check_characters(turn.content for turn in turns)
    return Example(tuple(turns[:-1]), turns[-1].content, origin)


SAME_ANSWER = Text("chosen and rejected are the same")
SPEAKER = re.compile(r"^(Human|Assistant):", re.MULTILINE)
CONTEXT = "{query}\n\n{retrieved}"


def read_retrieved(record: Mapping[str, Any], origin: Origin) -> Preference:
    """``query``, ``retrieval_result``, ``chosen``, ``rejected``; the retrieved text becomes context in the prompt."""
    query = as_text(record["query"], "query")
    retrieved = _retrieved(record.get("retrieval_result"))
    asked = CONTEXT.format(query=query, retrieved=retrieved) if retrieved else query
    if not query.strip():
        asked = ""
    return _preference([*system_turn(record), Message("user", asked)], record, origin)


def read_prompted(record: Mapping[str, Any], origin: Origin) -> Preference:
    """TRL's ``prompt``, ``chosen``, ``rejected``, each text or a list of turns."""
    return _preference(prompt_turns(record, "prompt"), record, origin)


def read_instructed(record: Mapping[str, Any], origin: Origin) -> Preference:
    """LLaMA-Factory's Alpaca ranking: ``instruction``, ``input``, ``chosen``, ``rejected``."""
    return _preference(alpaca_turns(record), record, origin)


def read_conversed(record: Mapping[str, Any], origin: Origin) -> Preference:
    """LLaMA-Factory's ShareGPT ranking: ``conversations``, ``chosen``, ``rejected``."""
    turns = [*system_turn(record), *as_turns(parsed_list(record["conversations"]), "conversations")]
    return _preference(turns, record, origin)


def read_implicit(record: Mapping[str, Any], origin: Origin) -> Preference:
    """TRL's implicit prompt: two conversations that differ in the last answer only, as lists or Anthropic's text."""
    chosen, rejected = (_dialogue(record[key], key) for key in ("chosen", "rejected"))
    if not chosen or not rejected or chosen[:-1] != rejected[:-1]:
        raise BadValue(
            Text(
                "chosen and rejected must be the same conversation but for the last answer, or a prompt must be given."
            ),
        )
    answers = {"chosen": chosen[-1].content, "rejected": rejected[-1].content}
    return _preference([*system_turn(record), *chosen[:-1]], answers, origin)


def _dialogue(value: Any, key: str) -> Turns:
    if not isinstance(value, str):
        return as_turns(value, key)
    _, *parts = SPEAKER.split(value.strip())
    if not parts:
        raise BadValue(Text("{key} is one text without a prompt: {value}", key=key, value=shown(value)))
    return [
        Message("user" if who == "Human" else "assistant", message.strip())
        for who, message in zip(parts[::2], parts[1::2], strict=True)
    ]


def _preference(prompt: Turns, record: Mapping[str, Any], origin: Origin) -> Preference:
    chosen, rejected = (_answer_text(record[key], key) for key in ("chosen", "rejected"))
    if not chosen.strip() or not rejected.strip():
        raise NothingToLearn(NO_ANSWER)
    if chosen == rejected:
        raise NothingToLearn(SAME_ANSWER)
    check_prompt(prompt)
    check_characters((*(turn.content for turn in prompt), chosen, rejected))
    return Preference(tuple(prompt), chosen, rejected, origin)


def _answer_text(value: Any, key: str) -> str:
    """Text, ``{"text": …}``, a turn, or a list whose last turn it is."""
    if isinstance(value, list) and value:
        return as_turns(value, key)[-1].content
    if isinstance(value, dict):
        named = next((name for name in ("text", "content", "value") if name in value), None)
        if named is None:
            raise BadValue(Text("{key} has no text: {value}", key=key, value=shown(value)))
        return as_text(value[named], f"{key}.{named}")
    return as_text(value, key)


def _retrieved(value: Any) -> str:
    """Retrieved text: a string, or a list of strings or of objects with a ``text``."""
    parts = value if isinstance(value, list) else [value]
    return "\n\n".join(filter(None, (_answer_text(part, "retrieval_result").strip() for part in parts)))


NO_PASSAGE = Text("no passage that answers the query")
NO_TEXT = Text("empty text")


def read_retrieval(query: str, pos: str, neg: str) -> Callable[[Mapping[str, Any], Origin], Retrieval]:
    """A reader for a query with positive and negative passages, each text or a list of texts; ``neg`` is optional.

    Further negatives may have numbered keys: ``negative_1``, ``negative_2``, ….
    """

    def read(record: Mapping[str, Any], origin: Origin) -> Retrieval:
        asked = as_text(record[query], query)
        numbered = takewhile(record.__contains__, (f"{neg}_{number}" for number in count(1)))
        right = _passages(record.get(pos), pos)
        wrong = tuple(text for key in (neg, *numbered) for text in _passages(record.get(key), key))
        if not asked.strip():
            raise NothingToLearn(NO_QUESTION)
        if not right:
            raise NothingToLearn(NO_PASSAGE)
        check_characters((asked, *right, *wrong))
        return Retrieval(asked, right, wrong, origin)

    return read


def read_text(record: Mapping[str, Any], origin: Origin) -> Passage:
    """Bare ``text``."""
    text = as_text(record["text"], "text")
    if not text.strip():
        raise NothingToLearn(NO_TEXT)
    check_characters((text,))
    return Passage(text, origin)


def _passages(value: Any, key: str) -> tuple[str, ...]:
    texts = value if isinstance(value, list) else [value]
    return tuple(filter(str.strip, (as_text(text, key) for text in texts)))


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
                "its format is {found}, that of row {at} is {first}: they are for different training methods.",
                found=found.name,
                at=at,
                first=name,
            )
            raise invalid_row(row, what, Text("Put them into two files."))


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
    what = Text("it is {kind}, not an object: {record}", kind=json_type(record), record=shown(record))
    return invalid_row(row, what, _keys_hint())


def _unknown_keys(record: Mapping[str, Any], row: int) -> InvalidDataset:
    keys = ", ".join(sorted(map(str, record))[:20]) or "—"
    return UnknownColumns(
        Text("Row {row}: its keys ({keys}) match no known format.", row=row, keys=keys),
        _keys_hint(),
        row=row,
    )


def _keys_hint() -> Text:
    return Text(
        "Every row needs the keys of one format: {known}. Map the columns, rename the keys, or remove the row.",
        known=KNOWN,
    )


def _value_hint(found: Format) -> Text:
    return Text("The row was read as {name}. Correct its value.", name=found.name)


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
