"""Which kind of engine this machine uses, and how one is started.

Knows the setting ``engine`` and what is installed. Starts nothing.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass

from sage_studio.errors import EngineUnavailable, InvalidSetting
from sage_studio.hardware import detect_hardware
from sage_studio.hub import is_here
from sage_studio.serving.engine import Launch, MakeLaunch, fallback_command
from sage_studio.serving.gpu import lora_rank_for, plan
from sage_studio.serving.records import Base, EngineKind
from sage_studio.serving.room import USUAL_ADAPTERS
from sage_studio.serving.vllm import model_shape, vllm_adapters, vllm_installed, vllm_launch, vllm_rank
from sage_studio.settings import PROJECT, Settings
from sage_studio.text import Text

UNLIMITED_RANK = 1 << 20


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """The engine in use.

    Attributes:
        make: how to start one; for ``openai`` it is never called.
        max_rank: the largest LoRA rank it can be started with.
        rank_for: the rank it is started with for an adapter of a rank; 0 for a base model alone.
        adapters: how many adapters stay loaded beside a base; the longest unused one goes when there are more.
    """

    kind: EngineKind
    make: MakeLaunch
    max_rank: int
    rank_for: Callable[[int], int]
    adapters: Callable[[Base], int] = lambda _: USUAL_ADAPTERS


def choose_engine(settings: Settings) -> EngineChoice:
    """Follow the setting; ``auto`` is vLLM where it is installed here or in ``vllm_python``, else transformers.

    Raises:
        InvalidSetting: ``openai`` without an address.
        EngineUnavailable: ``vllm`` where there is none.
    """
    kind = settings.engine
    here = vllm_installed()
    if kind == "auto":
        kind = "vllm" if here or settings.vllm_python else "transformers"
    if kind == "openai":
        return _external(settings)
    if kind == "transformers":
        return EngineChoice(
            "transformers", lambda base, port: _fallback_launch(settings, base, port), UNLIMITED_RANK, _any_rank
        )
    if not here and not settings.vllm_python:
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
        lambda base, port: vllm_launch(settings, detect_hardware(), python, base, port),
        lora_rank_for(settings.max_lora_rank),
        lambda rank: vllm_rank(settings, detect_hardware(), rank),
        # As many as the engine was started with, or fewer: what is free has shrunk by then.
        lambda base: vllm_adapters(settings, detect_hardware(), base),
    )


def _any_rank(rank: int) -> int:
    return UNLIMITED_RANK


def _fallback_launch(settings: Settings, base: Base, port: int) -> Launch:
    hardware = detect_hardware()
    shape = model_shape(base.location)
    context = plan(hardware, settings.gpu_memory_utilization, shape).context
    env = {"PYTHONPATH": str(PROJECT), "TOKENIZERS_PARALLELISM": "false"}
    if is_here(base.location):
        env["HF_HUB_OFFLINE"] = "1"
    return Launch(fallback_command(base, port, context), env)


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
