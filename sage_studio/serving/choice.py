"""Which kind of engine this machine uses, how one is started, and which one takes over where vLLM cannot serve a base.

Knows the setting ``engine``, what is installed, and which starts of vLLM failed. Starts nothing.
"""

import functools
import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sage_studio.errors import EngineUnavailable, InvalidSetting, StudioError
from sage_studio.hardware import Hardware, detect_hardware
from sage_studio.hub import is_here
from sage_studio.serving.engine import Launch, MakeLaunch, fallback_command, is_about_machine
from sage_studio.serving.gpu import Plan, Slots, lora_rank_for, plan_transformers
from sage_studio.serving.model_facts import read_facts
from sage_studio.serving.records import Base, EngineKind, Refusal
from sage_studio.serving.room import USUAL_ADAPTERS, freed
from sage_studio.serving.servable import Servable, how_served
from sage_studio.serving.state import ServingState
from sage_studio.serving.vllm import (
    seeing_only,
    vllm_adapters,
    vllm_installed,
    vllm_launch,
    vllm_plan,
    vllm_rank,
    with_programs_of,
)
from sage_studio.settings import PROJECT, Settings
from sage_studio.text import Text

logger = logging.getLogger("sage_studio")

UNLIMITED_RANK = 1 << 20
AGAIN = Text(
    "The transformers engine answers instead, one chat at a time. Correct the cause, then start vLLM again on the "
    "Models tab.",
    "已改用 transformers 引擎，一次回答一个对话。请排除原因，然后在“模型”页重新启动 vLLM。",
)


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """The engine in use.

    Attributes:
        make: how to start one; for ``openai`` it is never called.
        max_rank: the largest LoRA rank it can be started with.
        rank_for: the rank it is started with for an adapter of a rank; 0 for a base model alone.
        adapters: how many adapters stay loaded beside a base; the longest unused one goes when there are more.
        python: the Python that it is started with.
        fallback: the engine that serves what this one cannot; None where the operator insists on this one.
        serves: whether it can serve a base, by what is free (an engine of ours counted as gone); the whole `Servable`.
    """

    kind: EngineKind
    make: MakeLaunch
    max_rank: int
    rank_for: Callable[[int], int]
    adapters: Callable[[Base], int] = lambda _: USUAL_ADAPTERS
    python: str = ""
    fallback: "EngineChoice | None" = None
    serves: Callable[[str, Hardware], Servable] | None = None


class EngineChooser:
    """Which engine serves a base: the one that the settings choose, or the transformers engine where that cannot."""

    def __init__(
        self,
        state: ServingState,
        choose: Callable[[], EngineChoice],
        look: Callable[[], Hardware],
        held: Callable[[], Mapping[int, float]],
    ) -> None:
        self._state = state
        self.configured = functools.cache(choose)
        self._look = look
        self._held = held

    def for_base(self, location: str) -> EngineChoice:
        """The engine for a base.

        Raises:
            InvalidSetting, EngineUnavailable: as `choose_engine`.
        """
        choice = self.configured()
        if choice.fallback is None:
            return choice
        if self._state.refusal(location, choice.python) is not None:
            return choice.fallback
        if choice.serves is not None:
            served = choice.serves(location, freed(self._look(), self._held()))
            if served.engine == choice.fallback.kind:
                return choice.fallback
        return choice

    def of_kind(self, kind: EngineKind) -> EngineChoice:
        """The way of an engine that runs already."""
        choice = self.configured()
        return choice.fallback if choice.fallback is not None and choice.fallback.kind == kind else choice

    def kinds(self) -> tuple[EngineKind, ...]:
        """The kinds of engines that may run here."""
        choice = self.configured()
        return (choice.kind, choice.fallback.kind) if choice.fallback is not None else (choice.kind,)

    def refuse(self, base: Base, error: StudioError) -> None:
        """Note that a start of vLLM failed: for this base, or for any where the machine's software is the cause."""
        choice = self.configured()
        where = "" if is_about_machine(error.message.en) else base.location
        self._state.add_refusal(Refusal(where, choice.python, error.message))
        logger.warning("%s The transformers engine serves instead.", error.message.en)

    def why_not(self, kind: EngineKind, location: str) -> Text:
        """Why an engine of another kind than the chosen one runs with a base; empty where it is the chosen one."""
        choice = self.configured()
        if choice.fallback is None or kind != choice.fallback.kind:
            return Text("", "")
        refusal = self._state.refusal(location, choice.python)
        if refusal is None:
            return Text(
                f"{choice.kind} cannot hold this model here; the {kind} engine serves it, one chat at a time.",
                f"{choice.kind} 无法在本机加载此模型；由 {kind} 引擎提供服务，一次一个对话。",
            )
        return Text(f"{refusal.message.en} {AGAIN.en}", f"{refusal.message.zh} {AGAIN.zh}")


