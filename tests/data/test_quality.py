"""A close look at a dataset: every finding with its row, in the file, in the sum, as CSV and as JSONL."""

import csv
import io
import json

import pytest

from sage_studio.data.dataset import NAMED_ROWS, DropCounter, Dropped, write_dropped
from sage_studio.data.quality import (
    LONG_CHARS,
    Finding,
    TokenMeasure,
    as_csv,
    as_jsonl,
    check_quality,
    read_findings,
    read_quality_report,
)
from sage_studio.data.rows import Example, Message, Origin, Passage
from sage_studio.text import verbatim

WORDS = [f"word{number}" for number in range(40)]


def row(question, answer, number=None):
    return Example((Message("user", question),), answer, Origin("a.json", row=number))


def clean(count, first=0):
    return [row(f"question {n}?", " ".join(f"{word}-{n}" for word in WORDS), n) for n in range(first, first + count)]


def found(folder, kind=""):
    return [(each.kind, each.row, each.of) for each in read_findings(folder, kind)]


def test_clean_rows_have_no_finding(tmp_path):
    inspection = check_quality(tmp_path, clean(600), 600)
    assert (inspection.rows, inspection.counts, inspection.tokens, inspection.share_cut) == (600, {}, None, None)
    assert found(tmp_path) == []
    assert read_quality_report(tmp_path) == inspection


def test_copies_and_near_copies_are_named_with_the_row_they_repeat(tmp_path):
    rows = clean(300)
    rows[270] = rows[3]
    rows[271] = row("question 7?", rows[7].completion.replace("word39-7", "other"))
    inspection = check_quality(tmp_path, iter(rows), 300)
    assert found(tmp_path) == [("duplicate", 271, 4), ("near_duplicate", 272, 8)]
    assert inspection.counts == {"duplicate": 1, "near_duplicate": 1}


@pytest.mark.parametrize(
    ("answer", "kind"), [("…?!", "empty"), ("word " * (LONG_CHARS // 5 + 1), "long"), ("二", None), ("4", None)]
)
def test_answers_that_say_nothing_or_too_much(tmp_path, answer, kind):
    check_quality(tmp_path, [*clean(2), row("why?", answer, 9)], 3)
    assert found(tmp_path) == ([(kind, 3, None)] if kind else [])


def test_lengths_by_the_yardstick(tmp_path):
    lengths = {1: (100, True), 2: (700, True), 3: (900, False), 4: (None, False), 5: (512, True)}
    stick = TokenMeasure("m", 512, lambda rows: [lengths[each.origin.row] for each in rows])
    inspection = check_quality(tmp_path, clean(5, first=1), 5, stick)
    assert found(tmp_path) == [("cut", 2, None), ("left_out", 3, None), ("refused", 4, None)]
    assert (inspection.tokens, inspection.tokens_per_epoch, inspection.longest) == (2212, 100 + 512 + 512, 900)
    assert inspection.share_cut == 2 / 5
    assert sum(rows for _, rows in inspection.histogram) == 4


def test_what_the_other_dataset_has_too(tmp_path):
    ours, theirs = clean(50), clean(5, first=100)
    theirs[1] = row("QUESTION  7?", "something else entirely, said in other words")
    theirs[3] = row("asked otherwise", ours[9].completion)
    inspection = check_quality(tmp_path, ours, 50, against=("held-out-v1", theirs))
    assert found(tmp_path) == [("leak", 8, 2), ("leak", 10, 4)]
    assert inspection.against == "held-out-v1"
    assert "row 2 of held-out-v1: same question" in [each.detail for each in read_findings(tmp_path)]


def test_passages_without_a_question_do_not_leak_by_their_missing_headings(tmp_path):
    ours = [Passage(text, Origin("k.json")) for text in ("rain falls in spring", "snow falls in winter")]
    theirs = [Passage("wind blows all the year", Origin("k.json"))]
    assert check_quality(tmp_path, ours, 2, against=("other", theirs)).counts == {}


def test_a_look_that_is_stopped_leaves_the_last_one(tmp_path):
    rows = clean(600)
    rows[5] = rows[4]
    before = check_quality(tmp_path, rows, 600)

    class Enough(Exception):
        pass

    def stop(share, _):
        if share > 0.3:
            raise Enough

    with pytest.raises(Enough):
        check_quality(tmp_path, clean(600), 600, on_progress=stop)
    assert read_quality_report(tmp_path) == before
    assert found(tmp_path) == [("duplicate", 6, 5)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["findings.jsonl", "inspection.json"]


def test_what_was_left_out_is_listed_whole_though_the_manifest_names_some():
    left_out, reason = DropCounter(), verbatim("empty answer", "回答为空")
    for number in range(NAMED_ROWS + 30):
        left_out.add(reason, str(number))
    (dropped,) = left_out.dropped
    assert len(dropped.rows) == NAMED_ROWS + 30
    assert (len(dropped.shortened.rows), dropped.shortened.count) == (NAMED_ROWS, NAMED_ROWS + 30)


def test_more_places_than_are_remembered_are_only_counted(monkeypatch):
    monkeypatch.setattr("sage_studio.data.dataset.MOST_PLACES", 3)
    left_out = DropCounter()
    for number in range(5):
        left_out.add(verbatim("a", "甲"), str(number))
    assert [(each.count, each.rows) for each in left_out.dropped] == [(5, ("0", "1", "2"))]


def test_the_list_as_csv_and_jsonl(tmp_path):
    write_dropped(tmp_path, [Dropped(verbatim("empty answer", "回答为空"), 2, ("3", "=1+1"))])
    check_quality(tmp_path, [row("q", "…", 1)], 1)
    lines = b"".join(as_jsonl(read_findings(tmp_path))).decode().splitlines()
    assert [json.loads(line)["kind"] for line in lines] == ["dropped", "dropped", "empty"]
    table = b"".join(as_csv(read_findings(tmp_path))).decode("utf-8-sig")
    cells = list(csv.reader(io.StringIO(table)))
    assert cells[0] == ["kind", "row", "of", "detail", "where"]
    assert cells[2] == ["dropped", "", "", "empty answer", "'=1+1"]
    assert cells[3] == ["empty", "1", "", "", "a.json:1"]
    assert list(read_findings(tmp_path, "empty")) == [Finding("empty", 1, where="a.json:1")]
