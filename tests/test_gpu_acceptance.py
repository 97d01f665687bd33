"""The acceptance script's own care: a step that hangs or dies costs its own lines and no others."""

import json
import sys

import pytest
from waiting import wait_until

from sage_studio.hardware import Gpu, Hardware
from scripts import gpu_acceptance as script
from scripts.gpu_acceptance import Plan, Row, Step, estimates, report, rows_for, run_step, steps_of

PLAN = Plan(home="/nowhere", model="m", rows=16, steps=4, length=96, switches=2, engine="auto", rehearse=True)


def child(*lines):
    code = "".join(f"print({line!r}, flush=True);" for line in lines)
    return [sys.executable, "-c", code]


def step(*rows, limit=60.0):
    return Step("one", limit, rows, lambda _: iter(()))


def said(what, outcome="passed"):
    return script.MARK + json.dumps({"what": what, "outcome": outcome})


def test_what_a_step_reports_is_read_among_other_lines(tmp_path):
    rows = run_step(step("a", "b"), child("loading …", said("a"), said("b", "skipped")), tmp_path / "log")
    assert [(row.what, row.outcome) for row in rows] == [("a", "passed"), ("b", "skipped")]


def test_what_a_step_that_died_did_not_report_has_failed_with_its_last_words(tmp_path):
    command = [sys.executable, "-c", f"print({said('a')!r}); print('no room left'); raise SystemExit(3)"]
    rows = run_step(step("a", "b", "c"), command, tmp_path / "log")
    assert [row.outcome for row in rows] == ["passed", "failed", "failed"]
    assert "ended with 3" in rows[1].note
    assert "no room left" in rows[1].note
    assert rows[2].note == "not reached"


def test_a_step_that_hangs_is_ended_at_its_limit_with_its_children(tmp_path):
    import psutil

    code = (
        "import subprocess, sys, time; "
        "print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']).pid, flush=True); "
        "time.sleep(600)"
    )
    (row,) = run_step(step("a", limit=3.0), [sys.executable, "-c", code], tmp_path / "log")
    assert row.outcome == "failed"
    assert "not done after 3 s" in row.note
    left = int((tmp_path / "log").read_text())
    wait_until(lambda: not psutil.pid_exists(left) or psutil.Process(left).status() == psutil.STATUS_ZOMBIE)


def test_an_estimate_that_is_far_off_fails():
    rows = [Row("a", "passed", figures={"estimate": 2.0, "peak": 2.2}), Row("b", "passed")]
    rows.append(Row("c", "passed", figures={"estimate": 2.0, "peak": 3.0}))
    assert [(row.what, row.outcome) for row in estimates(rows)] == [
        ("estimate: a", "passed"),
        ("estimate: c", "failed"),
    ]


def test_a_step_that_is_tried_again_replaces_its_lines_and_the_others_stay(tmp_path):
    kept = script.Kept(tmp_path / "rows.json")
    kept.add([Row("DPO", "failed"), Row("make doctor", "passed")])
    again = script.Kept(tmp_path / "rows.json")
    again.add([Row("DPO", "passed", figures={"estimate": 1.0, "peak": 1.0})])
    found = [(row.what, row.outcome) for row in again.in_order(PLAN)]
    assert found == [("make doctor", "passed"), ("DPO", "passed"), ("estimate: DPO", "passed")]


def test_the_report_names_the_gpu_and_counts(monkeypatch):
    gpu = Gpu(0, "NVIDIA RTX 3090", 24, 0.4, capability=(8, 6), driver="580.95.05")
    lines = script.machine(Hardware((gpu,), 64, 8, 16), PLAN)
    text = report(gpu.name, lines, [Row("x", "passed", "a | b"), Row("y", "failed", "why\nnot")])
    assert "# Acceptance: NVIDIA RTX 3090" in text
    assert "1 passed, 1 failed, 0 skipped" in text
    assert "compute capability 8.6, driver 580.95.05" in text
    assert "a \\| b" in text
    assert "why not" in text


def test_every_line_is_declared_once_so_that_none_can_be_lost():
    rows = [what for each in steps_of(PLAN) for what in each.rows]
    assert len(rows) == len(set(rows)) == 12
    assert len({each.name for each in steps_of(PLAN)}) == len(steps_of(PLAN))


@pytest.mark.parametrize("kind", ["sft", "dpo", "embedding"])
def test_its_rows_are_rows_of_the_studio(settings, tmp_path, kind):
    from sage_studio.studio import Studio

    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows_for(kind, 16)))
    made = Studio(settings).datasets.upload(path, name=kind)
    assert made.stats.total_samples == 16
    assert made.row_kind == {"sft": "conversation", "dpo": "preference", "embedding": "retrieval"}[kind]


def test_without_a_gpu_it_says_so_and_does_nothing(monkeypatch, capsys):
    monkeypatch.setattr(script, "detect_hardware", lambda: Hardware((), 8, 4, 2))
    monkeypatch.setattr(sys, "argv", ["gpu_acceptance.py"])
    assert script.main() == 2
    assert "--rehearse" in capsys.readouterr().err
