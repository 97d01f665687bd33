"""Chooses the engine for a model (vLLM, transformers or an external server), says how it is started, and whether the
model can be served on this machine at all.
"""

import functools
import logging
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sage_studio.errors import EngineUnavailable, InvalidSetting, StudioError
from sage_studio.hardware import Hardware, detect_hardware
from sage_studio.models.model_folder import is_here
from sage_studio.serving.capacity import (
    BF16_CAPABILITY,
    MARGIN_GB,
    USUAL_ADAPTERS,
    EnginePlan,
    LoraSlots,
    ModelFacts,
    WeightFormat,
    lora_rank_for,
    main_memory_gb,
    plan,
    plan_transformers,
    read_facts,
    without_engine,
)
from sage_studio.serving.engine import LaunchSpec, fallback_command, is_about_machine
from sage_studio.serving.state import ServingState
from sage_studio.serving.types import Base, EngineKind, Refusal
from sage_studio.serving.vllm import (
    path_env,
    visible_gpus_env,
    vllm_adapters,
    vllm_installed,
    vllm_launch,
    vllm_plan,
    vllm_rank,
)
from sage_studio.settings import PROJECT, Settings
from sage_studio.text import Text

logger = logging.getLogger("sage_studio")

# Whether and how a model can be served here

BITSANDBYTES = "bitsandbytes"
ON_GPU = (WeightFormat.BF16, WeightFormat.FP8, WeightFormat.FOUR_BIT, WeightFormat.STORED)
ELSEWHERE = Text("Choose a smaller model, or download the result and serve it on a larger machine.")


@dataclass(frozen=True, slots=True)
class Servable:
    """How a model is served on this machine.

    Attributes:
        form: how the weights are held; `WeightFormat.NONE` where it cannot be served, `WeightFormat.UNKNOWN` where its
            size is not known yet.
        engine: which engine serves it; empty where none does.
        memory_gb: what it takes, as estimated, in GiB: of all its GPUs together, or of main memory.
        message: a sentence about it for the user.
    """

    form: WeightFormat
    engine: EngineKind | Literal[""]
    memory_gb: float
    message: Text

    @property
    def possible(self) -> bool:
        """Whether it can be served here; True where its size is not known."""
        return self.form is not WeightFormat.NONE

    @property
    def on_gpu(self) -> bool:
        """Whether it is served from a GPU."""
        return self.form in ON_GPU


EMBEDDER = Servable(
    WeightFormat.EMBEDDER,
    "",
    0.0,
    Text("An embedding model cannot chat: set the result as the retriever to answer from documents."),
)


NOT_KNOWN = Servable(
    WeightFormat.UNKNOWN,
    "",
    0.0,
    Text("Whether you can chat with the result here is not known yet: the model's files are not downloaded."),
)


def check_servable(
    model: ModelFacts,
    hardware: Hardware,
    memory_share: float,
    engine: EngineKind,
    falls_back: bool = True,
    slots: LoraSlots | None = None,
    merge: str = "",
) -> Servable:
    """Say whether and how a model, or an adapter on it, can be chatted with here.

    Args:
        model: the base's sizes; with ``parameters`` even where its files are not here yet.
        hardware: what is free, with what our own engine holds counted as free.
        memory_share: the operator's ``gpu_memory_utilization``.
        engine: the engine that the settings choose.
        falls_back: whether the transformers engine may serve what vLLM cannot.
        slots: the LoRA slots that vLLM is started with.
        merge: why vLLM cannot hold the adapter as it is, so that it is merged into its base; empty if it can.
    """
    if engine == "openai":
        return _external_servable()
    if not model.known:
        return NOT_KNOWN
    vllm = plan(hardware, memory_share, model, slots)
    refused = _refused_by_vllm(model, merge) if engine == "vllm" else None
    if engine == "vllm" and refused is None:
        if vllm.gpus and vllm.fits:
            return _by_vllm(vllm, plan(hardware, memory_share, model, slots, (WeightFormat.BF16,)))
        if not hardware.has_gpu:
            return _on_cpu("vllm", model, vllm, hardware)
    if engine == "vllm" and not falls_back:
        return _not_at_all(model, vllm, refused)
    if model.quantized and model.quantized != BITSANDBYTES:
        return _not_at_all(model, vllm, refused or _not_in_transformers(model))
    planned = plan_transformers(hardware, model)
    if planned.gpus:
        return _by_transformers(planned, vllm if engine == "vllm" else None, refused)
    served = _on_cpu("transformers", model, planned, hardware)
    return served if served.possible else _not_at_all(model, vllm, None)


