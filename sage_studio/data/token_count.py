"""How many tokens the rows of a dataset have, by a ``tokenizer.json`` or by their size.

Knows counting by a tokenizer, and guessing where there is none or too much to count. Knows nothing of rows but their
texts.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BATCH = 256
EXACT_CHARS = 8_000_000
"""Characters that are really tokenized; of further rows only a sample is, by whose ratio the rest is estimated."""


class TokenCounter:
    """Tokens per row: exact for the first `EXACT_CHARS`, then by a sample.

    Args:
        tokenizer: a ``tokenizer.json``; None to guess by their size.
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
        """Whether the next row is to be tokenized whatever it is."""
        return self._tokenizer is not None and self._exact_chars < EXACT_CHARS

    def add(self, text: str, guess: int) -> None:
        """Count a row of which so many tokens would be guessed."""
        self._exact_chars += len(text)
        self.add_sample(text, guess)

    def add_sample(self, text: str, guess: int) -> None:
        """Count a row that was chosen to stand for others."""
        self._batch.append((text, guess))
        if len(self._batch) == BATCH:
            self._encode()

    def finish(self, guesses: Mapping[int, int]) -> None:
        """Count what waits, and rows that were not tokenized, by the ratio found.

        Args:
            guesses: such rows per number of tokens guessed.
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
