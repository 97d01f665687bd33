"""Chat router: finds or starts the engine for a model, streams its answer, retries once if the engine was replaced."""

import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace

from sage_studio.errors import Conflict, NotFound
from sage_studio.serving.adapter_cache import AdapterCache
from sage_studio.serving.client import EngineDisconnected
from sage_studio.serving.engine import Engine
from sage_studio.serving.engine_manager import EngineManager
from sage_studio.serving.gpu_sharing import GpuSharing
from sage_studio.serving.state import ServingState
from sage_studio.serving.switch import Switcher, SwitchLock
from sage_studio.serving.types import ChatChunk, ChatMessage, RegisteredModel, SamplingParams
from sage_studio.text import Text

DYING_SECONDS = 2.0
TOUCH_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Route:
    """Who answers: an engine, a model's name in there, and its name for everybody else."""

    engine: Engine
    internal: str
    name: str


class ChatRouter:
    """Streams answers.

    Attributes:
        speed: tokens per second of the last answer; None before the first.
    """

    def __init__(
        self,
        state: ServingState,
        engines: EngineManager,
        adapters: AdapterCache,
        switcher: Switcher,
        switch_lock: SwitchLock,
        gpu_sharing: GpuSharing,
    ) -> None:
        self._state = state
        self._engines = engines
        self._adapters = adapters
        self._switcher = switcher
        self._switch_lock = switch_lock
        self._gpu_sharing = gpu_sharing
        self._touched: dict[str, float] = {}
        self.speed: float | None = None

    def stream(
        self, name: str | None, messages: Sequence[ChatMessage], sampling: SamplingParams
    ) -> Generator[ChatChunk, None, None]:
        """Bring up the engine and the model if they are not there, then answer. See `VLLMRegistry.stream`.

        Args:
            name: a registered model; None for the one that is current when the engine is free to answer.
        """
        return self._answer(self._route(name), name, messages, sampling)

    def _route(self, requested: str | None) -> Route:
        """The engine that answers for a model, and the model's name in there."""
        name = self._name(requested)
        engine = self._engines.running()
        internal = self._adapters.internal_name(engine, self._model(name)) if engine is not None else None
        if engine is not None and internal is not None:
            return Route(engine, internal, name)
        self._gpu_sharing.wait_until_free()
        with self._switch_lock.hold():
            return self._prepared(self._name(requested))

    def _prepared(self, name: str) -> Route:
        """Have the engine hold a model. Only the current one may change which base it runs."""
        engine = self._engines.running() or self._switcher.ensure_running(self._model(name))
        model = self._model(name)
        if self._adapters.internal_name(engine, model) is None:
            if name == self._state.current():
                model, base = self._adapters.check(model)
                self._switcher.switch_to(model, base)
                engine = self._engines.running() or engine
            else:
                self._adapters.check_loadable(engine, model)
        return Route(engine, self._adapters.load(engine, model), name)

    def _answer(
        self, route: Route, requested: str | None, messages: Sequence[ChatMessage], sampling: SamplingParams
    ) -> Generator[ChatChunk, None, None]:
        self._touch(route.name)
        try:
            yield from self._chunks(route, messages, sampling)
        except EngineDisconnected as error:
            if error.answered or not self._replaced(route.engine):
                raise
            yield from self._chunks(self._route(requested), messages, sampling)

    def _chunks(self, route: Route, messages: Sequence[ChatMessage], sampling: SamplingParams) -> Iterator[ChatChunk]:
        for chunk in route.engine.client.chat(route.internal, messages, sampling):
            if chunk.done and chunk.tokens_per_second is not None:
                self.speed = chunk.tokens_per_second
            # Only the name that was asked for has a public form: any other is shown as the server said it.
            yield replace(chunk, model=route.name) if chunk.model == route.internal else chunk

    def _replaced(self, engine: Engine) -> bool:
        """Whether the engine that broke off is dead or no longer the one in use; a dying one is waited for."""
        deadline = time.monotonic() + DYING_SECONDS
        while time.monotonic() < deadline:
            if self._engines.running() is not engine:
                return True
            time.sleep(0.05)
        return False

    def _touch(self, name: str) -> None:
        """Note the use of a model, at most once a minute: an answer needs no write to the disk."""
        now = time.monotonic()
        if now - self._touched.get(name, -TOUCH_SECONDS) >= TOUCH_SECONDS:
            self._touched[name] = now
            self._state.touch(name)

    def _name(self, requested: str | None) -> str:
        name = requested or self._state.current()
        if name is None:
            raise Conflict(
                Text("No model is selected.", "尚未选择当前模型。"),
                Text("Call switch_model first, or name a model.", "请先切换到某个模型，或指定模型。"),
            )
        return name

    def _model(self, name: str) -> RegisteredModel:
        found = self._state.model(name)
        if found is None:
            raise not_registered(name, self._state.models())
        return found


def not_registered(name: str, models: Sequence[RegisteredModel]) -> NotFound:
    """The error for a name that is not registered."""
    known = ", ".join(model.name for model in models)
    return NotFound(
        Text(f"No model is registered as {name!r}.", f"没有注册名为 {name!r} 的模型。"),
        Text(f"Registered: {known or 'none'}.", f"已注册：{known or '无'}。"),
    )
