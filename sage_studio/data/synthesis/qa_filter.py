"""Filter of generated question-answer pairs, for KBAlign and dataset annotation.

Parses what a model wrote and rejects pairs that are malformed or not grounded in their text. The default bounds are
those of KBAlign (arXiv 2411.14790): questions of 4 to 25 words, answers of at most 70. Beyond the paper, a question
must be understood without its text, and the words, numbers and names of an answer must occur together in one place of
the text, since small models hallucinate.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from sage_studio.data.bm25 import words_of
from sage_studio.data.language import HAN

NO_MARK = "the question does not end in a question mark"
WRONG_LENGTH = "the question is too short or too long"
ABOUT_TEXT = "the question speaks of the text"
EMPTY = "the answer is empty"
TOO_LONG = "the answer is too long"
NOT_MENTIONED = "the answer says that nothing is known"
UNSUPPORTED = "the answer's words are not in the text"
INVENTED = "a number or a name is not in the text"
APART = "question and answer are about different places of the text"
NOTHING_NEW = "the answer only repeats the question"
REPEATED = "the question was asked before"
CUT_OFF = "the answer was cut off"
INCONSISTENT = "asked again, the model answers differently"


class QAPair(BaseModel):
    """A question and its answer; ``evidence`` is the quotation from the text that proves it, where one is asked for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    question: str
    answer: str
    evidence: str = ""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Lengths in words, two Han characters counting as one. ``max_answer`` 0 allows any length."""

    min_question: int = 4
    max_question: int = 25
    max_answer: int = 70


KBALIGN = Bounds()

# Parsing

QUESTION_MARKS = ("?", "？")
LABEL = re.compile(
    r"(?:(?<!\w)(?:(?P<q>question|问题|提问|问)|(?P<a>answer|答案|回答|答))[ \t]*+\d*+[ \t]*+[:：]"
    r"|^[ \t]*(?:(?:\d+[.)]|[-*•])[ \t]*+)?"
    r"(?:(?:(?P<q1>q)|(?P<a1>a))[ \t]*+\d*+[ \t]*+[:：.]|(?P<e>evidence|e|证据)[ \t]*+\d*+[ \t]*+[:：]))[ \t]*",
    re.IGNORECASE | re.MULTILINE,
)
BOLD = re.compile(r"(?<!\w)\*\*(?=\S)([^*\n]+?)(?<=\S)\*\*(?:(?!\w)|(?<=[:：]\*\*))|__([^_\n]+?[:：])__")
HEADING = re.compile(r"^[ \t]*#+[ \t]+", re.MULTILINE)
ITEM_NUMBER = re.compile(r"^[ \t]*(?:[-*•][ \t]+|\d{1,2}(?:[.)][ \t]+|、[ \t]*))")
NEXT_ITEM = re.compile(r"\n[ \t]*(?:\n|\d+[.)、][ \t]*)")


def parse_pairs(completion: str) -> list[QAPair]:
    """The pairs in a completion, in order, labelled in any of the usual ways, in English or Chinese.

    A label ends the field before it. A question may also stand unlabelled, as the last line before its answer. Further
    answers to the same question are ignored.

    Example:
        >>> [pair.answer for pair in parse_pairs("Q1: Who built it?\\nA1: Ada.\\n\\n**Answer:** Bob.")]
        ['Ada.']
    """
    text = _without_markdown(completion)
    labels = list(LABEL.finditer(text))
    found: list[dict[str, str]] = []
    previous = text[: labels[0].start()] if labels else ""
    for at, label in enumerate(labels):
        following = labels[at + 1] if at + 1 < len(labels) else None
        value = text[label.end() : following.start() if following else len(text)]
        if label["q"] or label["q1"]:
            found.append({"question": _one_line(ITEM_NUMBER.sub("", value.strip()))})
        elif label["e"]:
            if found:
                found[-1].setdefault("evidence", _one_line(NEXT_ITEM.split(value.strip())[0]))
        else:
            if not found or not found[-1]["question"] or "answer" in found[-1]:
                found.append({"question": _one_line(ITEM_NUMBER.sub("", _last_question(previous)))})
            whole = following is not None and following["e"] is not None
            found[-1]["answer"] = _lines(value) if whole else _one_line(NEXT_ITEM.split(value.strip())[0])
        previous = value
    return [QAPair(**pair) for pair in found if pair["question"] and "answer" in pair]


def parse_questions(completion: str) -> list[str]:
    """The questions in a completion that lists one a line, in order."""
    lines = _without_markdown(completion).split("\n")
    plain = (_one_line(ITEM_NUMBER.sub("", LABEL.sub("", line))) for line in lines)
    return [line for line in plain if line.endswith(QUESTION_MARKS)]


def _without_markdown(text: str) -> str:
    return HEADING.sub("", BOLD.sub(lambda bold: bold[1] or bold[2], text))


def _last_question(text: str) -> str:
    """The last line that ends in a question mark: a numbered list may not label its questions."""
    lines = [line.strip() for line in text.split("\n") if line.strip().endswith(QUESTION_MARKS)]
    return lines[-1] if lines else ""


def _one_line(text: str) -> str:
    return " ".join(text.split()).strip('*"“” ')


def _lines(text: str) -> str:
    return "\n".join(line.strip() for line in text.splitlines() if line.strip()).strip('*"“” ')


# Checks of a pair by itself

WORD = re.compile(r"[^\W_]+(?:['’.-][^\W_]+)*")
UNANSWERED = re.compile(
    r"not (?:explicitly |directly )?(?:mentioned|specified|stated|provided|given|available)|"
    r"(?:does|do)(?: not|n't) (?:mention|specify|say|state|provide)|no information|cannot be (?:answered|determined)|"
    r"未(?:提及|提到|说明|提供|涉及)|没有(?:提及|提到|说明|提供|相关)|无法(?:回答|确定|得知)",
    re.IGNORECASE,
)
OF_THE_TEXT = re.compile(
    r"\b(?:the|this|given|above) (?:text|passage|document|paragraph|article|excerpt)\b|(?:文|本)(?:中|文|段)|上述|该段",
    re.IGNORECASE,
)


def question_fault(question: str, bounds: Bounds = KBALIGN) -> str:
    """Why a question is rejected; empty if it is not."""
    if not question.endswith(QUESTION_MARKS):
        return NO_MARK
    if not bounds.min_question <= count_words(question) <= bounds.max_question:
        return WRONG_LENGTH
    return ABOUT_TEXT if OF_THE_TEXT.search(question) else ""


def answer_fault(answer: str, bounds: Bounds = KBALIGN) -> str:
    """Why an answer is rejected; empty if it is not."""
    if not words_of(answer):
        return EMPTY
    if bounds.max_answer and count_words(answer) > bounds.max_answer:
        return TOO_LONG
    return NOT_MENTIONED if UNANSWERED.search(answer) else ""


def count_words(text: str) -> int:
    """Words of a text; two Han characters count as one.

    Example:
        >>> count_words("What does SAGE's pipeline do?"), count_words("SAGE 的流水线做什么？")
        (5, 5)
    """
    return len(WORD.findall(HAN.sub(" ", text))) + -(-len("".join(HAN.findall(text))) // 2)


def normalized(text: str) -> str:
    """A text without case, punctuation and blanks, for telling whether two are the same."""
    return "".join(filter(str.isalnum, text.lower()))


def distinct(questions: Iterable[str]) -> Iterator[str]:
    """The questions without duplicates."""
    asked: set[str] = set()
    for question in questions:
        if normalized(question) not in asked:
            asked.add(normalized(question))
            yield question


# Checks against the text

MIN_EVIDENCE, MIN_EVIDENCE_ZH = 8, 4
"""Letters and digits that a quotation must have."""
MIN_STEM = 4
"""Letters of a word that also recognise its inflected forms."""
NUMBER = re.compile(r"\d+")
NAME = re.compile(r"(?<=\w[\s,])[A-Z][^\W\d_]+")
"""A capitalised word that does not begin a sentence."""


def is_quoted(evidence: str, text: str) -> bool:
    """Whether a text contains a quotation, ignoring case, punctuation and blanks."""
    plain = normalized(evidence)
    return len(plain) >= (MIN_EVIDENCE if plain.isascii() else MIN_EVIDENCE_ZH) and plain in normalized(text)


def support(answer: str, text: str) -> float:
    """Share of an answer's words, 0 to 1, that occur in a text."""
    words = words_of(answer)
    known = set(words_of(text))
    return sum(word in known for word in words) / len(words) if words else 0.0


