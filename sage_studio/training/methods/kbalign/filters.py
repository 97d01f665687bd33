"""The questions and answers that a model wrote: found in its text, and what is wrong with one seen by itself.

The bounds are KBAlign's (arXiv 2411.14790): questions of 4 to 25 words that end in a question mark of either width,
answers of at most 70 words that do not say "not mentioned"; added is that a question must be understood without its
text. Knows nothing of models or files, nor of what the text says (`sieve`).
"""

import re
from collections.abc import Iterator

from sage_studio.data.bm25 import words_of
from sage_studio.data.language import HAN
from sage_studio.training.methods.kbalign.lines import Line

FEWEST_WORDS, MOST_WORDS = 4, 25
LONGEST_ANSWER = 70
QUESTION_MARKS = ("?", "？")
WORD = re.compile(r"[^\W_]+(?:['’.-][^\W_]+)*")
NAMES_A = "answer|答案|回答|答"
NAMES_Q = "question|问题|提问|问"
LABEL = re.compile(
    rf"(?:(?<!\w)(?:(?P<q>{NAMES_Q})|(?P<a>{NAMES_A}))[ \t]*\d*[ \t]*[:：]"
    rf"|^[ \t]*(?:\d+[.)][ \t]*)?(?:(?P<q1>q)|(?P<a1>a))[ \t]*\d*[ \t]*[:：.])[ \t]*",
    re.IGNORECASE | re.MULTILINE,
)
DECORATION = re.compile(r"\*\*|__|^[ \t]*#+[ \t]+", re.MULTILINE)
NUMBER = re.compile(r"^[ \t]*(?:[-*•][ \t]+|\d{1,2}(?:[.)][ \t]+|、[ \t]*))")
NEXT_ITEM = re.compile(r"\n[ \t]*(?:\n|\d+[.)、][ \t]*)")
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

NO_MARK = "the question does not end in a question mark"
WRONG_LENGTH = f"the question does not have {FEWEST_WORDS} to {MOST_WORDS} words"
ABOUT_TEXT = "the question speaks of the text"
EMPTY = "the answer is empty"
TOO_LONG = f"the answer has more than {LONGEST_ANSWER} words"
NOT_MENTIONED = "the answer says that nothing is known"


class Pair(Line):
    """A question and its answer."""

    question: str
    answer: str


def count_words(text: str) -> int:
    """Words of a text; two Han characters are counted as one.

    Example:
        >>> count_words("What does SAGE's pipeline do?"), count_words("SAGE 的流水线做什么？")
        (5, 5)
    """
    return len(WORD.findall(HAN.sub(" ", text))) + -(-len("".join(HAN.findall(text))) // 2)


def pairs_in(text: str) -> list[Pair]:
    """The questions and answers in what a model wrote, labelled in any of the usual ways, in order."""
    text = DECORATION.sub("", text)
    marks = list(LABEL.finditer(text))
    pairs, question = list[Pair](), ""
    for at, mark in enumerate(marks):
        end = marks[at + 1].start() if at + 1 < len(marks) else len(text)
        said = text[mark.end() : end].strip()
        if mark["q"] or mark["q1"]:
            question = said
            continue
        question = question or _question_before(text[marks[at - 1].end() if at else 0 : mark.start()])
        if question:
            pairs.append(Pair(question=_plain(NUMBER.sub("", question)), answer=_plain(NEXT_ITEM.split(said)[0])))
        question = ""
    return pairs


def questions_in(text: str) -> list[str]:
    """The questions in a list that a model wrote, in order."""
    lines = DECORATION.sub("", text).split("\n")
    plain = (_plain(NUMBER.sub("", LABEL.sub("", line))) for line in lines)
    return [line for line in plain if line.endswith(QUESTION_MARKS)]


def fault_of_question(question: str) -> str:
    """Why a question is not kept; empty if it is."""
    if not question.endswith(QUESTION_MARKS):
        return NO_MARK
    if not FEWEST_WORDS <= count_words(question) <= MOST_WORDS:
        return WRONG_LENGTH
    return ABOUT_TEXT if OF_THE_TEXT.search(question) else ""


def fault_of_answer(answer: str, longest: int = LONGEST_ANSWER) -> str:
    """Why an answer is not kept; empty if it is. ``longest`` in words, 0 for any length."""
    if not words_of(answer):
        return EMPTY
    if longest and count_words(answer) > longest:
        return TOO_LONG
    return NOT_MENTIONED if UNANSWERED.search(answer) else ""


def support(answer: str, text: str) -> float:
    """Share of an answer's words, 0 to 1, that occur in a text."""
    words = words_of(answer)
    known = set(words_of(text))
    return sum(word in known for word in words) / len(words) if words else 0.0


def telling_words(text: str) -> list[str]:
    """The words of a text but those of one or two letters, which any text holds."""
    return [word for word in words_of(text) if len(word) > 2 or not word.isalpha() or HAN.match(word)]


def distinct(questions: Iterator[str]) -> Iterator[str]:
    """The questions, each only once."""
    asked: set[str] = set()
    for question in questions:
        if key_of(question) not in asked:
            asked.add(key_of(question))
            yield question


def key_of(question: str) -> str:
    """What two wordings of the same question have in common: its words."""
    return " ".join(words_of(question))


def _question_before(text: str) -> str:
    """The last line that ends in a question mark; a list may number its questions in place of naming them so."""
    lines = [line.strip() for line in text.split("\n") if line.strip().endswith(QUESTION_MARKS)]
    return lines[-1] if lines else ""


def _plain(text: str) -> str:
    return " ".join(text.split()).strip('*"“” ')
