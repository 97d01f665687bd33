"""How vLLM is started: command line, environment and limits. Never imports vllm."""

import importlib.util
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from sage_studio.hardware import VISIBLE, Hardware
from sage_studio.models.model_folder import is_here, weights_bytes
from sage_studio.serving.capacity import (
    EnginePlan,
    LoraSlots,
    WeightFormat,
    adapters_kept_loaded,
    lora_rank_for,
    model_shape,
    plan,
    read_facts,
)
from sage_studio.serving.engine import LaunchSpec
from sage_studio.serving.types import Base
from sage_studio.settings import Settings

CPU_RANK = 16
SMALL_BYTES = 1 << 30
"""Weights of a model whose every step on a CPU is a matter of starting it rather than of sums."""
GPU_SERVER = Path(__file__).with_name("engine_server.py")
CPU_SERVER = Path(__file__).with_name("vllm_cpu.py")
RPC_FOLDER = "VLLM_RPC_BASE_PATH"
"""Where vLLM keeps the sockets between its own processes; the system's folder for temporary files unless it is set."""
SAMPLER = "VLLM_USE_FLASHINFER_SAMPLER"


def vllm_installed() -> bool:
    """Whether vLLM can be imported in this environment. Looks, does not import."""
    return importlib.util.find_spec("vllm") is not None


def vllm_launch(settings: Settings, hardware: Hardware, python: str, base: Base, socket: Path) -> LaunchSpec:
    """Everything needed to start vLLM for a base model, but for its key."""
    planned = vllm_plan(settings, hardware, base)
    kept = vllm_adapters(settings, hardware, base)
    sleeps = sleep_enabled(settings)
    return LaunchSpec(
        vllm_command(settings, planned, python, base, socket, kept, sleeps),
        vllm_environment(planned, hardware.cores, base, python) | {RPC_FOLDER: str(socket.parent)},
        planned,
    )


def vllm_plan(settings: Settings, hardware: Hardware, base: Base) -> EnginePlan:
    """What vLLM takes of the hardware with a base model."""
    slots = LoraSlots(settings.max_loras, base.rank)
    return plan(hardware, settings.gpu_memory_utilization, read_facts(base.location), slots)


def vllm_adapters(settings: Settings, hardware: Hardware, base: Base) -> int:
    """How many adapters stay loaded in an engine with this base."""
    if not hardware.has_gpu:
        return 2 * settings.max_loras
    return adapters_kept_loaded(hardware, settings.max_loras, base.rank, model_shape(base.location))


def sleep_enabled(settings: Settings) -> bool:
    """Whether vLLM is started with sleep mode: unless the operator says otherwise."""
    return settings.sleep_mode == "auto" or settings.sleep_mode


def vllm_command(
    settings: Settings, planned: EnginePlan, python: str, base: Base, socket: Path, kept: int, sleeps: bool = False
) -> list[str]:
    """vLLM's command line. The key is not on it: every user of the machine can read command lines.

    Args:
        kept: adapters that stay loaded.
        sleeps: whether it can be sent to sleep; on a GPU only.
    """
    on_gpu = planned.memory_share is not None
    command = [python, "-P", str(GPU_SERVER if on_gpu else CPU_SERVER)]
    command += ["--model", base.location, "--served-model-name", base.name]
    command += ["--uds", str(socket), "--max-model-len", str(planned.context)]
    slots = settings.max_loras if on_gpu else kept + 1  # one more is in use while adapters change
    command += ["--enable-lora", "--max-loras", str(slots)]
    command += ["--max-cpu-loras", str(max(kept, slots))]
    command += ["--max-lora-rank", str(base.rank)]
    if on_gpu:
        command += ["--gpu-memory-utilization", str(planned.memory_share)]
        command += ["--enable-sleep-mode"] if sleeps else []
        command += ["--quantization", str(WeightFormat.FP8)] if planned.form is WeightFormat.FP8 else []
    else:
        command += ["--enforce-eager"]  # with LoRA the CPU build compiles nothing anyway, but spends seconds on trying
    if len(planned.gpus) > 1:
        command += ["--tensor-parallel-size", str(len(planned.gpus))]
    if planned.sequences:
        command += ["--max-num-seqs", str(planned.sequences)]
    if planned.graphs:
        command += ["--cudagraph-capture-sizes", *map(str, planned.graphs)]
    return [*command, "--trust-remote-code"] if base.trust_remote_code else command


def vllm_environment(
    planned: EnginePlan,
    cores: int,
    base: Base,
    python: str = "",
    environment: Mapping[str, str] = os.environ,
) -> dict[str, str]:
    """Environment variables that vLLM reads, and those that say which GPUs it sees.

    On a CPU vLLM by itself pins its threads and adds a process between the scheduler and the one worker: on two cores
    that costs half of the speed and 8 s of the start. Both are turned off, and the threads are left to the system, so
    that a training beside it is not pinned to the same core.

    On a GPU FlashInfer's sampler is turned off unless the operator sets its variable: vLLM 0.32 compiles it at every
    first start with nvcc, which a machine with only a driver does not have, and then does not start. Its developer
    mode stays off, whatever the studio's own environment says: it runs any code for whoever asks.

    Args:
        python: the Python that runs vLLM.
        environment: the studio's own.
    """
    env = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1", "VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_COLOR": "0"}
    env["VLLM_SERVER_DEV_MODE"] = "0"
    env |= path_env(python, environment)
    if is_here(base.location):
        env["HF_HUB_OFFLINE"] = "1"
    if planned.gpus:
        env |= visible_gpus_env(planned.indices)
        if SAMPLER not in environment:
            env[SAMPLER] = "0"
        return env
    env["VLLM_CPU_KVCACHE_SPACE"] = str(planned.kv_cache_gb)
    env["VLLM_CPU_OMP_THREADS_BIND"] = "nobind"
    env["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    env["OMP_NUM_THREADS"] = str(cpu_threads(cores, base.location))
    env["OMP_WAIT_POLICY"] = "PASSIVE"  # as in tasks/launcher.py: spinning threads starve whoever shares the cores
    return env


def visible_gpus_env(indices: tuple[int, ...]) -> dict[str, str]:
    """Variables with which a process sees these GPUs and no other, numbered as `nvidia-smi` does; none hides all."""
    return {VISIBLE: ",".join(map(str, indices)), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def path_env(python: str, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """``PATH`` that begins with the folder of a Python: an environment that is not activated has its ninja there."""
    found = shutil.which(python, path=environment.get("PATH")) if python else None
    if found is None:
        return {}
    rest = environment.get("PATH", "")
    return {"PATH": os.pathsep.join(filter(None, (os.path.dirname(os.path.abspath(found)), rest)))}


def cpu_threads(cores: int, location: str) -> int:
    """Threads that compute on a CPU: all, but for a small model one less.

    Each of the many small steps of a small model ends sooner than a sleeping thread wakes: on two cores the built-in
    model answers 8 chats with 5 adapters at 87 tokens/s by one thread, at 25 by two (without adapters 135 and 120);
    only a prompt of 1,000 tokens takes a quarter longer.
    """
    return max(1, cores - 1) if 0 < weights_bytes(location) <= SMALL_BYTES else cores


def vllm_rank(settings: Settings, hardware: Hardware, rank: int) -> int:
    """The ``max_lora_rank`` to start with for an adapter of a rank; 0 for a base model alone.

    On a GPU the operator's limit costs little. The CPU build computes with the full rank, used or not: at 64 in
    place of 16 a tuned model answers a third slower. So there it grows as needed.
    """
    return lora_rank_for(settings.max_lora_rank if hardware.has_gpu else max(CPU_RANK, rank))