def unsupported_entities(statement: str, text: str) -> list[str]:
    """Numbers and names in a statement that do not occur in a text.

    Example:
        >>> unsupported_entities("Who opened it? Ada Lind of Bex in 1931.", "In 1931 Ada Lind opened the bridge.")
        ['Bex']
    """
    known = set(words_of(text))
    entities = (*NUMBER.findall(statement), *NAME.findall(statement))
    return [entity for entity in entities if not known.issuperset(words_of(entity))]


def novel_words(pair: QAPair) -> list[str]:
    """The words of an answer that are not in its question, inflected forms included.

    Example:
        >>> novel_words(QAPair(question="Does it open in May?", answer="It opens in May, on a Monday."))
        ['on', 'a', 'monday']
    """
    asked = set(words_of(pair.question))
    stems = tuple(word for word in asked if len(word) >= MIN_STEM)
    return [word for word in words_of(pair.answer) if word not in asked and not word.startswith(stems)]


def content_words(text: str) -> list[str]:
    """The words of a text without those of one or two letters, which occur in any text."""
    return [word for word in words_of(text) if len(word) > 2 or not word.isalpha() or HAN.match(word)]


def agreement(pair: QAPair, second_answer: str) -> float:
    """How far a second answer to a pair's question agrees with the first, 0 to 1: round-trip consistency.

    After arXiv 1906.05416: a question that does not fit its answer is mostly answered differently the second time. Only
    words that the question does not contain are compared, and the shorter answer counts, since a name alone may be as
    right as a sentence.

    Example:
        >>> pair = QAPair(question="Who designed the Lume bridge?", answer="The Lume bridge was opened in 1931.")
        >>> agreement(pair, "The Lume bridge was designed by Ada Lind.") < 0.5
        True
    """
    asked = set(content_words(pair.question))
    first, second = set(content_words(pair.answer)) - asked, set(content_words(second_answer)) - asked
    return len(first & second) / min(len(first), len(second)) if first and second else 0.0


