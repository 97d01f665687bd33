"""New datasets of old ones: edited, combined, said in other words, asked about; each row names the row it came from."""

import threading
from collections import Counter

import pytest

from sage_studio.data.jobs import JobState
from sage_studio.data.rows import Example, Message, Origin, Passage, Preference, Retrieval, row_from_json
from sage_studio.data.store import DatasetStore
from sage_studio.data.synthesis import DerivedSource, annotate, augment
from sage_studio.data.synthesis.annotate import AnnotateOrder, annotator
from sage_studio.data.synthesis.augment import AugmentOrder, augmenter
from sage_studio.data.synthesis.generated import (
    GENERATED,
    GeneratedSource,
    clean_completion,
    generate_rows,
    read_generated,
)
from sage_studio.data.synthesis.mix import (
    EditedSource,
    MixedSource,
    MixturePart,
    MixtureWeight,
    RowChange,
    apply_change,
)
from sage_studio.data.synthesis.qa_filter import QAPair, parse_pairs
from sage_studio.errors import EngineUnavailable, InvalidInput
from sage_studio.tasks.background import BackgroundTasks, Resource
from sage_studio.tasks.store import TaskStore
from sage_studio.text import verbatim


class Given(DerivedSource):
    """A source of given rows."""

    def __init__(self, name, rows):
        super().__init__("upload", name, f"{name}.json")
        self.rows = rows

    def examples(self):
        yield from self.rows


def talk(question, answer, number=1, file="a.json"):
    return Example((Message("user", question),), answer, Origin(file, row=number))


@pytest.fixture
def store(database, settings) -> DatasetStore:
    return DatasetStore(database, settings.datasets_dir)


def keep(store, name, count):
    return store.add(
        Given(name, [talk(f"{name} asks {n}?", f"{name} answers {n}", n, f"{name}.json") for n in range(1, count + 1)])
    )


def part(store, dataset, **values):
    return MixturePart(MixtureWeight(dataset_id=dataset.id, **values), dataset, store.folder(dataset.id))


# Edited


def test_an_edited_dataset_is_a_new_version_and_the_old_one_stays(store):
    old = keep(store, "a", 250)
    changes = [RowChange(row=3, answer="better"), RowChange(row=200, exclude=True), RowChange(row=201, question="why?")]
    new = store.add(EditedSource(old, store.rows(old.id), changes), old.name)
    assert (new.id, new.version, new.stats.total_samples) == ("a-v2", 2, 249)
    rows, before = list(store.rows(new.id)), list(store.rows(old.id))
    assert (rows[2].completion, rows[2].origin.made) == ("better", "edited")
    assert (rows[2].origin.dataset, rows[2].origin.dataset_row, rows[2].origin.row) == ("a-v1", 3, 3)
    assert (rows[199].asked, rows[199].origin.dataset_row) == ("why?", 201)
    assert rows[:2] + rows[3:199] + rows[200:] == before[:2] + before[3:199] + before[201:]
    assert [(each.count, each.rows) for each in new.stats.dropped] == [(1, ("a-v1:200",))]


def test_each_kind_of_row_can_be_changed():
    change = RowChange(row=1, question="q2", answer="a2", rejected="r2")
    prompt = (Message("system", "s"), Message("user", "q"))
    pair = apply_change(Preference(prompt, "c", "r", Origin("x")), change)
    assert (pair.prompt, pair.chosen, pair.rejected) == ((prompt[0], Message("user", "q2")), "a2", "r2")
    found = apply_change(Retrieval("q", ("p", "p1"), ("n",), Origin("x")), change)
    assert (found.query, found.pos, found.neg) == ("q2", ("a2", "p1"), ("n",))
    assert apply_change(Passage("t", Origin("x")), change).text == "a2"
    untouched = talk("q", "a")
    assert apply_change(untouched, RowChange(row=1)) == untouched


@pytest.mark.parametrize(
    "changes",
    [[], [{"row": 9}], [{"row": 1}, {"row": 1}], [{"row": 1, "answer": " "}], [{"row": 2, "question": ""}]],
)
def test_changes_that_cannot_be_are_refused(store, changes):
    old = keep(store, "a", 3)
    with pytest.raises(InvalidInput):
        EditedSource(old, store.rows(old.id), [RowChange(**change) for change in changes])


