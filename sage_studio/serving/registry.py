"""The model registry: registered models, the current one, and answers from any of them.

One instance per process (`sage_studio.serving.vllm_registry`), one truth per machine (``studio.db``).
"""

import atexit
import logging
import os
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sage_studio.data.jobs import Running
from sage_studio.database import Database
from sage_studio.errors import Conflict, InvalidInput, NotFound, StudioError
from sage_studio.hardware import Hardware, detect_hardware
from sage_studio.serving.adapter_cache import AdapterCache
from sage_studio.serving.adapter_compat import base_of, check_removable, make_registered_model
from sage_studio.serving.capacity import without_gpus
from sage_studio.serving.client import EngineDisconnected
from sage_studio.serving.engine import Engine, ExternalEngine, external_record
from sage_studio.serving.engine_factory import EngineFactory, EngineSpec, choose_engine
from sage_studio.serving.engine_manager import EngineManager
from sage_studio.serving.gpu_sharing import PAUSED, GpuSharing
from sage_studio.serving.merge import MergeQueue, Merger
from sage_studio.serving.metrics import MetricsEndpoint
from sage_studio.serving.state import ServingState
from sage_studio.serving.switch import EngineWatchdog, Switcher, SwitchLock
from sage_studio.serving.types import (
    Base,
    ChatChunk,
    ChatMessage,
    EngineRecord,
    EngineState,
    EngineStatus,
    RegisteredModel,
    SamplingParams,
    check_sampling,
)
from sage_studio.settings import Settings, load_settings
from sage_studio.text import NOTHING, Text

logger = logging.getLogger("sage_studio")

# Which model answers

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
                Text("No model is selected."),
                Text("Call switch_model first, or name a model."),
            )
        return name

    def _model(self, name: str) -> RegisteredModel:
        found = self._state.model(name)
        if found is None:
            raise not_registered(name, self._state.models())
        return found


def not_registered(name: str, models: Sequence[RegisteredModel]) -> NotFound:
    """The error for a name that is not registered."""
    known = [model.name for model in models]
    return NotFound(
        Text("No model is registered as {name!r}.", name=name),
        Text("Registered: {known}.", known=known) if known else Text("No model is registered."),
    )


# The parts wired together

CLOSE_SECONDS = 20.0


