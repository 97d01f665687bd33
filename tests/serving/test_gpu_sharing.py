"""Who has the memory: one engine or two, how many adapters, the engine or a training. On recorded facts."""

import threading

import psutil
import pytest
from serving_files import GPU, NARROW, ROOMY
from waiting import wait_until

from sage_studio.errors import Conflict
from sage_studio.hardware import Gpu, Hardware
from sage_studio.serving.capacity import (
    MOST_ADAPTERS,
    USUAL_ADAPTERS,
    Architecture,
    GpuRelease,
    ModelFacts,
    adapter_bytes,
    adapters_kept_loaded,
    before_training,
    fits_beside,
    main_memory_gb,
    plan,
    plan_transformers,
    without_engine,
)
from sage_studio.serving.types import Base, EngineRecord, EngineState

SMOL = Architecture(hidden_size=576, intermediate_size=1536, layers=30)
QWEN_7B = Architecture(hidden_size=3584, intermediate_size=18944, layers=28)


def gpu(total, used, memory=64.0, used_memory=8.0):
    return Hardware((Gpu(0, "card", total, used),), memory, used_memory, 8)


def empty(hardware):
    return without_engine(hardware, {gpu.index: gpu.used_gb for gpu in hardware.gpus})


@pytest.mark.parametrize(
    ("kind", "weights_gb", "hardware", "fits"),
    [
        ("vllm", 0.25, ROOMY, True),
        ("vllm", 0.25, NARROW, False),
        ("vllm", 0.25, Hardware((), 24.0, 18.0, 2), True),
        ("vllm", 14.0, Hardware((), 24.0, 4.0, 2), False),
        ("transformers", 14.0, Hardware((), 48.0, 8.0, 8), True),
        ("transformers", 14.0, Hardware((), 40.0, 8.0, 8), False),
        ("vllm", 1.0, gpu(24.0, 19.2), False),
        ("vllm", 1.0, gpu(24.0, 0.3), True),
        ("transformers", 1.0, gpu(24.0, 10.0), True),
        ("transformers", 14.0, gpu(24.0, 16.0), False),
        ("vllm", 1.0, gpu(24.0, 0.3, memory=8.0, used_memory=7.0), False),
    ],
)
def test_a_second_engine_fits_or_not(kind, weights_gb, hardware, fits):
    model = ModelFacts(parameters=int(weights_gb * 2**29))
    planned = plan if kind == "vllm" else lambda hardware, _, model: plan_transformers(hardware, model)
    beside, alone = planned(hardware, 0.8, model), planned(empty(hardware), 0.8, model)
    assert fits_beside(main_memory_gb(kind, model, beside), beside, alone, hardware) is fits


def test_adapters_are_kept_as_the_memory_allows():
    assert adapter_bytes(16, SMOL) == 16 * (4 * 2 * 576 + 3 * (576 + 1536)) * 30 * 2
    assert adapters_kept_loaded(ROOMY, 4, 16, SMOL) == MOST_ADAPTERS
    assert adapters_kept_loaded(Hardware((), 16.0, 6.0, 8), 4, 64, QWEN_7B) == 3 + 1, (
        "never fewer than answer side by side"
    )
    assert 4 < adapters_kept_loaded(Hardware((), 64.0, 8.0, 8), 4, 64, QWEN_7B) < MOST_ADAPTERS
    assert adapters_kept_loaded(ROOMY, 4, 16, Architecture()) == USUAL_ADAPTERS
    assert adapters_kept_loaded(ROOMY, 32, 16, Architecture()) == 32


def record(kind="vllm", pid=1, **more):
    return EngineRecord(1, kind, Base("/m", "m"), "", "", pid, 0.0, 1, "ready", 0.0, 0.0, 0, **more)


@pytest.mark.parametrize(
    ("hardware", "engine", "sleep_mode", "decided"),
    [
        (ROOMY, record(), True, GpuRelease.NOTHING),
        (GPU, None, True, GpuRelease.NOTHING),
        (GPU, record("openai", pid=None), True, GpuRelease.NOTHING),
        (GPU, record(), True, GpuRelease.SLEEP),
        (GPU, record(), False, GpuRelease.STOP),
        (GPU, record("transformers"), True, GpuRelease.STOP),
        (GPU, record(form="cpu"), True, GpuRelease.NOTHING),
    ],
)
def test_how_the_engine_yields_to_a_training(hardware, engine, sleep_mode, decided):
    assert before_training(hardware, engine, sleep_mode, sleep_memory_gb=3.0) is decided