# Combined


def test_combined_rows_are_the_drawn_ones_each_with_its_source(store):
    a, b = keep(store, "a", 300), keep(store, "b", 40)
    parts = [part(store, a, weight=0.5), part(store, b, weight=2.25)]
    new = store.add(MixedSource("mix", parts, seed=7))
    rows = list(store.rows(new.id))
    drawn = Counter((row.origin.dataset, row.origin.dataset_row) for row in rows)
    assert Counter(row.origin.dataset for row in rows) == {a.id: 150, b.id: 90}
    assert {drawn[b.id, n] for n in range(1, 41)} == {2, 3}
    for row in rows:
        assert row.completion == f"{row.origin.dataset[0]} answers {row.origin.dataset_row}"
    assert [row.origin.dataset for row in rows[:30]] != sorted(row.origin.dataset for row in rows[:30])
    assert (new.kind, new.source) == ("combined", "a-v1 × 0.5 + b-v1 × 2.25")
    assert sum(each.count for each in new.stats.dropped) == 150


def test_a_cap_and_the_order_of_the_parts(store):
    a, b = keep(store, "a", 100), keep(store, "b", 100)
    new = store.add(MixedSource("mix", [part(store, b, cap=10), part(store, a, cap=500)], shuffle=False))
    rows = list(store.rows(new.id))
    assert [row.origin.dataset for row in rows] == [b.id] * 10 + [a.id] * 100
    numbers = [row.origin.dataset_row for row in rows]
    assert numbers[:10] == sorted(set(numbers[:10]))
    assert numbers[10:] == list(range(1, 101))


def test_the_same_seed_gives_the_same_dataset_and_another_another(store):
    a = keep(store, "a", 50)
    first, again, other = (store.add(MixedSource("mix", [part(store, a, weight=0.5)], seed=seed)) for seed in (1, 1, 2))
    assert first == again
    assert other.version == 2


def test_what_cannot_be_one_dataset_is_refused(store):
    a = keep(store, "a", 5)
    passages = store.add(Given("p", [Passage("rain falls", Origin("k.json"))]))
    with pytest.raises(InvalidInput, match="different kinds"):
        MixedSource("mix", [part(store, a), part(store, passages)])
    with pytest.raises(InvalidInput, match="cannot be combined: a-v1, a-v1"):
        MixedSource("mix", [part(store, a), part(store, a)])
    with pytest.raises(InvalidInput):
        MixedSource("mix", [])


# Written by a model

TEXT = "A window groups records by time or by count. Late records are dropped unless a grace period is set."
BETTER = (
    "Records are grouped by a window, either by time or by count. Unless a grace period is set, late ones are dropped."
)


def test_a_paraphrase_is_linked_to_its_row(store):
    old = store.add(Given("a", [talk("What does a window do with late records?", TEXT, 4)]))
    order = AugmentOrder(dataset_id=old.id)
    asked = []

    def ask(prompt, temperature, most):
        asked.append(prompt)
        return 'Paraphrase: "How are late records treated by a window?"'

    made = augmenter(order, old, ask)(1, next(store.rows(old.id)))
    (row,) = made.rows
    assert (row.asked, row.completion) == ("How are late records treated by a window?", TEXT)
    assert (row.origin.dataset, row.origin.dataset_row, row.origin.made, row.origin.row) == (old.id, 1, "paraphrase", 4)
    assert "What does a window do" in asked[0]
    assert "in English" in asked[0]


