"""Grades short answers by rule: key words that must appear, words and numbers that must not."""

import re
import unicodedata
from dataclasses import dataclass

from sage_studio.text import NOTHING, Text

MARKS = re.compile(r"[`*\"“”]|(?<!\w)['‘’]|['‘’](?!\w)")
"""Quotes and Markdown's emphasis; an apostrophe inside a word stays."""
SENTENCE_END = re.compile(r"(?<=[.!?。！？])(?:\s|$)|(?<=[。！？])")
DENIAL = re.compile(r"\b(?:not|no|never|neither|nor|cannot|\w+n['’]t)\b")
NUMBER = re.compile(r"(?<![\w.-])\d+(?:\.\d+)*(?![\w-])")
MOST_WORDS = 40
"""A sentence that is longer tries its luck."""
FENCE = re.compile(r"^\s*```\w*\s*$")


@dataclass(frozen=True, slots=True)
class Question:
    """A question with one short answer.

    Attributes:
        question: as it is asked.
        answer: a right answer.
        key: what a right answer says: each item, in which ``a | b`` means either.
        reject: what a right answer does not say.
    """

    question: str
    answer: str
    key: tuple[str, ...]
    reject: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an answer is right, and if not, why."""

    right: bool
    why: Text = NOTHING


def grade(question: Question, answer: str) -> Verdict:
    """Judge an answer by its first sentence.

    Right is a sentence of at most `MOST_WORDS` that says every item of the key as whole words, denies nothing, names
    none of the rejected words and, where an item of the key is a number, no other number. Case, quotes and Markdown
    marks do not count; neither does what follows the first sentence.

    Example:
        >>> port = Question("Which port?", "It is port 8000.", ("8000",), ("8001",))
        >>> grade(port, "The gateway uses port `8000`.").right, grade(port, "Port 8000 or 9000.").right
        (True, False)
    """
    given = _plain(first_sentence(answer))
    if not given:
        return Verdict(False, Text("no answer"))
    for item in question.key:
        if not any(_says(given, either) for either in item.split("|")):
            return Verdict(False, Text("does not say {item}", item=item))
    if len(given.split()) > MOST_WORDS:
        return Verdict(False, Text("more than {most_words} words", most_words=MOST_WORDS))
    if (denied := DENIAL.search(given)) is not None:
        return Verdict(False, Text("denies: {denied}", denied=denied[0]))
    rejected = [word for words in question.reject for word in words.split("|") if _says(given, word)]
    if rejected:
        return Verdict(False, Text("says {strip} too", strip=rejected[0].strip()))
    wanted = {either.strip() for item in question.key for either in item.split("|")}
    others = [number for number in NUMBER.findall(given) if number not in wanted]
    if others and any(NUMBER.fullmatch(each) for each in wanted):
        return Verdict(False, Text("says {others} too", others=others[0]))
    return Verdict(True)


def first_sentence(answer: str) -> str:
    """The first sentence; a line that ends in a colon goes on with the next line, as before a command in a fence.

    Example:
        >>> first_sentence("Run this:\\n```bash\\nsage doctor\\n```\\nIt checks all.")
        'Run this: sage doctor'
    """
    lines = [line.strip() for line in answer.splitlines() if line.strip() and not FENCE.match(line)]
    text = ""
    for line in lines:
        text = f"{text} {line}".strip()
        if not line.endswith((":", "：")):
            break
    return SENTENCE_END.split(text, maxsplit=1)[0].strip()


def _plain(text: str) -> str:
    return " ".join(MARKS.sub("", unicodedata.normalize("NFKC", text).lower()).split())


def _says(sentence: str, words: str) -> bool:
    """Whether ``words`` stand in ``said`` as whole words: ``main`` is not in ``main-dev``, ``80`` not in ``8080``."""
    return re.search(rf"(?<![\w-]){re.escape(_plain(words))}(?![\w-])", sentence) is not None
