"""The statistics of a dataset, gathered in one pass over its rows.

Knows counting, and how to count tokens with a ``tokenizer.json``. Knows nothing of where the rows come from. Memory
grows by about 80 bytes a row (the hashes that find duplicates) and by nothing else.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sage_studio.data.dataset import DatasetStats, Dropped
from sage_studio.data.example import DataRow
from sage_studio.data.script import estimate_tokens, language_of_text, letters_in, prose_of

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BATCH = 256
EXACT_CHARS = 8_000_000
"""Characters that are really tokenized; the tokens of further rows are estimated by the ratio found so far."""
SAMPLE_EVERY = 50
BINS = 20
NICE = (1, 2, 5)
TAIL = 0.99
FEW_LETTERS = 10
LOOKED_AT, READ_FOR_LANGUAGE = 2000, 300
"""Characters of an answer that are looked at for prose, and of the prose that its language is told by."""


class Report:
    """Counts rows as they pass.

    Args:
        tokenizer: a ``tokenizer.json``; None to estimate tokens by script.

    Example:
        >>> from sage_studio.data.example import Message, Origin
        >>> report = Report()
        >>> report.add(Example((Message("user", "Hi"),), "Hello", Origin("x.json", row=1)))
        >>> report.stats().total_chars
        7
    """

    def __init__(self, tokenizer: Path | None = None) -> None:
        self._tokens = _TokenCounter(tokenizer)
        self._hashes: set[int] = set()
        self._languages: Counter[str] = Counter()
        self._rows = self._chars = self._longest = self._duplicates = 0

    def add(self, row: DataRow) -> None:
        """Count one row. Characters and tokens are of all its turns, without the chat template."""
        texts = row.texts
        chars = sum(map(len, texts))
        self._rows += 1
        self._chars += chars
        self._longest = max(self._longest, chars)
        self._languages[_language(texts[-1], row)] += 1
        digest = hash(texts)  # 64 bits, and never compared with another process's
        if digest in self._hashes:
            self._duplicates += 1
        self._hashes.add(digest)
        self._tokens.add("\n".join(texts))

    def stats(self, dropped: tuple[Dropped, ...] = ()) -> DatasetStats:
        """All of it; to be called once, at the end."""
        self._tokens.finish()
        return DatasetStats(
            total_samples=self._rows,
            total_chars=self._chars,
            avg_chars_per_sample=round(self._chars / self._rows, 1) if self._rows else 0.0,
            longest_chars=self._longest,
            estimated_tokens=self._tokens.total,
            tokens_are_exact=self._tokens.is_exact,
            tokenizer=self._tokens.name,
            token_histogram=histogram(self._tokens.lengths),
            languages=dict(self._languages.most_common()),
            dropped=dropped,
            duplicates=self._duplicates,
        )


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


def _language(answer: str, row: DataRow) -> str:
    """Of the answer's prose; an answer that is nothing but code has the language of its question."""
    prose = prose_of(answer[:LOOKED_AT])[:READ_FOR_LANGUAGE]
    has_words = letters_in(prose[:40]) >= FEW_LETTERS or letters_in(prose[:200]) >= FEW_LETTERS
    return language_of_text(prose if has_words else row.asked)


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


class _TokenCounter:
    """Tokens per row: exact for the first `EXACT_CHARS`, then every `SAMPLE_EVERY`-th row, the rest by ratio."""

    def __init__(self, tokenizer: Path | None) -> None:
        self._tokenizer = _load(tokenizer) if tokenizer is not None else None
        self.name = tokenizer.parent.name if tokenizer is not None else ""
        self.is_exact = tokenizer is not None
        self.lengths: Counter[int] = Counter()
        self.total = 0
        self._batch: list[str] = []
        self._encoded_chars = self._seen = self._real = self._guessed = 0

    def add(self, text: str) -> None:
        self._seen += 1
        if self._tokenizer is None:
            self._count(estimate_tokens(text))
        elif self._encoded_chars < EXACT_CHARS or self._seen % SAMPLE_EVERY == 0:
            self._encoded_chars += len(text)
            self._batch.append(text)
            if len(self._batch) == BATCH:
                self.finish()
        else:
            self.is_exact = False
            self._count(round(estimate_tokens(text) * self._ratio))

    def finish(self) -> None:
        """Count what waits in the batch."""
        if self._tokenizer is None or not self._batch:
            return
        for text, encoding in zip(self._batch, _encode(self._tokenizer, self._batch), strict=True):
            self._real += encoding
            self._guessed += estimate_tokens(text)
            self._count(encoding)
        self._batch = []

    @property
    def _ratio(self) -> float:
        return self._real / self._guessed if self._guessed else 1.0

    def _count(self, tokens: int) -> None:
        self.total += tokens
        self.lengths[tokens] += 1


def _load(path: Path) -> "Tokenizer":
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _encode(tokenizer: "Tokenizer", texts: Sequence[str]) -> list[int]:
    encoded = tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)
    return [len(encoding) for encoding in encoded]
