"""The adapters that the running engine holds: checked, copied to a path of their own, loaded, tried and taken down.

A name and a path are used once: vLLM keys its prefix cache by both, so a second use could answer from old weights.
Knows the rules of loading; knows nothing of which model is current.
"""

import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from sage_studio.errors import Conflict, EngineUnavailable, InvalidModel, naming_full_disk
from sage_studio.serving.adapter_check import CONFIG, WEIGHTS, check_adapter, check_full_model, check_path
from sage_studio.serving.choice import EngineChoice
from sage_studio.serving.client import EngineGone
from sage_studio.serving.describe import engine_base
from sage_studio.serving.engine import Engine
from sage_studio.serving.records import Base, EngineRecord
from sage_studio.serving.sampling import Sampling
from sage_studio.serving.state import ServingState
from sage_studio.serving.types import ChatMessage, RegisteredModel
from sage_studio.text import Text

logger = logging.getLogger("sage_studio")

TRIAL: tuple[ChatMessage, ...] = ({"role": "user", "content": "Hi"},)
FILES = (CONFIG, WEIGHTS)


class AdapterShelf:
    """Adapters by public name -> the engine's name for each, ``name@number``."""

    def __init__(self, state: ServingState, folder: Path, outputs: Path, choose: Callable[[], EngineChoice]) -> None:
        self._state = state
        self._folder = folder
        self._outputs = outputs
        self._choose = choose

    def check(self, model: RegisteredModel) -> Base:
        """Check a model's files, and say what an engine must be started with so that it can serve it.

        Raises:
            InvalidModel, InvalidName: what is wrong with them, and the remedy.
        """
        choice = self._choose()
        rank = 0
        if model.kind == "adapter":
            folder = check_path(model.path, self._outputs)
            rank = check_adapter(folder, model.base, choice.kind, choice.max_rank).rank
        elif model.kind == "full":
            check_full_model(check_path(model.path, self._outputs))
        return replace(engine_base(model), rank=choice.rank_for(rank))

    def internal_name(self, engine: Engine, model: RegisteredModel) -> str | None:
        """The engine's own name for a model; None if it does not hold it."""
        if engine.record.kind == "openai":
            return model.name
        if model.kind != "adapter":
            return engine.record.base.name if engine.record.base.location == model.path else None
        number = self._state.adapters(engine.record).get(model.name)
        return _internal(model.name, number) if number is not None else None

    def put_up(self, engine: Engine, model: RegisteredModel) -> str:
        """Have the engine hold a model, and try it with one short answer.

        Returns:
            the engine's own name for it.

        Raises:
            InvalidModel: the engine refuses it.
            EngineUnavailable: it does not answer with it.
        """
        held = self.internal_name(engine, model)
        if held is not None and not self._changed(engine, model):
            self._try(engine, model, held)
            return held
        if model.kind != "adapter" or engine.record.base.location != model.base:
            raise _other_base(engine.record, model)
        older = self._state.adapters(engine.record).get(model.name)
        fresh = self._load(engine, model)
        if older is not None:
            self._forget(engine, model.name, older)
        return fresh

    def take_down(self, engine: Engine, name: str) -> None:
        """Unload an adapter, if the engine holds it."""
        number = self._state.adapters(engine.record).get(name)
        if number is not None:
            self._forget(engine, name, number)

    def tidy(self, engine: Engine) -> None:
        """Delete the copies that engines before this one left behind. Expects the turn to be held."""
        held = {str(number) for number in self._state.adapters(engine.record).values()}
        for folder in self._folder.glob("*"):
            if folder.name not in held:
                shutil.rmtree(folder, ignore_errors=True)

    def _load(self, engine: Engine, model: RegisteredModel) -> str:
        number = self._state.new_adapter(engine.record, model.name)
        internal, folder = _internal(model.name, number), self._folder / str(number)
        try:
            _copy(Path(model.path), folder)
            engine.load_adapter(internal, folder)
            self._try(engine, model, internal)
        except BaseException:
            self._drop(engine, internal, number)
            raise
        self._state.set_adapter(number, folder)
        return internal

    def _try(self, engine: Engine, model: RegisteredModel, internal: str) -> None:
        chunks = list(engine.client.chat(internal, TRIAL, Sampling(max_tokens=1, temperature=0)))
        if chunks[-1].model != internal or not chunks[-1].completion_tokens:
            raise EngineUnavailable(
                Text(
                    f"The engine does not answer as {model.name}, but as {chunks[-1].model}.",
                    f"引擎没有以 {model.name} 回答，而是以 {chunks[-1].model} 回答。",
                ),
                Text("Switch again, or restart the studio.", "请再次切换，或重启工作室。"),
            )

    def _forget(self, engine: Engine, name: str, number: int) -> None:
        self._drop(engine, _internal(name, number), number)

    def _drop(self, engine: Engine, internal: str, number: int) -> None:
        self._state.drop_adapter(number)
        try:
            engine.unload_adapter(internal)
        except EngineGone as error:  # with the engine the adapter is gone too
            logger.warning("%s could not be unloaded: %s", internal, error)
        shutil.rmtree(self._folder / str(number), ignore_errors=True)

    def _changed(self, engine: Engine, model: RegisteredModel) -> bool:
        """Whether an adapter's files are no longer those that the engine loaded."""
        number = self._state.adapters(engine.record).get(model.name)
        if model.kind != "adapter" or number is None:
            return False
        return any(_stamp(Path(model.path) / name) != _stamp(self._folder / str(number) / name) for name in FILES)


def _copy(source: Path, target: Path) -> None:
    """A real copy, not a link: vLLM reads the files again when it swaps adapters, and the original may change or go."""
    with naming_full_disk(target):
        target.mkdir(parents=True)
        try:
            for name in FILES:
                shutil.copy2(source / name, target / name)
        except FileNotFoundError as error:
            raise InvalidModel(
                Text(f"{error.filename} is gone.", f"{error.filename} 已不存在。"),
                Text("Restore it, or train again.", "请恢复该文件，或重新训练。"),
            ) from error


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        facts = path.stat()
    except FileNotFoundError:
        return None
    return facts.st_size, facts.st_mtime_ns


def _internal(name: str, number: int) -> str:
    return f"{name}@{number}"


def _other_base(record: EngineRecord, model: RegisteredModel) -> Conflict:
    return Conflict(
        Text(
            f"{model.name} stands on {model.base}, but the engine runs {record.base.location}.",
            f"{model.name} 的基座是 {model.base}，而引擎正在运行 {record.base.location}。",
        ),
        Text("Switch to it first; the engine is then changed.", "请先切换到该模型，引擎会随之更换。"),
    )