class QAFilter:
    """Filters the pairs that are generated from one text, and counts those rejected by reason.

    Args:
        text: what the answers must come from.
        min_support: share of an answer's words that must occur in the text; 0 turns off all checks against the text.
    """

    def __init__(self, text: str, min_support: float, bounds: Bounds = KBALIGN) -> None:
        self._text = text
        self._min_support = min_support
        self._bounds = bounds
        self._asked: set[str] = set()
        self._windows = _sentence_windows(text)
        self.kept: list[QAPair] = []
        self.rejected: Counter[str] = Counter()

    def parse(self, completion: str, *, finished: bool) -> list[QAPair]:
        """The acceptable pairs in a completion; if that was not ``finished``, its last answer was cut off."""
        pairs = parse_pairs(completion)
        if pairs and not finished:
            self.reject(CUT_OFF)
            pairs = pairs[:-1]
        return [pair for pair in pairs if self.accepts(pair)]

    def accepts(self, pair: QAPair) -> bool:
        """Whether a pair is acceptable; the same question is only once."""
        reason = self._rejection_reason(pair)
        if reason:
            self.reject(reason)
        else:
            self._asked.add(normalized(pair.question))
        return not reason

    def keep(self, pair: QAPair) -> None:
        """Keep an accepted pair."""
        self.kept.append(pair)

    def reject(self, reason: str) -> None:
        """Count a pair that is not kept."""
        self.rejected[reason] += 1

    def _rejection_reason(self, pair: QAPair) -> str:
        reason = question_fault(pair.question, self._bounds) or answer_fault(pair.answer, self._bounds)
        if not reason and self._min_support:
            reason = self._grounding_fault(pair)
        if not reason and not novel_words(pair):
            return NOTHING_NEW
        if not reason and normalized(pair.question) in self._asked:
            return REPEATED
        return reason

    def _grounding_fault(self, pair: QAPair) -> str:
        least = self._min_support
        if support(pair.answer, self._text) < least:
            return UNSUPPORTED
        if unsupported_entities(f"{pair.question} {pair.answer}", self._text):
            return INVENTED
        known = set(words_of(self._text))
        asked = " ".join(word for word in content_words(pair.question) if word in known)
        together = any(
            support(pair.answer, window) >= least and (not asked or support(asked, window) >= least)
            for window in self._windows
        )
        return "" if together else APART


