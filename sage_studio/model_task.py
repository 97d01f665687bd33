"""What a model is for: to write text, or to turn a text into a vector.

Knows the signs of either in a model's folder and in what the hub says of it. Never loads a model.
"""

import json
from pathlib import Path
from typing import Any, Literal

ModelTask = Literal["generative", "embedding"]

SENTENCE_FILES = ("modules.json", "config_sentence_transformers.json")
WRITERS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
"""How the names of transformers' text-writing architectures end."""
HUB_TAGS: dict[str, ModelTask] = {
    "text-generation": "generative",
    "image-text-to-text": "generative",
    "sentence-similarity": "embedding",
    "feature-extraction": "embedding",
}


def task_of_folder(folder: Path) -> ModelTask | None:
    """What the model in a folder is for; None where its files do not tell."""
    if any((folder / name).is_file() for name in SENTENCE_FILES):
        return "embedding"
    try:
        return task_of_config(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None


def task_of_config(config: Any) -> ModelTask | None:
    """What a ``config.json`` tells: it writes text, or it is a bare encoder, from which an embedder is made."""
    names = config.get("architectures") if isinstance(config, dict) else None
    if not isinstance(names, list) or not names:
        return None
    if any(str(name).endswith(WRITERS) for name in names):
        return "generative"
    return "embedding" if all(str(name).endswith("Model") for name in names) else None
