"""Makes a `RegisteredModel` of a name, a path and a config, and checks them; also says what an engine needs for it."""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, cast, get_args

from sage_studio.errors import Conflict, InvalidModel, InvalidName
from sage_studio.models.model_folder import read_json
from sage_studio.serving.adapter_compat import CONFIG, check_path, size_on_disk
from sage_studio.serving.types import Base, ModelKind, RegisteredModel
from sage_studio.text import Text

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
            Text(f"{model.name} is the current chat model.", f"{model.name} 正在作为对话后端。"),
            Text("Switch to another model first.", "请先切换到其他模型。"),
        )
    dependants = [each.name for each in models if each.base == model.path != each.path]
    if dependants:
        names = ", ".join(dependants)
        raise Conflict(
            Text(f"{model.name} is the base model of {names}.", f"{model.name} 是 {names} 的基座模型。"),
            Text("Remove them first.", "请先移除它们。"),
        )


def base_name(location: str) -> str:
    """A short name for a base: its folder's name, or the hub id as it is."""
    return PurePath(location).name if Path(location).is_absolute() else location


def _check_name(name: str) -> None:
    if not name.strip() or len(name) > LONGEST_NAME or not name.isprintable() or ".." in PurePath(name).parts:
        raise InvalidName(
            Text(f"{name!r} is not a valid model name.", f"{name!r} 不能作为模型名称。"),
            Text(
                f"Use up to {LONGEST_NAME} printable characters, without '..'.",
                f"请使用不超过 {LONGEST_NAME} 个可打印字符，且不含 “..”。",
            ),
        )


def _kind(path: str, config: Mapping[str, Any]) -> ModelKind:
    kind = config.get("kind") or ("adapter" if (Path(path) / CONFIG).is_file() else "base")
    if kind not in KINDS:
        raise InvalidModel(
            Text(f"Unknown model kind: {kind!r}.", f"没有名为 {kind!r} 的模型种类。"),
            Text(f"Kinds: {', '.join(KINDS)}.", f"可用的种类：{', '.join(KINDS)}。"),
        )
    return cast("ModelKind", kind)


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise InvalidModel(
            Text(f"The model folder {folder} does not exist.", f"模型文件夹 {folder} 不存在。"),
            Text("Check the path, or train again.", "请检查路径，或重新训练。"),
        )


def _trained_on(folder: Path) -> str:
    base = read_json(folder / CONFIG).get("base_model_name_or_path")
    if not base:
        raise InvalidModel(
            Text(f"The adapter {folder} does not name its base model.", f"适配器 {folder} 没有注明其基座。"),
            Text('Register it with {"base": "<folder or hub id>"}.', '请以 {"base": "<文件夹或模型站点 id>"} 注册。'),
        )
    return str(base)
