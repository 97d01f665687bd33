"""Models to serve, checked and described from their files alone.

PEFT features, completeness, NaN, names. Runs before anything is switched: an adapter that the engine cannot load is
either merged into its base or refused.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, cast, get_args

from sage_studio.errors import Conflict, InvalidModel, InvalidName
from sage_studio.models.model_folder import check_model_folder, read_config, read_json
from sage_studio.safetensors_file import Tensor, check_finite, read_tensors
from sage_studio.serving.types import Base, EngineKind, ModelKind, RegisteredModel
from sage_studio.text import NOTHING, Text

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
PLAIN_INITS = ("gaussian", "eva", "orthogonal", "mica", "lora_ga")
"""Inits that leave the base as it is."""
EXACT_INITS = ("pissa", "olora")
"""Inits that take something out of the base, by arithmetic that gives the same each time: a merge can repeat it. The
others (PiSSA by approximation, CorDA, LoftQ) depend on chance or on data, and what was taken out is not on record."""


@dataclass(frozen=True, slots=True)
class AdapterInfo:
    """What an adapter that was found usable needs.

    Attributes:
        rank: the largest over its modules.
        merge: for what the engine cannot serve it as an adapter, so that it must be merged into its base; "" if it can.
    """

    rank: int
    merge: str = ""


def check_path(path: str, outputs: Path) -> Path:
    """The folder of a tuned model.

    Raises:
        InvalidName: not absolute, climbing with ``..``, or a link under ``outputs`` that leads out of it.
    """
    folder = Path(path)
    if not folder.is_absolute() or ".." in PurePath(path).parts:
        raise InvalidName(
            Text("{path!r} is not an absolute path.", path=path),
            Text("Give an absolute path without '..'."),
        )
    if folder.is_relative_to(outputs) and not folder.resolve().is_relative_to(outputs.resolve()):
        raise InvalidName(
            Text("{path!r} points outside {outputs}.", path=path, outputs=outputs),
            Text("Give the folder itself, not a link to it."),
        )
    return folder


def check_adapter(folder: Path, base: str, engine: EngineKind, max_rank: int) -> AdapterInfo:
    """Check an adapter for an engine.

    Args:
        folder: as `peft.PeftModel.save_pretrained` wrote it.
        base: its base model, folder or hub id.
        engine: which engine is to serve it.
        max_rank: the largest rank that engine takes.

    Raises:
        InvalidModel: the folder is gone or half-written, holds NaN, belongs to another base, or is of a sort that the
            engine cannot serve, even merged; the message names what, the hint the remedy.
    """
    config = _read_config(folder)
    _check_base(config, base)
    _check_type(config, engine)
    rank = max([_rank(config.get("r")), *(_rank(value) for value in (config.get("rank_pattern") or {}).values())])
    tensors = read_tensors(folder / WEIGHTS)
    check_finite(folder / WEIGHTS, tensors)
    found = _reasons_to_merge(config, base, tensors)
    if engine == "vllm":
        found += _reasons_vllm_cannot_load(config, rank, max_rank, tensors)
    return AdapterInfo(rank, ", ".join(found))


def check_full_model(folder: Path) -> None:
    """Check a whole fine-tuned model: complete, and every weight finite. Raises `InvalidModel`."""
    check_model_folder(folder)
    for path in sorted(folder.glob("*.safetensors")):
        check_finite(path, read_tensors(path))


def size_on_disk(folder: Path) -> int:
    """Bytes of a model's own files (checkpoints in subfolders do not count); 0 where there is no such folder."""
    if not folder.is_absolute() or not folder.is_dir():
        return 0
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file())


