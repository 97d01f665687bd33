"""Reads model folders without torch or transformers: config, weights, tokenizer, chat template, task.

A model is named by its location: a local folder, or a hub id whose files lie in the Hugging Face cache of this machine.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any, Literal

from sage_studio.errors import InvalidModel
from sage_studio.text import Text

ModelTask = Literal["generative", "embedding"]

CONFIG = "config.json"
TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"
CHAT_TEMPLATE = "chat_template.jinja"
WEIGHT_SUFFIXES = (".safetensors", ".bin")
SECOND_COPY = ("consolidated", "training_args", "optimizer")
"""How files begin that are no weights, or the same weights again for other software."""
SAFETENSORS_INDEX = "model.safetensors.index.json"
INDEXES = (SAFETENSORS_INDEX, "pytorch_model.bin.index.json")
"""Name the files of weights that are stored in several."""
SENTENCE_FILES = ("modules.json", "config_sentence_transformers.json")
GENERATIVE = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
"""How the names of transformers' text-generating architectures end."""
HUB_TAGS: dict[str, ModelTask] = {
    "text-generation": "generative",
    "image-text-to-text": "generative",
    "sentence-similarity": "embedding",
    "feature-extraction": "embedding",
}


# Where the files are


def is_local(location: str) -> bool:
    """Whether a location is a folder on this machine and not a hub id."""
    return Path(location).is_absolute()


def cached_file(location: str, name: str) -> Path | None:
    """One file of a model: in its folder, or of a hub model in the local cache.

    Returns:
        Its path; None where it is not on this machine.
    """
    if is_local(location):
        path = Path(location) / name
        return path if path.is_file() else None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(location, name)
    return Path(found) if isinstance(found, str) else None


