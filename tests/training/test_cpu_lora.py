"""The quick LoRA layer gives what PEFT's own gives, forwards and backwards, and steps aside where it does not apply."""

import copy
from pathlib import Path
from typing import Any

import bitsandbytes
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora.layer import Linear
from torch.utils.checkpoint import checkpoint
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from sage_studio.training.model_loading import FastLoraLinear, _kept, add_adapter, patch_lora_layers
from sage_studio.training.progress import TrainingJob
from sage_studio.training.recipes import SFTRecipe


class Net(torch.nn.Module):
    """Two linear layers, the first with a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(24, 16)
        self.second = torch.nn.Linear(16, 8, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.tanh(self.first(x)))


def adapted(dropout: float = 0.0, **options: Any) -> Any:
    torch.manual_seed(0)
    config = LoraConfig(
        r=4, lora_alpha=8, lora_dropout=dropout, target_modules=["first", "second"], init_lora_weights=False, **options
    )
    return get_peft_model(Net(), config)


def gradients(model: Any, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    x = x.clone().requires_grad_()
    model(x).square().sum().backward()
    assert x.grad is not None
    learned = {name: each.grad for name, each in model.named_parameters() if each.grad is not None}
    return x.grad, learned


def gradients_of(model: Any, out: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return torch.autograd.grad(out.sum(), [each for each in model.parameters() if each.requires_grad])


@pytest.mark.parametrize("options", [{}, {"use_rslora": True}])
def test_outputs_and_gradients_are_pefts(options: dict[str, Any]):
    theirs = adapted(**options)
    ours = patch_lora_layers(copy.deepcopy(theirs))
    assert [type(module) for module in ours.modules() if isinstance(module, Linear)] == [FastLoraLinear] * 2
    x = torch.randn(2, 3, 24)
    assert torch.allclose(ours(x), theirs(x), atol=1e-5)
    (to_x, learned), (to_x_too, learned_too) = gradients(ours, x), gradients(theirs, x)
    assert torch.allclose(to_x, to_x_too, atol=1e-5)
    assert learned.keys() == learned_too.keys()
    assert len(learned) == 4, "the base stays frozen"
    for name, grad in learned.items():
        assert torch.allclose(grad, learned_too[name], atol=1e-4), name


def test_under_autocast_it_computes_in_bf16_and_learns_in_fp32():
    model = patch_lora_layers(adapted())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(torch.randn(5, 24))
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert {each.grad.dtype for each in model.parameters() if each.grad is not None} == {torch.float32}


@pytest.mark.parametrize("share", [0.001, 0.05, 0.25])
def test_dropout_keeps_pefts_share_and_mean_without_a_pattern(share: float):
    torch.manual_seed(1)
    kept = _kept(torch.empty(2000, 1001), round(share * 2**16))
    assert set(kept.unique().tolist()) == {0.0, 1.0}
    assert 1 - kept.mean() == pytest.approx(share, abs=5 * (share / kept.numel()) ** 0.5)
    lost = 1 - kept.flatten()
    both = (lost[1:] * lost[:-1]).mean()
    assert both == pytest.approx(share**2, abs=5 * share / kept.numel() ** 0.5), "neighbours are independent"


def test_dropout_is_the_same_both_ways():
    model = patch_lora_layers(adapted(dropout=0.25)).train()
    layer = model.base_model.model.second
    x = torch.ones(4000, 16, requires_grad=True)
    torch.manual_seed(1)
    with_chance, whole = layer(x), layer.eval()(x)
    assert torch.allclose(with_chance.mean(0), whole.mean(0), atol=0.02)
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    (grad,) = torch.autograd.grad(with_chance.sum(), x)
    through = (b.sum(0) @ a) * layer.scaling["default"] / 0.75
    kept = torch.isclose(grad, layer.base_layer.weight.sum(0) + through, atol=1e-4)
    assert kept.float().mean() == pytest.approx(0.75, abs=0.01)
    adapters = (kept / 0.75) @ a.T @ b.T * layer.scaling["default"]
    assert torch.allclose(with_chance, layer.base_layer(x) + adapters, atol=1e-4)


def test_a_recomputed_forward_drops_the_same():
    model, x = patch_lora_layers(adapted(dropout=0.5)).train(), torch.randn(6, 24)
    whole = []
    for run in (model, lambda x: checkpoint(model, x, use_reentrant=False)):
        torch.manual_seed(3)
        whole.append(gradients_of(model, run(x)))
    assert all(torch.equal(one, other) for one, other in zip(*whole, strict=True))


def test_without_its_adapter_it_is_the_base():
    theirs = adapted()
    ours = patch_lora_layers(copy.deepcopy(theirs))
    x = torch.randn(3, 24)
    with theirs.disable_adapter(), ours.disable_adapter():
        assert torch.equal(ours(x), theirs(x))
    assert not torch.equal(ours(x), ours.get_base_model().second.base_layer(x[:, :16]))


def test_with_another_adapter_at_work_that_one_counts():
    theirs = adapted()
    theirs.add_adapter("ref", LoraConfig(r=2, target_modules=["first", "second"], init_lora_weights=False))
    ours = patch_lora_layers(copy.deepcopy(theirs))
    for model in (theirs, ours):
        model.set_adapter("ref")
    x = torch.randn(3, 24)
    assert torch.allclose(ours(x), theirs(x), atol=1e-5)


@pytest.mark.parametrize("options", [{"use_dora": True}, {"lora_bias": True}, {"bias": "all"}])
def test_what_it_does_not_compute_is_left_to_peft(options: dict[str, Any]):
    torch.manual_seed(0)
    config = LoraConfig(r=4, target_modules=["first"], init_lora_weights=False, **options)
    theirs = get_peft_model(Net(), config)
    if "lora_bias" in options:
        torch.nn.init.ones_(theirs.base_model.model.first.lora_B["default"].bias)
    ours, x = patch_lora_layers(copy.deepcopy(theirs)), torch.randn(3, 24)
    assert torch.equal(ours(x), theirs(x))
    for one, other in zip(gradients_of(ours, ours(x)), gradients_of(theirs, theirs(x)), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("layer", [bitsandbytes.nn.Linear4bit(16, 8, bias=False), Conv1D(8, 16)])
def test_another_kind_of_layer_is_left_to_peft(layer: torch.nn.Module):
    """Quantized weights, and GPT-2's linear layers, whose weights are transposed."""
    net: Any = Net()
    net.second, net.is_loaded_in_4bit = layer, isinstance(layer, bitsandbytes.nn.Linear4bit)
    config = LoraConfig(target_modules=["second"], fan_in_fan_out=isinstance(layer, Conv1D))
    assert not any(
        isinstance(module, FastLoraLinear) for module in patch_lora_layers(get_peft_model(net, config)).modules()
    )


@pytest.mark.parametrize(("gpu", "kind"), [(False, FastLoraLinear), (True, Linear)])
def test_a_run_has_quick_layers_without_a_gpu_only_and_writes_what_peft_reads(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpu: bool, kind: type
):
    base = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    recipe = SFTRecipe(model_name_or_path="m", dataset_id="d", lora_r=4)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    model = add_adapter(base, TrainingJob(model_location=str(tiny_model), data_path=""), recipe)
    monkeypatch.undo()
    assert {type(module) for module in model.modules() if isinstance(module, Linear)} == {kind}
    for name, each in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(each, std=0.1)
    model.eval().save_pretrained(tmp_path)
    fresh = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    loaded = PeftModel.from_pretrained(fresh, str(tmp_path))
    assert {type(module) for module in loaded.modules() if isinstance(module, Linear)} == {Linear}
    ids = torch.arange(10).unsqueeze(0)
    assert torch.allclose(loaded(ids).logits, model(ids).logits, atol=1e-4)
    with loaded.disable_adapter():
        assert not torch.allclose(loaded(ids).logits, model(ids).logits, atol=1e-2)
