"""The sieve that one chunk's pairs go through: each is a candidate, or is counted by what is wrong with it.

To KBAlign's bounds (`filters`) it adds what small models need. An answer must rest on the chunk: most of its words, all
of its numbers and names, in one place that also holds what is asked; and it must tell more than its question. Knows
nothing of models or files.
"""

import re
from collections import Counter

from sage_studio.data.bm25 import words_of
from sage_studio.training.methods.kbalign.filters import (
    Pair,
    fault_of_answer,
    fault_of_question,
    key_of,
    pairs_in,
    support,
    telling_words,
)
from sage_studio.training.methods.kbalign.quotes import sentences_of

UNSUPPORTED = "the answer's words are not in the text"
INVENTED = "a number or a name is not in the text"
APART = "question and answer are about different places of the text"
NOTHING_NEW = "the answer only repeats the question"
REPEATED = "the question was asked before"
CUT_OFF = "the answer was cut off"

LONGEST_ENDING = 3
"""Words must be longer to be known again by their beginning."""
NUMBER = re.compile(r"\d+")
NAME = re.compile(r"(?<=\w[\s,])[A-Z][^\W\d_]+")
"""A capitalised word that does not begin a sentence."""


class Sieve:
    """Parts the good pairs of one chunk from the others, which it counts by their fault.

    Args:
        text: what the answers must come from.
        least: share of an answer's words that must occur in it; with 0 an answer may come from anywhere.
    """

    def __init__(self, text: str, least: float) -> None:
        self._text = text
        self._least = least
        self._asked: set[str] = set()
        self._places = _places_of(text)
        self.pairs: list[Pair] = []
        self.left_out: Counter[str] = Counter()

    def pairs_of(self, written: str, *, whole: bool) -> list[Pair]:
        """The good pairs in what a model wrote; where that is not ``whole``, its last answer was cut off."""
        found = pairs_in(written)
        if found and not whole:
            self.leave_out(CUT_OFF)
            found = found[:-1]
        return [pair for pair in found if self.is_good(pair)]

    def is_good(self, pair: Pair) -> bool:
        """Whether a pair may be kept; a question is good only once."""
        fault = self._fault(pair)
        if fault:
            self.leave_out(fault)
        else:
            self._asked.add(key_of(pair.question))
        return not fault

    def keep(self, pair: Pair) -> None:
        """Keep one of the good pairs."""
        self.pairs.append(pair)

    def leave_out(self, fault: str) -> None:
        """Count a pair that is not kept."""
        self.left_out[fault] += 1

    def _fault(self, pair: Pair) -> str:
        fault = fault_of_question(pair.question) or fault_of_answer(pair.answer)
        if not fault and self._least:
            fault = self._fault_by_text(pair)
        if not fault and not news(pair):
            return NOTHING_NEW
        if not fault and key_of(pair.question) in self._asked:
            return REPEATED
        return fault

    def _fault_by_text(self, pair: Pair) -> str:
        if support(pair.answer, self._text) < self._least:
            return UNSUPPORTED
        if strangers(f"{pair.question} {pair.answer}", self._text):
            return INVENTED
        known = set(words_of(self._text))
        asked = " ".join(word for word in telling_words(pair.question) if word in known)
        together = any(
            support(pair.answer, place) >= self._least and (not asked or support(asked, place) >= self._least)
            for place in self._places
        )
        return "" if together else APART


def news(pair: Pair) -> list[str]:
    """The words of an answer that its question does not hold, in whatever form.

    Example:
        >>> news(Pair(question="Does it open in May?", answer="It opens in May, on a Monday."))
        ['on', 'a', 'monday']
    """
    asked = set(words_of(pair.question))
    stems = tuple(word for word in asked if len(word) > LONGEST_ENDING)
    return [word for word in words_of(pair.answer) if word not in asked and not word.startswith(stems)]


def strangers(said: str, text: str) -> list[str]:
    """Numbers and names that were said and that a text does not hold.

    Example:
        >>> strangers("Who opened it? Ada Lind of Bex in 1931.", "In 1931 Ada Lind opened the bridge.")
        ['Bex']
    """
    known = set(words_of(text))
    return [found for found in (*NUMBER.findall(said), *NAME.findall(said)) if not known.issuperset(words_of(found))]


def _places_of(text: str) -> list[str]:
    """Each sentence with the one before it, under the text's first line, which may be its heading."""
    sentences = sentences_of(text)
    return [" ".join([sentences[0], *sentences[max(0, at - 1) : at + 1]]) for at in range(len(sentences))]