@pytest.mark.parametrize(
    ("gpus", "decided"),
    [
        (None, GpuRelease.STOP),
        ((0,), GpuRelease.NOTHING),
        ((1,), GpuRelease.STOP),
        ((0, 1), GpuRelease.STOP),
        ((), "nothing"),
    ],
)
def test_a_training_takes_only_the_gpus_that_it_uses(gpus, decided):
    two = Hardware((Gpu(0, "RTX 3090", 24.0, 0.5), Gpu(1, "RTX 3090", 24.0, 20.0)), 64.0, 8.0, 8)
    assert before_training(two, record(gpus=(1,)), False, 0.0, gpus) == decided


@pytest.fixture
def shared(home):
    """A GPU that the engine holds, and a tuned model that answers."""
    home.hardware = GPU

    def shared(base="small", **settings):
        home.settings = home.settings.model_copy(update={"sleep_mode": True, **settings})
        registry = home.registry()
        registry.register_model("tuned", str(home.adapter("tuned", base=base)), {"base": str(home.base(base))})
        registry.switch_model("tuned")
        return registry

    return shared


def pid_of(registry):
    engine = registry._components.engines.recorded()
    return engine.record.pid if engine is not None else None


def test_the_engine_sleeps_while_a_training_runs_and_the_chat_says_so(home, shared):
    registry = shared()
    pid = pid_of(registry)
    registry.before_training()
    registry.before_training()
    status = registry.status()
    assert status.state is EngineState.ASLEEP
    assert "训练正在使用 GPU" in status.message.zh
    with pytest.raises(Conflict, match="training is using the GPU") as caught:
        registry.generate("hello")
    assert "CHAT_WHILE_TRAINING=wait" in caught.value.hint.en
    with pytest.raises(Conflict, match="training"):
        registry.switch_model("tuned")
    registry.after_training()
    registry.after_training()
    assert home.seen("order") == ["/sleep?level=1", "/wake_up"]
    assert (pid_of(registry), registry.generate("hello")) == (pid, "tuned@1: hello ")


@pytest.mark.parametrize(("base", "sleep_mode"), [("small", False), ("sleepless", True)])
def test_an_engine_that_cannot_sleep_stops_and_comes_back(home, shared, base, sleep_mode):
    registry = shared(base, sleep_mode=sleep_mode)
    pid = pid_of(registry)
    registry.before_training()
    assert not psutil.pid_exists(pid)
    assert registry.status().state is EngineState.ASLEEP
    registry.after_training()
    assert registry.status().state is EngineState.READY
    assert registry.generate("hello").endswith("hello ")
    assert registry.current_model.name == "tuned"


def test_a_chat_can_wait_for_the_end_of_the_training(home, shared):
    registry = shared(chat_while_training="wait")
    registry.before_training()
    said = []
    waiting = threading.Thread(target=lambda: said.append(registry.generate("hello")))
    waiting.start()
    assert not said
    registry.after_training()
    waiting.join()
    assert said == ["tuned@1: hello "]


def test_answers_under_way_are_finished_before_the_engine_sleeps(home, shared):
    registry = shared()
    answer = registry.stream([{"role": "user", "content": "slow " * 20}])
    next(answer)
    training = threading.Thread(target=registry.before_training)
    training.start()
    wait_until(lambda: registry.status().state is EngineState.ASLEEP)
    assert list(answer)[-1].completion_tokens == 21
    training.join()
    assert home.seen("order") == ["/sleep?level=1"]


def test_without_a_gpu_nothing_happens(home, shared):
    registry = shared()
    home.hardware = ROOMY
    registry.before_training()
    assert registry.status().state is EngineState.READY
    registry.after_training()
    assert home.seen("order") == []


def test_a_training_waits_for_a_switch_to_end(home, shared):
    registry = shared()
    with registry._components.switch_lock.hold(), pytest.raises(Conflict, match="Another model switch"):
        registry.before_training()
    assert registry.status().state is EngineState.READY