def _by_vllm(planned: EnginePlan, bf16: EnginePlan) -> Servable:
    half = "fp16" if (planned.gpus[0].capability or BF16_CAPABILITY) < BF16_CAPABILITY else "bf16"
    need, available, where = _figures(planned)
    how = {
        WeightFormat.BF16: Text("vLLM in {half}", half=half),
        WeightFormat.FP8: Text(
            "vLLM with 8-bit weights (fp8_per_tensor), since {half} would take {need:.1f} GB",
            half=half,
            need=bf16.need_gb,
        ),
        WeightFormat.STORED: Text("vLLM, quantized as it is stored"),
    }[planned.form]
    message = Text(
        "You can chat with the result here: {how}; about {need} of {available} GB on {where}.",
        how=how,
        need=need,
        available=available,
        where=where,
    )
    return Servable(planned.form, "vllm", planned.need_gb * len(planned.gpus), message)


def _by_transformers(planned: EnginePlan, vllm: EnginePlan | None, refused: Text | None) -> Servable:
    need, available, where = _figures(planned)
    how = {
        WeightFormat.BF16: Text("in 16 bits"),
        WeightFormat.FOUR_BIT: Text("with the base in 4 bits"),
    }.get(planned.form, Text("quantized as stored"))
    why = refused
    if why is None and vllm is not None:
        why = Text("vLLM would take {need_gb:.1f} GB", need_gb=vllm.need_gb)
    since = Text(", since {why}", why=why) if why is not None else Text()
    message = Text(
        "You can chat with the result here: the transformers engine {how}, one chat at a "
        "time{since}; about {need} of {available} GB on {where}.",
        how=how,
        since=since,
        need=need,
        available=available,
        where=where,
    )
    return Servable(planned.form, "transformers", planned.need_gb, message)


def _on_cpu(kind: EngineKind, model: ModelFacts, planned: EnginePlan, hardware: Hardware) -> Servable:
    need, available = main_memory_gb(kind, model, planned), max(0.0, hardware.memory_gb - MARGIN_GB)
    if need > available:
        return Servable(
            WeightFormat.NONE,
            "",
            need,
            Text(
                "You cannot chat with the result here: it takes about {need:.1f} GB of memory, and the "
                "machine has {memory_gb:.1f}. {elsewhere}",
                need=need,
                memory_gb=hardware.memory_gb,
                elsewhere=ELSEWHERE,
            ),
        )
    slowly = Text(", slowly: no GPU has room for it") if hardware.has_gpu else Text()
    message = Text(
        "You can chat with the result here: the {kind} engine on the CPU{slowly}; about {need:.1f} "
        "of {memory_gb:.1f} GB of memory.",
        kind=kind,
        slowly=slowly,
        need=need,
        memory_gb=hardware.memory_gb,
    )
    return Servable(WeightFormat.CPU, kind, need, message)


def _not_at_all(model: ModelFacts, vllm: EnginePlan, why: Text | None) -> Servable:
    if why is None:
        _, available, where = _figures(vllm) if vllm.gpus else ("", "0.0", Text("this machine"))
        need = f"{vllm.need_gb:.1f}"
        why = Text("it takes about {need} of {available} GB on {where}", need=need, available=available, where=where)
    message = Text("You cannot chat with the result here: {why}. {elsewhere}", why=why, elsewhere=ELSEWHERE)
    return Servable(WeightFormat.NONE, "", vllm.need_gb, message)


def _refused_by_vllm(model: ModelFacts, merge: str) -> Text | None:
    if model.quantized == BITSANDBYTES:
        return Text("vLLM 0.32 does not support bitsandbytes")
    if model.quantized and merge:
        return Text(
            "the adapter must be merged into its base ({merge}), and the base is quantized ({quantized})",
            merge=merge,
            quantized=model.quantized,
        )
    return None


def _not_in_transformers(model: ModelFacts) -> Text:
    return Text(
        "the base is quantized with {quantized}, which the transformers engine cannot load", quantized=model.quantized
    )


def _external_servable() -> Servable:
    message = Text(
        "Chat uses an external server (engine=openai), which cannot load models fine-tuned here. "
        "Set engine: auto to chat with the result."
    )
    return Servable(WeightFormat.EXTERNAL, "openai", 0.0, message)


