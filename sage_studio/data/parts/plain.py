"""Conversations of the commonest shapes, read without decoding their texts: these are copied as they stand in JSON.

Knows what such a record looks like, and takes it for what `formats` takes it for: a test compares the two. Knows
nothing of faults: whatever is unusual about a record is left to those who can say so.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from typing import Any, Literal, TypeAlias

import msgspec
import orjson

from sage_studio.data.block import QUOTE, Block, Texts
from sage_studio.data.formats import Format, detect_format

Said: TypeAlias = tuple[tuple[str, ...], tuple[bytes, ...]]
"""The roles of the turns before the answer, and the contents of all turns in JSON, be they text or not."""
Read: TypeAlias = Callable[[Any], Said | None]
Get: TypeAlias = Callable[[Any], Any]
Field: TypeAlias = tuple[str, Any] | tuple[str, Any, Any]
ALONE = ("user",)


class Turn(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """One turn; its content as it stands in JSON."""

    role: Literal["system", "user", "assistant"]
    content: msgspec.Raw


@dataclass(frozen=True, slots=True)
class Pair:
    """What gets the values of a record that is a question and its answer.

    Attributes:
        texts: the two.
        others: those that add nothing to the two where they are empty.
    """

    texts: tuple[Get, Get]
    others: tuple[Get, ...]


@dataclass(frozen=True, slots=True)
class Shape:
    """Records with certain keys.

    Attributes:
        format: theirs.
        decode: a line as a record. Raises `msgspec.MsgspecError` where it has other keys, or is no JSON.
        read: a record's conversation; None for a record that has to be read with care.
        pair: None where a conversation may have more than two turns.
    """

    format: Format
    decode: Callable[[bytes], Any]
    read: Read
    pair: Pair | None

    def pairs(self, records: Sequence[Any]) -> Block | None:
        """Questions and answers of records that have nothing else, all at once; None where `read` has to look."""
        if self.pair is None or any(any(map(get, records)) for get in self.pair.others):
            return None
        texts: list[bytes | memoryview] = [b""] * (2 * len(records))
        texts[::2], texts[1::2] = ([memoryview(get(record)) for record in records] for get in self.pair.texts)
        block = Block(texts, [2] * len(records))
        return block if block.is_as_written and not len(block.doubtful) else None


@lru_cache(maxsize=1024)
def shape_of(keys: tuple[str, ...]) -> Shape | None:
    """The shape of records with these keys; None where all of them have to be read with care."""
    found = detect_format(frozenset(keys))
    if found is None or found.name not in PLAIN or not all(map(str.isidentifier, keys)):
        return None
    fields, read = PLAIN[found.name]
    known = {field[0] for field in fields}
    others: list[Field] = [(key, Any, None) for key in keys if key not in known]
    record = msgspec.defstruct("Record", [*fields, *others], forbid_unknown_fields=True, gc=False)
    return Shape(found, msgspec.json.Decoder(record).decode, read, _pair_of(fields))


def looked_at(said: list[Said | None]) -> tuple[list[Said | None], Block | None]:
    """What was said, as it may be written, and all of it as one block.

    Texts are escaped as orjson would; None stands in the place of what has to be read with care.
    """
    block = _block_of(said)
    if block is not None and not block.is_as_written:
        said = list(map(_written_anew, said))
        block = _block_of(said)
    if block is not None and len(block.doubtful):
        places = [at for at, one in enumerate(said) if one is not None]
        odd = {places[at] for at in block.doubtful if not _is_plain(block.row(at))}
        if odd:
            said = [None if at in odd else one for at, one in enumerate(said)]
            block = _block_of(said)
    return said, block


def _block_of(said: list[Said | None]) -> Block | None:
    rows = [one[1] for one in said if one is not None]
    return Block.of(rows) if rows else None


def _written_anew(said: Said | None) -> Said | None:
    if said is None:
        return None
    roles, texts = said
    try:
        return roles, tuple(map(orjson.dumps, map(orjson.loads, texts)))
    except orjson.JSONDecodeError:
        return None


def _is_plain(texts: Texts) -> bool:
    """Whether all are texts, and neither the answer nor what stands before it is blank."""
    try:
        values = list(map(orjson.loads, texts))
    except orjson.JSONDecodeError:  # a number that is too large
        return False
    return all(isinstance(value, str) for value in values) and all(value.strip() for value in values[-2:])


def _pair_of(fields: Sequence[Field]) -> Pair | None:
    if fields[1] is SYSTEM:
        return None
    ask, answer, *others = (attrgetter(field[0]) for field in fields)
    return Pair((ask, answer), tuple(others))


def _alpaca(record: Any) -> Said | None:
    question, given = bytes(record.instruction), record.input
    if record.history:
        return None
    if given:
        if question[0] != QUOTE or not given.strip() or not _is_plain((question,)):
            return None
        question = question[:-1] + b"\\n" + orjson.dumps(given)[1:]
    return _asked(record, question, bytes(record.output))


def _pair(ask: str, answer: str) -> Read:
    return lambda record: _asked(record, bytes(getattr(record, ask)), bytes(getattr(record, answer)))


def _asked(record: Any, question: bytes, answer: bytes) -> Said | None:
    if record.system:
        return None
    return ALONE, (question, answer)


def _messages(record: Any) -> Said | None:
    turns = record.messages
    if len(turns) < 2 or record.system:
        return None
    if turns[-2].role != "user" or turns[-1].role != "assistant":
        return None
    return tuple(turn.role for turn in turns[:-1]), tuple(bytes(turn.content) for turn in turns)


TEXT = msgspec.Raw
SYSTEM: Field = ("system", str | None, None)
INPUT: Field = ("input", str | None, None)
HISTORY: Field = ("history", list[Any] | None, None)
PLAIN: dict[str, tuple[list[Field], Read]] = {
    "Alpaca": (
        [("instruction", TEXT), ("output", TEXT), INPUT, HISTORY, SYSTEM],
        _alpaca,
    ),
    "prompt/completion": ([("prompt", TEXT), ("completion", TEXT), SYSTEM], _pair("prompt", "completion")),
    "question/answer": ([("question", TEXT), ("answer", TEXT), SYSTEM], _pair("question", "answer")),
    "messages": ([("messages", list[Turn]), SYSTEM], _messages),
}
