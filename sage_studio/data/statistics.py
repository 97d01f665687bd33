"""Statistics of a dataset: rows, tokens, languages and duplicates, in one pass.

`RunningStats` of two parts of a file can be added up. Memory grows by 8 bytes a row (digests that find duplicates).
"""

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import orjson
from xxhash import xxh3_64_intdigest

from sage_studio.data.dataset import DatasetStats, Dropped
from sage_studio.data.language import CLASSES, FEW_LETTERS, detect_language_utf8, estimate_tokens_of_size
from sage_studio.data.rows import DataRow

if TYPE_CHECKING:
    import numpy as np

    Digests: TypeAlias = np.ndarray[Any, np.dtype[np.uint64]]
    Mask: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]
    Numbers: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
    from tokenizers import Tokenizer


Texts: TypeAlias = Sequence[bytes]
"""A row's texts in JSON, the answer last; at least one."""
LOOKED_AT = 300
"""Leading bytes of a text that decide its language."""
QUOTE, BACKSLASH = b'"\\'
FIRST_OF_TWO, LAST_BIT_OF_SECOND = 0x00FF, 0x0100
MIX = 0x9E3779B97F4A7C15
MOST_IN_16_BITS = 0xFFFF
MAYBE_BLANK = bytes(byte in b' "\\\xc2\xe1\xe2\xe3' for byte in range(256))
"""First bytes of white space, of an escape, and of the closing quote."""
FEW = 60
"""Up to this many rows, decoding each is faster than the array operations over all."""
LEAST_BEGIN = -64
"""Signed bytes below this are continuation bytes of UTF-8."""