def _figures(planned: EnginePlan) -> tuple[str, str, Text]:
    """Memory of each GPU, as printed: what it takes, what there is, and the GPUs' name."""
    name, count = planned.gpus[0].name, len(planned.gpus)
    where = Text("each of {count} × {name}", count=count, name=name) if count > 1 else Text("the {name}", name=name)
    return f"{planned.need_gb:.1f}", f"{planned.available_gb:.1f}", where


# Which engine serves a model, and how it is started

UNLIMITED_RANK = 1 << 20
AGAIN = Text(
    "The transformers engine answers instead, one chat at a time. Correct the cause, then start vLLM again on the "
    "Models tab."
)


class EngineSpec(ABC):
    """One kind of engine: how it is started, and what it can hold.

    Attributes:
        max_rank: the largest LoRA rank that it can be started with.
        python: the Python that runs it.
        fallback: the engine for what this one cannot serve; None where the operator insists on this one.
    """

    kind: EngineKind
    max_rank: int = UNLIMITED_RANK
    python: str = ""
    fallback: "EngineSpec | None" = None

    @abstractmethod
    def launch(self, base: Base, socket: Path) -> LaunchSpec:
        """How to start it with a base model, so that it answers at a socket."""

    def rank_for(self, rank: int) -> int:
        """The LoRA rank to start it with for an adapter of a rank; for a base model alone ``rank`` is 0."""
        return self.max_rank

    def adapters_kept(self, base: Base) -> int:
        """How many adapters stay loaded; the least recently used goes when there are more."""
        return USUAL_ADAPTERS

    def leaves_to_fallback(self, location: str, hardware: Hardware) -> bool:
        """Whether the fallback must serve a base: it does not fit ``hardware``, with our own engine counted as gone."""
        return False


class VllmSpec(EngineSpec):
    """vLLM, in this environment or in the one of ``vllm_python``."""

    kind = "vllm"

    def __init__(self, settings: Settings, detect: Callable[[], Hardware], fallback: EngineSpec | None) -> None:
        self._settings, self._detect = settings, detect
        self.max_rank = lora_rank_for(settings.max_lora_rank)
        self.python = settings.vllm_python or sys.executable
        self.fallback = fallback

    def launch(self, base: Base, socket: Path) -> LaunchSpec:
        """The command line and environment of vLLM's server."""
        return vllm_launch(self._settings, self._detect(), self.python, base, socket)

    def rank_for(self, rank: int) -> int:
        """See `vllm_rank`."""
        return vllm_rank(self._settings, self._detect(), rank)

    def adapters_kept(self, base: Base) -> int:
        """As many as it was started with, or fewer: less memory may be free by now."""
        return vllm_adapters(self._settings, self._detect(), base)

    def leaves_to_fallback(self, location: str, hardware: Hardware) -> bool:
        """Whether the transformers engine can serve a base and vLLM cannot."""
        return servable_for(self._settings, hardware, location).engine == "transformers"


class TransformersSpec(EngineSpec):
    """The studio's own server, which answers one chat at a time and loads what vLLM does not."""

    kind = "transformers"
    python = sys.executable

    def __init__(self, detect: Callable[[], Hardware]) -> None:
        self._detect = detect

    def launch(self, base: Base, socket: Path) -> LaunchSpec:
        """The command line and environment of `sage_studio.serving.transformers_server`."""
        hardware = self._detect()
        planned = plan_transformers(hardware, read_facts(base.location))
        env = {"PYTHONPATH": str(PROJECT), "TOKENIZERS_PARALLELISM": "false", **path_env(sys.executable)}
        if hardware.has_gpu:
            env |= visible_gpus_env(planned.indices)
        if is_here(base.location):
            env["HF_HUB_OFFLINE"] = "1"
        return LaunchSpec(fallback_command(base, socket, planned), env, planned)


class ExternalSpec(EngineSpec):
    """An OpenAI-compatible server that somebody else runs, at ``engine_url``."""

    kind = "openai"

    def launch(self, base: Base, socket: Path) -> LaunchSpec:
        """Never called."""
        raise AssertionError("an external server is not started here")


