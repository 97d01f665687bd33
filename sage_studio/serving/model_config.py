"""What a model's files say before an engine starts: sizes, context length, quantization, chat template.

No weights are loaded and no connection is opened.
"""

import functools
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sage_studio.catalog import read_entries
from sage_studio.errors import InvalidModel
from sage_studio.models.model_folder import (
    CHAT_TEMPLATE,
    TOKENIZER_CONFIG,
    read_chat_template,
    read_config,
    read_json,
    read_tokenizer_config,
    weights_bytes,
)
from sage_studio.serving.capacity import UNKNOWN, Architecture, ModelFacts
from sage_studio.text import Text

ITEM_BYTES = {"float32": 4, "float64": 8}
"""Bytes of a stored weight, where it is not 2."""
CONTEXT_KEYS = (
    *("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "model_max_length"),
    *("max_sequence_length", "max_seq_length", "seq_len"),
)
SCALED_ALREADY = ("su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling", "default", "mrope")
"""RoPE variants whose factor is in ``max_position_embeddings`` already; vLLM multiplies by that of all others."""
STORED_QUANTIZED = re.compile(r"(?:^|[-_.])(bnb|awq|gptq)(?:[-_.]|$)", re.IGNORECASE)


def read_facts(location: str, parameters: int = 0) -> ModelFacts:
    """What is known of a model on this machine.

    Args:
        location: a folder or a hub id.
        parameters: how many, for a model whose files are not here yet; without it what the catalogue says.
    """
    parameters = parameters or catalogue_parameters().get(location, 0)
    config, stored = read_config(location), weights_bytes(location)
    quantized = _quantized(location, config)
    item = ITEM_BYTES.get(str(config.get("torch_dtype") or config.get("dtype") or "").removeprefix("torch."), 2)
    known = (0 if quantized else stored // item) or parameters
    return ModelFacts(known, stored, quantized, _shape(config, read_tokenizer_config(location)))


def model_shape(location: str) -> Architecture:
    """What the model's configs say, if they lie on this machine."""
    return _shape(read_config(location), read_tokenizer_config(location))


@functools.cache
def catalogue_parameters() -> dict[str, int]:
    """How many parameters each model of the catalogue has, by its id."""
    return {entry.id: entry.parameters for entry in read_entries()}


def _quantized(location: str, config: dict[str, Any]) -> str:
    """The method that a model is stored quantized with: by its config, else, before that is here, by its name."""
    if config:
        found = config.get("quantization_config")
        return str(found.get("quant_method") or "unknown") if isinstance(found, dict) else ""
    named = STORED_QUANTIZED.search(location)
    return {"bnb": "bitsandbytes"}.get(named[1].lower(), named[1].lower()) if named else ""


def _shape(config: dict[str, Any], tokenizer: dict[str, Any]) -> Architecture:
    if not config:
        return UNKNOWN
    text = config.get("text_config")
    config = {**config, **text} if isinstance(text, dict) else config
    return Architecture(
        context=_context(config, tokenizer),
        heads=_whole(config.get("num_attention_heads")),
        kv_heads=_whole(config.get("num_key_value_heads")),
        hidden_size=_whole(config.get("hidden_size")),
        intermediate_size=_whole(config.get("intermediate_size")),
        layers=_whole(config.get("num_hidden_layers")),
        head_dim=_whole(config.get("head_dim")),
        vocab_size=_whole(config.get("vocab_size")),
        tied_embeddings=bool(config.get("tie_word_embeddings", False)),
    )


def _context(config: dict[str, Any], tokenizer: dict[str, Any]) -> int | None:
    """The longest sequence, derived as vLLM does (which refuses more), and never beyond the tokenizer's own limit."""
    stated = [found for key in CONTEXT_KEYS if (found := _whole(config.get(key))) is not None]
    longest = float(min(stated)) if stated else None
    if longest is not None and "gemma3" not in str(config.get("model_type", "")):
        for rope in _ropes(config):
            factor = rope.get("factor")
            if str(rope.get("rope_type") or rope.get("type") or "default") not in SCALED_ALREADY and factor:
                longest = longest * float(factor)
                break
    limits = [limit for limit in (longest, _whole(tokenizer.get("model_max_length"))) if limit is not None]
    return int(min(limits)) if limits else None


def _ropes(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The RoPE settings: one for all layers, or one for each kind of layer."""
    found = config.get("rope_parameters") or config.get("rope_scaling")
    if not isinstance(found, dict):
        return
    inner = [each for each in found.values() if isinstance(each, dict)]
    yield from inner or [found]


def _whole(value: object) -> int | None:
    return int(value) if isinstance(value, (int, float)) and 0 < value < 1 << 31 else None


# Chat templates

ARGUMENTS = "training_args.json"
HASH = "chat_template_sha256"
SHOWN = 12


def needs_own_template(folder: Path, base: str) -> bool:
    """Whether a tuned model must be served whole, with the template in its own folder: the base's is another one now.

    Args:
        folder: the tuned model, with ``training_args.json`` if the studio trained it.
        base: what the engine would take its template from, folder or hub id.

    Raises:
        InvalidModel: it was trained with a template that neither has; the message names the hashes.
    """
    trained = trained_hash(folder)
    if trained is None or (served := template_hash(base)) is None or served == trained:
        return False
    if template_hash(str(folder)) == trained:
        return True
    raise InvalidModel(
        Text(
            f"{folder.name} was trained with the chat template {trained[:SHOWN]}…, but {base} now has {served[:SHOWN]}…"
            f" ({CHAT_TEMPLATE} or {TOKENIZER_CONFIG}): its answers would get worse.",
            f"{folder.name} 训练时使用的对话模板是 {trained[:SHOWN]}…，而 {base} 现在的是 {served[:SHOWN]}…"
            f"（{CHAT_TEMPLATE} 或 {TOKENIZER_CONFIG}），回答质量会下降。",
        ),
        Text(
            f"Restore the base's template, copy the one from training to {folder / CHAT_TEMPLATE}, or train again.",
            f"请恢复基座的模板，或将训练时的模板复制到 {folder / CHAT_TEMPLATE}，或重新训练。",
        ),
    )


def trained_hash(folder: Path) -> str | None:
    """The SHA-256 of the template that a model was trained with; None where training left no note of it."""
    found = read_json(folder / ARGUMENTS).get(HASH)
    return found if isinstance(found, str) else None


def template_hash(location: str) -> str | None:
    """The SHA-256 of a tokenizer's chat template; None where it is not on this machine or has none."""
    template = read_chat_template(location)
    return None if template is None else hashlib.sha256(template.encode()).hexdigest()