def _read_config(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise InvalidModel(
            Text("The model folder {folder} does not exist.", folder=folder),
            Text("Restore it, or train again."),
        )
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidModel(
            Text("{folder} cannot be read: {error}", folder=folder / CONFIG, error=error),
            Text("The folder is incomplete: train again."),
        ) from error
    if not isinstance(config, dict):
        raise InvalidModel(Text("{folder} is not a JSON object.", folder=folder / CONFIG))
    return config


def _check_base(config: dict[str, Any], base: str) -> None:
    trained_on = str(config.get("base_model_name_or_path") or "")
    if trained_on and PurePath(trained_on).name.lower() != PurePath(base).name.lower():
        raise InvalidModel(
            Text("This adapter was trained on {trained_on}, not on {base}.", trained_on=trained_on, base=base),
            Text("Register it with base={trained_on!r}.", trained_on=trained_on),
        )


def _check_type(config: dict[str, Any], engine: EngineKind) -> None:
    kind = config.get("peft_type")
    if kind != "LORA":
        raise _unsupported(f"peft_type={kind}", Text("Train with LoRA."))
    init = config.get("init_lora_weights", True)
    if isinstance(init, str) and init.lower() not in (*PLAIN_INITS, *EXACT_INITS):
        raise _unsupported(
            f"init_lora_weights={init!r}",
            Text(
                "Its initialization changed the base weights in a way that cannot be repeated. Save it with "
                "path_initial_model_for_weight_conversion, or train with the default init."
            ),
        )
    found = [message for name, message in UNMERGEABLE.items() if config.get(name)]
    if found and engine == "vllm":
        raise _unsupported(", ".join(found), FALLBACK)


UNMERGEABLE = {
    "alora_invocation_tokens": "aLoRA",
    "layer_replication": "layer_replication",
    "use_bdlora": "BD-LoRA",
    "use_qalora": "QALoRA",
}
"""What changes more than weights, so that merging would answer otherwise than the adapter."""


def _reasons_to_merge(config: dict[str, Any], base: str, tensors: tuple[Tensor, ...]) -> list[str]:
    """What changes the base weights, so that no engine can serve it together with other adapters."""
    init = config.get("init_lora_weights", True)
    found = [f"init_lora_weights={init!r}"] if isinstance(init, str) and init.lower() in EXACT_INITS else []
    words = _vocabulary(base)
    rows = next((tensor.shape[0] for tensor in tensors if _is_whole_layer(tensor.name) and tensor.shape), words)
    if words is not None and rows != words:
        found.append(f"a vocabulary of {rows} in place of {words}")
    return found


def _reasons_vllm_cannot_load(
    config: dict[str, Any], rank: int, max_rank: int, tensors: tuple[Tensor, ...]
) -> list[str]:
    return [
        message
        for present, message in (
            (config.get("use_dora"), "DoRA"),
            (config.get("modules_to_save"), f"modules_to_save={config.get('modules_to_save')}"),
            (config.get("bias", "none") != "none", f"bias={config.get('bias')!r}"),
            (config.get("lora_bias"), "lora_bias"),
            (config.get("trainable_token_indices"), "trainable_token_indices"),
            (any(_is_whole_layer(tensor.name) for tensor in tensors), "retrained embeddings"),
            (rank > max_rank, f"rank {rank} (limit {max_rank})"),
        )
        if present
    ]


def _vocabulary(base: str) -> int | None:
    """Vocabulary size of a base on this machine; None where that cannot be read."""
    words = read_config(base).get("vocab_size")
    return words if isinstance(words, int) else None


FALLBACK = Text("Set SAGE_STUDIO_ENGINE=transformers and start the studio again, or train without it.")


def _is_whole_layer(name: str) -> bool:
    return ("embed_tokens" in name or "lm_head" in name) and "lora_" not in name


def _rank(value: object) -> int:
    if not isinstance(value, int) or value < 1:
        raise InvalidModel(
            Text("{config} gives the LoRA rank {value!r}.", config=CONFIG, value=value),
            Text("The rank must be an integer of at least 1."),
        )
    return value


def _unsupported(what: str, hint: Text = NOTHING) -> InvalidModel:
    return InvalidModel(Text("The engine cannot serve an adapter with {what}.", what=what), hint)


# What is registered

KINDS = get_args(ModelKind)
LONGEST_NAME = 512


def make_registered_model(name: str, path: str, config: Mapping[str, Any], outputs: Path) -> RegisteredModel:
    """Check a name, a path and a config, and fill in what they leave out.

    Args:
        name: what clients are to ask for.
        path: the model's folder, or for a base its hub id.
        config: ``kind`` (else guessed), ``base`` (else read from the adapter), ``base_name``, ``trust_remote_code``.
        outputs: where the studio's own tuned models lie.

    Raises:
        InvalidName: an empty or unprintable name, or a path that is not absolute or climbs.
        InvalidModel: an unknown kind, no such folder, or an adapter that does not name its base.
    """
    _check_name(name)
    kind = _kind(path, config)
    if kind in ("adapter", "full"):
        _check_folder(check_path(path, outputs))
    base = str(config.get("base") or (_trained_on(Path(path)) if kind == "adapter" else path))
    return RegisteredModel(
        name=name,
        kind=kind,
        path=path,
        base=base,
        created_at=time.time(),
        config={**config, "kind": kind, "base_name": str(config.get("base_name") or base_name(base))},
        size_bytes=size_on_disk(Path(path)),
    )


def engine_base(model: RegisteredModel) -> Base:
    """What an engine must be started with so that it can serve the model."""
    trusted = bool(model.config.get("trust_remote_code", False))
    if not is_standalone(model):
        return Base(model.base, str(model.config["base_name"]), trusted)
    return Base(str(model.config.get("merged") or model.path), model.name, trusted)


def is_standalone(model: RegisteredModel) -> bool:
    """Whether an engine is started for the model itself; an adapter is not, unless it was merged into its base."""
    return model.kind != "adapter" or bool(model.config.get("merged"))


def base_of(model: RegisteredModel) -> RegisteredModel:
    """The base model of a fine-tuned one, as a model of its own."""
    return RegisteredModel(
        name=str(model.config["base_name"]),
        kind="base",
        path=model.base,
        base=model.base,
        created_at=model.created_at,
        config={
            "kind": "base",
            "base_name": model.config["base_name"],
            "trust_remote_code": bool(model.config.get("trust_remote_code", False)),
        },
        size_bytes=size_on_disk(Path(model.base)),
    )


def check_removable(model: RegisteredModel, models: Sequence[RegisteredModel], running: bool) -> None:
    """Refuse to remove a model that is in use.

    Args:
        models: all registered models.
        running: whether an engine runs now.

    Raises:
        Conflict: the model is the current chat model, or it is the base of another, of whichever kind it is itself.
    """
    if model.current and running:
        raise Conflict(
            Text("{name} is the current chat model.", name=model.name),
            Text("Switch to another model first."),
        )
    dependants = [each.name for each in models if each.base == model.path != each.path]
    if dependants:
        names = ", ".join(dependants)
        raise Conflict(
            Text("{name} is the base model of {names}.", name=model.name, names=names),
            Text("Remove them first."),
        )


def base_name(location: str) -> str:
    """A short name for a base: its folder's name, or the hub id as it is."""
    return PurePath(location).name if Path(location).is_absolute() else location


def _check_name(name: str) -> None:
    if not name.strip() or len(name) > LONGEST_NAME or not name.isprintable() or ".." in PurePath(name).parts:
        raise InvalidName(
            Text("{name!r} is not a valid model name.", name=name),
            Text("Use up to {longest_name} printable characters, without '..'.", longest_name=LONGEST_NAME),
        )


def _kind(path: str, config: Mapping[str, Any]) -> ModelKind:
    kind = config.get("kind") or ("adapter" if (Path(path) / CONFIG).is_file() else "base")
    if kind not in KINDS:
        raise InvalidModel(
            Text("Unknown model kind: {kind!r}.", kind=kind),
            Text("Kinds: {kinds}.", kinds=", ".join(KINDS)),
        )
    return cast("ModelKind", kind)


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise InvalidModel(
            Text("The model folder {folder} does not exist.", folder=folder),
            Text("Check the path, or train again."),
        )


def _trained_on(folder: Path) -> str:
    base = read_json(folder / CONFIG).get("base_model_name_or_path")
    if not base:
        raise InvalidModel(
            Text("The adapter {folder} does not name its base model.", folder=folder),
            Text('Register it with {"base": "<folder or hub id>"}.'),
        )
    return str(base)
