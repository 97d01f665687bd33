"""Turns sections into question-answer rows or passages, without duplicates.

Questions are in the section's language.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from sage_studio.data.chunking import SectionChunk, chunk_document, is_short
from sage_studio.data.dataset import DropCounter, Dropped
from sage_studio.data.documents.sections import Section
from sage_studio.data.language import detect_language, prose_of, shows_language
from sage_studio.data.near_duplicates import ALIKE as ALIKE_FROM
from sage_studio.data.near_duplicates import NearDuplicates, shingles
from sage_studio.data.rows import Example, Message, Origin, Passage
from sage_studio.text import Text

SEPARATOR = " › "
MAYBE_ALIKE = 0.65
"""Estimated similarity from which two answers are compared exactly: estimates are off by about 0.1."""
ABOUT_SAGE = Text("the SAGE framework")
"""What the documentation is about."""

BROKEN = Text("broken off in the source: half a link, a table or a code fence; the rest of its section is kept")
EMPTY = Text("document without text")
SHORT = Text("too short, and no section beside it to join")
ALIKE = Text("nearly the same answer as an earlier section")
REPEATED = Text("same answer as an earlier section")


@dataclass(frozen=True, slots=True)
class Questions:
    """Question-answer rows of documents, and what was dropped."""

    examples: tuple[Example, ...]
    dropped: tuple[Dropped, ...]


@dataclass(frozen=True, slots=True)
class TitledChunk:
    """A chunk of a document with its answer text and language."""

    file: str
    chunk: SectionChunk
    answer: str
    language: str


def questions_from(documents: Iterable[tuple[str, Section]], commit: str | None, about: Text = ABOUT_SAGE) -> Questions:
    """Turn documents into rows.

    Args:
        documents: (path with forward slashes, its sections) pairs, in the order in which the rows are to stand.
        commit: of the documentation; kept in every row's origin.
        about: what the questions ask of, as it stands in a sentence; nothing where the headings say it.
    """
    left_out = DropCounter()
    titled = _distinct(documents, left_out)
    examples = tuple(
        Example((Message("user", question),), each.answer, _origin(each, commit))
        for each, question in zip(titled, _questions(titled, about), strict=True)
    )
    return Questions(examples, left_out.dropped)


def passages_from(
    documents: Iterable[tuple[str, Section]], commit: str | None, left_out: DropCounter
) -> Iterator[Passage]:
    """The same chunks as passages without questions; dropped ones are counted in ``left_out``."""
    for each in _distinct(documents, left_out):
        yield Passage(each.answer, _origin(each, commit))


def _distinct(documents: Iterable[tuple[str, Section]], left_out: DropCounter) -> list[TitledChunk]:
    return _without_near_repeats(list(_without_repeats(_titled(documents, left_out), left_out)), left_out)


def _titled(documents: Iterable[tuple[str, Section]], left_out: DropCounter) -> Iterator[TitledChunk]:
    for file, document in documents:
        for line in document.broken:
            left_out.add(BROKEN, f"{file}:{line}")
        chunks = list(chunk_document(document))
        if not chunks:
            left_out.add(EMPTY, file)
        for chunk in chunks:
            if len(chunks) == 1 and is_short(chunk.spans):
                left_out.add(SHORT, _place(file, chunk))
                continue
            answer = chunk.text.strip("\n")
            yield TitledChunk(file, chunk, answer, _language(chunk, answer))


def _origin(each: TitledChunk, commit: str | None) -> Origin:
    chunk = each.chunk
    return Origin(file=each.file, row=chunk.line or None, heading=chunk.path, commit=commit, page=chunk.page)


def _without_repeats(titled: Iterable[TitledChunk], left_out: DropCounter) -> Iterator[TitledChunk]:
    seen: set[bytes] = set()
    for each in titled:
        digest = hashlib.sha256(" ".join(each.answer.split()).encode()).digest()
        if digest in seen:
            left_out.add(REPEATED, _place(each.file, each.chunk))
            continue
        seen.add(digest)
        yield each


def _without_near_repeats(titled: list[TitledChunk], left_out: DropCounter) -> list[TitledChunk]:
    with NearDuplicates() as near:
        for each in titled:
            near.add(each.answer)
        pairs = list(near.pairs(MAYBE_ALIKE))
    repeats = {pair.second for pair in pairs if _share(titled[pair.first], titled[pair.second]) >= ALIKE_FROM}
    for at in sorted(repeats):
        left_out.add(ALIKE, _place(titled[at].file, titled[at].chunk))
    return [each for at, each in enumerate(titled) if at not in repeats]


def _share(one: TitledChunk, other: TitledChunk) -> float:
    """Jaccard similarity of their shingles."""
    left, right = set(shingles(one.answer)), set(shingles(other.answer))
    return len(left & right) / len(left | right)


def _questions(titled: Sequence[TitledChunk], about: Text) -> Iterator[str]:
    """One question per row; equal questions are told apart by file, then by their place in it."""
    plain = [_question(each, about, "") for each in titled]
    asked = Counter(plain)
    with_file = [
        _question(each, about, each.file) if asked[question] > 1 else question
        for each, question in zip(titled, plain, strict=True)
    ]
    asked, nth = Counter(with_file), Counter[str]()
    for each, question in zip(titled, with_file, strict=True):
        nth[question] += 1
        yield _question(each, about, _spot(each.file, each.chunk)) if asked[question] > 1 else question


def _question(each: TitledChunk, about: Text, place: str) -> str:
    path = SEPARATOR.join(each.chunk.path)
    several = each.chunk.total > 1
    if each.language == "zh":
        notes = [place, f"第 {each.chunk.number}/{each.chunk.total} 部分" if several else ""]
        shown = "，".join(note for note in notes if note)
        return f"请介绍 {f'{about.zh}关于 ' if about else ''}{path} 的内容{f'（{shown}）' if shown else ''}"
    notes = [place, f"part {each.chunk.number} of {each.chunk.total}" if several else ""]
    shown = ", ".join(note for note in notes if note)
    return f"Explain {path}{f' in {about.en}' if about else ''}{f' ({shown})' if shown else ''}."


def _language(chunk: SectionChunk, answer: str) -> str:
    """Of the prose; with the headings if it is short; of the code too if there is nothing else."""
    text = prose_of(answer)
    if not shows_language(text):
        text = f"{text}\n{' '.join(chunk.path)}"
    if not shows_language(text):
        text = answer
    return detect_language(text)


def _place(file: str, chunk: SectionChunk) -> str:
    return f"{_spot(file, chunk)} {SEPARATOR.join(chunk.path)}"


def _spot(file: str, chunk: SectionChunk) -> str:
    """Where in its file a chunk begins."""
    return f"{file}:{chunk.line}" if chunk.line else f"{file} p. {chunk.page}"