def cache_folder() -> Path:
    """The Hugging Face cache, which every library on this machine shares."""
    constants = sys.modules.get("huggingface_hub.constants")
    if constants is not None:
        return Path(constants.HF_HUB_CACHE)
    home = os.environ.get("HF_HOME") or str(Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    given = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE") or str(Path(home) / "hub")
    return Path(os.path.expandvars(given)).expanduser()


def cache_entry(name: str) -> Path:
    """Where the cache keeps a hub model: its ``blobs``, ``refs`` and ``snapshots``."""
    return cache_folder() / f"models--{name.replace('/', '--')}"


def snapshot(name: str) -> Path | None:
    """The folder of a hub model in the cache; None while a file of it is missing."""
    folder = cache_entry(name)
    try:
        commit = (folder / "refs" / "main").read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return None
    found = folder / "snapshots" / commit
    return found if commit and is_complete(found) else None


def is_here(location: str) -> bool:
    """Whether the hub need not be asked for a model: it is a folder, or a complete copy of it is in the cache."""
    return is_local(location) or snapshot(location) is not None


# What is in them


def read_json(path: Path | None) -> dict[str, Any]:
    """The object in a JSON file; empty where the file is missing, damaged or holds anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8")) if path is not None else {}
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def read_config(location: str) -> dict[str, Any]:
    """A model's ``config.json``; empty where it is not on this machine."""
    return read_json(cached_file(location, CONFIG))


def read_tokenizer_config(location: str) -> dict[str, Any]:
    """A model's ``tokenizer_config.json``; empty where it is not on this machine."""
    return read_json(cached_file(location, TOKENIZER_CONFIG))


def read_chat_template(location: str) -> str | None:
    """A model's chat template: ``chat_template.jinja``, else the one in ``tokenizer_config.json``.

    Of several templates the one named ``default`` counts. None where there is none, or no file on this machine.
    """
    file = cached_file(location, CHAT_TEMPLATE)
    if file is not None:
        return file.read_text(encoding="utf-8")
    template = read_tokenizer_config(location).get("chat_template")
    if isinstance(template, list):
        named = {each.get("name"): each.get("template") for each in template if isinstance(each, dict)}
        template = named.get("default")
    return template if isinstance(template, str) else None


def indexed_weights(folder: Path, index: str = SAFETENSORS_INDEX) -> set[str]:
    """The names of the weight files in an index; empty without one.

    Raises:
        InvalidModel: the index cannot be read.
    """
    try:
        return set(json.loads((folder / index).read_text(encoding="utf-8"))["weight_map"].values())
    except FileNotFoundError:
        return set()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidModel(
            Text("{folder} cannot be read: {error!r}", folder=folder / index, error=error),
            Text("Copy the model again."),
        ) from error


def weights_bytes(location: str) -> int:
    """Bytes of a model's weights on this machine; 0 where they are not here. Safetensors count before ``*.bin``."""
    config = cached_file(location, CONFIG)
    folder = Path(location) if is_local(location) else config.parent if config is not None else None
    if folder is None:
        return 0
    for suffix in WEIGHT_SUFFIXES:
        files = (path for path in folder.glob(f"*{suffix}") if not path.name.startswith(SECOND_COPY))
        sizes = [path.stat().st_size for path in files if path.is_file()]
        if sizes:
            return sum(sizes)
    return 0


def missing_files(folder: Path) -> list[str]:
    """What a folder lacks of config, weights and tokenizer; empty where each of them is there."""
    weights = any(path.is_file() for suffix in WEIGHT_SUFFIXES for path in folder.glob(f"*{suffix}"))
    tokenizer = any(any(folder.glob(pattern)) for pattern in ("tokenizer*", "vocab.*", "*.model"))
    found = {CONFIG: (folder / CONFIG).is_file(), "*.safetensors": weights, "tokenizer": tokenizer}
    return [name for name, there in found.items() if not there]


def is_complete(folder: Path) -> bool:
    """Whether nothing is missing: also every file in an index, and every part of a sentence-transformers model."""
    try:
        files = next((files for index in INDEXES if (files := indexed_weights(folder, index))), set[str]())
    except InvalidModel:
        return False
    parts = all((folder / part).is_dir() for part in _sentence_modules(folder))
    return parts and all((folder / str(file)).is_file() for file in files) and not missing_files(folder)


def check_model_folder(folder: Path) -> None:
    """Raise `InvalidModel` unless a folder holds config, weights and tokenizer of a transformers model."""
    if not folder.is_dir():
        raise InvalidModel(
            Text("There is no model folder {folder}.", folder=folder),
            Text("Check the path, or choose a model from the list."),
        )
    if missing := missing_files(folder):
        raise InvalidModel(
            Text("{folder} is not a complete model: missing {missing}.", folder=folder, missing=", ".join(missing)),
            Text("Give a folder that save_pretrained wrote."),
        )
    try:
        json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except ValueError as error:
        raise InvalidModel(
            Text("{folder} is not JSON: {error}", folder=folder / CONFIG, error=error),
            Text("Copy the model again."),
        ) from error


def task_of_folder(folder: Path) -> ModelTask | None:
    """What the model in a folder is for; None where its files do not tell."""
    if any((folder / name).is_file() for name in SENTENCE_FILES):
        return "embedding"
    return task_of_config(read_json(folder / CONFIG))


def task_of_config(config: Any) -> ModelTask | None:
    """What a ``config.json`` tells: a text generator, or a bare encoder, of which an embedding model is made."""
    names = config.get("architectures") if isinstance(config, dict) else None
    if not isinstance(names, list) or not names:
        return None
    if any(str(name).endswith(GENERATIVE) for name in names):
        return "generative"
    return "embedding" if all(str(name).endswith("Model") for name in names) else None


def _sentence_modules(folder: Path) -> list[str]:
    """The folders of a sentence-transformers model; those without files, as a normalization's, are not on the hub."""
    try:
        modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        return [each["path"] for each in modules if each["path"] and not each["type"].endswith("Normalize")]
    except (OSError, ValueError, KeyError, TypeError):
        return []