def configured_kind(settings: Settings) -> EngineKind:
    """The kind that the setting means; ``auto`` is vLLM where it is installed here or in ``vllm_python``."""
    if settings.engine != "auto":
        return settings.engine
    return "vllm" if vllm_installed() or settings.vllm_python else "transformers"


def choose_engine(settings: Settings, look: Callable[[], Hardware] = detect_hardware) -> EngineChoice:
    """Follow the setting; see `configured_kind`.

    Args:
        look: what an engine may use now.

    Raises:
        InvalidSetting: ``openai`` without an address.
        EngineUnavailable: ``vllm`` where there is none.
    """
    kind = configured_kind(settings)
    if kind == "openai":
        return _external(settings)
    transformers = EngineChoice(
        "transformers",
        lambda base, port: _fallback_launch(look(), base, port),
        UNLIMITED_RANK,
        _any_rank,
        python=sys.executable,
    )
    if kind == "transformers":
        return transformers
    if not vllm_installed() and not settings.vllm_python:
        raise EngineUnavailable(
            Text("vLLM is not installed here.", "此环境未安装 vLLM。"),
            Text(
                "Install it, name another environment's Python in SAGE_STUDIO_VLLM_PYTHON, or set "
                "SAGE_STUDIO_ENGINE=transformers.",
                "请安装 vLLM，或用 SAGE_STUDIO_VLLM_PYTHON 指定其他环境的 Python，"
                "或设置 SAGE_STUDIO_ENGINE=transformers。",
            ),
        )
    python = settings.vllm_python or sys.executable
    return EngineChoice(
        "vllm",
        lambda base, port: vllm_launch(settings, look(), python, base, port),
        lora_rank_for(settings.max_lora_rank),
        lambda rank: vllm_rank(settings, look(), rank),
        # As many as the engine was started with, or fewer: what is free has shrunk by then.
        lambda base: vllm_adapters(settings, look(), base),
        python=python,
        fallback=transformers if settings.engine == "auto" else None,
        serves=lambda location, hardware: serving_of(settings, hardware, location),
    )


def serving_of(
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
    return how_served(
        read_facts(location, parameters),
        hardware,
        settings.gpu_memory_utilization,
        configured_kind(settings),
        settings.engine == "auto",
        Slots(settings.max_loras, vllm_rank(settings, hardware, rank)),
        merge,
    )


def engine_plan(settings: Settings, kind: EngineKind, hardware: Hardware, base: Base) -> Plan:
    """What an engine of a kind takes of the hardware with a base."""
    if kind == "vllm":
        return vllm_plan(settings, hardware, base)
    return plan_transformers(hardware, read_facts(base.location))


def _any_rank(rank: int) -> int:
    return UNLIMITED_RANK


def _fallback_launch(hardware: Hardware, base: Base, port: int) -> Launch:
    planned = plan_transformers(hardware, read_facts(base.location))
    env = {"PYTHONPATH": str(PROJECT), "TOKENIZERS_PARALLELISM": "false", **with_programs_of(sys.executable)}
    if hardware.has_gpu:
        env |= seeing_only(planned.indices)
    if is_here(base.location):
        env["HF_HUB_OFFLINE"] = "1"
    return Launch(fallback_command(base, port, planned), env, planned)


def _external(settings: Settings) -> EngineChoice:
    if not settings.engine_url.startswith(("http://", "https://")):
        raise InvalidSetting(
            Text(
                f"engine=openai needs the server's address, not engine_url={settings.engine_url!r}.",
                f"engine=openai 需要服务器地址，而 engine_url={settings.engine_url!r}。",
            ),
            Text(
                "Set SAGE_STUDIO_ENGINE_URL, for example http://10.0.0.5:8000/v1.",
                "请设置 SAGE_STUDIO_ENGINE_URL，例如 http://10.0.0.5:8000/v1。",
            ),
        )

    def never(base: Base, port: int) -> Launch:
        raise AssertionError("someone else's server is not started here")

    return EngineChoice("openai", never, UNLIMITED_RANK, _any_rank)