class TextBatch:
    r"""The texts of many rows as one array of bytes, counted by numpy: three times as fast as row by row.

    Texts are JSON strings as orjson writes them, so rows can be counted that were never decoded.

    Args:
        texts: of one row after the other, the answer last; at least one row.
        counts: texts per row.

    Example:
        >>> batch = TextBatch.of([[b'"a\\n"', '"词"'.encode()], [b'"b"']])
        >>> batch.sizes.tolist(), batch.chars, batch.longest()
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
    def of(cls, rows: Sequence[Texts]) -> "TextBatch":
        """The texts of these rows."""
        return cls(list(chain.from_iterable(rows)), list(map(len, rows)))

    def __len__(self) -> int:
        """Number of rows."""
        return len(self._counts)

    def row(self, at: int) -> Texts:
        """The texts of one row."""
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
        """Indices of rows with a value that is not a string, or a string that may be blank."""
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
        """A 64-bit digest per row, the same in every process. Shape (rows,)."""
        import numpy as np

        digests = np.fromiter(map(xxh3_64_intdigest, self.texts), np.uint64, len(self.texts))
        place = np.arange(len(digests)) - np.repeat(self._firsts, self._counts)
        digests *= MIX + 2 * place.astype(np.uint64)  # odd numbers, of which none loses a bit
        return np.add.reduceat(digests, self._firsts)

    @property
    def languages(self) -> Counter[str]:
        """Rows per language, as `row_language` tells it."""
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
        found.update(map(row_language, unclear))
        return +found

    @cached_property
    def _decoded(self) -> int:
        """Characters of all texts as JSON. Raises `UnicodeDecodeError`."""
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
        """Whether these two bytes occur; numpy finds them faster than `bytes.find`.

        Args:
            mask: the bits to compare; all unless given.
        """
        import numpy as np

        pairs = (np.frombuffer(self._joined, "<u2", (len(self._joined) - at) // 2, at) for at in (0, 1))
        wanted = int.from_bytes(pair, "little")
        if mask:
            return any(bool((each & mask == wanted & mask).any()) for each in pairs)
        return any(bool((each == wanted).any()) for each in pairs)


def row_language(texts: Texts) -> str:
    """By the beginning of the answer; where that is short or holds code, by what precedes the answer."""
    answer = texts[-1]
    found = detect_language_utf8(answer[:LOOKED_AT], FEW_LETTERS)
    if not found or (found != "zh" and b"`" in answer[:LOOKED_AT]):
        found = detect_language_utf8(_before(texts), 1) or found
    return found or detect_language_utf8(answer)


def _before(texts: Texts) -> bytes:
    return texts[-2][:LOOKED_AT] if len(texts) > 1 else b""


def _languages_in(begins: Sequence[bytes], least: int) -> "tuple[Mask, Mask]":
    """Masks of the texts that are clearly Chinese and clearly English, by the rule of `detect_language_utf8`."""
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


AT_ONCE = 400
SAMPLE_EVERY = 50
EXACT_ROWS, LANGUAGE_EVERY = 20_000, 16
"""Beyond so many rows, languages are estimated from a sample of one in sixteen."""


def texts_as_json(texts: Iterable[str]) -> list[bytes]:
    """Texts as JSON strings, as in a line of ``data.jsonl``."""
    return list(map(orjson.dumps, texts))


class RunningStats:
    """Mergeable counts over rows; characters are of all turns, without the chat template.

    Args:
        sampling: whether to keep a sample of texts to be tokenized, chosen by their digests, wherever they are.
        before: rows of the file before those counted here, usable or not.
        longest: characters of the longest row so far, if known.
    """

    def __init__(self, *, sampling: bool = False, before: int = 0, longest: int = 0) -> None:
        self._sampling, self._before = sampling, before
        self._rows = self._chars = 0
        self._longest = longest
        self._languages: Counter[str] = Counter()
        self._sampled: Counter[str] = Counter()
        self._sample: list[Texts] = []
        self._digests = array("Q")
        self._guesses: Counter[int] = Counter()
        self._samples: list[tuple[str, int]] = []
        self._waiting: list[Texts] = []
        self._is_guessed = True

    def add(self, texts: Texts, *, is_guessed: bool = True) -> None:
        """Count a row. ``is_guessed``: its tokens are estimated by size, not counted by a tokenizer."""
        if is_guessed != self._is_guessed:
            self.finish()
            self._is_guessed = is_guessed
        self._waiting.append(texts)
        if len(self._waiting) == AT_ONCE:
            self._count_waiting()

    def add_all(self, block: TextBatch, *, is_guessed: bool = True) -> None:
        """Count the rows of a batch."""
        digests = block.digests
        self._rows += len(digests)
        self._chars += block.chars
        self._longest = block.longest(self._longest)
        self._digests.frombytes(digests.tobytes())
        self._tell_languages(block, digests)
        if is_guessed:
            self._guess(block, digests)

    def finish(self) -> "RunningStats":
        """Count buffered rows; returns itself."""
        self._count_waiting()
        self._look_at_sample()
        return self

    def merge(self, other: "RunningStats") -> None:
        """Add the counts of another part of the file."""
        figures = other.finish()
        self._rows += figures._rows
        self._chars += figures._chars
        self._longest = max(self._longest, figures._longest)
        self._languages.update(figures._languages)
        self._sampled.update(figures._sampled)
        self._digests += figures._digests
        self._guesses.update(figures._guesses)
        self._samples += figures._samples

    @property
    def rows(self) -> int:
        """How many."""
        return self.finish()._rows

    @property
    def chars(self) -> int:
        """Of all rows."""
        return self.finish()._chars

    @property
    def longest(self) -> int:
        """Characters of the longest row."""
        return self.finish()._longest

    @property
    def languages(self) -> Counter[str]:
        """Rows per language of the answer."""
        self.finish()
        if self.languages_are_exact or not self._sampled:
            return self._languages
        scale = self.rows / self._sampled.total()
        return Counter({name: round(rows * scale) for name, rows in self._sampled.items()})

    @property
    def languages_are_exact(self) -> bool:
        """Whether every row's language was looked at."""
        return self.rows == self._languages.total()

    @property
    def guesses(self) -> Counter[int]:
        """Rows per estimated number of tokens, of rows that are neither tokenized nor sampled."""
        return +self.finish()._guesses

    @property
    def duplicates(self) -> int:
        """Rows whose texts are those of an earlier one."""
        import numpy as np

        digests = np.sort(np.frombuffer(self.finish()._digests, np.uint64))
        return int((digests[1:] == digests[:-1]).sum())

    def take_samples(self) -> list[tuple[str, int]]:
        """The texts sampled since the last call, each with its estimated tokens."""
        taken, self._samples = self.finish()._samples, []
        return taken

    def _count_waiting(self) -> None:
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            self.add_all(TextBatch.of(waiting), is_guessed=self._is_guessed)

    def _look_at_sample(self) -> None:
        if self._sample:
            sample, self._sample = self._sample, []
            self._sampled.update(TextBatch.of(sample).languages)

    def _tell_languages(self, block: TextBatch, digests: "Digests") -> None:
        if self._before + self._rows <= EXACT_ROWS:
            self._languages.update(block.languages)
        self._sample += [block.row(at) for at in _every(LANGUAGE_EVERY, digests)]
        if len(self._sample) >= AT_ONCE:
            self._look_at_sample()

    def _guess(self, block: TextBatch, digests: "Digests") -> None:
        guesses = estimate_tokens_of_size(block.sizes).tolist()
        self._guesses.update(guesses)
        for at in _every(SAMPLE_EVERY, digests) if self._sampling else ():
            self._samples.append(("\n".join(map(orjson.loads, block.row(at))), guesses[at]))
            self._guesses[guesses[at]] -= 1