class EngineFactory:
    """Which engine serves a base: the one that the settings choose, or the transformers engine where that cannot."""

    def __init__(
        self,
        state: ServingState,
        choose: Callable[[], EngineSpec],
        detect: Callable[[], Hardware],
        held: Callable[[], Mapping[int, float]],
    ) -> None:
        self._state = state
        self.configured = functools.cache(choose)
        self._detect = detect
        self._held = held

    def for_base(self, location: str) -> EngineSpec:
        """The engine for a base.

        Raises:
            InvalidSetting, EngineUnavailable: as `choose_engine`.
        """
        spec = self.configured()
        if spec.fallback is None:
            return spec
        if self._state.refusal(location, spec.python) is not None:
            return spec.fallback
        if spec.leaves_to_fallback(location, without_engine(self._detect(), self._held())):
            return spec.fallback
        return spec

    def of_kind(self, kind: EngineKind) -> EngineSpec:
        """The way of an engine that runs already."""
        spec = self.configured()
        return spec.fallback if spec.fallback is not None and spec.fallback.kind == kind else spec

    def kinds(self) -> tuple[EngineKind, ...]:
        """The kinds of engines that may run here."""
        spec = self.configured()
        return (spec.kind, spec.fallback.kind) if spec.fallback is not None else (spec.kind,)

    def refuse(self, base: Base, error: StudioError) -> None:
        """Note that a start of vLLM failed: for this base, or for any where the machine's software is the cause."""
        spec = self.configured()
        where = "" if is_about_machine(error.message.en) else base.location
        self._state.add_refusal(Refusal(where, spec.python, error.message))
        logger.warning("%s The transformers engine serves instead.", error.message.en)

    def fallback_reason(self, kind: EngineKind, location: str) -> Text:
        """Why an engine of another kind than the chosen one runs with a base; empty where it is the chosen one."""
        spec = self.configured()
        if spec.fallback is None or kind != spec.fallback.kind:
            return Text()
        refusal = self._state.refusal(location, spec.python)
        if refusal is None:
            return Text(
                "{kind} cannot load this model here; the {served_by} engine serves it, one chat at a time.",
                kind=spec.kind,
                served_by=kind,
            )
        return Text("{message} {again}", message=refusal.message, again=AGAIN)


def configured_engine(settings: Settings) -> EngineKind:
    """The kind that the setting means; ``auto`` is vLLM where it is installed here or in ``vllm_python``."""
    if settings.engine != "auto":
        return settings.engine
    return "vllm" if vllm_installed() or settings.vllm_python else "transformers"


def choose_engine(settings: Settings, detect: Callable[[], Hardware] = detect_hardware) -> EngineSpec:
    """Follow the setting; see `configured_engine`.

    Args:
        detect: what an engine may use now.

    Raises:
        InvalidSetting: ``openai`` without an address.
        EngineUnavailable: ``vllm`` where there is none.
    """
    kind = configured_engine(settings)
    if kind == "openai":
        _check_address(settings.engine_url)
        return ExternalSpec()
    if kind == "transformers":
        return TransformersSpec(detect)
    if not vllm_installed() and not settings.vllm_python:
        raise EngineUnavailable(
            Text("vLLM is not installed here."),
            Text(
                "Install it, name another environment's Python in SAGE_STUDIO_VLLM_PYTHON, or set "
                "SAGE_STUDIO_ENGINE=transformers."
            ),
        )
    return VllmSpec(settings, detect, TransformersSpec(detect) if settings.engine == "auto" else None)


def servable_for(
    settings: Settings, hardware: Hardware, location: str, rank: int = 0, parameters: int = 0, merge: str = ""
) -> Servable:
    """How a model, or an adapter on it, would be served with these settings.

    Args:
        hardware: what is free, with what our own engine holds counted as free.
        location: folder or hub id of the base.
        rank: of the adapter.
        parameters: of the base, where its files are not here yet.
        merge: why vLLM cannot hold the adapter as it is; empty if it can.
    """
    return check_servable(
        read_facts(location, parameters),
        hardware,
        settings.gpu_memory_utilization,
        configured_engine(settings),
        settings.engine == "auto",
        LoraSlots(settings.max_loras, vllm_rank(settings, hardware, rank)),
        merge,
    )


def engine_plan(settings: Settings, kind: EngineKind, hardware: Hardware, base: Base) -> EnginePlan:
    """What an engine of a kind takes of the hardware with a base."""
    if kind == "vllm":
        return vllm_plan(settings, hardware, base)
    return plan_transformers(hardware, read_facts(base.location))


def _check_address(url: str) -> None:
    if not url.startswith(("http://", "https://")):
        raise InvalidSetting(
            Text("engine=openai needs the server's address, not engine_url={url!r}.", url=url),
            Text("Set SAGE_STUDIO_ENGINE_URL, for example http://10.0.0.5:8000/v1."),
        )
