"""What viewers are told of a run, from the lines it wrote."""

import json
import time

import psutil
import pytest

from sage_studio.tasks.progress import ProgressReader
from sage_studio.training.progress import Phase, ProgressWriter, Result, write_result


@pytest.fixture
def write(tmp_path):
    def write(*events):
        with (tmp_path / "progress.jsonl").open("a") as file:
            for event in events:
                file.write(json.dumps({"time": time.time(), "phase": "training", **event}) + "\n")

    return write


def test_nothing_written_is_nothing_known(tmp_path):
    reports = ProgressReader()
    assert reports.newest(tmp_path) is None
    assert reports.newest(tmp_path / "gone") is None
    assert reports.curve(tmp_path, 10).steps == ()
    assert reports.result(tmp_path) is None
    assert not reports.trained_since(tmp_path, 0.0)


def test_the_newest_value_of_each_field_counts(tmp_path):
    reports, writer = ProgressReader(), ProgressWriter(tmp_path)
    writer.phase(Phase.LOADING_MODEL, "1 of 2 files")
    assert reports.newest(tmp_path).detail == "1 of 2 files"
    writer.phase(Phase.TRAINING)
    writer.write(step=1, total_steps=9, loss=2.0)
    writer.write(step=2, tokens_per_second=50.0)
    now = reports.newest(tmp_path)
    assert (now.step, now.total_steps, now.loss, now.tokens_per_second) == (2, 9, 2.0, 50.0)
    assert now.detail is None, "the detail of a phase that is over"


def test_a_figure_that_is_not_finite_is_none_and_no_older_one_takes_its_place(tmp_path, write):
    reports = ProgressReader()
    write({"step": 1, "loss": 2.0}, {"step": 2, "loss": float("nan")}, {"step": 3, "loss": float("inf")})
    assert reports.newest(tmp_path).loss is None
    curve = reports.curve(tmp_path, 10)
    assert (curve.steps, curve.loss) == ((1, 2, 3), (2.0, None, None))
    json.dumps([curve.loss, reports.newest(tmp_path).model_dump(mode="json")], allow_nan=False)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"\x00\x00\x00\x00",
        b"[1]",
        b'{"time": 1}',
        b'{"time": NaN, "phase": "training", "step": 7}',
        b'{"time": 1, "phase": "unheard of"}',
        b'{"time": 1, "phase": "training", "step": "seven"}',
        b'{"time": 1, "phase": "training", "loss": "\xff"}',
        b'{"time": 1, "phase": "training", "step": 2, "lo{"time": 1, "phase": "training", "step": 2}',
    ],
)
def test_a_malformed_line_is_passed_over(tmp_path, write, line):
    write({"step": 1, "loss": 3.0})
    with (tmp_path / "progress.jsonl").open("ab") as file:
        file.write(line + b"\n")
    write({"step": 2, "loss": 2.0})
    reports = ProgressReader()
    assert reports.curve(tmp_path, 10).steps == (1, 2)
    assert reports.newest(tmp_path).loss == 2.0


@pytest.mark.parametrize("step", [-1, 2**64, 10**40])
def test_an_impossible_step_is_no_point(tmp_path, write, step):
    write({"step": step, "loss": 1.0}, {"step": 1, "loss": 1.0})
    assert ProgressReader().curve(tmp_path, 10).steps == (1,)


def test_half_a_line_waits_for_its_other_half(tmp_path, write):
    reports = ProgressReader()
    write({"step": 1, "loss": 3.0})
    with (tmp_path / "progress.jsonl").open("a") as file:
        file.write('{"time": 1, "phase": "training", "step"')
        file.flush()
        assert reports.newest(tmp_path).step == 1
        file.write(': 2, "loss": 1.0}\n')
    assert reports.newest(tmp_path).step == 2


def test_a_resumed_run_replaces_the_steps_that_it_repeats(tmp_path, write):
    reports = ProgressReader()
    write(*({"step": step, "loss": 1.0, "learning_rate": 0.1} for step in range(1, 8)))
    assert reports.curve(tmp_path, 10).steps == (1, 2, 3, 4, 5, 6, 7)
    write(*({"step": step, "loss": 2.0} for step in range(5, 10)))
    curve = reports.curve(tmp_path, 100)
    assert curve.steps == (1, 2, 3, 4, 5, 6, 7, 8, 9)
    assert curve.loss == (1.0,) * 4 + (2.0,) * 5
    assert len(curve.learning_rate) == len(curve.tokens_per_second) == 9


def test_two_events_of_one_step_are_one_point(tmp_path, write):
    write({"step": 1, "loss": 2.0}, {"step": 1, "tokens_per_second": 70.0}, {"step": 1}, {"step": 1, "phase": "saving"})
    curve = ProgressReader().curve(tmp_path, 10)
    assert (curve.steps, curve.loss, curve.tokens_per_second) == ((1,), (2.0,), (70.0,))


@pytest.mark.parametrize("points", [0, 1, 2, 3, 4, 5, 50, 499, 999, 1000, 5000])
def test_thinning_keeps_ends_and_peaks(tmp_path, write, points):
    losses = [1.0 + (step % 7) / 100 for step in range(1000)]
    losses[333], losses[666] = 99.0, -99.0
    write(*({"step": step, "loss": loss} for step, loss in enumerate(losses)))
    curve = ProgressReader().curve(tmp_path, points)
    assert len(curve.steps) == len(curve.loss) <= points
    assert list(curve.steps) == sorted(set(curve.steps))
    if points >= 2:
        assert (curve.steps[0], curve.steps[-1]) == (0, 999)
    if points >= 4:
        assert {99.0, -99.0} <= set(curve.loss)
    assert all(losses[step] == loss for step, loss in zip(curve.steps, curve.loss, strict=True))


