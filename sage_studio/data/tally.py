"""What is counted of rows as they pass, in any order: the counts of two parts of a file can be added up.

Knows counting. Knows no tokenizer, and nothing of where the rows come from. Memory grows by 8 bytes a row (the digests
that find duplicates) and by nothing else.
"""

from array import array
from collections import Counter
from collections.abc import Iterable, Sequence

import orjson

from sage_studio.data.block import Block, Texts
from sage_studio.data.script import tokens_of_bytes

AT_ONCE = 400
SAMPLE_EVERY = 50
EXACT_ROWS, LANGUAGE_EVERY = 20_000, 8
"""Of more rows than these, the languages are those of a sample of one in eight."""


def in_json(texts: Iterable[str]) -> list[bytes]:
    """Texts as they stand in a line of ``data.jsonl``."""
    return list(map(orjson.dumps, texts))


class Tally:
    """Counts of rows; characters are of all turns, without the chat template.

    Args:
        sampling: whether some texts are kept to be tokenized. A row's digest decides, so that it does not matter where
            the row stands.
        before: rows that came before those counted here, be they usable or not.
    """

    def __init__(self, *, sampling: bool = False, before: int = 0) -> None:
        self._sampling, self._before = sampling, before
        self._rows = self._chars = self._longest = 0
        self._languages: Counter[str] = Counter()
        self._sampled: Counter[str] = Counter()
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
            self.finish()

    def add_all(self, block: Block, *, is_guessed: bool = True) -> None:
        """Count many rows."""
        chars, digests = block.chars, block.digests
        self._rows += len(digests)
        self._chars += int(chars.sum())
        self._longest = max(self._longest, int(chars.max()))
        self._digests.extend(digests)
        self._tell_languages(block, digests)
        if is_guessed:
            self._guess(block, digests)

    def finish(self) -> "Tally":
        """Count the rows that wait. Returns itself."""
        if self._waiting:
            waiting, self._waiting = self._waiting, []
            self.add_all(Block(waiting), is_guessed=self._is_guessed)
        return self

    def merge(self, other: "Tally") -> None:
        """Count the rows of another part besides."""
        figures = other.finish()
        self._rows += figures._rows
        self._chars += figures._chars
        self._longest = max(self._longest, figures._longest)
        self._languages += figures._languages
        self._sampled += figures._sampled
        self._digests += figures._digests
        self._guesses += figures._guesses
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
        return self.finish()._guesses

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

    def _tell_languages(self, block: Block, digests: Sequence[int]) -> None:
        if self._before + self._rows <= EXACT_ROWS:
            self._languages.update(block.languages)
        if sample := [texts for texts, digest in zip(block.rows, digests, strict=True) if digest % LANGUAGE_EVERY == 0]:
            self._sampled.update(Block(sample).languages)

    def _guess(self, block: Block, digests: Iterable[int]) -> None:
        guesses = list(map(tokens_of_bytes, block.sizes.tolist()))
        self._guesses.update(guesses)
        if not self._sampling:
            return
        for texts, guess, digest in zip(block.rows, guesses, digests, strict=True):
            if digest % SAMPLE_EVERY == 0:
                self._samples.append(("\n".join(map(orjson.loads, texts)), guess))
                self._guesses[guess] -= 1


def guessed_tokens(texts: Texts) -> int:
    """About how many tokens a row has."""
    return tokens_of_bytes(sum(map(len, texts)))
