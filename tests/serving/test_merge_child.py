"""What the merging child writes answers as the adapter does: the numbers compared, with a tiny real model."""

import json
import subprocess
import sys

import pytest

from sage_studio.serving.adapter_compat import check_adapter, check_full_model
from sage_studio.serving.merge import merge_command
from sage_studio.settings import PROJECT

pytestmark = pytest.mark.training

CLOSE = 0.02
"""Between logits of some tenths to some units: what rounding to bf16 leaves."""


def make(base, folder, **config):
    """A trained-looking adapter, and the model that it makes in memory."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    if extra := config.pop("extra_tokens", 0):
        model.resize_token_embeddings(model.config.vocab_size + extra, mean_resizing=False)
    tuned = get_peft_model(
        model, LoraConfig(**{"r": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **config})
    )
    for name, weight in tuned.named_parameters():
        if weight.requires_grad:
            weight.data += (0.3 if "lora_" in name else 0.02) * torch.randn_like(weight)
    tuned.save_pretrained(folder)
    return tuned.eval()


def logits(model, tokens=(1, 5, 9, 300, 1200)):
    import torch

    with torch.no_grad():
        return model(torch.tensor([tokens])).logits.float()


def load(folder):
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"init_lora_weights": "pissa"}, "pissa"),
        ({"init_lora_weights": "olora"}, "olora"),
        ({"r": 128}, "rank 128"),
        ({"extra_tokens": 3}, "vocabulary"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")  # the sort that the merge must get right
@pytest.mark.filterwarnings("ignore:Input and output embeddings are no longer tied")  # peft did get it right
@pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers` to `True`")  # peft on a resized vocabulary
def test_the_merged_model_computes_what_the_adapter_does(tiny_model, tmp_path, config, named):
    import torch

    from sage_studio.serving.merge_child import merge

    adapter, merged = tmp_path / "adapter", tmp_path / "merged"
    tuned = make(tiny_model, adapter, **config)
    assert named in check_adapter(adapter, str(tiny_model), "vllm", 64).merge
    merge(adapter, str(tiny_model), merged, tmp_path / "progress", trust_remote_code=False)
    check_full_model(merged)
    expected, found, base = logits(tuned), logits(load(merged)), logits(load(tiny_model))
    scale = expected.std()
    assert torch.allclose(expected, found, atol=CLOSE * 10 * float(scale))
    if expected.shape == base.shape:
        assert (expected - base).abs().mean() > 10 * (expected - found).abs().mean(), "the adapter matters"


def test_the_child_writes_the_whole_model_its_tokenizer_and_its_progress(tiny_model, tmp_path):
    make(tiny_model, tmp_path / "adapter", use_dora=True)
    dest, progress = tmp_path / "merged", tmp_path / "progress"
    command = merge_command(tmp_path / "adapter", str(tiny_model), dest, progress)
    subprocess.run(command, check=True, cwd=PROJECT, capture_output=True)
    assert command[0] == sys.executable
    check_full_model(dest)
    assert json.loads((dest / "config.json").read_text())["dtype"] == "bfloat16", "as the base is published"
    assert [json.loads(line)["doing"] for line in progress.read_text().splitlines()] == [
        "loading",
        "merging",
        "saving",
        "saved",
    ]
    assert not (tmp_path / "merged.part").exists()
