"""Which GPUs an engine gets, how much of them, and what it gives back to a training. On recorded facts."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import ENGINE, patient

from sage_studio.hardware import Gpu, Hardware
from sage_studio.serving.capacity import (
    FOUR_BIT_BYTES,
    Architecture,
    GpuProcess,
    GpuRelease,
    LoraSlots,
    ModelFacts,
    WeightFormat,
    adapter_bytes,
    before_training,
    engine_memory_gb,
    lora_slots_gb,
    memory_share_for,
    model_shape,
    parse_gpu_processes,
    pinnable_memory_gb,
    plan,
    plan_transformers,
    read_facts,
    sleep_memory_gb,
    without_engine,
    without_gpus,
)
from sage_studio.serving.types import Base, EngineRecord
from sage_studio.serving.vllm import GPU_SERVER, SAMPLER, sleep_enabled, vllm_environment, vllm_launch, vllm_plan
from sage_studio.settings import load_settings
from sage_studio.training.memory import BYTES_PER_WEIGHT

QWEN_05B = ModelFacts(494_000_000, shape=Architecture(32768, 14, 2, 896, 4864, 24, None, 151936, True))
QWEN_15B = ModelFacts(1_540_000_000, shape=Architecture(32768, 12, 2, 1536, 8960, 28, None, 151936, True))
QWEN_3B = ModelFacts(3_090_000_000, shape=Architecture(32768, 16, 2, 2048, 11008, 36, None, 151936, True))
QWEN_7B = ModelFacts(7_620_000_000, shape=Architecture(32768, 28, 4, 3584, 18944, 28, None, 152064))
QWEN_14B = ModelFacts(14_770_000_000, shape=Architecture(32768, 40, 8, 5120, 13824, 48, None, 152064))
SLOTS = LoraSlots(4, 64)


def gpu(index=0, gb=12.0, used=0.0, name="NVIDIA GeForce RTX 3060", capability=(8, 6)):
    return Gpu(index, name, gb, used, 0.0, capability, "580.95.05", f"GPU-{index}")


def machine(*gpus, memory=64.0):
    return Hardware(gpus, memory, 8.0, 8)


def at_home(tmp_path, **settings):
    return load_settings(home=tmp_path, **settings)


# A1: the engine starts without a CUDA toolkit


def launch(tmp_path, hardware=None, **settings):
    base = Base(str(tmp_path), "m", rank=64)
    return vllm_launch(
        at_home(tmp_path, **settings), hardware or machine(gpu()), sys.executable, base, tmp_path / "engine.sock"
    )


def test_the_sampler_that_needs_nvcc_is_off_unless_the_operator_sets_it(tmp_path, monkeypatch):
    monkeypatch.delenv(SAMPLER, raising=False)
    assert launch(tmp_path).env[SAMPLER] == "0"
    assert SAMPLER not in launch(tmp_path, machine()).env, "the CPU build knows no such sampler"
    planned = plan(machine(gpu()), 0.8)
    assert SAMPLER not in vllm_environment(planned, 2, Base("/m", "m"), environment={SAMPLER: "1"})


def test_the_programs_of_the_environment_are_found_by_an_engine_that_is_not_activated(tmp_path, monkeypatch):
    (tmp_path / "python").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", f"{os.defpath}:{tmp_path}")
    planned = plan(machine(gpu()), 0.8)
    for python in (str(tmp_path / "python"), "python"):
        path = vllm_environment(planned, 2, Base("/m", "m"), python, environment={"PATH": os.environ["PATH"]})["PATH"]
        assert path == f"{tmp_path}:{os.defpath}:{tmp_path}", "the link's folder, not where it leads"
    assert "PATH" not in vllm_environment(planned, 2, Base("/m", "m"), "/nowhere/python")


def test_the_launcher_is_there_in_the_pinned_vllm_and_not_the_deprecated_one(tmp_path):
    command = launch(tmp_path).command
    assert command[1:3] == ["-P", str(GPU_SERVER)]
    assert "from vllm.entrypoints.launchers.api_server import entry" in GPU_SERVER.read_text(encoding="utf-8")
    found = importlib.util.find_spec("vllm")
    source = Path(found.origin).parent / "entrypoints/launchers/api_server/entry.py"
    assert "app = build_app(args, " in source.read_text(encoding="utf-8"), "what engine_server.py takes the place of"


# A3: how much of a GPU


@pytest.mark.parametrize(
    ("total", "cuda", "used", "fixed_starts"),
    [
        (6.0, 5.77, 0.0, True),
        (6.0, 5.77, 1.0, False),
        (6.0, 5.77, 3.0, False),
        (7.996, 7.65, 2.0, False),
        (12.0, 11.63, 3.0, False),
        (15.0, 14.58, 3.0, False),
        (23.99, 23.53, 3.0, True),
        (23.99, 23.53, 20.0, False),
    ],
)
def test_vllm_is_told_to_take_no_more_than_is_free_when_it_looks(total, cuda, used, fixed_starts):
    """vLLM refuses where ``share * total`` is more than is free, less the 0.25 GiB of its own context."""
    free = cuda - used - 0.25
    assert (0.8 * cuda <= free) is fixed_starts
    share = memory_share_for([gpu(gb=total, used=used)], 0.8)
    assert share * cuda <= free
    assert share <= 0.8


def test_the_share_is_that_of_the_fullest_gpu_used():
    gpus = (gpu(0, 24.0, 10.0), gpu(1, 24.0, 0.0))
    assert memory_share_for(gpus, 0.8) == memory_share_for(gpus[:1], 0.8) < memory_share_for(gpus[1:], 0.8) == 0.8


def test_a_gpu_of_16_gb_or_less_is_not_given_to_what_a_few_chats_never_use(tmp_path):
    def options(gb):
        command = launch(tmp_path, machine(gpu(gb=gb))).command
        return "--max-num-seqs" in command, "--cudagraph-capture-sizes" in command

    assert [options(gb) for gb in (6.0, 12.0, 15.99)] == [(True, True)] * 3
    assert options(23.99) == (False, False)
    command = launch(tmp_path, machine(gpu())).command
    assert command[command.index("--max-num-seqs") + 1] == "32"


def test_the_engine_takes_one_gpu_where_one_holds_the_model_and_leaves_the_first_to_trainings():
    two = machine(gpu(0, 24.0, 0.0, "RTX 3090"), gpu(1, 24.0, 0.0, "RTX 3090"))
    assert plan(two, 0.8, QWEN_7B, SLOTS).indices == (1,)
    busy = machine(gpu(0, 24.0, 0.0, "RTX 3090"), gpu(1, 24.0, 20.0, "RTX 3090"))
    assert plan(busy, 0.8, QWEN_7B, SLOTS).indices == (0,)
    spread = plan(two, 0.8, QWEN_14B, SLOTS)
    assert (spread.indices, spread.form, spread.fits) == ((0, 1), WeightFormat.BF16, True)


def test_gpus_that_differ_are_never_spread_over():
    unlike = machine(gpu(0, 24.0, 0.0, "RTX 3090"), gpu(1, 24.0, 0.0, "RTX 4090", (8, 9)))
    planned = plan(unlike, 0.8, QWEN_14B, SLOTS)
    assert len(planned.gpus) == 1
    assert planned.form is WeightFormat.FP8, "one of them holds it in 8 bits"
    odd = ModelFacts(14_770_000_000, shape=Architecture(32768, 15, 5, 5120, 13824, 48, None, 152064))
    two = machine(gpu(0, 24.0, 0.0, "RTX 3090"), gpu(1, 24.0, 0.0, "RTX 3090"))
    assert len(plan(two, 0.8, odd, SLOTS).gpus) == 1, "15 heads do not divide by 2"


def test_an_engine_sees_only_the_gpus_that_it_was_given(tmp_path):
    two = machine(gpu(2, 24.0, 5.0, "RTX 3090"), gpu(5, 24.0, 0.0, "RTX 3090"))
    found = launch(tmp_path, two)
    assert (found.env["CUDA_VISIBLE_DEVICES"], found.env["CUDA_DEVICE_ORDER"]) == ("5", "PCI_BUS_ID")
    assert found.plan.indices == (5,)


@pytest.mark.parametrize(
    ("model", "gpu", "form"),
    [
        (QWEN_15B, gpu(gb=12.0), WeightFormat.BF16),
        (QWEN_15B, gpu(gb=6.0), WeightFormat.FP8),
        (QWEN_3B, gpu(gb=7.996), WeightFormat.FP8),
        (QWEN_3B, gpu(gb=7.996, capability=(7, 0)), WeightFormat.BF16),
        (QWEN_7B, gpu(gb=15.0, capability=(7, 5)), WeightFormat.FP8),
        (ModelFacts(7_620_000_000, 5 << 30, "awq", QWEN_7B.shape), gpu(gb=12.0), WeightFormat.STORED),
    ],
)
def test_eight_bits_are_chosen_where_sixteen_do_not_fit(model, gpu, form):
    planned = plan(machine(gpu), 0.8, model, SLOTS)
    assert planned.form is form
    assert planned.fits is (gpu.capability != (7, 0)), "no 8 bits before Turing"


def test_the_chosen_form_is_what_vllm_is_started_with(tmp_path):
    write_config(tmp_path, hidden_size=1536, intermediate_size=8960, num_hidden_layers=28, vocab_size=151936)
    with (tmp_path / "model.safetensors").open("wb") as file:
        file.truncate(2 * 1_540_000_000)
    small, large = (launch(tmp_path, machine(gpu(gb=gb))).command for gb in (6.0, 12.0))
    assert small[small.index("--quantization") + 1] == "fp8_per_tensor"
    assert "--quantization" not in large


# The context


def write_config(folder, tokenizer=None, **config):
    (folder / "config.json").write_text(json.dumps(config))
    if tokenizer is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))


@pytest.mark.parametrize(
    ("config", "tokenizer", "context"),
    [
        ({"max_position_embeddings": 32768}, {"model_max_length": 1024}, 1024),
        ({"max_position_embeddings": 1024}, {"model_max_length": 1e30}, 1024),
        ({"n_positions": 1024}, None, 1024),
        ({"max_position_embeddings": 4096, "rope_scaling": {"rope_type": "linear", "factor": 4.0}}, None, 16384),
        ({"max_position_embeddings": 4096, "rope_scaling": {"type": "dynamic", "factor": 2.0}}, None, 8192),
        ({"max_position_embeddings": 32768, "rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, None, 32768),
        ({"max_position_embeddings": 8192, "rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, None, 8192),
        ({"max_position_embeddings": 512, "rope_parameters": {"rope_type": "linear", "factor": 2.0}}, None, 1024),
        ({"text_config": {"max_position_embeddings": 2048}}, None, 2048),
    ],
)
def test_the_context_is_bounded_by_the_model_and_its_tokenizer(tmp_path, config, tokenizer, context):
    write_config(tmp_path, tokenizer, **config)
    assert model_shape(str(tmp_path)).context == context


ROPES = (
    None,
    {"rope_type": "linear", "factor": 4.0},
    {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024},
    {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 1024,
    },
)
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 256,
    "max_position_embeddings": 2048,
    "torch_dtype": "bfloat16",
}


@pytest.mark.engine
def test_the_context_is_what_the_pinned_vllm_derives(tmp_path):
    """By vLLM's own function, in a process of its own."""
    folders = [tmp_path / str(number) for number in range(len(ROPES))]
    for folder, rope in zip(folders, ROPES, strict=True):
        folder.mkdir()
        write_config(folder, **LLAMA, **({"rope_scaling": rope} if rope else {}))
    code = f"""
from vllm.config import ModelConfig
print([ModelConfig(model=name, skip_tokenizer_init=True).max_model_len for name in {[str(each) for each in folders]}])
"""
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False, timeout=patient(ENGINE)
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert [model_shape(str(each)).context for each in folders] == json.loads(done.stdout.splitlines()[-1])


