"""What is counted of rows as they pass, in any order: the counts of two parts of a file can be added up.

Knows counting. Knows no tokenizer, and nothing of where the rows come from. Memory grows by 8 bytes a row (the digests
that find duplicates) and by nothing else.
"""

from array import array
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING

import orjson

from sage_studio.data.block import Block, Texts
from sage_studio.data.script import tokens_of_bytes

if TYPE_CHECKING:
    from sage_studio.data.block import Digests

AT_ONCE = 400
SAMPLE_EVERY = 50
EXACT_ROWS, LANGUAGE_EVERY = 20_000, 16
"""Of more rows than these, the languages are those of a sample of one in sixteen."""


def in_json(texts: Iterable[str]) -> list[bytes]:
    """Texts as they stand in a line of ``data.jsonl``."""
    return list(map(orjson.dumps, texts))


class Tally:
    """Counts of rows; characters are of all turns, without the chat template.

    Args:
        sampling: whether some texts are kept to be tokenized. A row's digest decides, so that it does not matter where
            the row stands.
        before: rows that came before those counted here, be they usable or not.
        longest: characters of the longest of them, as far as that is known.
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
        """Count a row; its tokens are to be guessed unless they are counted already."""
        if is_guessed != self._is_guessed:
            self.finish()
            self._is_guessed = is_guessed
        self._waiting.append(texts)
        if len(self._waiting) == AT_ONCE:
            self._count_waiting()

    def add_all(self, block: Block, *, is_guessed: bool = True) -> None:
        """Count many rows."""
        digests = block.digests
        self._rows += len(digests)
        self._chars += block.chars
        self._longest = block.longest(self._longest)
        self._digests.frombytes(digests.tobytes())
        self._tell_languages(block, digests)
        if is_guessed:
            self._guess(block, digests)

    def finish(self) -> "Tally":
        """Count the rows that wait. Returns itself."""
        self._count_waiting()
        self._look_at_sample()
        return self

    def merge(self, other: "Tally") -> None:
        """Count the rows of another part besides."""
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
        """Rows per number of tokens guessed; of those that neither were tokenized nor are kept for it."""
        return +self.finish()._guesses

    @property
    def duplicates(self) -> int:
        """Rows whose texts are those of an earlier one."""
        import numpy as np

        digests = np.sort(np.frombuffer(self.finish()._digests, np.uint64))
        return int((digests[1:] == digests[:-1]).sum())

    def take_samples(self) -> list[tuple[str, int]]:
        """The texts kept since the last time, and the tokens guessed of each."""
        taken, self._samples = self.finish()._samples, []
        return taken

    def _count_waiting(self) -> None:
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            self.add_all(Block.of(waiting), is_guessed=self._is_guessed)

    def _look_at_sample(self) -> None:
        if self._sample:
            sample, self._sample = self._sample, []
            self._sampled.update(Block.of(sample).languages)

    def _tell_languages(self, block: Block, digests: "Digests") -> None:
        if self._before + self._rows <= EXACT_ROWS:
            self._languages.update(block.languages)
        self._sample += [block.row(at) for at in _every(LANGUAGE_EVERY, digests)]
        if len(self._sample) >= AT_ONCE:
            self._look_at_sample()

    def _guess(self, block: Block, digests: "Digests") -> None:
        guesses = tokens_of_bytes(block.sizes).tolist()
        self._guesses.update(guesses)
        for at in _every(SAMPLE_EVERY, digests) if self._sampling else ():
            self._samples.append(("\n".join(map(orjson.loads, block.row(at))), guesses[at]))
            self._guesses[guesses[at]] -= 1


def _every(count: int, digests: "Digests") -> list[int]:
    """Places of about one digest in so many."""
    places: list[int] = (digests % count == 0).nonzero()[0].tolist()
    return places


def guessed_tokens(texts: Texts) -> int:
    """About how many tokens a row has."""
    return tokens_of_bytes(sum(map(len, texts)))