def _every(count: int, digests: "Digests") -> list[int]:
    """Indices of about one digest in ``count``."""
    places: list[int] = (digests % count == 0).nonzero()[0].tolist()
    return places


def guessed_tokens(texts: Texts) -> int:
    """Estimated tokens of a row."""
    return estimate_tokens_of_size(sum(map(len, texts)))


BATCH = 256
EXACT_CHARS = 8_000_000
"""Characters that are tokenized in full; of further rows a sample is, and its ratio corrects the estimate."""


class TokenCounter:
    """Tokens per row: exact for the first `EXACT_CHARS` characters, then estimated from a sample.

    Args:
        tokenizer: a ``tokenizer.json``; None to estimate by size.
    """

    def __init__(self, tokenizer: Path | None) -> None:
        self._tokenizer = _load(tokenizer) if tokenizer is not None else None
        self.name = tokenizer.parent.name if tokenizer is not None else ""
        self.lengths: Counter[int] = Counter()
        self.total = 0
        self._batch: list[tuple[str, int]] = []
        self._exact_chars = self._real = self._guessed = 0

    @property
    def wants_all(self) -> bool:
        """Whether the next row is tokenized in any case."""
        return self._tokenizer is not None and self._exact_chars < EXACT_CHARS

    def add(self, text: str, guess: int) -> None:
        """Tokenize a row whose estimate is ``guess`` tokens."""
        self._exact_chars += len(text)
        self.add_sample(text, guess)

    def add_sample(self, text: str, guess: int) -> None:
        """Tokenize a row of the sample."""
        self._batch.append((text, guess))
        if len(self._batch) == BATCH:
            self._encode()

    def finish(self, guesses: Mapping[int, int]) -> None:
        """Tokenize what is buffered and add the rows that were not tokenized, by the ratio found.

        Args:
            guesses: such rows per estimated number of tokens.
        """
        self._encode()
        ratio = self._real / self._guessed if self._guessed else 1.0
        for guess, rows in guesses.items():
            self._count(round(guess * ratio), rows)

    def _encode(self) -> None:
        if self._tokenizer is None or not self._batch:
            return
        encoded = self._tokenizer.encode_batch_fast([text for text, _ in self._batch], add_special_tokens=False)
        for (_, guess), encoding in zip(self._batch, encoded, strict=True):
            self._real += len(encoding)
            self._guessed += guess
            self._count(len(encoding), 1)
        self._batch = []

    def _count(self, tokens: int, rows: int) -> None:
        self.total += tokens * rows
        self.lengths[tokens] += rows