def test_thinning_copes_with_points_that_have_no_loss(tmp_path, write):
    write(*({"step": step, "learning_rate": 0.1} for step in range(100)))
    curve = ProgressReader().curve(tmp_path, 10)
    assert len(curve.steps) <= 10
    assert set(curve.loss) == {None}


def test_fifty_viewers_of_a_long_run_cost_one_reading(tmp_path, write, monkeypatch):
    write(*({"step": step, "loss": 1.0, "learning_rate": 0.1, "tokens_per_second": 9.0} for step in range(20_000)))
    size = (tmp_path / "progress.jsonl").stat().st_size
    reports = ProgressReader()
    before = psutil.Process().io_counters().read_chars
    first = reports.newest(tmp_path), reports.curve(tmp_path, 500)
    with monkeypatch.context() as patch:
        patch.setattr("sage_studio.tasks.progress.read_from", None)  # the file has not changed: it is not even opened
        for _ in range(50):
            assert reports.newest(tmp_path) is first[0]
            assert reports.curve(tmp_path, 500) is first[1], "it is not thinned again"
    read = psutil.Process().io_counters().read_chars - before
    assert read < size + (1 << 16), f"{read} bytes read of {size}"
    write({"step": 20_000, "loss": 1.0})
    assert reports.newest(tmp_path).step == 20_000


def test_a_file_that_was_replaced_is_read_anew(tmp_path, write):
    reports = ProgressReader()
    write(*({"step": step, "loss": 1.0} for step in range(10)))
    assert reports.newest(tmp_path).step == 9
    (tmp_path / "progress.jsonl").unlink()
    assert reports.newest(tmp_path) is None
    write({"step": 1, "loss": 5.0})
    assert reports.curve(tmp_path, 10).loss == (5.0,)
    reports.forget(tmp_path)
    assert reports.curve(tmp_path, 10).loss == (5.0,)


def test_training_is_told_apart_from_that_of_an_earlier_run(tmp_path, write):
    reports = ProgressReader()
    write({"time": 100.0, "step": 1}, {"time": 101.0, "phase": "saving"})
    assert reports.trained_since(tmp_path, 99.0)
    assert not reports.trained_since(tmp_path, 100.5)
    write({"time": 200.0, "step": 2})
    assert reports.trained_since(tmp_path, 100.5)


def test_the_result_is_read_when_it_changes_and_an_unreadable_one_is_none(tmp_path):
    reports = ProgressReader()
    write_result(tmp_path, Result(status="stopped", steps=1))
    assert reports.result(tmp_path).steps == 1
    write_result(tmp_path, Result(status="completed", steps=22))
    assert reports.result(tmp_path).steps == 22
    (tmp_path / "result.json").write_text("{")
    assert reports.result(tmp_path) is None


def test_what_a_method_measures_besides_is_kept_by_name(tmp_path, write):
    reports = ProgressReader()
    write({"step": 1, "loss": 2.0, "figures": {"rewards/margins": 0.1}}, {"step": 2, "loss": 1.0})
    write({"step": 2, "figures": {"eval_loss": 1.5}}, {"step": 3, "loss": 0.9, "figures": {"rewards/margins": 0.3}})
    curve = reports.curve(tmp_path, 10)
    assert curve.steps == (1, 2, 3)
    assert curve.loss == (2.0, 1.0, 0.9)
    assert curve.of("rewards/margins") == (0.1, None, 0.3)
    assert curve.of("eval_loss") == (None, 1.5, None)
    assert curve.of("loss") == curve.loss
    assert curve.of("never") == ()
    assert reports.newest(tmp_path).figures == {"rewards/margins": 0.3, "eval_loss": 1.5}


def test_a_resumed_run_replaces_its_figures_and_one_that_is_no_number_is_none(tmp_path, write):
    reports = ProgressReader()
    write(*({"step": step, "loss": 1.0, "figures": {"a": float(step)}} for step in (1, 2, 3)))
    write({"step": 2, "loss": 0.5, "figures": {"a": float("nan")}})
    curve = reports.curve(tmp_path, 10)
    assert (curve.steps, curve.of("a")) == ((1, 2), (1.0, 2.0))


def test_thinning_keeps_the_held_out_points(tmp_path, write):
    reports = ProgressReader()
    write(
        *({"step": step, "loss": 1.0, "figures": {"eval_loss": 1.0} if step % 500 == 0 else {}} for step in range(2000))
    )
    curve = reports.curve(tmp_path, 40)
    assert [step for step, value in zip(curve.steps, curve.of("eval_loss"), strict=True) if value is not None] == [
        0, 500, 1000, 1500,
    ]  # fmt: skip
    assert len(curve.steps) <= 40


def test_a_flood_of_figures_is_bounded(tmp_path, write):
    reports = ProgressReader()
    write({"step": 1, "loss": 1.0, "figures": {f"name {number}": 1.0 for number in range(10_000)}})
    assert len(reports.curve(tmp_path, 10).figures) <= 32
