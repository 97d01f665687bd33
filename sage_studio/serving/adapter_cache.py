"""Adapters in the running engine: checked, loaded, probed, evicted when unused.

Each load gets a name and a path that are used only once: vLLM keys its prefix cache by both, so that a second use could
answer from old weights.
"""

import logging
import shutil
from dataclasses import replace
from pathlib import Path

from sage_studio.errors import Conflict, EngineUnavailable, InvalidModel, naming_full_disk
from sage_studio.serving.adapter_compat import (
    CONFIG,
    WEIGHTS,
    check_adapter,
    check_full_model,
    check_path,
    engine_base,
    is_standalone,
)
from sage_studio.serving.capacity import needs_own_template
from sage_studio.serving.client import EngineDisconnected
from sage_studio.serving.engine import Engine
from sage_studio.serving.engine_factory import EngineFactory
from sage_studio.serving.merge import Merger
from sage_studio.serving.state import ServingState
from sage_studio.serving.types import Base, ChatMessage, EngineRecord, RegisteredModel, SamplingParams
from sage_studio.text import Text

logger = logging.getLogger("sage_studio")

TRIAL = "Hi"
FILES = (CONFIG, WEIGHTS)
FEW_ADAPTERS = 2
"""So many are always kept, whatever the memory."""


class AdapterCache:
    """Adapters by public name -> the engine's name for each, ``name@number``."""

    def __init__(
        self,
        state: ServingState,
        folder: Path,
        outputs: Path,
        factory: EngineFactory,
        merger: Merger,
    ) -> None:
        self._state = state
        self._folder = folder
        self._outputs = outputs
        self._factory = factory
        self._merger = merger

    def check(self, model: RegisteredModel) -> tuple[RegisteredModel, Base]:
        """Check a model's files; an adapter that the engine cannot hold is merged into its base, once.

        Returns:
            the model as it is to be served, and what an engine must be started with for that.

        Raises:
            InvalidModel, InvalidName: what is wrong with them, and the remedy.
            StorageFull, EngineUnavailable: it could not be merged.
        """
        spec = self._factory.for_base(model.path if model.kind == "full" else model.base)
        rank = 0
        if model.kind == "adapter":
            folder = check_path(model.path, self._outputs)
            facts = check_adapter(folder, model.base, spec.kind, spec.max_rank)
            own = needs_own_template(folder, model.base)
            why = ", ".join(filter(None, (facts.merge, "a chat template of its own" if own else "")))
            merged = str(self._merger.merged(model, why)) if why else None
            rank = 0 if why else facts.rank
            model = self._served_as(model, merged)
        elif model.kind == "full":
            check_full_model(check_path(model.path, self._outputs))
            needs_own_template(Path(model.path), model.path)
        return model, replace(engine_base(model), rank=spec.rank_for(rank))

    def check_loadable(self, engine: Engine, model: RegisteredModel) -> None:
        """Check a model that is to be loaded into the engine as it runs; nothing is merged for that.

        Raises:
            InvalidModel, InvalidName: its files cannot be served.
            Conflict: the engine would have to be started for it.
        """
        if is_standalone(model) or engine.record.base.location != model.base:
            raise _other_base(engine.record, model)
        spec = self._factory.of_kind(engine.record.kind)
        facts = check_adapter(check_path(model.path, self._outputs), model.base, spec.kind, spec.max_rank)
        own = needs_own_template(Path(model.path), model.base)
        if facts.merge or own or spec.rank_for(facts.rank) > engine.record.base.rank:
            raise _other_base(engine.record, model)

    def _served_as(self, model: RegisteredModel, merged: str | None) -> RegisteredModel:
        """Note where the merged model lies, or that there is none."""
        if model.config.get("merged") != merged:
            model = replace(model, config={**model.config, "merged": merged})
            self._state.save_model(model)
        return model

    def internal_name(self, engine: Engine, model: RegisteredModel) -> str | None:
        """The engine's own name for a model; None if it does not hold it."""
        if engine.record.kind == "openai":
            return model.name
        if is_standalone(model):
            return engine.record.base.name if engine.record.base.location == engine_base(model).location else None
        number = self._state.adapters(engine.record).get(model.name)
        return _internal(model.name, number) if number is not None else None

    def load(self, engine: Engine, model: RegisteredModel) -> str:
        """Have the engine hold a model, and try it with one short answer.

        Returns:
            the engine's own name for it.

        Raises:
            InvalidModel: the engine refuses it.
            EngineUnavailable: it does not answer with it.
        """
        held = self.internal_name(engine, model)
        if held is not None and not self._changed(engine, model):
            self._probe(engine, model, held)
            return held
        if is_standalone(model) or engine.record.base.location != model.base:
            raise _other_base(engine.record, model)
        older = self._state.adapters(engine.record).get(model.name)
        fresh = self._load(engine, model)
        if older is not None:
            self._drop(engine, model.name, older)
        return fresh

    def unload(self, engine: Engine, name: str) -> None:
        """Unload an adapter, if the engine holds it."""
        number = self._state.adapters(engine.record).get(name)
        if number is not None:
            self._drop(engine, name, number)

    def cleanup(self) -> None:
        """Delete copies left behind by earlier engines. Expects the `SwitchLock` to be held."""
        held = {str(number) for number in self._state.all_adapters()}
        for folder in self._folder.glob("*"):
            if folder.name not in held:
                shutil.rmtree(folder, ignore_errors=True)

    def _load(self, engine: Engine, model: RegisteredModel) -> str:
        number = self._state.new_adapter(engine.record, model.name)
        internal, folder = _internal(model.name, number), self._folder / str(number)
        try:
            _copy(Path(model.path), folder)
            engine.client.load_adapter(internal, folder)
            self._probe(engine, model, internal)
        except BaseException:
            self._drop(engine, model.name, number)
            raise
        self._state.set_adapter(number, folder)
        self._evict(engine, model.name)
        return internal

    def _evict(self, engine: Engine, newest: str) -> None:
        """Evict the least recently used adapters above the engine's limit."""
        held = self._state.adapters(engine.record)
        if len(held) <= FEW_ADAPTERS:
            return
        most = max(FEW_ADAPTERS, self._factory.of_kind(engine.record.kind).adapters_kept(engine.record.base))
        used = {model.name: model.last_used_at or 0.0 for model in self._state.models()}
        idle = sorted(set(held) - {newest, self._state.current()}, key=lambda name: used.get(name, 0.0))
        for name in idle[: max(0, len(held) - most)]:
            logger.info("Unloading %s: %d adapters are loaded, the longest unused one goes", name, len(held))
            self._drop(engine, name, held[name])

    def _probe(self, engine: Engine, model: RegisteredModel, internal: str) -> None:
        if engine.record.kind == "vllm":  # it has the cheaper route, and a switch waits for this under full load
            answered_as, tokens = engine.client.complete(internal, TRIAL)
        else:
            messages: list[ChatMessage] = [{"role": "user", "content": TRIAL}]
            last = list(engine.client.chat(internal, messages, SamplingParams(max_tokens=1, temperature=0)))[-1]
            answered_as, tokens = last.model, last.completion_tokens
        if answered_as != internal or not tokens:
            raise EngineUnavailable(
                Text(
                    "The engine does not answer as {name}, but as {answered_as}.",
                    name=model.name,
                    answered_as=answered_as,
                ),
                Text("Switch again, or restart the studio."),
            )

    def _drop(self, engine: Engine, name: str, number: int) -> None:
        internal = _internal(name, number)
        self._state.drop_adapter(number)
        try:
            engine.client.unload_adapter(internal)
        except EngineDisconnected as error:  # with the engine the adapter is gone too
            logger.warning("%s could not be unloaded: %s", internal, error)
        shutil.rmtree(self._folder / str(number), ignore_errors=True)

    def _changed(self, engine: Engine, model: RegisteredModel) -> bool:
        """Whether an adapter's files are no longer those that the engine loaded."""
        number = self._state.adapters(engine.record).get(model.name)
        if is_standalone(model) or number is None:
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
                Text("{filename} is gone.", filename=error.filename),
                Text("Restore it, or train again."),
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
            "{name} needs the base model {base}, but the engine is running {location}.",
            name=model.name,
            base=model.base,
            location=record.base.location,
        ),
        Text("Switch to it first; the engine then restarts with that base."),
    )
