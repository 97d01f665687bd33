"""A model folder that is whole in everything that is looked at without loading it, made in milliseconds."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers

TEMPLATE = (
    "{% for message in messages %}<{{ message.role }}> {{ message.content }} {% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)
"""Every byte of what it renders is a token."""
MODULES = ("self_attn.q_proj", "self_attn.v_proj", "mlp.up_proj")


def write_model(folder: Path, template: str | None = TEMPLATE, **config: Any) -> Path:
    """A language model's folder; its weights are zeros."""
    folder.mkdir(parents=True, exist_ok=True)
    known = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", **config}
    (folder / "config.json").write_text(json.dumps(known))
    zeros = np.zeros((2, 2), dtype=np.float32)
    names = ("model.embed_tokens", *(f"model.layers.0.{name}" for name in MODULES), "lm_head")
    save_file({f"{name}.weight": zeros for name in names}, folder / "model.safetensors")
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: number for number, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": letters[0]}))
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    return folder
