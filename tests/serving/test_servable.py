"""Whether, and how, a model can be chatted with: for each form a machine that leads to it, and what is said."""

import pytest
from test_capacity import QWEN_3B, QWEN_7B, QWEN_15B, SLOTS, gpu, machine

from sage_studio.serving.capacity import ModelFacts, WeightFormat
from sage_studio.serving.engine_factory import NOT_KNOWN, check_servable, servable_for
from sage_studio.settings import load_settings

BNB = ModelFacts(0, 5 << 30, "bitsandbytes", QWEN_7B.shape)
AWQ = ModelFacts(0, 5 << 30, "awq", QWEN_7B.shape)
TURING = gpu(gb=15.0, name="Tesla T4", capability=(7, 5))


@pytest.mark.parametrize(
    ("model", "gpu", "engine", "form", "words"),
    [
        (QWEN_15B, gpu(gb=12.0), "vllm", WeightFormat.BF16, "vLLM in bf16"),
        (QWEN_15B, TURING, "vllm", WeightFormat.BF16, "vLLM in fp16"),
        (QWEN_3B, gpu(gb=7.996), "vllm", WeightFormat.FP8, "since bf16 would take"),
        (
            QWEN_7B,
            gpu(gb=12.0),
            "transformers",
            WeightFormat.FOUR_BIT,
            "4 bits, one chat at a time, since vLLM would take",
        ),
        (QWEN_7B, gpu(gb=6.0), "transformers", WeightFormat.CPU, "on the CPU, slowly"),
        (BNB, gpu(gb=24.0), "transformers", WeightFormat.STORED, "vLLM 0.32 does not support bitsandbytes"),
        (AWQ, gpu(gb=12.0), "vllm", WeightFormat.STORED, "quantized as it is stored"),
        (AWQ, gpu(gb=6.0), "", WeightFormat.NONE, "the transformers engine cannot load"),
    ],
)
def test_how_a_model_is_served_by_vllm_or_in_its_place(model, gpu, engine, form, words):
    served = check_servable(model, machine(gpu), 0.8, "vllm", slots=SLOTS)
    assert (served.engine, served.form) == (engine, form)
    assert words in served.message.en
    assert served.possible is bool(engine)
    assert served.message.zh
    assert served.message.zh != served.message.en
    if engine:
        assert served.memory_gb > 0
        assert f"{served.memory_gb:.1f}" in served.message.en


def test_on_a_machine_without_a_gpu_the_memory_decides():
    served = check_servable(QWEN_7B, machine(memory=32.0), 0.8, "vllm")
    assert (served.engine, served.form) == ("vllm", WeightFormat.CPU)
    assert "slowly" not in served.message.en
    assert check_servable(QWEN_7B, machine(memory=16.0), 0.8, "vllm", falls_back=False).form is WeightFormat.NONE
    assert check_servable(BNB, machine(memory=16.0), 0.8, "vllm").engine == "transformers"


def test_what_cannot_be_merged_cannot_be_served_by_vllm():
    assert check_servable(AWQ, machine(gpu(gb=12.0)), 0.8, "vllm", merge="DoRA").form is WeightFormat.NONE
    assert check_servable(BNB, machine(gpu(gb=12.0)), 0.8, "vllm", merge="DoRA").engine == "transformers"
    assert check_servable(QWEN_15B, machine(gpu(gb=12.0)), 0.8, "vllm", merge="DoRA").form is WeightFormat.BF16


def test_an_operator_who_insists_on_vllm_is_told_that_it_cannot():
    served = check_servable(QWEN_7B, machine(gpu(gb=12.0)), 0.8, "vllm", falls_back=False, slots=SLOTS)
    assert (served.form, served.possible, served.engine) == (WeightFormat.NONE, False, "")
    assert "cannot chat with the result" in served.message.en


def test_someone_elses_server_and_an_unknown_size_are_said():
    assert check_servable(QWEN_7B, machine(), 0.8, "openai").form is WeightFormat.EXTERNAL
    assert check_servable(ModelFacts(), machine(gpu()), 0.8, "vllm") is NOT_KNOWN


def test_a_model_of_the_hub_is_judged_by_the_catalogue_before_its_files_are_here(tmp_path):
    settings = load_settings(home=tmp_path, vllm_python="/opt/vllm/bin/python")
    hardware = machine(gpu(gb=12.0))
    assert servable_for(settings, hardware, "Qwen/Qwen2.5-1.5B-Instruct").form is WeightFormat.BF16
    assert servable_for(settings, hardware, "Qwen/Qwen2.5-7B-Instruct").engine == "transformers"
    assert (
        servable_for(settings, hardware, "unsloth/Qwen2.5-7B-bnb-4bit", parameters=7_620_000_000).form
        is WeightFormat.STORED
    )
