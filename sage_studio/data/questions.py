"""Sections as questions and answers, or as passages: in their own language, every question and answer only once.

Knows how a question is worded and what makes two rows the same. Knows nothing of git, of files on disk or of training.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from sage_studio.data.dataset import Dropped, LeftOut
from sage_studio.data.documents import Section
from sage_studio.data.example import Example, Message, Origin, Passage
from sage_studio.data.quality.near import ALIKE as ALIKE_FROM
from sage_studio.data.quality.near import NearDuplicates, shingles
from sage_studio.data.script import language_of_text, prose_of, shows_language
from sage_studio.data.sizing import Part, is_short, parts_of
from sage_studio.text import Text

SEPARATOR = " › "
MAYBE_ALIKE = 0.65
"""Estimated shares from which two answers are compared word by word: an estimate is some 0.1 off."""
SAGE = Text("the SAGE framework", "SAGE 框架中")
"""What the documentation is about."""

BROKEN = Text(
    "broken off in the source: half a link, a table or a code fence; the rest of its section is kept",
    "源文件中残缺的链接、表格或代码围栏；所在章节的其余内容保留",
)
EMPTY = Text("document without text", "文档没有正文")
SHORT = Text("too short, and no section beside it to join", "内容过短，且没有可合并的相邻章节")
ALIKE = Text("nearly the same answer as an earlier section", "与前面的章节内容几乎相同")
REPEATED = Text("same answer as an earlier section", "与前面的章节内容完全相同")


@dataclass(frozen=True, slots=True)
class Questions:
    """The rows of a documentation and what was left out of it."""

    examples: tuple[Example, ...]
    dropped: tuple[Dropped, ...]


@dataclass(frozen=True, slots=True)
class Titled:
    """A part of a document with the language of its text."""

    file: str
    part: Part
    answer: str
    language: str


def questions_from(documents: Iterable[tuple[str, Section]], commit: str | None, about: Text = SAGE) -> Questions:
    """Turn documents into rows.

    Args:
        documents: (path with forward slashes, its sections) pairs, in the order in which the rows are to stand.
        commit: of the documentation; kept in every row's origin.
        about: what the questions ask of, as it stands in a sentence; nothing where the headings say it.
    """
    left_out = LeftOut()
    titled = _distinct(documents, left_out)
    examples = tuple(
        Example((Message("user", question),), each.answer, _origin(each, commit))
        for each, question in zip(titled, _questions(titled, about), strict=True)
    )
    return Questions(examples, left_out.dropped)


def passages_from(documents: Iterable[tuple[str, Section]], commit: str | None, left_out: LeftOut) -> Iterator[Passage]:
    """The same parts of documents without questions, counting in ``left_out`` what is not among them."""
    for each in _distinct(documents, left_out):
        yield Passage(each.answer, _origin(each, commit))


def _distinct(documents: Iterable[tuple[str, Section]], left_out: LeftOut) -> list[Titled]:
    return _without_near_repeats(list(_without_repeats(_titled(documents, left_out), left_out)), left_out)


def _titled(documents: Iterable[tuple[str, Section]], left_out: LeftOut) -> Iterator[Titled]:
    for file, document in documents:
        for line in document.broken:
            left_out.add(BROKEN, f"{file}:{line}")
        parts = list(parts_of(document))
        if not parts:
            left_out.add(EMPTY, file)
        for part in parts:
            if len(parts) == 1 and is_short(part.pieces):
                left_out.add(SHORT, _place(file, part))
                continue
            answer = part.text.strip("\n")
            yield Titled(file, part, answer, _language(part, answer))


def _origin(each: Titled, commit: str | None) -> Origin:
    part = each.part
    return Origin(file=each.file, row=part.line or None, heading=part.path, commit=commit, page=part.page)


def _without_repeats(titled: Iterable[Titled], left_out: LeftOut) -> Iterator[Titled]:
    seen: set[bytes] = set()
    for each in titled:
        digest = hashlib.sha256(" ".join(each.answer.split()).encode()).digest()
        if digest in seen:
            left_out.add(REPEATED, _place(each.file, each.part))
            continue
        seen.add(digest)
        yield each


def _without_near_repeats(titled: list[Titled], left_out: LeftOut) -> list[Titled]:
    with NearDuplicates() as near:
        for each in titled:
            near.add(each.answer)
        pairs = list(near.pairs(MAYBE_ALIKE))
    repeats = {pair.second for pair in pairs if _share(titled[pair.first], titled[pair.second]) >= ALIKE_FROM}
    for at in sorted(repeats):
        left_out.add(ALIKE, _place(titled[at].file, titled[at].part))
    return [each for at, each in enumerate(titled) if at not in repeats]


def _share(one: Titled, other: Titled) -> float:
    """How many of the shingles of both are in common."""
    left, right = set(shingles(one.answer)), set(shingles(other.answer))
    return len(left & right) / len(left | right)


def _questions(titled: Sequence[Titled], about: Text) -> Iterator[str]:
    """One question a row; rows that would ask the same are told apart by their file, then by their place in it."""
    plain = [_question(each, about, "") for each in titled]
    asked = Counter(plain)
    with_file = [
        _question(each, about, each.file) if asked[question] > 1 else question
        for each, question in zip(titled, plain, strict=True)
    ]
    asked, nth = Counter(with_file), Counter[str]()
    for each, question in zip(titled, with_file, strict=True):
        nth[question] += 1
        yield _question(each, about, _spot(each.file, each.part)) if asked[question] > 1 else question


def _question(each: Titled, about: Text, place: str) -> str:
    path = SEPARATOR.join(each.part.path)
    several = each.part.total > 1
    if each.language == "zh":
        notes = [place, f"第 {each.part.number}/{each.part.total} 部分" if several else ""]
        shown = "，".join(note for note in notes if note)
        return f"请介绍 {f'{about.zh}关于 ' if about else ''}{path} 的内容{f'（{shown}）' if shown else ''}"
    notes = [place, f"part {each.part.number} of {each.part.total}" if several else ""]
    shown = ", ".join(note for note in notes if note)
    return f"Explain {path}{f' in {about.en}' if about else ''}{f' ({shown})' if shown else ''}."


def _language(part: Part, answer: str) -> str:
    """By the prose; with the headings where it is scarce; by the code too where that is all there is."""
    text = prose_of(answer)
    if not shows_language(text):
        text = f"{text}\n{' '.join(part.path)}"
    if not shows_language(text):
        text = answer
    return language_of_text(text)


def _place(file: str, part: Part) -> str:
    return f"{_spot(file, part)} {SEPARATOR.join(part.path)}"


def _spot(file: str, part: Part) -> str:
    """Where in its file a part begins."""
    return f"{file}:{part.line}" if part.line else f"{file} p. {part.page}"
