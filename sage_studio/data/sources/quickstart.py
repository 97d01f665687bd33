"""The quick-start dataset: facts about SAGE, and test questions that are held out."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from sage_studio.data.dataset import Dropped, FormatCount
from sage_studio.data.grading import Question
from sage_studio.data.rows import Example, Message, Origin
from sage_studio.settings import CONFIGS

FOLDER = CONFIGS / "quickstart"
DOCS_FOLDER = "docs_src"


class Fact(BaseModel):
    """A fact in the documentation.

    Attributes:
        id: short name, by which a test question refers to it.
        file: its file in the documentation; ``heading`` of its section, ``evidence`` words in it.
        group: facts of one group exclude each other: an answer to one must not hold the key of another.
        key: what a right answer says: each item, in which ``a | b`` means either.
        reject: what a right answer does not say, beside the keys of the group.
        answer: the sentence that is learned.
        asks: the questions to learn it by.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    file: str
    heading: str
    evidence: str
    group: str
    key: tuple[str, ...] = Field(min_length=1)
    reject: tuple[str, ...] = ()
    answer: str
    asks: tuple[str, ...] = Field(min_length=1)


class FactFile(BaseModel):
    """``facts.yaml``: the facts, and the documentation that they were read in."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    repository: str
    commit: str
    facts: tuple[Fact, ...]


class TestEntry(BaseModel):
    """One entry of ``test.yaml``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    fact: str
    question: str


@cache
def load_facts(path: Path = FOLDER / "facts.yaml") -> FactFile:
    """The facts that come with the studio."""
    return FactFile.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))


@cache
def quickstart_questions(path: Path = FOLDER / "test.yaml") -> tuple[Question, ...]:
    """The test questions, in the order of the file, each with what makes an answer right or wrong.

    Raises:
        KeyError: a question names no fact of the book.
    """
    facts = {fact.id: fact for fact in load_facts().facts}
    asked = [TestEntry.model_validate(entry) for entry in yaml.safe_load(path.read_text(encoding="utf-8"))]
    return tuple(_question(each.question, facts[each.fact]) for each in asked)


class QuickstartSource:
    """The facts as rows: one per way of asking."""

    kind: Literal["quickstart"] = "quickstart"
    name = "sage-quickstart"
    container = "YAML"
    dropped: tuple[Dropped, ...] = ()
    formats: tuple[FormatCount, ...] = ()

    def __init__(self) -> None:
        self._book = load_facts()
        self.source = self._book.repository
        self.commit: str | None = self._book.commit

    def examples(self) -> Iterator[Example]:
        """The rows, ordered by fact; the trainer shuffles them."""
        for fact in self._book.facts:
            origin = Origin(f"{DOCS_FOLDER}/{fact.file}", heading=(fact.heading,), commit=self.commit)
            for ask in fact.asks:
                yield Example((Message("user", ask),), fact.answer, origin)


def _question(asked: str, fact: Fact) -> Question:
    others = (other for other in load_facts().facts if other.group == fact.group and other.id != fact.id)
    return Question(asked, fact.answer, fact.key, (*fact.reject, *(key for other in others for key in other.key)))
