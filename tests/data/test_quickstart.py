"""The quick-start set: its facts stand in the documentation, and no test question is trained on."""

import re
from collections import Counter
from pathlib import Path

import pytest

from sage_studio.data.documents.markdown import parse_markdown
from sage_studio.data.documents.sections import Section
from sage_studio.data.grading import grade
from sage_studio.data.near_duplicates import NearDuplicates, resemblance
from sage_studio.data.sources.quickstart import DOCS_FOLDER, QuickstartSource, load_facts, quickstart_questions
from sage_studio.data.sources.sage_docs import DocsRepository
from sage_studio.data.store import DatasetStore
from sage_studio.settings import load_settings

FACTS = load_facts().facts
QUESTIONS = quickstart_questions()
MOST_ALIKE = 0.6
"""Share of character triples, or of words, that a test question may have in common with one that is trained on."""


def words(text: str) -> set[str]:
    return set(re.findall(r"[\w-]+", text.lower()))


def sections(root: Section) -> list[Section]:
    return [root, *(below for child in root.children for below in sections(child))]


def test_the_set_has_its_shape():
    assert len(FACTS) >= 40
    assert len({fact.id for fact in FACTS}) == len({fact.answer for fact in FACTS}) == len(FACTS)
    assert all(len(set(fact.asks)) == len(fact.asks) >= 6 for fact in FACTS)
    assert len({question.answer for question in QUESTIONS}) >= 30
    assert len({question.question for question in QUESTIONS}) == len(QUESTIONS)


def test_each_question_is_asked_in_one_way_of_one_fact():
    counts = Counter(ask for fact in FACTS for ask in fact.asks)
    assert [ask for ask, count in counts.items() if count > 1] == []


def test_no_test_question_is_trained_on_nor_a_near_duplicate_of_one():
    asks = [example.asked for example in QuickstartSource().examples()]
    with NearDuplicates() as near:
        for text in (*asks, *(question.question for question in QUESTIONS)):
            near.add(text)
        assert list(near.pairs_across(len(asks), alike=0.5)) == []
    for question in QUESTIONS:
        own = words(question.question)
        for ask in asks:
            assert resemblance(question.question, ask) < MOST_ALIKE, (question.question, ask)
            assert len(own & words(ask)) / len(own | words(ask)) < MOST_ALIKE, (question.question, ask)


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact.id)
def test_the_answer_is_short_and_right_and_no_question_gives_it_away(fact):
    own = [question for question in QUESTIONS if question.answer == fact.answer]
    assert len(fact.answer.split()) <= 16
    asked = [*fact.asks, *(question.question for question in own)]
    assert all(grade(question, fact.answer).right for question in own)
    for item in fact.key:
        for either in map(str.strip, item.split("|")):
            assert not any(re.search(rf"(?<![\w-]){re.escape(either)}(?![\w-])", ask.lower()) for ask in asked), either


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda question: question.question)
def test_the_answer_to_any_other_fact_is_wrong(question):
    others = {fact.answer for fact in FACTS} - {question.answer}
    assert [answer for answer in others if grade(question, answer).right] == []
    assert not grade(question, ", or ".join(answer.rstrip(".") for answer in (question.answer, *others))).right


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact.id)
def test_each_fact_stands_where_it_says(fact, docs_copy):
    text = docs_copy[f"{DOCS_FOLDER}/{fact.file}"]
    found = sections(parse_markdown(text, fact.file))
    lines = text.split("\n")
    own = [section for section in found if section.heading == fact.heading]
    ends = [
        min((other.line for other in found if other.line > each.line and other.level <= each.level), default=len(lines))
        for each in own
    ]
    under = ["\n".join(lines[max(each.line - 1, 0) : end]) for each, end in zip(own, ends, strict=True)]
    assert any(fact.evidence in text for text in under)


@pytest.fixture(scope="module")
def docs_copy(docs_repository, tmp_path_factory) -> dict[str, str]:
    """The documentation's files, fetched once."""
    if not docs_repository.endswith(".bundle"):
        pytest.skip("the SAGE documentation is not here")
    repository = DocsRepository(load_settings(home=tmp_path_factory.mktemp("home"), docs_repo=docs_repository))
    repository.fetch(lambda *_: None)
    return {file: content.decode() for file, content in repository.documents()}


def test_it_is_kept_as_a_dataset_without_the_test_questions(database, tmp_path: Path):
    store = DatasetStore(database, tmp_path / "datasets")
    dataset = store.add(QuickstartSource())
    assert (dataset.kind, dataset.name, dataset.row_kind) == ("quickstart", "sage-quickstart", "conversation")
    assert dataset.commit == load_facts().commit
    assert dataset.stats.total_samples == sum(len(fact.asks) for fact in FACTS)
    assert dataset.stats.languages == {"en": dataset.stats.total_samples}
    kept = store.data_path(dataset.id).read_text(encoding="utf-8")
    assert not any(question.question in kept for question in QUESTIONS)
    assert store.add(QuickstartSource()).id == dataset.id
