"""From rows to queries and passages: what is trained on, what is held out, and rows that cannot be used."""

import json
from pathlib import Path
from typing import Any

import pytest

from sage_studio.errors import InvalidDataset
from sage_studio.training.retrieval_pairs import Query, build_test_set, columns_of, read_queries, split

ORIGIN = {"file": "t.jsonl"}


def asked(query: str, *pos: str, neg: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"query": query, "pos": list(pos), "neg": list(neg), "origin": ORIGIN}


def written(folder: Path, *rows: Any) -> Path:
    path = folder / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_equal_queries_become_one_and_a_right_passage_is_never_a_wrong_one(tmp_path: Path):
    path = written(tmp_path, asked("a", "A", "A2", neg=("B",)), asked("b", "B"), asked("a", "A", "A3", neg=("A2", "C")))
    assert read_queries(path) == [Query("a", ("A", "A2", "A3"), ("B", "C")), Query("b", ("B",), ())]


def test_of_a_conversation_the_last_question_is_the_query_and_the_answer_its_passage(tmp_path: Path):
    turns = [("system", "Be kind"), ("user", "Hi"), ("assistant", "Hello"), ("user", "What is SAGE?")]
    row = {
        "prompt": [{"role": role, "content": content} for role, content in turns],
        "completion": [{"role": "assistant", "content": "A framework."}],
        "origin": ORIGIN,
    }
    assert read_queries(written(tmp_path, row, asked("b", "B")))[0] == Query("What is SAGE?", ("A framework.",), ())


def test_only_the_first_rows_are_read_where_the_recipe_says_so(tmp_path: Path):
    path = written(tmp_path, asked("a", "A"), asked("b", "B"), asked("c", "C"))
    assert len(read_queries(path, 2)) == 2


@pytest.mark.parametrize(
    ("row", "named"),
    [
        ({"pos": ["A"], "neg": [], "origin": ORIGIN}, "text"),
        ({"query": "a", "neg": [], "origin": ORIGIN}, "pos"),
        ({"query": "a", "pos": ["A"], "origin": ORIGIN}, "neg"),
        ({"query": "a", "pos": [], "neg": [], "origin": ORIGIN}, "pos must not be empty"),
        ({"query": " ", "pos": ["A"], "neg": [], "origin": ORIGIN}, "not empty"),
        ({"query": 7, "pos": ["A"], "neg": [], "origin": ORIGIN}, "texts"),
        ({"query": "a", "pos": [""], "neg": [], "origin": ORIGIN}, "not empty"),
        ({"query": "a", "pos": [None], "neg": [], "origin": ORIGIN}, "texts"),
        ({"query": "a", "pos": ["A"], "neg": [3], "origin": ORIGIN}, "texts"),
        ({"query": "a", "pos": None, "neg": [], "origin": ORIGIN}, "NoneType"),
        ({"query": "a", "pos": ["A"], "neg": []}, "origin"),
        ({"text": "only a passage", "origin": ORIGIN}, "passage rows have no query"),
        ({"prompt": [], "completion": [{"role": "assistant", "content": "x"}], "origin": ORIGIN}, "IndexError"),
        ({"prompt": [{"role": "user", "content": "x"}], "completion": [], "origin": ORIGIN}, "IndexError"),
        ([1, 2], "TypeError"),
        ("text", "TypeError"),
        (None, "TypeError"),
    ],
)
def test_a_line_that_is_no_row_is_named(tmp_path: Path, row: Any, named: str):
    path = written(tmp_path, asked("b", "B"), row)
    with pytest.raises(InvalidDataset) as caught:
        read_queries(path)
    assert caught.value.row == 2
    assert "2" in caught.value.message.zh
    assert named in caught.value.message.en


@pytest.mark.parametrize("content", [None, b"", b"\n\n", b"{\n", b"\xff\xfe\n"])
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, content: bytes | None):
    path = tmp_path / "data.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidDataset):
        read_queries(path)


@pytest.mark.parametrize("rows", [[asked("a", "A"), asked("a", "B")], [asked("a", "A"), asked("b", "A")]])
def test_rows_with_nothing_to_tell_apart_are_refused(tmp_path: Path, rows: list[Any]):
    with pytest.raises(InvalidDataset, match="nothing to tell apart"):
        read_queries(written(tmp_path, *rows))


QUERIES = [Query(f"q{n}", (f"right {n}", f"also {n}"), (f"wrong {n}",) * (n % 2)) for n in range(20)]


def test_nothing_held_out_is_trained_on_and_the_seed_decides():
    kept, held = split(QUERIES, 0.25, seed=1)
    assert (len(kept), len(held)) == (15, 5)
    assert not {query.text for query in kept} & {query.text for query in held}
    assert split(QUERIES, 0.25, seed=1) == (kept, held)
    assert split(QUERIES, 0.25, seed=2) != (kept, held)


@pytest.mark.parametrize(("count", "share"), [(3, 0.01), (3, 0.5), (4, 0.5)])
def test_however_few_rows_there_are_two_stay_to_train_on_and_one_to_measure_by(count: int, share: float):
    kept, held = split(QUERIES[:count], share, seed=0)
    assert len(kept) >= 2
    assert len(held) >= 1


def test_an_exam_holds_every_right_passage_and_as_many_others_as_asked():
    kept, held = split(QUERIES, 0.25, seed=1)
    exam = build_test_set(held, kept, 18, seed=1)
    assert len(exam.corpus) == 18
    for place, query in enumerate(held):
        assert {exam.corpus[name] for name in exam.relevant[f"q{place}"]} == set(query.right)
    assert set(exam.corpus.values()) >= {text for query in held for text in query.wrong}
    assert len(set(exam.corpus.values())) == 18


def test_one_pair_for_each_right_passage_and_lacking_negatives_are_drawn():
    columns = columns_of(QUERIES, hard_negatives=3, seed=1)
    assert list(columns) == ["query", "pos", "neg1"], "no row has more than one wrong passage"
    rows = list(zip(*columns.values(), strict=True))
    assert len(rows) == 40
    for query, pos, neg in rows:
        own = QUERIES[int(query[1:])]
        assert pos in own.right
        assert neg in own.wrong if own.wrong else neg not in own.right


def test_without_hard_negatives_there_are_two_columns():
    assert list(columns_of(QUERIES, hard_negatives=0, seed=1)) == ["query", "pos"]
