"""The transformers engine with a base in 4 bits: asked for, or stored so. The real engine with the real model."""

import pytest

from sage_studio.database import Database
from sage_studio.serving.capacity import EnginePlan, WeightFormat, read_facts
from sage_studio.serving.engine import LaunchSpec, fallback_command
from sage_studio.serving.engine_factory import EngineSpec
from sage_studio.serving.registry import VLLMRegistry
from sage_studio.serving.types import EngineState
from sage_studio.settings import PROJECT, load_settings

pytestmark = pytest.mark.engine

QUESTION = "Name the capital of France."


@pytest.fixture
def opened(tmp_path):
    """A registry at a home of its own; whatever it started is stopped."""
    registry = VLLMRegistry()

    def opened(choose=None, **settings) -> VLLMRegistry:
        found = load_settings(home=tmp_path / "home", **settings)
        registry.configure(found, Database(found.database_path), choose)
        return registry

    yield opened
    registry.close()


class FourBitSpec(EngineSpec):
    kind = "transformers"

    def launch(self, base, socket):
        plan = EnginePlan(512, form=WeightFormat.FOUR_BIT)
        return LaunchSpec(fallback_command(base, socket, plan), {"PYTHONPATH": str(PROJECT)}, plan)


def random_adapter(base, folder):
    """A LoRA adapter with random weights: the model answers otherwise than its base."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    config = LoraConfig(r=8, lora_alpha=64, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    get_peft_model(model, config).save_pretrained(folder)
    return folder


def test_a_base_is_loaded_in_four_bits_and_takes_adapters(built_in_model, tmp_path, opened):
    registry = opened(FourBitSpec)
    registry.register_model("base", str(built_in_model), {"kind": "base"})
    registry.switch_model("base")
    status = registry.status()
    assert (status.state, status.form) == (EngineState.READY, "4bit")
    assert "Paris" in registry.generate(QUESTION, temperature=0, max_tokens=24)
    folder = random_adapter(built_in_model, tmp_path / "tuned")
    registry.register_model("tuned", str(folder), {"base": str(built_in_model), "base_name": "base"})
    registry.switch_model("tuned")
    assert "Paris" not in registry.generate(QUESTION, temperature=0, max_tokens=24)
    assert "Paris" in registry.generate(QUESTION, model="base", temperature=0, max_tokens=24)


def test_the_linear_layers_are_in_four_bits_and_the_others_are_not(built_in_model):
    import bitsandbytes
    import torch

    from sage_studio.serving.transformers_server import load_base

    plain = load_base(str(built_in_model), trust_remote_code=False, four_bit=False)
    small = load_base(str(built_in_model), trust_remote_code=False, four_bit=True)
    layer = small.model.layers[0].mlp.up_proj
    assert isinstance(layer, bitsandbytes.nn.Linear4bit)
    assert small.get_input_embeddings().weight.dtype is torch.float32
    assert small.get_memory_footprint() < 0.5 * plain.get_memory_footprint()


def test_a_base_stored_in_four_bits_is_served_without_being_asked(built_in_model, tmp_path, opened):
    """vLLM is installed here, and has no bitsandbytes."""
    from transformers import AutoTokenizer

    from sage_studio.serving.transformers_server import load_base

    folder = tmp_path / "model-bnb-4bit"
    load_base(str(built_in_model), trust_remote_code=False, four_bit=True).save_pretrained(folder)
    AutoTokenizer.from_pretrained(built_in_model).save_pretrained(folder)
    assert read_facts(str(folder)).quantized == "bitsandbytes"
    registry = opened()
    assert registry._components.factory.configured().kind == "vllm"
    registry.register_model("stored", str(folder), {"kind": "base"})
    registry.switch_model("stored")
    assert "Paris" in registry.generate(QUESTION, temperature=0, max_tokens=24)
    status = registry.status()
    assert (status.engine, status.vllm_refused) == ("transformers", False)
    assert "transformers" in status.message.en
