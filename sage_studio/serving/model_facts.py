"""What can be read of a model before an engine is started for it: its sizes, its longest context, how it is stored.

Reads ``config.json``, ``tokenizer_config.json`` and the sizes of the weights' files, in a folder or in the hub's local
cache. Opens no connection and loads no weights.
"""

import functools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sage_studio.catalog import read_entries
from sage_studio.serving.gpu import UNKNOWN, ModelFacts, Shape

ITEM_BYTES = {"float32": 4, "float64": 8}
"""Bytes of a stored weight, where it is not 2."""
CONTEXT_KEYS = (
    *("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "model_max_length"),
    *("max_sequence_length", "max_seq_length", "seq_len"),
)
SCALED_ALREADY = ("su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling", "default", "mrope")
"""RoPE variants whose factor is in ``max_position_embeddings`` already; vLLM multiplies by that of all others."""
STORED_QUANTIZED = re.compile(r"(?:^|[-_.])(bnb|awq|gptq)(?:[-_.]|$)", re.IGNORECASE)
WEIGHTS = ("*.safetensors", "*.bin")
SECOND_COPY = ("consolidated", "training_args", "optimizer")
"""Files that are no weights, or the same weights again for other software."""


def read_facts(location: str, parameters: int = 0) -> ModelFacts:
    """What is known of a model on this machine.

    Args:
        location: a folder or a hub id.
        parameters: how many, for a model whose files are not here yet; without it what the catalogue says.
    """
    folder, parameters = model_folder(location), parameters or catalogue_parameters().get(location, 0)
    config = _read(folder, "config.json")
    stored = _stored_bytes(folder)
    quantized = _quantized(location, config)
    item = ITEM_BYTES.get(str(config.get("torch_dtype") or config.get("dtype") or "").removeprefix("torch."), 2)
    known = (0 if quantized else stored // item) or parameters
    return ModelFacts(known, stored, quantized, _shape(config, _read(folder, "tokenizer_config.json")))


def model_shape(location: str) -> Shape:
    """What the model's configs say, if they lie on this machine."""
    folder = model_folder(location)
    return _shape(_read(folder, "config.json"), _read(folder, "tokenizer_config.json"))


def weights_bytes(location: str) -> int:
    """Bytes of a model's weights on this machine; 0 where they are not here."""
    return _stored_bytes(model_folder(location))


def model_folder(location: str) -> Path | None:
    """Where a model's files lie: its folder, or the hub's local cache; None where neither is here."""
    if Path(location).is_absolute():
        return Path(location)
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(location, "config.json")
    return Path(found).parent if isinstance(found, str) else None


@functools.cache
def catalogue_parameters() -> dict[str, int]:
    """How many parameters each model of the catalogue has, by its id."""
    return {entry.id: entry.parameters for entry in read_entries()}


def _stored_bytes(folder: Path | None) -> int:
    if folder is None:
        return 0
    for pattern in WEIGHTS:
        files = (path for path in folder.glob(pattern) if not path.name.startswith(SECOND_COPY))
        sizes = [path.stat().st_size for path in files if path.is_file()]
        if sizes:
            return sum(sizes)
    return 0


def _quantized(location: str, config: dict[str, Any]) -> str:
    """The method that a model is stored quantized with: by its config, else, before that is here, by its name."""
    if config:
        found = config.get("quantization_config")
        return str(found.get("quant_method") or "unknown") if isinstance(found, dict) else ""
    named = STORED_QUANTIZED.search(location)
    return {"bnb": "bitsandbytes"}.get(named[1].lower(), named[1].lower()) if named else ""


def _shape(config: dict[str, Any], tokenizer: dict[str, Any]) -> Shape:
    if not config:
        return UNKNOWN
    text = config.get("text_config")
    config = {**config, **text} if isinstance(text, dict) else config
    return Shape(
        context=_context(config, tokenizer),
        heads=_whole(config.get("num_attention_heads")),
        kv_heads=_whole(config.get("num_key_value_heads")),
        hidden=_whole(config.get("hidden_size")),
        inner=_whole(config.get("intermediate_size")),
        layers=_whole(config.get("num_hidden_layers")),
        head_size=_whole(config.get("head_dim")),
        vocabulary=_whole(config.get("vocab_size")),
        tied=bool(config.get("tie_word_embeddings", False)),
    )


def _context(config: dict[str, Any], tokenizer: dict[str, Any]) -> int | None:
    """The longest sequence, derived as vLLM does (which refuses more), and never beyond the tokenizer's own limit."""
    said = [found for key in CONTEXT_KEYS if (found := _whole(config.get(key))) is not None]
    longest = float(min(said)) if said else None
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


def _read(folder: Path | None, name: str) -> dict[str, Any]:
    """A JSON file; empty where it is not there or broken: the engine's own message then says more than any guess."""
    try:
        content = json.loads((folder / name).read_text(encoding="utf-8")) if folder is not None else {}
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _whole(value: object) -> int | None:
    return int(value) if isinstance(value, (int, float)) and 0 < value < 1 << 31 else None
