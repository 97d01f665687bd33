"""Which model answers: the engine, the registered models, and switching between them."""

import logging
import os
import shutil
import threading
from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sage_studio.catalog import Catalog
from sage_studio.database import Database
from sage_studio.errors import Conflict, InvalidModel, NotFound, StudioError
from sage_studio.hardware import detect_hardware
from sage_studio.services.models import ModelService
from sage_studio.serving.metrics import MetricsEndpoint, MetricsSampler, Sample
from sage_studio.serving.registry import VLLMRegistry
from sage_studio.serving.types import ChatChunk, ChatMessage, EngineState, EngineStatus, RegisteredModel
from sage_studio.settings import PREFIX, Settings
from sage_studio.tasks.background import BackgroundTasks, Resource
from sage_studio.tasks.scheduler import TaskScheduler
from sage_studio.tasks.store import TaskStore
from sage_studio.text import NOTHING, Text
from sage_studio.training.recipes import RECIPES

logger = logging.getLogger("sage_studio")


class ServingService:
    """The chat engine and the models that it can serve."""

    def __init__(
        self,
        settings: Settings,
        catalog: Catalog,
        registry: VLLMRegistry,
        models: ModelService,
        tasks: TaskStore,
        scheduler: TaskScheduler,
        database: Database,
        background: BackgroundTasks,
    ) -> None:
        self._settings = settings
        self._catalog = catalog
        self.registry = registry
        self._models = models
        self._tasks = tasks
        self._scheduler = scheduler
        self._database = database
        self._background = background
        background.register("merge", registry.merge, Resource.MEMORY, restarts=True)
        registry.queue_merges(self)
        self.sampler = MetricsSampler(self._metrics_address, lambda: detect_hardware().gpus)

    # Which model

    def use_task(self, task_id: str) -> RegisteredModel:
        """Serve a completed task's model from the next message on.

        Raises:
            Conflict: the task is not completed, or its model does not write text.
            NotFound: its folder is gone.
            EngineUnavailable: the engine did not load it; the model before it is current again.
        """
        task = self._tasks.completed(task_id)
        if RECIPES[task.type].model_task != "generative":
            raise Conflict(
                Text("{id} is an embedder and cannot chat.", id=task.id),
                Text("Set it as the retriever instead."),
            )
        result = self._scheduler.progress(task).result
        base = self._models.ensure(task.model)
        kind = result.model_kind if result is not None and result.model_kind is not None else "adapter"
        self.registry.register_model(
            task.served_name,
            str(task.folder),
            {
                "kind": kind,
                "base": base.location,
                "base_name": base.name,
                "task_id": task.id,
                "trust_remote_code": base.trust_remote_code,
            },
        )
        return self.switch(task.served_name)

    def switch(self, name: str) -> RegisteredModel:
        """Serve a registered model, or a base model of the catalogue or the hub.

        A hub model that is not on this machine is downloaded first; meanwhile `status` reports how far it is. The
        time limit for a start begins after that.

        Raises:
            InvalidModel, HubUnavailable, StorageFull: why it could not be downloaded.
            Conflict: the download was cancelled. EngineUnavailable: the engine did not load it.
        """
        if not any(model.name == name for model in self.registry.models()):
            self._register_base(name)
        self._fetch(self._named(name))
        model = self.registry.switch_model(name)
        os.environ[f"{PREFIX}LLM_MODEL"] = model.name
        os.environ[f"{PREFIX}LLM_PATH"] = model.path
        os.environ[f"{PREFIX}LLM_BASE_URL"] = self.registry.status().url
        return model

    def use_base(self) -> RegisteredModel:
        """Back to the base model of the running engine, or to the default one. Raises as `switch`."""
        return self.switch(self.registry.base_name() or self._models.default())

    def models(self) -> list[RegisteredModel]:
        """Every model that can answer: base models, tuned models and external ones."""
        return self.registry.models()

    def unload(self, name: str) -> RegisteredModel:
        """Unload a tuned model from the engine; it stays registered and is loaded again when it is next asked.

        Raises:
            NotFound: it is not registered.
            Conflict: it answers the chat now, or it is what the engine was started with.
        """
        return self.registry.unload_model(name)

    def forget(self, name: str) -> None:
        """Unregister a model. Its files stay, unless they are a copy that the studio merged for serving it.

        Raises:
            NotFound: it is not registered.
            Conflict: it is the current one, or others depend on it.
        """
        model = self._named(name)
        if model.current:
            raise Conflict(
                Text("{name} is the current model.", name=name),
                Text("Switch to another model first."),
            )
        self.registry.unregister_model(name)
        if _is_merged_copy(model, self._settings.outputs_dir):
            shutil.rmtree(model.path)

    # The engine

    def start_engine(self) -> None:
        """Start the engine in the background, with the current or the default model, unless it runs already."""
        if self.registry.status().state not in (EngineState.DOWN, EngineState.FAILED):
            return
        threading.Thread(target=self._start_engine, name="start-engine", daemon=True).start()

    def retry_vllm(self) -> EngineStatus:
        """Try vLLM again after it failed to start and the transformers engine took its place. If no engine runs, one
        is started in the background.

        Raises:
            Conflict: a training has all GPUs.
            InvalidModel, EngineUnavailable: neither engine starts.
        """
        self.registry.retry_vllm()
        self.start_engine()
        return self.registry.status()

    def status(self) -> EngineStatus:
        """What the engine is doing, or how far the download of its model is."""
        status = self.registry.status()
        waited = [each.transfer for each in self._models.awaited()]
        idle = status.state in (EngineState.DOWN, EngineState.FAILED)
        if waited and idle:
            return replace(status, state=EngineState.DOWNLOADING, message=NOTHING, download=waited[0])
        if waited:
            return replace(status, download=waited[0])
        error = self._models.not_fetched
        if error is not None and status.state is EngineState.DOWN:
            message = Text("{message} {hint}", message=error.message, hint=error.hint)
            return replace(status, state=EngineState.FAILED, message=message)
        return status

    def metrics(self) -> list[Sample]:
        """Engine metrics of the last ten minutes, oldest first."""
        return self.sampler.samples()

    def after_training(self) -> None:
        """Give the engine its GPU back once no training runs or waits. Returns at once."""
        if not self._tasks.training() and not self._tasks.queue():
            threading.Thread(target=self._bring_engine_back, name="engine-back", daemon=True).start()

    # Answers

    def answer(
        self, messages: Sequence[ChatMessage], model: str | None = None, **sampling: Any
    ) -> Generator[ChatChunk, None, None]:
        """Stream an answer; the engine is started first if it is down. Closing the generator ends the request.

        Args:
            messages: the conversation, the user's message last.
            model: a registered model; None for the current one.
            sampling: ``temperature``, ``top_p``, ``max_tokens``, ``seed``, ``stop``.

        Raises:
            EngineUnavailable, NotFound, InvalidInput: before the first chunk.
        """
        current = self.registry.current_model or self.switch(self._models.default())
        self._fetch(self._named(model or current.name))
        return self.registry.stream(messages, model=model, **sampling)

    def answer_by(
        self, messages: Sequence[ChatMessage], model: str, **sampling: Any
    ) -> Generator[ChatChunk, None, None]:
        """As `answer`, by a registered model that is named; no other engine is started for it."""
        self._fetch(self._named(model))
        return self.registry.stream(messages, model=model, **sampling)

    def current_name(self) -> str:
        """The name of the model that answers; the default one is switched to if there is none. Raises as `switch`."""
        return (self.registry.current_model or self.switch(self._models.default())).name

    def ask(self, prompt: str, temperature: float, max_tokens: int) -> str:
        """The current model's whole answer to one message, for work that asks many. Raises as `answer`."""
        message: ChatMessage = {"role": "user", "content": prompt}
        return "".join(chunk.text for chunk in self.answer([message], temperature=temperature, max_tokens=max_tokens))

    def merge(self, order: Mapping[str, Any]) -> None:
        """Merge an adapter into its base by a task of the kind ``merge``, and wait for its end; see `MergeQueue`."""
        self._background.finish("merge", order)

    # Inside

    def _bring_engine_back(self) -> None:
        try:
            self.registry.after_training()
        except StudioError as error:
            logger.error("The engine did not come back: %s", error)
        self._database.close()  # this thread's connection

    def _start_engine(self) -> None:
        current = self.registry.current_model
        try:
            self.switch(current.name if current is not None else self._models.default())
        except StudioError as error:  # `status` reports it
            logger.error("The engine did not start: %s", error)

    def _metrics_address(self) -> MetricsEndpoint | None:
        return self.registry.metrics_endpoint() if self.registry.status().state is EngineState.READY else None

    def _named(self, name: str) -> RegisteredModel:
        for model in self.registry.models():
            if model.name == name:
                return model
        raise NotFound(
            Text("No model is registered as {name!r}.", name=name),
            Text("See the list on the Models tab."),
        )

    def _fetch(self, model: RegisteredModel) -> None:
        """Make sure that the files the engine will load are on this machine."""
        location = model.path if model.kind in ("base", "full") else model.base
        if model.kind != "external" and location:
            self._models.wait_for_files(location, bool(model.config.get("trust_remote_code")))

    def _register_base(self, name: str) -> None:
        ref = self._catalog.resolve(name)
        if ref.task == "embedding":
            raise InvalidModel(
                Text("{name} is an embedder and cannot chat.", name=name),
                Text("Choose a model that writes text."),
            )
        ref = self._models.ensure(name)
        self.registry.register_model(
            ref.name,
            ref.location,
            {"kind": "base", "base": ref.location, "base_name": ref.name, "trust_remote_code": ref.trust_remote_code},
        )


def _is_merged_copy(model: RegisteredModel, outputs: Path) -> bool:
    """Whether the studio made its files for serving alone: ``outputs/<task>/merged``."""
    path = Path(model.path)
    return model.kind == "full" and path.name == "merged" and path.parent.parent == outputs and path.is_dir()