def test_back_translation_goes_there_and_back(store):
    old = store.add(Given("a", [talk("窗口如何处理迟到的记录？", "会被丢弃。")]))
    answers = iter(["How does a window treat late records?", "窗口怎样对待迟到的记录？"])
    prompts = []

    def ask(prompt, temperature, most):
        prompts.append(prompt)
        return next(answers)

    made = augmenter(AugmentOrder(dataset_id=old.id, ways=("back_translation",)), old, ask)(1, next(store.rows(old.id)))
    assert [row.asked for row in made.rows] == ["窗口怎样对待迟到的记录？"]
    assert "into English" in prompts[0]
    assert "into Chinese" in prompts[1]
    assert "How does a window treat" in prompts[1]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("", "empty"),
        ("Window?", "length"),
        ("word " * 100, "length"),
        (TEXT, "copy"),
        (TEXT.upper() + "!", "copy"),
        (
            "Completely unrelated talk about the weather in spring, where rain and sun quickly follow each other.",
            "apart",
        ),
        (
            "窗口按照时间或者数量对记录进行分组，没有设置宽限期的时候迟到的记录会被丢弃，这就是窗口的全部行为和作用。",
            "language",
        ),
        (BETTER, ""),
    ],
)
def test_what_is_no_paraphrase_is_left_out_with_its_reason(answer, reason):
    assert augment.rejection_reason(TEXT, clean_completion(answer), 0.1, 0.9) == reason


def test_the_same_words_are_kept_once(store):
    old = store.add(Given("a", [talk("q?", TEXT)]))
    order = AugmentOrder(dataset_id=old.id, part="answer", copies=3)
    made = augmenter(order, old, lambda *_: BETTER)(1, next(store.rows(old.id)))
    assert (len(made.rows), made.rejected) == (1, {"repeat": 2})


PAIR = "Q: What does a window group records by?\nA: By time or by count.\nE: groups records by time or by count"


@pytest.mark.parametrize(
    ("answer", "pairs"),
    [
        (PAIR, 1),
        (f"Sure!\n\n1. {PAIR}\n\n{PAIR}", 2),
        (PAIR.replace("Q:", "**Q1:**").replace("A:", "**A1:**").replace("E:", "- E1:"), 1),
        ("问：窗口按什么分组？\n答案：时间。\n证据：按时间分组", 1),
        ("Q: one?\nA: two\nQ: three?\nA: four\nE: five", 1),
        ("nothing of the kind", 0),
        ("", 0),
    ],
)
def test_pairs_are_read_as_models_write_them(answer, pairs):
    found = [pair for pair in parse_pairs(answer) if pair.evidence]
    assert len(found) == pairs
    assert all(pair.question and pair.answer for pair in found)


def pair(question, answer, evidence):
    return QAPair(question=question, answer=answer, evidence=evidence)


@pytest.mark.parametrize(
    ("question", "answer", "evidence", "reason"),
    [
        ("What does a window group by?", "By time or by count.", "groups RECORDS by time, or by count", ""),
        ("What does a window group by?", "By time.", "groups records by colour", "evidence"),
        ("What does a window group by?", "By time.", "time", "evidence"),
        ("What does a window group by.", "By time.", "groups records by time", "question"),
        ("Why?", "By time.", "groups records by time", "question"),
        ("What does a window group by?", "…", "groups records by time", "answer"),
        ("What does a window group by?", "This is not mentioned.", "groups records by time", "answer"),
        ("What does a window group by?", "long " * 80, "groups records by time", "answer"),
        ("窗口 是 按照 什么 来 分组 的？", "By time.", "groups records by time", "language"),
    ],
)
def test_only_pairs_with_evidence_are_kept(question, answer, evidence, reason):
    assert annotate.rejection_reason(pair(question, answer, evidence), TEXT, "en") == reason


def test_chinese_pairs_have_rules_of_their_own():
    text = "窗口按照时间或者数量对记录进行分组，迟到的记录会被丢弃。"
    assert annotate.rejection_reason(pair("窗口按什么分组？", "按时间或数量。", "按照时间或者数量"), text, "zh") == ""
    assert annotate.rejection_reason(pair("窗口按什么分组？", "按颜色。", "按照颜色分组"), text, "zh") == "evidence"
    assert annotate.rejection_reason(pair("窗？", "按时间或数量。", "按照时间或者数量"), text, "zh") == "question"