def _load(path: Path) -> "Tokenizer":
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


BINS = 20
NICE = (1, 2, 5)
TAIL = 0.99


class StatsCollector:
    """Collects the statistics of a dataset from its rows, or from the counts of its parts.

    Args:
        tokenizer: a ``tokenizer.json``; None to estimate tokens by size.

    Example:
        >>> from sage_studio.data.rows import Example, Message, Origin
        >>> collector = StatsCollector()
        >>> collector.add(Example((Message("user", "Hi"),), "Hello", Origin("x.json", row=1)))
        >>> collector.stats().total_chars
        7
    """

    def __init__(self, tokenizer: Path | None = None) -> None:
        self._running = RunningStats(sampling=tokenizer is not None)
        self._tokens = TokenCounter(tokenizer)

    def add(self, row: DataRow) -> None:
        """Count a row. Characters and tokens are of all its turns, without the chat template."""
        texts, is_tokenized = texts_as_json(row.texts), self._tokens.wants_all
        self._running.add(texts, is_guessed=not is_tokenized)
        if is_tokenized:
            self._tokens.add("\n".join(row.texts), guessed_tokens(texts))

    def merge(self, part: RunningStats, rows: Iterable[DataRow]) -> None:
        """Add a part that another process counted; its rows are read only while all rows are tokenized."""
        if self._tokens.wants_all:
            for row in rows:
                self.add(row)
        else:
            self._running.merge(part)
        self._take_samples()

    def stats(self, dropped: tuple[Dropped, ...] = ()) -> DatasetStats:
        """The result; call once, at the end."""
        self._take_samples()
        self._tokens.finish(self._running.guesses)
        rows, chars = self._running.rows, self._running.chars
        return DatasetStats(
            total_samples=rows,
            total_chars=chars,
            avg_chars_per_sample=round(chars / rows, 1) if rows else 0.0,
            longest_chars=self._running.longest,
            estimated_tokens=self._tokens.total,
            tokens_are_exact=bool(self._tokens.name) and not self._running.guesses,
            tokenizer=self._tokens.name,
            token_histogram=histogram(self._tokens.lengths),
            languages=dict(self._running.languages.most_common()),
            languages_are_exact=self._running.languages_are_exact,
            dropped=dropped,
            duplicates=self._running.duplicates,
        )

    def _take_samples(self) -> None:
        for text, guess in self._running.take_samples():
            self._tokens.add_sample(text, guess)


def histogram(lengths: Counter[int]) -> tuple[tuple[int, int], ...]:
    """About `BINS` bins of equal, round width, the last of them reaching up to the longest row.

    Args:
        lengths: rows per length.

    Returns:
        (upper bound, rows above the bound before and up to this one) pairs.
    """
    if not lengths:
        return ()
    longest, width = max(lengths), _width(_quantile(lengths, TAIL))
    bins: Counter[int] = Counter()
    for length, rows in lengths.items():
        bins[min(max(length - 1, 0) // width, BINS - 1)] += rows
    return tuple(
        (width * (index + 1) if index < BINS - 1 else max(longest, width * BINS), bins[index])
        for index in range(max(bins) + 1)
    )


def _quantile(lengths: Counter[int], share: float) -> int:
    left = share * lengths.total()
    for length in sorted(lengths):
        left -= lengths[length]
        if left <= 0:
            return length
    return max(lengths)


def _width(reach: int) -> int:
    """The least of 1, 2, 5, 10, 20, 50 … with which `BINS` bins reach ``reach``."""
    power = 1
    while True:
        for nice in NICE:
            if nice * power * BINS >= reach:
                return nice * power
        power *= 10
