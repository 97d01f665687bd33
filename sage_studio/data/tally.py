"""What is counted of rows as they pass, in any order: the counts of two parts of a file can be added up.

Knows counting. Knows no tokenizer, and nothing of where the rows come from. Memory grows by 8 bytes a row (the digests
that find duplicates) and by nothing else.
"""

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from xxhash import xxh3_64_intdigest

from sage_studio.data.script import estimated_tokens, first_prose_of, language_of_text, letters_in

FEW_LETTERS, SURELY = 10, 20
"""Letters that make words of an answer's begin, and how much of it mostly shows them."""
LOOKED_AT, READ_FOR_LANGUAGE = 2000, 300
"""Characters of an answer that are looked at for prose, and of the prose that its language is told by."""


@dataclass
class Tally:
    """Counts of rows; characters are of all turns, without the chat template."""

    rows: int = 0
    chars: int = 0
    longest: int = 0
    languages: Counter[str] = field(default_factory=Counter)
    digests: "array[int]" = field(default_factory=lambda: array("Q"))

    def add(self, texts: Sequence[str], asked: str) -> tuple[int, int]:
        """Count a row.

        Args:
            texts: all its texts, the answer last.
            asked: what is asked in it, for people to read.

        Returns:
            64 bits of its texts, the same in every process, and about how many tokens they are.
        """
        chars, utf8, digest = 0, 0, 0
        for text in texts:
            encoded = text.encode()
            chars += len(text)
            utf8 += len(encoded)
            digest = xxh3_64_intdigest(encoded, digest)
        self.rows += 1
        self.chars += chars
        if chars > self.longest:
            self.longest = chars
        self.languages[language_of_answer(texts[-1], asked)] += 1
        self.digests.append(digest)
        breaks = len(texts) - 1  # between the turns
        return digest, estimated_tokens(chars + breaks, utf8 + breaks)

    def merge(self, other: "Tally") -> None:
        """Count the rows of another part besides."""
        self.rows += other.rows
        self.chars += other.chars
        self.longest = max(self.longest, other.longest)
        self.languages += other.languages
        self.digests += other.digests

    @property
    def duplicates(self) -> int:
        """Rows whose texts are those of an earlier one."""
        import numpy as np

        return self.rows - len(np.unique(np.frombuffer(self.digests, np.uint64)))


def language_of_answer(answer: str, asked: str) -> str:
    """Of the answer's prose; an answer that is nothing but code has the language of its question."""
    if answer.isascii() and asked.isascii():
        return "en"
    prose = first_prose_of(answer if len(answer) <= LOOKED_AT else answer[:LOOKED_AT], READ_FOR_LANGUAGE)
    begin = "".join(prose[:SURELY].split())[:FEW_LETTERS]
    if len(begin) == FEW_LETTERS and begin.isalpha():
        return language_of_text(prose)
    has_words = letters_in(prose[:40]) >= FEW_LETTERS or letters_in(prose[:200]) >= FEW_LETTERS
    return language_of_text(prose if has_words else asked)