# What our own engine holds


def engine(gpus=(0,), share=0.8, phase="ready", kind="vllm", form="bf16"):
    base = Base("/m", "m", rank=64)
    return EngineRecord(1, kind, base, "", "", 100, 0.0, 1, phase, 0.0, 0.0, 0, gpus, share, form)


def test_what_our_engine_holds_is_told_by_its_processes_else_by_its_share():
    hardware = machine(gpu(0, 24.0, 20.5), gpu(1, 24.0, 3.0))
    usage = parse_gpu_processes("101, 18432, GPU-0\n7, 512, GPU-0\n8, 2048, GPU-1\n101, [N/A], GPU-0\nno figures\n")
    assert usage[0] == GpuProcess(101, 18.0, "GPU-0")
    assert engine_memory_gb(engine(), hardware, usage, {100, 101}) == {0: 18.0}
    assert engine_memory_gb(engine(), hardware, usage[1:], {100, 101}) == {0: pytest.approx(19.2)}, (
        "WSL2 and containers"
    )
    assert engine_memory_gb(engine(), machine(gpu(0, 24.0, 5.0)), (), set()) == {0: 5.0}, "never more than is used"
    assert engine_memory_gb(engine(phase="asleep"), hardware, usage, {101}) == {}
    assert engine_memory_gb(engine(gpus=()), hardware, usage, {101}) == {}


