"""The texts of many rows as one array of bytes, looked at all at once: that takes a third of the time of one by one.

Knows texts as they stand in JSON, the way orjson writes them, so that a row can be counted that was never decoded.
Knows nothing of rows but their texts, the answer last.
"""

from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias

import orjson
from xxhash import xxh3_64_intdigest

from sage_studio.data.script import CLASSES, FEW_LETTERS, language_of_utf8

if TYPE_CHECKING:
    import numpy as np

    Digests: TypeAlias = np.ndarray[Any, np.dtype[np.uint64]]
    Mask: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]
    Numbers: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]

Texts: TypeAlias = Sequence[bytes]
"""A row's texts in JSON, the answer last; at least one."""
LOOKED_AT = 300
"""Bytes of a text's begin that its language is told by."""
QUOTE, BACKSLASH = b'"\\'
FIRST_OF_TWO, LAST_BIT_OF_SECOND = 0x00FF, 0x0100
MIX = 0x9E3779B97F4A7C15
MOST_IN_16_BITS = 0xFFFF
MAYBE_BLANK = bytes(byte in b' "\\\xc2\xe1\xe2\xe3' for byte in range(256))
"""First bytes of spaces, of an escape, and of the end of the text."""
FEW = 60
"""So many rows are decoded sooner than all are looked at."""
LEAST_BEGIN = -64
"""As signed numbers, bytes below do not begin a character in UTF-8."""


