"""Near-duplicate detection by MinHash: signatures from `rensa`, candidates from bands.

Signatures lie in a memory-mapped file, 512 bytes a text; memory grows by about 20 bytes a text.

Broder, "On the resemblance and containment of documents" (1997); Leskovec, Rajaraman and Ullman, "Mining of Massive
Datasets", chapter 3 (bands).
"""

import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from sage_studio.data.language import HAN_RANGES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


UNIT = re.compile(rf"[{HAN_RANGES}]|[^\W{HAN_RANGES}]+")
SHINGLE = 4
PERMUTATIONS, BANDS = 128, 16
BATCH = 1000
SEED = 42
ALIKE = 0.8
"""Estimated Jaccard similarity from which two texts are near-duplicates."""


class SimilarPair(NamedTuple):
    """Two texts by the order in which they were added, from 0; ``first`` came before ``second``."""

    first: int
    second: int
    similarity: float


class NearDuplicates:
    """Finds near-duplicates among the texts added; a context manager.

    Args:
        folder: for the temporary file of signatures; the system's default unless given.

    Example:
        >>> with NearDuplicates() as near:
        ...     for text in ("one two three four five", "窗口按时间分组记录", "one  two, three FOUR five."):
        ...         near.add(text)
        ...     print([tuple(pair) for pair in near.pairs()])
        [(0, 2, 1.0)]
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._file = tempfile.TemporaryFile(dir=folder, prefix=".signatures-")  # noqa: SIM115 - closed by __exit__
        self._waiting: list[list[str]] = []
        self.count = 0

    def add(self, text: str) -> None:
        """Add a text."""
        self._waiting.append(shingles(text))
        self.count += 1
        if len(self._waiting) == BATCH:
            self._sign()

    def pairs(self, alike: float = ALIKE) -> Iterator[SimilarPair]:
        """Each text similar to an earlier one, once, with the most similar among its candidates."""
        return _best(self._candidates(None, alike))

    def pairs_across(self, border: int, alike: float = ALIKE) -> Iterator[SimilarPair]:
        """Each text from number ``border`` on that is similar to one before ``border``, once."""
        return _best(self._candidates(border, alike))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def _sign(self) -> None:
        import numpy as np
        from rensa import RMinHash

        if self._waiting:
            digests = RMinHash.digests_from_token_sets(self._waiting, PERMUTATIONS, SEED)
            self._file.write(np.asarray(digests, dtype=np.uint32).tobytes())
            self._waiting = []

    def _candidates(self, border: int | None, alike: float) -> Iterator[SimilarPair]:
        """Texts that agree in a band, each paired with the first of its bucket and with its neighbour there."""
        import numpy as np

        self._sign()
        self._file.flush()
        if self.count < 2:
            return
        signatures = np.memmap(self._file, dtype=np.uint32, mode="r", shape=(self.count, PERMUTATIONS))
        width = PERMUTATIONS // BANDS
        for band in range(BANDS):
            bucket = _hashed(signatures[:, band * width : (band + 1) * width])
            order = np.argsort(bucket, kind="stable")
            for first, second in _neighbours(order, bucket[order]):
                apart = first != second if border is None else (first < border) & (second >= border)
                yield from _alike(signatures, first[apart], second[apart], alike)


def shingles(text: str) -> list[str]:
    """Runs of `SHINGLE` units in lower case; a unit is a word or, in Chinese, a character.

    Example:
        >>> shingles("The Window groups records, 窗口")
        ['the window groups records', 'window groups records 窗', 'groups records 窗 口']
    """
    units = UNIT.findall(text.lower())
    if len(units) <= SHINGLE:
        return [" ".join(units)]
    return list(map(" ".join, zip(*(units[at:] for at in range(SHINGLE)), strict=False)))


def resemblance(one: str, other: str, size: int = 3) -> float:
    """Exact Jaccard similarity of the character n-grams of two short texts, 0 to 1; ``size`` is n."""
    left, right = (_runs(" ".join(UNIT.findall(text.lower())), size) for text in (one, other))
    return len(left & right) / len(left | right) if left | right else 1.0


def _runs(text: str, size: int) -> set[str]:
    return {text[at : at + size] for at in range(max(1, len(text) - size + 1))} if text else set()


def _best(pairs: Iterator[SimilarPair]) -> Iterator[SimilarPair]:
    best: dict[int, SimilarPair] = {}
    for pair in pairs:
        known = best.get(pair.second)
        if known is None or pair.similarity > known.similarity:
            best[pair.second] = pair
    yield from (best[second] for second in sorted(best))


def _alike(
    signatures: "NDArray[np.uint32]", first: "NDArray[Any]", second: "NDArray[Any]", alike: float
) -> Iterator[SimilarPair]:
    for begin in range(0, len(first), BATCH):
        one, other = first[begin : begin + BATCH], second[begin : begin + BATCH]
        similar = (signatures[one] == signatures[other]).mean(axis=1)
        for at in (similar >= alike).nonzero()[0]:
            yield SimilarPair(int(one[at]), int(other[at]), round(float(similar[at]), 3))


def _hashed(part: "NDArray[np.uint32]") -> "NDArray[np.uint64]":
    """A 64-bit hash per row of (texts, width); collisions are resolved by the full signatures."""
    import numpy as np

    mixed = np.zeros(len(part), dtype=np.uint64)
    for column in range(part.shape[1]):
        mixed = (mixed ^ part[:, column]) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    return mixed


def _neighbours(order: "NDArray[Any]", keys: "NDArray[Any]") -> Iterator[Sequence[Any]]:
    """(first of the bucket, member) and (member before, member), as two pairs of arrays of text numbers."""
    import numpy as np

    same = np.flatnonzero(keys[1:] == keys[:-1]) + 1
    starts = np.maximum.accumulate(np.where(np.r_[True, keys[1:] != keys[:-1]], np.arange(len(keys)), 0))
    yield order[starts[same]], order[same]
    yield order[same - 1], order[same]