# Sentences

MIN_QUOTE_WORDS = 4
WIDE_STOPS = "。！？"
SENTENCE_END = re.compile(r"(?<=[。！？])|(?<=[.!?])[ \t]+(?![a-z])|\n+")
WHOLE_SENTENCE = re.compile(r"(?:[A-Z0-9\"“'(]|[^\x00-\x7f]).*[.!。！]", re.DOTALL)
ANAPHORA = re.compile(
    r"(?:It|Its|They|Their|Them|He|His|She|Her|This|That|These|Those|There|Then|Such|Both|Here|Also|However)\b|"
    r"它|其|他|她|这|那|该|此|并且|但|而且|因此|所以",
)
"""Begins a sentence that refers to the one before."""
MARKUP = re.compile(r"[|#>`{}<]|\]\(|^[ \t]*(?:[-*+•]|\d+[.)])[ \t]")


def split_sentences(text: str) -> list[str]:
    """A text's sentences and lines, in order.

    Example:
        >>> split_sentences("It runs, e.g. on Linux. 它很快。Yes!")
        ['It runs, e.g. on Linux.', '它很快。', 'Yes!']
    """
    return [part.strip() for part in SENTENCE_END.split(text) if part.strip()]


def quotable_sentences(text: str) -> list[str]:
    """The sentences that can stand alone as an answer; one that refers to the sentence before is quoted with it.

    Example:
        >>> quotable_sentences("# Orvik\\nThe bridge of Orvik is old. It was opened in 1931. See above")
        ['The bridge of Orvik is old.', 'The bridge of Orvik is old. It was opened in 1931.']
    """
    quotes, before = list[str](), ""
    for sentence in split_sentences(text):
        quote = sentence
        if ANAPHORA.match(sentence):
            quote = f"{before}{'' if before[-1] in WIDE_STOPS else ' '}{sentence}" if before else ""
        before = quote if _is_quotable(quote) else ""
        if before:
            quotes.append(quote)
    return list(dict.fromkeys(quotes))


def _is_quotable(quote: str) -> bool:
    return (
        WHOLE_SENTENCE.fullmatch(quote) is not None
        and MARKUP.search(quote) is None
        and MIN_QUOTE_WORDS <= count_words(quote) <= KBALIGN.max_answer
    )


def _sentence_windows(text: str) -> list[str]:
    """Each sentence with the one before it and the text's first line, which may be its heading."""
    sentences = split_sentences(text)
    return [" ".join([sentences[0], *sentences[max(0, at - 1) : at + 1]]) for at in range(len(sentences))]