class ServingComponents:
    """Everything that a configured registry works with.

    Args:
        choose: which engine to use and how to start it; None: what `choose_engine` finds.
        detect: what the machine has now.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        choose: Callable[[], EngineSpec] | None,
        detect: Callable[[], Hardware],
    ) -> None:
        self.settings = settings
        self.detect = detect
        self.state = ServingState(database)
        self.factory = EngineFactory(
            self.state,
            choose or (lambda: choose_engine(settings, self.engine_hardware)),
            self.engine_hardware,
            lambda: self.engines.gpu_memory_gb(),
        )
        self.engines = EngineManager(settings, self.state, self.factory, self.engine_hardware)
        folder, outputs = self.engines.folder, settings.outputs_dir
        self.merger = Merger(folder, outputs, 2 * settings.engine_start_seconds)
        self.adapters = AdapterCache(self.state, folder / "adapters", outputs, self.factory, self.merger)
        self.switcher = Switcher(self.state, self.engines, self.adapters)
        self.switch_lock = SwitchLock(folder / "switch.lock", 4 * settings.engine_start_seconds + 60)
        self.gpu_sharing = GpuSharing(settings, self.state, self.engines, self.adapters, self.switch_lock, detect)
        self.router = ChatRouter(
            self.state, self.engines, self.adapters, self.switcher, self.switch_lock, self.gpu_sharing
        )
        self.watchdog = EngineWatchdog(self.state, self.engines, self.switcher, self.switch_lock)

    def engine_hardware(self) -> Hardware:
        """What an engine may use now: the machine without the GPUs that trainings have."""
        return without_gpus(self.detect(), self.state.training_gpus())

    def base_name(self) -> str | None:
        """The name of the base model of the current model, or else of the running engine."""
        name = self.state.current()
        current = self.state.model(name) if name is not None else None
        if current is not None:
            return current.name if current.kind in ("base", "external") else str(current.config["base_name"])
        engine = self.engines.recorded()
        return engine.record.base.name if engine is not None else None

    def adopt(self) -> None:
        """Take over the engine that an earlier studio left running, and start the watchdog."""
        with self.switch_lock.hold():
            self.engines.stop_others()  # a studio was killed in the middle of a switch
            engine = self.engines.recorded()
            if engine is not None and not (engine.alive() and self.engines.matches_settings(engine)):
                self.engines.stop()  # also ends what a killed engine left behind on the GPU
                engine = None
            self.state.set_keeper(os.getpid())
            if engine is not None:
                self.state.set_owner(engine.record, os.getpid())
                logger.info("Adopted the %s engine at %s", engine.record.kind, engine.record.url)
            self.state.clear_failure()
            if not self.settings.restore_backend:
                self.state.set_current(self.base_name())
            if self.settings.engine == "openai":
                self._register_external_models()
        self.watchdog.start()

    def close(self) -> None:
        """Stop the engine if this process started or adopted it, unless ``keep_engine``; also one that is starting."""
        self.watchdog.stop()
        if self.state.keeper() == os.getpid():
            self.state.set_keeper(None)
        if self.settings.keep_engine:
            return
        self.engines.closing.set()
        self.merger.close()
        self._stop_own_engines()  # whoever starts one now holds the lock, and releases it when the engine is gone
        try:
            with self.switch_lock.hold(seconds=CLOSE_SECONDS):
                self._stop_own_engines()
                self.engines.closing.clear()
                self.merger.open()
        except Conflict:
            logger.warning("A change of the model did not end; what it starts is stopped")

    def _stop_own_engines(self) -> None:
        engine = self.engines.recorded()
        if engine is not None and engine.record.owner_pid == os.getpid():
            self.engines.stop()
        self.engines.stop_others(owner=os.getpid())

    def _register_external_models(self) -> None:
        """Register what an external server serves; the first is current. No answer is not an error yet."""
        settings = self.settings
        probe = external_record(
            self.factory.configured().kind, Base("", ""), settings.engine_url, settings.engine_api_key
        )
        client = ExternalEngine(probe).client
        names = client.models(quick=True)
        client.close()
        for name in names:
            self.state.save_model(make_registered_model(name, name, {"kind": "external"}, settings.outputs_dir))
        if names:
            self.engines.start(Base(names[0], names[0]))
            if self.state.current() not in names:
                self.state.set_current(names[0])


# The registry


class VLLMRegistry:
    """The models that can answer, and the one that does.

    Example:
        >>> from sage_studio.serving import vllm_registry
        >>> vllm_registry.register_model("mine", "/home/me/adapter", {"base": "/home/me/base"})  # doctest: +SKIP
        >>> vllm_registry.switch_model("mine").current                                           # doctest: +SKIP
        True
        >>> vllm_registry.generate("What is SAGE?", max_tokens=64)                               # doctest: +SKIP
        'SAGE is …'
    """

    def __init__(self) -> None:
        self._configured: ServingComponents | None = None
        self._configuring = threading.RLock()
        self._switching_to = ""

    # Life

    def configure(
        self,
        settings: Settings,
        database: Database,
        choose: Callable[[], EngineSpec] | None = None,
        detect: Callable[[], Hardware] = detect_hardware,
    ) -> None:
        """Say which home to work in. Without it the first use takes `load_settings`.

        Args:
            settings: the studio's.
            database: ``studio.db``.
            choose: which engine to use and how to start it; None: what `choose_engine` finds.
            look: what the machine has now.
        """
        with self._configuring:
            if self._configured is None:
                atexit.register(self.close)
            self._configured = ServingComponents(settings, database, choose, detect)
            self._switching_to = ""

    def adopt(self) -> None:
        """Take over the engine that an earlier studio left running, if any; then the base model is current.

        With ``restore_backend`` the model that was current stays so.
        """
        self._components.adopt()

    def close(self) -> None:
        """Stop the engine if this process started or adopted it, unless ``keep_engine``."""
        if self._configured is not None and self._configured.settings.database_path.exists():
            self._configured.close()

    def before_training(self, gpus: Sequence[int] | None = None) -> None:
        """A training is about to start: free its GPUs, if the engine holds one of them. Without a GPU nothing happens.

        Args:
            gpus: indices of the GPUs that it uses, as `nvidia-smi` counts; None: unknown, so all of them.

        Raises:
            Conflict: the model is being switched; ask again when that is over.
        """
        self._components.gpu_sharing.before_training(gpus)

    def after_training(self) -> None:
        """Restore the engine after the last training, with the model that was current, if it had released its GPUs."""
        self._components.gpu_sharing.after_training()

    def engine_memory(self, for_training: bool = False) -> dict[int, float]:
        """What the engine holds of each GPU now, in GiB by index; empty while none runs.

        Args:
            for_training: only what a training would get: a sleeping engine keeps a little.
        """
        components = self._components
        held = components.engines.gpu_memory_gb()
        return components.gpu_sharing.released_to_training(held) if for_training else held

    def engine_gpus(self) -> tuple[int, ...]:
        """Indices of the GPUs that the engine uses; a training had better take others. Empty while none runs."""
        engine = self._components.engines.recorded()
        return engine.record.gpus if engine is not None and engine.alive() else ()

    def retry_vllm(self) -> EngineStatus:
        """Try vLLM again where it did not start before: now if the other engine serves a model, else at the next start.

        Raises:
            Conflict: a training has all GPUs.
            InvalidModel, EngineUnavailable: neither engine starts. If only vLLM does not, the other one serves again.
        """
        components = self._components
        components.gpu_sharing.refuse()
        with components.switch_lock.hold():
            components.state.clear_refusals()
            engine, name = components.engines.running(), components.state.current()
            if engine is not None and name is not None and engine.record.kind != components.factory.configured().kind:
                components.switcher.restart(*components.adapters.check(self._require(name)))
        return self.status()

    # Models

    def register_model(
        self, model_name: str, model_path: str, config: Mapping[str, Any] | None = None
    ) -> RegisteredModel:
        """Make a model known, or replace the one of that name. Nothing is loaded yet.

        Args:
            model_name: what clients ask for.
            model_path: its folder; for a base model a hub id will do.
            config: ``kind`` (base, adapter or full), ``base`` and ``base_name`` of what it was tuned from,
                ``trust_remote_code``, ``task_id``. What is left out is read from the folder.

        Raises:
            InvalidName, InvalidModel: naming what to correct.
        """
        components = self._components
        model = make_registered_model(model_name, model_path, config or {}, components.settings.outputs_dir)
        components.state.save_model(model)
        if model.kind in ("adapter", "full") and components.state.model(str(model.config["base_name"])) is None:
            components.state.save_model(base_of(model))
        logger.info("Registered model: %s", model_name)
        return self._require(model_name)

    def unregister_model(self, model_name: str) -> None:
        """Forget a model; its files stay.

        Raises:
            NotFound: it is not registered.
            Conflict: it is the one that answers now, or the base of another.
        """
        components = self._components
        with components.switch_lock.hold():
            model = self._require(model_name)
            engine = components.engines.running()
            check_removable(model, components.state.models(), running=engine is not None)
            if engine is not None:
                components.adapters.unload(engine, model_name)
            if model.current:
                components.state.set_current(None)
            components.state.delete_model(model_name)

    def unload_model(self, model_name: str) -> RegisteredModel:
        """Take an adapter out of the engine; it stays registered and is loaded again when it is next asked.

        Raises:
            NotFound: it is not registered.
            Conflict: it is the one that answers now, or what the engine was started with.
        """
        components = self._components
        with components.switch_lock.hold():
            model = self._require(model_name)
            if model.current or (model.loaded and model.kind != "adapter"):
                raise Conflict(
                    Text("{model_name} is in use by the engine.", model_name=model_name),
                    Text("Switch to another model first."),
                )
            engine = components.engines.running()
            if engine is not None:
                components.adapters.unload(engine, model_name)
        return self._require(model_name)

    def switch_model(self, model_name: str) -> RegisteredModel:
        """Make a model the one that answers; the engine is started or changed as needed. One switch at a time.

        Answers under way finish on the model that they began with. After a failure the model before it is current
        again.

        Raises:
            NotFound: it is not registered.
            InvalidModel, InvalidName: its files cannot be served; nothing was changed.
            EngineUnavailable: the engine did not start or did not load it.
        """
        components = self._components
        self._require(model_name)
        components.gpu_sharing.refuse()
        with components.switch_lock.hold():
            model = self._require(model_name)
            self._switching_to = model_name
            try:
                logger.info("Loading model from %s", model.path)
                components.switcher.switch_to(*components.adapters.check(model))
                components.state.set_current(model_name)
            finally:
                self._switching_to = ""
            logger.info("Switched to model: %s", model_name)
            return self._require(model_name)

    def models(self) -> list[RegisteredModel]:
        """Every registered model, oldest first."""
        return self._marked(self._components.state.models())

    @property
    def current_model(self) -> RegisteredModel | None:
        """The model that answers when none is named; it need not be loaded yet."""
        name = self._components.state.current()
        found = self._components.state.model(name) if name is not None else None
        return self._marked([found])[0] if found is not None else None

    def base_name(self) -> str | None:
        """The name of the base model of the current model, or else of the running engine."""
        return self._components.base_name()

    # Merges

    def queue_merges(self, queue: MergeQueue) -> None:
        """Have adapters that the engine cannot hold merged by tasks of the studio; without it, at once."""
        self._components.merger.queue = queue

    def merge(self, running: Running) -> str:
        """Do such a task: merge an adapter into its base. Returns the folder; raises as `Merger.work`."""
        return self._components.merger.work(running)

    # Answers

    def generate(self, prompt: str | Sequence[ChatMessage], model: str | None = None, **sampling: Any) -> str:
        """A whole answer.

        Args:
            prompt: a question, or a conversation.
            model: a registered model; None for the current one.
            sampling: see `sage_studio.serving.types.SamplingParams`.

        Raises:
            As `stream`.
        """
        messages = [ChatMessage(role="user", content=prompt)] if isinstance(prompt, str) else prompt
        return "".join(chunk.text for chunk in self.stream(messages, model, **sampling))

    def stream(
        self, messages: Sequence[ChatMessage], model: str | None = None, **sampling: Any
    ) -> Generator[ChatChunk, None, None]:
        """An answer piece by piece; closing the iterator ends it in the engine. The engine is started if it is down.

        Raises:
            InvalidInput: an option out of bounds, an empty conversation, or (at the first piece) one that is too long.
            NotFound: no such model.
            Conflict: it needs another base than the one that runs.
            EngineUnavailable: the engine is down and stays so, or broke off in the middle.
        """
        checked = check_sampling(sampling)
        if not messages or not all(message.get("content", "").strip() for message in messages[-1:]):
            raise InvalidInput(Text("The message is empty."), Text("Type something."))
        return self._components.router.stream(model or None, messages, checked)

    def status(self) -> EngineStatus:
        """What the engine is doing. Cheap enough to ask every second."""
        return _describe_engine(self._components, self._switching_to)

    def metrics(self) -> dict[str, float]:
        """The engine's own figures now, by vLLM's names; empty while none runs."""
        engine = self._components.engines.running()
        return engine.client.metrics() if engine is not None else {}

    def metrics_endpoint(self) -> MetricsEndpoint | None:
        """Where the engine tells its figures; None while none runs."""
        engine = self._components.engines.running()
        return MetricsEndpoint(engine.record.url, engine.record.key) if engine is not None else None

    # Internals

    @property
    def _components(self) -> ServingComponents:
        with self._configuring:
            if self._configured is None:
                settings = load_settings()
                self.configure(settings, Database(settings.database_path))
            if self._configured is None:
                raise RuntimeError("configure() did not configure")
            return self._configured

    def _require(self, name: str) -> RegisteredModel:
        found = self._components.state.model(name)
        if found is None:
            raise not_registered(name, self._components.state.models())
        return self._marked([found])[0]

    def _marked(self, models: Sequence[RegisteredModel]) -> list[RegisteredModel]:
        components = self._components
        engine = components.engines.running()
        current = components.state.current()
        return [
            replace(
                model,
                current=model.name == current,
                loaded=engine is not None and components.adapters.internal_name(engine, model) is not None,
            )
            for model in models
        ]


# Status, from what is on record: no request is sent


def _describe_engine(components: ServingComponents, switching_to: str) -> EngineStatus:
    """What the engine is doing; ``switching_to`` is the model that this process switches to, empty if none."""
    engines, state, factory = components.engines, components.state, components.factory
    engine = engines.recorded()
    current, kind, merging = state.current() or "", _configured_kind(factory), components.merger.message
    if state.paused() is not None:
        return EngineStatus(EngineState.ASLEEP, kind, current=current, message=PAUSED, log_path=engines.log)
    if engine is None and merging:
        return EngineStatus(EngineState.SWITCHING, kind, current=current, message=merging, log_path=engines.log)
    if engine is None:
        failure = state.failure()
        return EngineStatus(
            EngineState.DOWN if failure is None else EngineState.FAILED,
            kind,
            "" if failure is None else failure.base,
            current,
            message=NOTHING if failure is None else failure.message,
            log_path=engines.log,
            vllm_refused=state.is_refused(),
        )
    record = engine.record
    phase, message = _phase(engine, engines, switching_to)
    incoming = engines.incoming()
    starts = incoming or record
    fallback = _fallback_reason(factory, record)
    starting = phase is EngineState.STARTING or (incoming is not None and phase is EngineState.SWITCHING)
    return EngineStatus(
        state=phase,
        engine=record.kind,
        base=record.base.name,
        current=current,
        url=record.url,
        seconds=max(0.0, time.time() - starts.started_at) if starting else 0.0,
        expected_seconds=state.expected_seconds(starts.kind, starts.base.location),
        tokens_per_second=components.router.speed,
        message=message or merging or fallback,
        form=record.form,
        vllm_refused=bool(fallback) and state.is_refused(record.base.location),
        log_path=engines.log if record.pid is not None else None,
    )


def _phase(engine: Engine, engines: EngineManager, switching_to: str) -> tuple[EngineState, Text]:
    if not engine.alive():
        return EngineState.FAILED, engines.crash(engine).message
    if engine.record.phase == "starting":
        return EngineState.STARTING, NOTHING
    if engine.record.phase == "draining" or switching_to:
        return EngineState.SWITCHING, NOTHING
    return EngineState.READY, NOTHING


def _fallback_reason(factory: EngineFactory, record: EngineRecord) -> Text:
    try:
        return factory.fallback_reason(record.kind, record.base.location)
    except StudioError:
        return NOTHING


def _configured_kind(factory: EngineFactory) -> str:
    try:
        return factory.configured().kind
    except StudioError:
        return ""