def test_what_our_engine_holds_counts_as_free():
    hardware = machine(gpu(0, 24.0, 20.5), gpu(1, 24.0, 3.0))
    assert [gpu.free_gb for gpu in without_engine(hardware, {0: 18.0}).gpus] == [21.5, 21.0]
    assert without_gpus(hardware, (0,)).gpus == hardware.gpus[1:]
    assert without_gpus(hardware, None) == without_gpus(hardware, (0, 1)) == hardware


# Sleep


def test_the_engine_sleeps_only_where_all_that_it_backs_up_can_be_pinned():
    """7B on 24 GB: 15.5 GiB are backed up. 0.1 asked for half of what is held, 9.9."""
    hardware = machine(gpu(0, 24.0, 19.7))
    kept = sleep_memory_gb(engine(), hardware, QWEN_7B, SLOTS)
    assert kept == pytest.approx(14.2 + 4 * adapter_bytes(64, QWEN_7B.shape) / 2**30, abs=0.1)
    assert kept > 15

    def decided(free, pinned=1000.0, kept=kept):
        return before_training(Hardware(hardware.gpus, 100.0, 100.0 - free, 8), engine(), True, kept, None, pinned)

    assert decided(free=12.0) is GpuRelease.STOP
    assert decided(free=20.0) is GpuRelease.SLEEP
    assert decided(free=20.0, pinned=12.0) is GpuRelease.STOP
    two = machine(gpu(0, 24.0, 19.7), gpu(1, 24.0, 19.7))
    slots = 4 * adapter_bytes(64, QWEN_7B.shape) / 2**30
    both = sleep_memory_gb(engine((0, 1)), two, QWEN_7B, SLOTS)
    assert both == pytest.approx(kept + slots), "each GPU has its own room for adapters"
    assert sleep_memory_gb(engine(form="fp8_per_tensor"), hardware, QWEN_7B, SLOTS) < kept - 5
    unknown = sleep_memory_gb(engine(), hardware, ModelFacts(), SLOTS)
    assert unknown == pytest.approx(0.8 * 24.0), "nobody knows: all of it"


