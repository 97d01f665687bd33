"""The statistics of a dataset, gathered in one pass over its rows or over the counts of its parts.

Knows the figures that are shown. Knows nothing of where the rows come from, nor how one of them is counted (`tally`,
`token_count`).
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from sage_studio.data.dataset import DatasetStats, Dropped
from sage_studio.data.example import DataRow
from sage_studio.data.tally import Tally, guessed_tokens, in_json
from sage_studio.data.token_count import TokenCounter

BINS = 20
NICE = (1, 2, 5)
TAIL = 0.99


class Report:
    """Counts rows as they pass.

    Args:
        tokenizer: a ``tokenizer.json``; None to estimate tokens by their size.

    Example:
        >>> from sage_studio.data.example import Message, Origin
        >>> report = Report()
        >>> report.add(Example((Message("user", "Hi"),), "Hello", Origin("x.json", row=1)))
        >>> report.stats().total_chars
        7
    """

    def __init__(self, tokenizer: Path | None = None) -> None:
        self._tally = Tally(sampling=tokenizer is not None)
        self._tokens = TokenCounter(tokenizer)

    def add(self, row: DataRow) -> None:
        """Count one row. Characters and tokens are of all its turns, without the chat template."""
        texts, is_tokenized = in_json(row.texts), self._tokens.wants_all
        self._tally.add(texts, is_guessed=not is_tokenized)
        if is_tokenized:
            self._tokens.add("\n".join(row.texts), guessed_tokens(texts))

    def merge(self, tally: Tally, rows: Iterable[DataRow]) -> None:
        """Count the rows of a part that was counted elsewhere; they are looked at only to tokenize the first ones."""
        if self._tokens.wants_all:
            for row in rows:
                self.add(row)
        else:
            self._tally.merge(tally)
        self._take_samples()

    def stats(self, dropped: tuple[Dropped, ...] = ()) -> DatasetStats:
        """All of it; to be called once, at the end."""
        self._take_samples()
        self._tokens.finish(self._tally.guesses)
        rows, chars = self._tally.rows, self._tally.chars
        return DatasetStats(
            total_samples=rows,
            total_chars=chars,
            avg_chars_per_sample=round(chars / rows, 1) if rows else 0.0,
            longest_chars=self._tally.longest,
            estimated_tokens=self._tokens.total,
            tokens_are_exact=bool(self._tokens.name) and not self._tally.guesses,
            tokenizer=self._tokens.name,
            token_histogram=histogram(self._tokens.lengths),
            languages=dict(self._tally.languages.most_common()),
            languages_are_exact=self._tally.languages_are_exact,
            dropped=dropped,
            duplicates=self._tally.duplicates,
        )

    def _take_samples(self) -> None:
        for text, guess in self._tally.take_samples():
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