def test_a_question_is_asked_once_even_after_a_break(store):
    docs = store.add(Given("docs", [talk("Explain windows.", TEXT), talk("Explain again.", TEXT + " More.", 2)]))
    first = annotator(AnnotateOrder(dataset_id=docs.id), docs, lambda *_: PAIR)
    rows = list(store.rows(docs.id))
    made = first(1, rows[0])
    assert (made.rows[0].asked, made.rows[0].origin.made) == ("What does a window group records by?", "annotated")
    assert made.rows[0].origin.evidence in PAIR
    assert row_from_json(made.rows[0].to_json()) == made.rows[0]
    assert first(2, rows[1]).rejected == {"repeat": 1}
    resumed = annotator(AnnotateOrder(dataset_id=docs.id), docs, lambda *_: PAIR, made.rows)
    assert resumed(2, rows[1]).rejected == {"repeat": 1}


# The work as a job


def answered(prompt, *_):
    number = prompt.split("answers ")[1].split("\n")[0]
    return f"a replies with {number}"


@pytest.fixture
def dataset(store):
    return keep(store, "a", 30)


@pytest.fixture
def background(database, settings):
    """A studio's background tasks that do some work; called again, those of a studio that is started later."""

    def background(work):
        jobs = BackgroundTasks(TaskStore(database, settings.outputs_dir, settings.jobs_dir), settings.jobs_dir)
        jobs.register("augment", work, Resource.CPU)
        return jobs

    return background


def work_with(store, dataset, ask, most=30):
    order = AugmentOrder(dataset_id=dataset.id, part="answer", least_alike=0)

    def work(running):
        generate_rows(running, store.rows(dataset.id), most, augmenter(order, dataset, ask), verbatim("x", "x"))
        originals = store.rows(dataset.id)
        source = GeneratedSource("augmented", "more", dataset, running.folder, originals, augment.REASONS)
        return store.add(source).id

    return work


def test_a_job_writes_all_rows_in_order_and_makes_a_dataset(store, dataset, background):
    jobs = background(work_with(store, dataset, answered, most=10))
    job = jobs.wait(jobs.start("augment", dataset.id, {}).id)
    assert (job.state, job.done, job.total, job.result) == (JobState.COMPLETED, 10, 10, "more-v1")
    rows = list(store.rows("more-v1"))
    assert [row.origin.dataset_row for row in rows] == [*range(1, 31), *range(1, 11)]
    assert [row.completion for row in rows[30:]] == [f"a replies with {n}" for n in range(1, 11)]
    assert {row.origin.made for row in rows[:30]} == {None}


def test_a_job_that_was_cut_off_goes_on_behind_its_last_whole_line(store, dataset, background):
    asked, broken = Counter(), threading.Event()

    def ask(prompt, *rest):
        number = int(prompt.split("answers ")[1].split("\n")[0])
        asked[number] += 1
        if number > 12 and not broken.is_set():
            raise EngineUnavailable(verbatim("gone", "没了"))
        return answered(prompt)

    jobs = background(work_with(store, dataset, ask))
    job = jobs.wait(jobs.start("augment", dataset.id, {}).id)
    assert (job.state, job.message.en) == (JobState.FAILED, "gone")
    path = jobs._folder / job.id / GENERATED
    assert [number for number, _ in read_generated(path.parent)] == list(range(1, 13))
    with path.open("a") as file:
        file.write('{"source": 13, "rows": [{"half')
    broken.set()
    later = background(work_with(store, dataset, ask))
    later.resume(job.id)
    assert later.wait(job.id).state is JobState.COMPLETED
    assert [number for number, _ in read_generated(path.parent)] == list(range(1, 31))
    assert all(asked[number] == 1 for number in range(1, 13)), "what was paid for is not asked again"
    assert store.get("more-v1").stats.total_samples == 60


def test_what_was_refused_is_counted_in_the_new_dataset(store, dataset, background):
    jobs = background(work_with(store, dataset, lambda *_: "", most=3))
    jobs.wait(jobs.start("augment", dataset.id, {}).id)
    (dropped,) = store.get("more-v1").stats.dropped
    assert (dropped.reason, dropped.count, dropped.rows) == (
        augment.REASONS["empty"],
        3,
        ("a-v1:1", "a-v1:2", "a-v1:3"),
    )