def test_windows_lets_wsl_pin_half_of_the_memory():
    assert pinnable_memory_gb(machine(memory=32.0), "5.15.167.4-microsoft-standard-WSL2") == 16.0
    assert pinnable_memory_gb(machine(memory=32.0), "6.8.0-45-generic") == float("inf")


@pytest.mark.parametrize(("chosen", "sleeps"), [("auto", True), (True, True), (False, False)])
def test_the_engine_may_sleep_unless_the_operator_says_otherwise_and_never_in_developer_mode(tmp_path, chosen, sleeps):
    """H6: the routes for sleep ask for the key like all others, so other users of the machine are no reason."""
    found = launch(tmp_path, sleep_mode=chosen)
    assert sleep_enabled(at_home(tmp_path, sleep_mode=chosen)) is sleeps
    assert ("--enable-sleep-mode" in found.command) is sleeps
    assert found.env["VLLM_SERVER_DEV_MODE"] == "0"


# Facts


def test_a_models_size_is_read_from_its_files_else_from_the_catalogue(tmp_path):
    assert read_facts("Qwen/Qwen2.5-7B-Instruct").parameters == 7_615_616_512
    assert read_facts("owner/somebody-knows-nothing").known is False
    assert read_facts("unsloth/Qwen2.5-7B-bnb-4bit").quantized == "bitsandbytes"
    write_config(tmp_path, torch_dtype="float32")
    (tmp_path / "model.safetensors").write_bytes(bytes(4000))
    (tmp_path / "consolidated.safetensors").write_bytes(bytes(4000))
    assert read_facts(str(tmp_path)).parameters == 1000
    write_config(tmp_path, quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})
    facts = read_facts(str(tmp_path))
    assert (facts.parameters, facts.stored_bytes, facts.quantized, facts.known) == (0, 4000, "bitsandbytes", True)


@pytest.mark.parametrize("model", [QWEN_05B, QWEN_15B, QWEN_3B, QWEN_7B, QWEN_14B])
def test_the_room_for_adapters_is_guessed_before_a_models_sizes_are_here(model):
    assert lora_slots_gb(ModelFacts(model.parameters), SLOTS) == pytest.approx(lora_slots_gb(model, SLOTS), rel=0.25)


def test_the_transformers_engine_takes_four_bits_where_sixteen_do_not_fit_and_else_the_cpu():
    assert plan_transformers(machine(gpu(gb=24.0)), QWEN_7B).form is WeightFormat.BF16
    assert plan_transformers(machine(gpu(gb=12.0)), QWEN_7B).form is WeightFormat.FOUR_BIT
    nowhere = plan_transformers(machine(gpu(gb=6.0, used=3.0)), QWEN_7B)
    assert (nowhere.form, nowhere.gpus) == (WeightFormat.CPU, ())


def test_a_plan_for_an_unknown_model_takes_the_freest_gpu(tmp_path):
    two = machine(gpu(0, 12.0, 0.0), gpu(1, 24.0, 20.0, "RTX 3090"))
    planned = vllm_plan(at_home(tmp_path), two, Base("owner/unknown", "m", rank=64))
    assert planned.indices == (0,)
    assert planned.fits


def test_a_four_bit_weight_takes_as_much_in_serving_as_in_training():
    assert BYTES_PER_WEIGHT["4bit"] == FOUR_BIT_BYTES
