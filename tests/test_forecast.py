"""What a training would take: sizes found once, earlier runs, the disk, the engine's limits."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from model_folder import write_model
from waiting import wait_until

from sage_studio.catalog import ModelRef
from sage_studio.data.jobs import JobState
from sage_studio.errors import InvalidModel, InvalidRecipe
from sage_studio.hardware import Gpu, Hardware
from sage_studio.operations.training import EstimateView
from sage_studio.services.estimates import GIB
from sage_studio.serving.capacity import WeightFormat
from sage_studio.studio import Studio
from sage_studio.tasks.task import TaskStatus
from sage_studio.training import duration, memory
from sage_studio.training.duration import StepTime
from sage_studio.training.memory import MemoryTrace, StepMemory
from sage_studio.training.progress import Result, TrainingJob, read_job, write_result
from sage_studio.training.recipes import SFTRecipe

CURVE = StepMemory(constant=0, linear=1e6, square=0)
FOOTPRINT = MemoryTrace(
    parameters=10**8,
    quantizable=9 * 10**7,
    trained=10**6,
    weight_bytes=2,
    context=GIB,
    steps={f"{kind}{more}": CURVE for kind in ("eager", "sdpa") for more in ("", "+checkpointing")},
)


@pytest.fixture
def model(tmp_path):
    return str(write_model(tmp_path / "model"))


@pytest.fixture
def asked(monkeypatch):
    """The child answers at once; what it was asked is kept."""
    asked = []

    def answer(request, *_):
        asked.append(request)
        return FOOTPRINT

    monkeypatch.setattr(memory, "trace_in_child", answer)
    monkeypatch.setattr(duration, "measure_in_child", lambda _: StepTime(constant=0.1, linear=0.01))
    return asked


@pytest.fixture
def machine(monkeypatch):
    """A machine of 16 GiB, 6 of them used, without a GPU."""
    monkeypatch.setattr("sage_studio.services.estimates.detect_hardware", lambda: Hardware((), 16.0, 6.0, 2))


@pytest.fixture
def studio(settings, machine):
    return Studio(settings)


def test_sizes_are_found_once_and_kept(studio, settings, model, asked):
    values = {"model_name_or_path": model, "dataset_id": "d"}
    first = studio.estimates.estimate(values)
    assert first.fits
    assert studio.estimates.estimate({**values, "per_device_train_batch_size": 4}).memory.total > first.memory.total
    assert Studio(settings).estimates.estimate(values).memory == first.memory
    assert len(asked) == 1
    studio.estimates.estimate({**values, "lora_r": 64})
    assert [request.lora_r for request in asked] == [16, 64]


def test_a_memory_trace_is_a_task_while_it_runs(studio, model, asked, monkeypatch):
    seen = []

    def answer(request, *_):
        seen.extend(studio.tasks.background("inspect"))
        return FOOTPRINT

    monkeypatch.setattr(memory, "trace_in_child", answer)
    studio.estimates.estimate({"model_name_or_path": model, "dataset_id": "d"})
    assert [(job.kind, job.state) for job in seen] == [("inspect", JobState.RUNNING)]
    assert studio.tasks.background() == [], "what is known needs no entry"


def test_unpacking_is_a_task(studio, monkeypatch):
    seen, packed = [], ModelRef("m", "/models/m", trust_remote_code=False, packed=Path("/wheel/m.bin"))

    def unpack(catalog, name, *_):
        seen.extend(studio.tasks.background("unpack"))
        return replace(packed, packed=None)

    monkeypatch.setattr(studio.catalog, "resolve", lambda name: packed)
    monkeypatch.setattr("sage_studio.services.models.ensure_unpacked", unpack)
    assert studio.models.ensure("m").packed is None
    assert seen[0].state is JobState.RUNNING
    assert [job.state for job in studio.tasks.background("unpack")] == [JobState.COMPLETED]


def test_whoever_may_not_wait_is_told_later(studio, model, asked):
    values = {"model_name_or_path": model, "dataset_id": "d"}
    assert studio.estimates.known(values) is None
    assert wait_until(lambda: studio.estimates.known(values)).fits
    assert len(asked) == 1


def test_a_run_too_large_is_offered_what_fits(studio, model, asked):
    forecast = studio.estimates.estimate(
        {"model_name_or_path": model, "dataset_id": "d", "per_device_train_batch_size": 16}
    )
    view = EstimateView.of(forecast, "zh")
    assert (view.fits, view.free_gb, view.device) == (False, 10.0, "cpu")
    assert view.remedies[0]["changes"] == {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4}
    assert view.remedies[0]["total_gb"] < 10
    assert "批大小" in view.remedies[0]["label"]
    assert sum(view.components.values()) == pytest.approx(view.total_gb, abs=0.01)


def test_of_several_gpus_the_freest_counts(studio, model, asked, monkeypatch):
    gpus = (Gpu(0, "RTX 3060", 12.0, 11.0), Gpu(1, "RTX 4090", 24.0, 2.0))
    monkeypatch.setattr("sage_studio.services.estimates.detect_hardware", lambda: Hardware(gpus, 64.0, 6.0, 8))
    forecast = studio.estimates.estimate({"model_name_or_path": model, "dataset_id": "d"})
    assert (forecast.device, forecast.free) == ("RTX 4090", 22 * GIB)


def test_earlier_runs_correct_the_next_estimate(studio, model, asked):
    values = {"model_name_or_path": model, "dataset_id": "d"}
    guess = studio.estimates.estimate(values).memory.total
    for share in (1.1, 1.3, 1.2):
        job = TrainingJob(model_location=model, data_path="d")
        task = studio.tasks.store.create(SFTRecipe.model_validate(values), job, dataset_id="d", dataset_name="D")
        write_result(task.folder, Result(status="completed", peak_memory_gb=share * guess / GIB))
        studio.tasks.store.transition(task.id, {TaskStatus.QUEUED}, TaskStatus.COMPLETED)
    corrected = studio.estimates.estimate(values)
    assert corrected.memory.factor == pytest.approx(1.2, rel=0.01)
    assert corrected.measured == pytest.approx(1.2 * guess, rel=0.01), "the newest run's peak is shown beside it"
    assert studio.estimates.estimate({**values, "use_lora": False}).memory.factor == 1.0


def test_a_task_remembers_its_estimate_where_there_was_one(studio, model, asked, tmp_path):
    (tmp_path / "rows.json").write_text('[{"instruction": "a", "output": "b"}]')
    values = {"model_name_or_path": model, "dataset_id": studio.datasets.upload(tmp_path / "rows.json").id}
    assert read_job(studio.training.start(values).folder).estimated_gb is None
    assert asked == [], "nobody waits for it"
    guess = studio.estimates.estimate(values).memory.total / GIB
    assert read_job(studio.training.start(values).folder).estimated_gb == pytest.approx(guess, abs=0.001)


def test_a_rank_beyond_the_engine_will_be_merged(studio, model, asked):
    values = {"model_name_or_path": model, "dataset_id": "d", "lora_r": 128}
    assert "merged" in studio.estimates.estimate(values).remarks[0].en
    assert not studio.estimates.estimate({**values, "lora_r": 64}).remarks


def test_a_disk_too_small_for_the_checkpoints_is_said(studio, model, asked, monkeypatch):
    monkeypatch.setattr(
        "sage_studio.services.estimates.shutil.disk_usage", lambda _: type("Usage", (), {"free": 10 * 2**20})
    )
    forecast = studio.estimates.estimate({"model_name_or_path": model, "dataset_id": "d"})
    assert forecast.disk == 3 * 3 * 4 * 10**6
    assert "disk" in forecast.remarks[0].en


def test_a_wrong_recipe_is_refused_by_name(studio, model, asked):
    with pytest.raises(InvalidRecipe, match="learning_rate"):
        studio.estimates.estimate({"model_name_or_path": model, "dataset_id": "d", "learning_rate": 0})
    assert asked == []


@pytest.mark.training
def test_a_model_that_is_none_is_refused_with_what_the_child_said(studio, model):
    (studio.settings.models_dir).mkdir(parents=True)
    with open(f"{model}/config.json", "w", encoding="utf-8") as file:
        json.dump({"model_type": "nobody-knows"}, file)
    with pytest.raises(InvalidModel, match="nobody-knows"):
        studio.estimates.estimate({"model_name_or_path": model, "dataset_id": "d"})


@pytest.mark.parametrize(
    ("gpu", "halved", "weights"),
    [
        (Gpu(0, "RTX 4090", 24, 1, capability=(8, 9)), [False, True], 2),
        (Gpu(0, "T4", 15, 1, capability=(7, 5)), [False], 4),
        (Gpu(0, "H100", 80, 1, capability=(9, 0)), [False], 4),
    ],
)
def test_a_whole_model_that_would_fill_the_gpu_is_estimated_with_the_small_optimizer(
    studio, model, asked, monkeypatch, gpu, halved, weights
):
    """With it the weights are in bf16, where the GPU has that; the sizes are then found out anew."""
    large = FOOTPRINT.model_copy(update={"parameters": 1_500_000_000, "trained": 1_500_000_000})
    monkeypatch.setattr(memory, "trace_in_child", lambda request, *_: asked.append(request) or large)
    monkeypatch.setattr("sage_studio.services.estimates.detect_hardware", lambda: Hardware((gpu,), 64, 8, 8))
    forecast = studio.estimates.estimate({"model_name_or_path": model, "dataset_id": "d", "use_lora": False})
    assert [request.half_weights for request in asked] == halved
    assert forecast.memory.weights == weights * 1.5e9
    state = 8.0 if gpu.name == "H100" else 2.04
    assert forecast.memory.optimizer == pytest.approx(state * 1.5e9)
    known = studio.estimates.known({"model_name_or_path": model, "dataset_id": "d", "use_lora": False})
    assert known is not None
    assert known.memory == forecast.memory


def at(studio, monkeypatch, *gpus):
    found = Hardware(gpus, 64.0, 6.0, 8)
    monkeypatch.setattr("sage_studio.services.estimates.detect_hardware", lambda: found)
    studio.models.hardware = found
    return studio


def test_the_estimate_says_how_the_result_will_be_served(studio, model, asked, monkeypatch):
    values = {"model_name_or_path": model, "dataset_id": "d"}
    alone = studio.estimates.estimate(values)
    assert (alone.serving.form, alone.serving.possible) == (WeightFormat.CPU, True)
    on_gpu = at(studio, monkeypatch, Gpu(0, "RTX 3060", 12.0, 1.0, capability=(8, 6))).estimates.estimate(values)
    assert on_gpu.serving.form is WeightFormat.BF16
    shown = EstimateView.of(on_gpu, "zh").serving
    assert (shown.form, shown.engine) == ("bf16", on_gpu.serving.engine)
    assert "训练结果可在本机对话" in shown.message


def test_what_our_own_engine_holds_is_free_for_a_training_that_it_yields_to(studio, model, asked, monkeypatch):
    values = {"model_name_or_path": model, "dataset_id": "d", "per_device_train_batch_size": 16}
    at(studio, monkeypatch, Gpu(0, "RTX 3060", 12.0, 10.5, capability=(8, 6)))
    taken = studio.estimates.estimate(values)
    assert taken.free == 1.5 * GIB
    assert not taken.fits
    monkeypatch.setattr(
        studio.serving.registry, "engine_memory", lambda for_training=False: {0: 8.6 if for_training else 9.5}
    )
    yielded = studio.estimates.estimate(values)
    assert yielded.free == pytest.approx(10.1 * GIB), "what a sleeping engine keeps is not given back"
    assert yielded.serving.form is WeightFormat.BF16, "served when nothing is trained any more"


def test_the_first_model_offered_suits_the_gpu(studio, monkeypatch):
    for gpu, model in (
        (Gpu(0, "RTX 3060", 12.0, 1.0, capability=(8, 6)), "Qwen/Qwen2.5-Coder-1.5B-Instruct"),
        (Gpu(0, "RTX 3060 Laptop", 6.0, 0.5, capability=(8, 6)), "Qwen/Qwen3-0.6B"),
        (Gpu(0, "RTX 3060 Laptop", 6.0, 5.0, capability=(8, 6)), "SmolLM2-135M-Instruct"),
    ):
        studio.models.__dict__.pop("free_hardware", None)
        at(studio, monkeypatch, gpu)
        assert studio.models.default() == model
        assert studio.models.choices()[0].id == model
