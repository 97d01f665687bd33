"""The sentences of a text that can be quoted as an answer: whole, of fair length, understood where they stand alone.

Knows sentences of Latin and of Chinese script. Knows nothing of models or questions.
"""

import re

from sage_studio.training.methods.kbalign.filters import LONGEST_ANSWER, count_words

FEWEST_WORDS = 4
WIDE = "。！？"
END = re.compile(r"(?<=[。！？])|(?<=[.!?])[ \t]+(?![a-z])|\n+")
WHOLE = re.compile(r"(?:[A-Z0-9\"“'(]|[^\x00-\x7f]).*[.!。！]", re.DOTALL)
LEANS = re.compile(
    r"(?:It|Its|They|Their|Them|He|His|She|Her|This|That|These|Those|There|Then|Such|Both|Here|Also|However)\b|"
    r"它|其|他|她|这|那|该|此|并且|但|而且|因此|所以",
)
"""Begins a sentence that speaks of the one before."""
MARKUP = re.compile(r"[|#>`{}<]|\]\(|^[ \t]*(?:[-*+•]|\d+[.)])[ \t]")


def sentences_of(text: str) -> list[str]:
    """A text's sentences and lines, in order.

    Example:
        >>> sentences_of("It runs, e.g. on Linux. 它很快。Yes!")
        ['It runs, e.g. on Linux.', '它很快。', 'Yes!']
    """
    return [part.strip() for part in END.split(text) if part.strip()]


def quotes_of(text: str) -> list[str]:
    """What can be quoted; a sentence that leans on the one before it is quoted with that, or not at all.

    Example:
        >>> quotes_of("# Orvik\\nThe bridge of Orvik is old. It was opened in 1931. See above")
        ['The bridge of Orvik is old.', 'The bridge of Orvik is old. It was opened in 1931.']
    """
    quotes, before = list[str](), ""
    for sentence in sentences_of(text):
        said = sentence
        if LEANS.match(sentence):
            said = f"{before}{'' if before[-1] in WIDE else ' '}{sentence}" if before else ""
        before = said if _can_be_quoted(said) else ""
        if before:
            quotes.append(said)
    return list(dict.fromkeys(quotes))


def _can_be_quoted(said: str) -> bool:
    return (
        WHOLE.fullmatch(said) is not None
        and MARKUP.search(said) is None
        and FEWEST_WORDS <= count_words(said) <= LONGEST_ANSWER
    )
