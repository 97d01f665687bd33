"""Which model answers: the models of this machine, the current one, and answers from any of them.

One instance per process (`sage_studio.serving.vllm_registry`), one truth per machine (``studio.db``). Knows the models
and the rules about them; knows nothing of tasks, widgets or routes.
"""

import atexit
import logging
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sage_studio.database import Database
from sage_studio.errors import Conflict, InvalidInput
from sage_studio.hardware import Hardware, detect_hardware
from sage_studio.serving.answers import not_registered
from sage_studio.serving.choice import EngineChoice
from sage_studio.serving.describe import base_of, check_unused, describe_model
from sage_studio.serving.house import House
from sage_studio.serving.keeping import adopt, base_name, close
from sage_studio.serving.sampling import check_sampling
from sage_studio.serving.status import describe_engine
from sage_studio.serving.types import ChatChunk, ChatMessage, EngineStatus, RegisteredModel
from sage_studio.settings import Settings, load_settings
from sage_studio.text import Text

logger = logging.getLogger("sage_studio")


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
        self._configured: House | None = None
        self._configuring = threading.RLock()
        self._switching_to = ""

    # Life

    def configure(
        self,
        settings: Settings,
        database: Database,
        choose: Callable[[], EngineChoice] | None = None,
        look: Callable[[], Hardware] = detect_hardware,
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
            self._configured = House(settings, database, choose, look)
            self._switching_to = ""

    def adopt(self) -> None:
        """Take over the engine that an earlier studio left running, if any; then the base model is current.

        With ``restore_backend`` the model that was current stays so.
        """
        adopt(self._house)

    def close(self) -> None:
        """Stop the engine if this process started or adopted it, unless ``keep_engine``."""
        if self._configured is not None and self._configured.settings.database_path.exists():
            close(self._configured)

    def before_training(self, cards: Sequence[int] | None = None) -> None:
        """A training is about to start: free its GPUs, if the engine holds one of them. Without a GPU nothing happens.

        Args:
            cards: indices of the GPUs that it uses, as `nvidia-smi` counts; None: unknown, so all of them.

        Raises:
            Conflict: the model is being switched; ask again when that is over.
        """
        self._house.sharing.before_training(cards)

    def after_training(self) -> None:
        """The last training is over: the engine is back with the model that was current, if it had to yield."""
        self._house.sharing.after_training()

    def engine_memory(self, yielding: bool = False) -> dict[int, float]:
        """What the engine holds of each GPU now, in GiB by index; empty while none runs.

        Args:
            yielding: only what a training would get: a sleeping engine keeps a little.
        """
        house = self._house
        held = house.life.held()
        return house.sharing.given_back(held) if yielding else held

    def engine_cards(self) -> tuple[int, ...]:
        """Indices of the GPUs that the engine uses; a training had better take others. Empty while none runs."""
        engine = self._house.life.recorded()
        return engine.record.cards if engine is not None and engine.alive() else ()

    def retry_vllm(self) -> EngineStatus:
        """Try vLLM again where it did not start before: now if the other engine serves a model, else at the next start.

        Raises:
            Conflict: a training has all GPUs.
            InvalidModel, EngineUnavailable: neither engine starts. If only vLLM does not, the other one serves again.
        """
        house = self._house
        house.sharing.refuse()
        with house.turn.taken():
            house.state.clear_refusals()
            engine, name = house.life.running(), house.state.current()
            if engine is not None and name is not None and engine.record.kind != house.chooser.configured().kind:
                house.switcher.restart(*house.shelf.check(self._require(name)))
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
        house = self._house
        model = describe_model(model_name, model_path, config or {}, house.settings.outputs_dir)
        house.state.save_model(model)
        if model.kind in ("adapter", "full") and house.state.model(str(model.config["base_name"])) is None:
            house.state.save_model(base_of(model))
        logger.info("Registered model: %s", model_name)
        return self._require(model_name)

    def unregister_model(self, model_name: str) -> None:
        """Forget a model; its files stay.

        Raises:
            NotFound: it is not registered.
            Conflict: it is the one that answers now, or a tuned model stands on it.
        """
        house = self._house
        with house.turn.taken():
            model = self._require(model_name)
            engine = house.life.running()
            check_unused(model, house.state.models(), running=engine is not None)
            if engine is not None:
                house.shelf.take_down(engine, model_name)
            if model.current:
                house.state.set_current(None)
            house.state.delete_model(model_name)

    def unload_model(self, model_name: str) -> RegisteredModel:
        """Take an adapter out of the engine; it stays registered and is loaded again when it is next asked.

        Raises:
            NotFound: it is not registered.
            Conflict: it is the one that answers now, or what the engine was started with.
        """
        house = self._house
        with house.turn.taken():
            model = self._require(model_name)
            if model.current or (model.loaded and model.kind != "adapter"):
                raise Conflict(
                    Text(f"{model_name} is in use by the engine.", f"{model_name} 正被引擎使用。"),
                    Text("Switch to another model first.", "请先切换到其他模型。"),
                )
            engine = house.life.running()
            if engine is not None:
                house.shelf.take_down(engine, model_name)
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
        house = self._house
        self._require(model_name)
        house.sharing.refuse()
        with house.turn.taken():
            model = self._require(model_name)
            self._switching_to = model_name
            try:
                logger.info("Loading model from %s", model.path)
                house.switcher.bring_in(*house.shelf.check(model))
                house.state.set_current(model_name)
            finally:
                self._switching_to = ""
            logger.info("Switched to model: %s", model_name)
            return self._require(model_name)

    def models(self) -> list[RegisteredModel]:
        """Every registered model, oldest first."""
        return self._marked(self._house.state.models())

    @property
    def current_model(self) -> RegisteredModel | None:
        """The model that answers when none is named; it need not be loaded yet."""
        name = self._house.state.current()
        found = self._house.state.model(name) if name is not None else None
        return self._marked([found])[0] if found is not None else None

    def base_name(self) -> str | None:
        """The name of the base model that the current one, or else the running engine, stands on."""
        return base_name(self._house)

    # Answers

    def generate(self, prompt: str | Sequence[ChatMessage], model: str | None = None, **sampling: Any) -> str:
        """A whole answer.

        Args:
            prompt: a question, or a conversation.
            model: a registered model; None for the current one.
            sampling: see `sage_studio.serving.sampling.Sampling`.

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
            raise InvalidInput(Text("The message is empty.", "消息为空。"), Text("Type something.", "请输入内容。"))
        return self._house.answers.stream(model or None, messages, checked)

    def status(self) -> EngineStatus:
        """What the engine is doing. Cheap enough to ask every second."""
        house = self._house
        doing = house.merger.message
        return describe_engine(house.life, house.state, house.chooser, self._switching_to, doing, house.answers.speed)

    def metrics(self) -> dict[str, float]:
        """The engine's own figures now, by vLLM's names; empty while none runs."""
        engine = self._house.life.running()
        return engine.metrics() if engine is not None else {}

    # Below: how

    @property
    def _house(self) -> House:
        with self._configuring:
            if self._configured is None:
                settings = load_settings()
                self.configure(settings, Database(settings.database_path))
            if self._configured is None:
                raise RuntimeError("configure() did not configure")
            return self._configured

    def _require(self, name: str) -> RegisteredModel:
        found = self._house.state.model(name)
        if found is None:
            raise not_registered(name, self._house.state.models())
        return self._marked([found])[0]

    def _marked(self, models: Sequence[RegisteredModel]) -> list[RegisteredModel]:
        house = self._house
        engine = house.life.running()
        current = house.state.current()
        return [
            replace(
                model,
                current=model.name == current,
                loaded=engine is not None and house.shelf.internal_name(engine, model) is not None,
            )
            for model in models
        ]
