"""The texts of many rows as one array of bytes, looked at all at once: that takes a third of the time of one by one.

Knows texts as they stand in JSON, the way orjson writes them, so that a row can be counted that was never decoded.
Knows nothing of rows but their texts, the answer last.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias

import orjson
from xxhash import xxh3_64_intdigest

from sage_studio.data.script import CLASSES, FEW_LETTERS, language_of_utf8

if TYPE_CHECKING:
    import numpy as np

    Bytes: TypeAlias = np.ndarray[Any, np.dtype[np.uint8]]
    Mask: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]
    Numbers: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]

Texts: TypeAlias = Sequence[bytes]
"""A row's texts in JSON, the answer last; at least one."""
LOOKED_AT = 300
"""Bytes of a text's begin that its language is told by."""
QUOTE, BACKSLASH, LONG_ESCAPE, SLASH = b'"\\u/'
MOST_IN_16_BITS = 0xFFFF
MAYBE_BLANK = bytes(byte in b' "\\\xc2\xe1\xe2\xe3' for byte in range(256))
"""First bytes of spaces, of an escape, and of the end of the text."""
LEAST_BEGIN = -64
"""As signed numbers, bytes below do not begin a character in UTF-8."""


class Block:
    r"""Texts of at least one row.

    Example:
        >>> block = Block([[b'"a\\n"', '"词"'.encode()], [b'"b"']])
        >>> block.sizes.tolist(), block.chars.tolist()
        ([10, 3], [3, 1])
    """

    def __init__(self, rows: Sequence[Texts]) -> None:
        import numpy as np

        self.rows = rows
        texts = list(chain.from_iterable(rows))
        lengths = np.fromiter(map(len, texts), np.int64, len(texts))
        self._begins = np.cumsum(lengths) - lengths
        self._texts_per_row = np.fromiter(map(len, rows), np.int64, len(rows))
        self._firsts = np.cumsum(self._texts_per_row) - self._texts_per_row
        self._joined = b"".join(texts)
        self._codes = np.frombuffer(self._joined, np.uint8)
        self._escapes = self._codes == BACKSLASH
        self.sizes: Numbers = np.add.reduceat(lengths, self._firsts)

    @property
    def is_as_written(self) -> bool:
        """Whether the texts are UTF-8 and escaped as orjson would, so that they can be copied.

        A backslash that is one itself may be taken for a foreign escape.
        """
        is_foreign = self._has_escape(LONG_ESCAPE) or self._has_escape(SLASH)
        return not is_foreign and (self._joined.isascii() or is_utf8(self._codes))

    @property
    def doubtful(self) -> "Numbers":
        """Numbers of the rows that hold a value which is no text, or a text that may be blank."""
        import numpy as np

        last = len(self._codes) - 1  # a number may have one digit
        is_doubtful = np.frombuffer(MAYBE_BLANK, np.bool_)[self._codes[np.minimum(self._begins + 1, last)]]
        is_doubtful |= self._codes[self._begins] != QUOTE
        return np.unique(np.searchsorted(self._firsts, np.flatnonzero(is_doubtful), side="right") - 1)

    @property
    def chars(self) -> "Numbers":
        """Characters of each row."""
        import numpy as np

        if self._has_escape(LONG_ESCAPE) or self._has_escape(BACKSLASH):
            return np.array([sum(len(orjson.loads(text)) for text in texts) for texts in self.rows])
        begins = self._codes.view(np.int8) >= LEAST_BEGIN
        begins &= ~self._escapes  # an escape is one character
        width = np.uint16 if self.sizes.max() <= MOST_IN_16_BITS else np.uint32
        counted = np.add.reduceat(begins.view(np.uint8), self._begins[self._firsts], dtype=width)
        return counted.astype(np.int64) - 2 * self._texts_per_row

    @property
    def digests(self) -> list[int]:
        """64 bits of each row's texts, the same in every process."""
        whole, end = memoryview(self._joined), 0
        return [xxh3_64_intdigest(whole[end : (end := end + size)]) for size in self.sizes.tolist()]

    @property
    def languages(self) -> Counter[str]:
        """How many rows have which language: of each what `language_of` says."""
        begins = [texts[-1][:LOOKED_AT] for texts in self.rows]
        chinese, english = _languages_in(begins, FEW_LETTERS)
        found = Counter(zh=int(chinese.sum()))
        coded = [self.rows[at] for at in english.nonzero()[0] if b"`" in begins[at]]
        unclear = [self.rows[at] for at in (~(chinese | english)).nonzero()[0]]
        found["en"] += int(english.sum()) - len(coded)
        if coded:
            chinese, english = _languages_in(list(map(_before, coded)), 1)
            found.update(zh=int(chinese.sum()), en=int(english.sum()))
            unclear += [coded[at] for at in (~(chinese | english)).nonzero()[0]]
        found.update(map(language_of, unclear))
        return +found

    def _has_escape(self, code: int) -> bool:
        """Whether a backslash stands before this byte."""
        return bool((self._escapes[:-1] & (self._codes[1:] == code)).any())


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


def is_utf8(codes: "Bytes") -> bool:
    """As `bytes.decode` would tell, in a fifth of the time; the last byte has to be one of ASCII.

    The rules are those of table 3-7 of the Unicode standard, looked at for all bytes at once.
    """
    import numpy as np

    is_next = (codes & 0xC0) == 0x80
    of_two, of_three, of_four = codes - np.uint8(0xC2) < 0x1E, (codes & 0xF0) == 0xE0, codes - np.uint8(0xF0) < 5
    expected = np.zeros_like(is_next)
    expected[1:] = (of_two | of_three | of_four)[:-1]
    expected[2:] |= of_three[:-2]
    if of_four.any():
        expected[2:] |= of_four[:-2]
        expected[3:] |= of_four[:-3]
    if not np.array_equal(expected, is_next) or not ((codes < 0x80) | is_next | of_two | of_three | of_four).all():
        return False
    first, second = codes[:-1], codes[1:]
    too_low = ((first == 0xE0) & (second < 0xA0)).any() or ((first == 0xF0) & (second < 0x90)).any()
    return not (too_low or ((first == 0xED) & (second > 0x9F)).any() or ((first == 0xF4) & (second > 0x8F)).any())
