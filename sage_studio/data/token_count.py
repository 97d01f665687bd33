"""How many tokens the rows of a dataset have, by a ``tokenizer.json`` or by their script.

Knows counting by a tokenizer, and guessing where there is none or too much to count. Knows nothing of rows but their
texts.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sage_studio.data.script import estimate_tokens

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BATCH = 256
EXACT_CHARS = 8_000_000
"""Characters that are really tokenized; of further rows only a sample is, by whose ratio the rest is estimated."""
SAMPLE_EVERY = 50


@dataclass
class Guesses:
    """Tokens of rows that were not tokenized.

    Attributes:
        sampling: whether some of the texts are kept to be tokenized.
        rows: how many rows, per guess.
        samples: the texts kept, none of them among ``rows``.
    """

    sampling: bool
    rows: Counter[int] = field(default_factory=Counter)
    samples: list[str] = field(default_factory=list)

    def add(self, texts: Sequence[str], digest: int, guess: int) -> None:
        """A row; its digest decides whether it is one of the sample, so that it does not matter where it stands."""
        if self.sampling and digest % SAMPLE_EVERY == 0:
            self.samples.append("\n".join(texts))
        else:
            self.rows[guess] += 1


class TokenCounter:
    """Tokens per row: exact for the first `EXACT_CHARS`, then by a sample.

    Args:
        tokenizer: a ``tokenizer.json``; None to guess by script.
    """

    def __init__(self, tokenizer: Path | None) -> None:
        self._tokenizer = _load(tokenizer) if tokenizer is not None else None
        self.name = tokenizer.parent.name if tokenizer is not None else ""
        self.lengths: Counter[int] = Counter()
        self.total = 0
        self._batch: list[str] = []
        self._guesses = Guesses(sampling=tokenizer is not None)
        self._exact_chars = self._real = self._guessed = 0

    @property
    def wants_all(self) -> bool:
        """Whether the next row is to be tokenized whatever it is."""
        return self._tokenizer is not None and self._exact_chars < EXACT_CHARS

    @property
    def is_exact(self) -> bool:
        """Whether every row so far was tokenized."""
        return self._tokenizer is not None and not self._guesses.rows

    def add(self, texts: Sequence[str], digest: int, guess: int) -> None:
        """Count a row by its texts, their digest and the tokens guessed by script."""
        if self.wants_all:
            text = "\n".join(texts)
            self._exact_chars += len(text)
            self._wait(text)
            return
        self._guesses.add(texts, digest, guess)
        self._take_samples()

    def merge(self, guesses: Guesses) -> None:
        """Count the rows of a part, none of which has to be tokenized but the sample."""
        self._guesses.rows += guesses.rows
        self._guesses.samples += guesses.samples
        self._take_samples()

    def finish(self) -> None:
        """Count what waits, and the guesses by the ratio found."""
        self._encode()
        ratio = self._real / self._guessed if self._guessed else 1.0
        for guess, rows in self._guesses.rows.items():
            self._count(round(guess * ratio), rows)

    def _take_samples(self) -> None:
        while self._guesses.samples:
            self._wait(self._guesses.samples.pop())

    def _wait(self, text: str) -> None:
        self._batch.append(text)
        if len(self._batch) == BATCH:
            self._encode()

    def _encode(self) -> None:
        if self._tokenizer is None or not self._batch:
            return
        encoded = self._tokenizer.encode_batch_fast(self._batch, add_special_tokens=False)
        for text, encoding in zip(self._batch, encoded, strict=True):
            self._real += len(encoding)
            self._guessed += estimate_tokens(text)
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
