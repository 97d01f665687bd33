"""How vLLM is started and which adapters it can serve. Nothing here runs anything.

Knows vLLM's command line, its environment and its limits. Never imports vllm; knows no process and no HTTP.
"""

import importlib.util
import json
from pathlib import Path

from sage_studio.hardware import Hardware
from sage_studio.hub import is_here
from sage_studio.serving.engine import Launch
from sage_studio.serving.gpu import UNKNOWN, Plan, Shape, lora_rank_for, plan
from sage_studio.serving.records import Base
from sage_studio.serving.room import adapters_kept
from sage_studio.settings import Settings

CPU_RANK = 16
SMALL_BYTES = 1 << 30
"""Weights of a model whose every step on a CPU is a matter of starting it rather than of sums."""
MODULE = "vllm.entrypoints.openai.api_server"
CPU_SERVER = Path(__file__).with_name("vllm_cpu.py")


def vllm_installed() -> bool:
    """Whether vLLM can be imported in this environment. Looks, does not import."""
    return importlib.util.find_spec("vllm") is not None


def vllm_launch(settings: Settings, hardware: Hardware, python: str, base: Base, port: int) -> Launch:
    """Everything needed to start vLLM for a base model, but for its key."""
    cards = plan(hardware, settings.gpu_memory_utilization, model_shape(base.location))
    kept = vllm_adapters(settings, hardware, base)
    return Launch(
        vllm_command(settings, cards, python, base, port, kept),
        vllm_environment(cards, hardware.cores, base, settings.sleep_mode),
    )


def vllm_adapters(settings: Settings, hardware: Hardware, base: Base) -> int:
    """How many adapters stay loaded in an engine with this base."""
    if not hardware.has_gpu:
        return 2 * settings.max_loras
    return adapters_kept(hardware, settings.max_loras, base.rank, model_shape(base.location))


def vllm_command(settings: Settings, cards: Plan, python: str, base: Base, port: int, kept: int) -> list[str]:
    """vLLM's command line. The key is not on it: every user of the machine can read command lines.

    Args:
        kept: adapters that stay loaded.
    """
    on_card = cards.memory_share is not None
    command = [python, *(("-m", MODULE) if on_card else ("-P", str(CPU_SERVER)))]
    command += ["--model", base.location, "--served-model-name", base.name]
    command += ["--host", "127.0.0.1", "--port", str(port), "--max-model-len", str(cards.context)]
    slots = settings.max_loras if on_card else kept + 1  # one more is in use while adapters change
    command += ["--enable-lora", "--max-loras", str(slots)]
    command += ["--max-cpu-loras", str(max(kept, slots))]
    command += ["--max-lora-rank", str(base.rank)]
    if on_card:
        command += ["--gpu-memory-utilization", str(cards.memory_share)]
        command += ["--enable-sleep-mode"] if settings.sleep_mode else []
    else:
        command += ["--enforce-eager"]  # with LoRA the CPU build compiles nothing anyway, but spends seconds on trying
    if cards.cards > 1:
        command += ["--tensor-parallel-size", str(cards.cards)]
    if cards.sequences:
        command += ["--max-num-seqs", str(cards.sequences)]
    return [*command, "--trust-remote-code"] if base.trust_remote_code else command


def vllm_environment(cards: Plan, cores: int, base: Base, sleeps: bool = False) -> dict[str, str]:
    """Environment variables that vLLM reads.

    On a CPU vLLM by itself pins its threads and adds a process between the scheduler and the one worker: on two cores
    that costs half of the speed and 8 s of the start. Both are turned off, and the threads are left to the system, so
    that a training beside it is not pinned to the same core. On a card, ``sleeps`` opens the routes for
    sleep; they ask for no key, which is right on loopback only.
    """
    env = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_COLOR": "0"}
    if is_here(base.location):
        env["HF_HUB_OFFLINE"] = "1"
    if cards.cards and sleeps:
        env["VLLM_SERVER_DEV_MODE"] = "1"
    if not cards.cards:
        env["VLLM_CPU_KVCACHE_SPACE"] = str(cards.cache_gb)
        env["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
        env["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
        env["OMP_NUM_THREADS"] = str(cpu_threads(cores, base.location))
        env["OMP_WAIT_POLICY"] = "PASSIVE"  # as in tasks/launcher.py: spinning threads starve whoever shares the cores
    return env


def cpu_threads(cores: int, location: str) -> int:
    """Threads that compute on a CPU: all, but for a small model one less.

    Each of the many small steps of a small model ends sooner than a sleeping thread wakes: on two cores the built-in
    model answers 8 chats with 5 adapters at 87 tokens/s by one thread, at 25 by two (without adapters 135 and 120);
    only a prompt of 1,000 tokens takes a quarter longer.
    """
    weights = sum(path.stat().st_size for path in Path(location).glob("*.safetensors"))
    return max(1, cores - 1) if 0 < weights <= SMALL_BYTES else cores


def vllm_rank(settings: Settings, hardware: Hardware, rank: int) -> int:
    """The ``max_lora_rank`` to start with for an adapter of a rank; 0 for a base model alone.

    On a card the operator's limit costs little. The CPU build computes with all the room, filled or not: at 64 in
    place of 16 a tuned model answers a third slower. So there it grows as needed.
    """
    return lora_rank_for(settings.max_lora_rank if hardware.has_gpu else max(CPU_RANK, rank))


def model_shape(location: str) -> Shape:
    """What the model's ``config.json`` says, if it lies on this machine."""
    path = _config_path(location)
    if path is None:
        return UNKNOWN
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return UNKNOWN  # the engine's own message about a broken config says more than any guess here
    return Shape(
        context=_whole(config.get("max_position_embeddings")),
        heads=_whole(config.get("num_attention_heads")),
        kv_heads=_whole(config.get("num_key_value_heads")),
        hidden=_whole(config.get("hidden_size")),
        inner=_whole(config.get("intermediate_size")),
        layers=_whole(config.get("num_hidden_layers")),
    )


def _config_path(location: str) -> Path | None:
    if Path(location).is_absolute():
        return Path(location) / "config.json"
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(location, "config.json")
    return Path(found) if isinstance(found, str) else None


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and value > 0 else None