class Block:
    r"""Texts of at least one row.

    Args:
        texts: in JSON, of one row behind the other.
        counts: how many of them each row has.

    Example:
        >>> block = Block.of([[b'"a\\n"', '"词"'.encode()], [b'"b"']])
        >>> block.sizes.tolist(), block.chars, block.longest()
        ([10, 3], 4, 3)
    """

    def __init__(self, texts: Sequence[bytes | memoryview], counts: Sequence[int]) -> None:
        import numpy as np

        self.texts = texts
        self._counts = np.array(counts, np.int64)
        self._firsts = np.cumsum(self._counts) - self._counts
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        self._begins = np.cumsum(lengths) - lengths
        self._joined = b"".join(texts)
        self._codes = np.frombuffer(self._joined, np.uint8)
        self._escapes = self._codes == BACKSLASH
        self.sizes: Numbers = np.add.reduceat(lengths, self._firsts)

    @classmethod
    def of(cls, rows: Sequence[Texts]) -> "Block":
        """The texts of these rows."""
        return cls(list(chain.from_iterable(rows)), list(map(len, rows)))

    def __len__(self) -> int:
        """How many rows."""
        return len(self._counts)

    def row(self, at: int) -> Texts:
        """The texts of one."""
        first = self._firsts[at]
        return list(map(bytes, self.texts[first : first + self._counts[at]]))

    @property
    def is_as_written(self) -> bool:
        """Whether the texts are UTF-8 and escaped as orjson would, so that they can be copied.

        A backslash that is one itself may be taken for a foreign escape.
        """
        try:
            return not self._has_foreign_escapes and self._decoded > 0
        except UnicodeDecodeError:
            return False

    @property
    def doubtful(self) -> "Numbers":
        """Numbers of the rows that hold a value which is no text, or a text that may be blank."""
        import numpy as np

        last = len(self._codes) - 1  # a number may have one digit
        is_doubtful = np.frombuffer(MAYBE_BLANK, np.bool_)[self._codes[np.minimum(self._begins + 1, last)]]
        is_doubtful |= self._codes[self._begins] != QUOTE
        return np.unique(np.searchsorted(self._firsts, np.flatnonzero(is_doubtful), side="right") - 1)

    @property
    def chars(self) -> int:
        """Characters of all rows."""
        import numpy as np

        if self._is_intricate:
            return sum(len(orjson.loads(text)) for text in self.texts)
        return self._decoded - int(np.count_nonzero(self._escapes)) - 2 * len(self.texts)

    def longest(self, least: int = 0) -> int:
        """Characters of the longest row; ``least`` where none has more."""
        import numpy as np

        quotes = 2 * self._counts
        longer = np.flatnonzero(self.sizes - quotes > least)  # in bytes
        if len(longer) <= FEW or self._is_intricate:
            return max(least, 0, *(sum(len(orjson.loads(text)) for text in self.row(at)) for at in longer))
        begins = self._codes.view(np.int8) >= LEAST_BEGIN
        begins ^= self._escapes  # an escape is one character
        width = np.uint16 if self.sizes.max() <= MOST_IN_16_BITS else np.uint32
        counted = np.add.reduceat(begins.view(np.uint8), self._begins[self._firsts], dtype=width)
        return max(least, int((counted - quotes).max()))

    @property
    def digests(self) -> "Digests":
        """64 bits of each row's texts, the same in every process."""
        import numpy as np

        digests = np.fromiter(map(xxh3_64_intdigest, self.texts), np.uint64, len(self.texts))
        place = np.arange(len(digests)) - np.repeat(self._firsts, self._counts)
        digests *= MIX + 2 * place.astype(np.uint64)  # odd numbers, of which none loses a bit
        return np.add.reduceat(digests, self._firsts)

    @property
    def languages(self) -> Counter[str]:
        """How many rows have which language: of each what `language_of` says."""
        rows = list(map(self.row, range(len(self))))
        begins = [texts[-1][:LOOKED_AT] for texts in rows]
        chinese, english = _languages_in(begins, FEW_LETTERS)
        found = Counter(zh=int(chinese.sum()))
        coded = [rows[at] for at in english.nonzero()[0] if b"`" in begins[at]]
        unclear = [rows[at] for at in (~(chinese | english)).nonzero()[0]]
        found["en"] += int(english.sum()) - len(coded)
        if coded:
            chinese, english = _languages_in(list(map(_before, coded)), 1)
            found.update(zh=int(chinese.sum()), en=int(english.sum()))
            unclear += [coded[at] for at in (~(chinese | english)).nonzero()[0]]
        found.update(map(language_of, unclear))
        return +found

    @cached_property
    def _decoded(self) -> int:
        """Length of all texts as they stand in JSON. Raises `UnicodeDecodeError`."""
        return len(self._joined if self._joined.isascii() else self._joined.decode())

    @cached_property
    def _is_intricate(self) -> bool:
        """Whether a text may hold an escape that is not one character for two."""
        return self._has_foreign_escapes or self._has(rb"\\")

    @cached_property
    def _has_foreign_escapes(self) -> bool:
        r"""Whether there is ``\u`` or ``\/``: of all escapes of JSON, these two end in an odd byte."""
        return self._has(rb"\u", FIRST_OF_TWO | LAST_BIT_OF_SECOND)

    def _has(self, pair: bytes, mask: int = 0) -> bool:
        """Whether these two bytes stand anywhere: numpy finds them, two at a time, sooner than `bytes.find`.

        Args:
            mask: the bits that have to be the same; all of them unless given.
        """
        import numpy as np

        pairs = (np.frombuffer(self._joined, "<u2", (len(self._joined) - at) // 2, at) for at in (0, 1))
        wanted = int.from_bytes(pair, "little")
        if mask:
            return any(bool((each & mask == wanted & mask).any()) for each in pairs)
        return any(bool((each == wanted).any()) for each in pairs)


def language_of(texts: Texts) -> str:
    """Of the answer's begin; where code is in it that says nothing, or too little, of what stands before the answer."""
    answer = texts[-1]
    found = language_of_utf8(answer[:LOOKED_AT], FEW_LETTERS)
    if not found or (found != "zh" and b"`" in answer[:LOOKED_AT]):
        found = language_of_utf8(_before(texts), 1) or found
    return found or language_of_utf8(answer)


def _before(texts: Texts) -> bytes:
    return texts[-2][:LOOKED_AT] if len(texts) > 1 else b""


def _languages_in(begins: Sequence[bytes], least: int) -> "tuple[Mask, Mask]":
    """Which of the texts are clearly Chinese, and which English, by the rule of `language_of_utf8`."""
    import numpy as np

    codes = np.frombuffer(b" ".join((*begins, b" ")).translate(CLASSES), np.uint8)
    lengths = np.fromiter(map(len, begins), np.int64, len(begins)) + 1
    places = np.cumsum(lengths) - lengths

    def count(mask: "Mask") -> "Numbers":
        counted: Numbers = np.add.reduceat(mask.view(np.uint8), places, dtype=np.uint16).astype(np.int64)
        return counted

    letters = codes == ord("a")
    words = np.zeros_like(letters)
    words[:-1] = letters[:-1] & letters[1:]
    words[1:] &= ~letters[:-1]
    han, latin = count(codes == ord("h")), count(words)
    is_clear = (han + 2 * latin >= least) & (count((codes == ord("o")) | (codes == ord("k"))) // 2 <= han)
    return is_clear & (han >= latin), is_clear & (han < latin)


def is_utf8(text: bytes) -> bool:
    """Whether it can be decoded."""
    try:
        return text.isascii() or bool(text.decode())
    except UnicodeDecodeError:
        return False
