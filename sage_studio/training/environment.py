"""What the hardware decides about a run: GPU, threads, precision, attention, optimizer.

`prepare` must be called before torch is imported; nothing here imports torch at module level.
"""

import importlib.metadata
import logging
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

import psutil

from sage_studio.errors import GpuUnavailable
from sage_studio.hardware import VISIBLE, detect_hardware
from sage_studio.models.model_folder import is_here
from sage_studio.text import Text

PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "bitsandbytes", "datasets", "sentence-transformers")
CPU_FLAGS = Path("/proc/cpuinfo")
OWN_STATUS = Path("/proc/self/status")
CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
NOISY = (
    "bitsandbytes",
    "transformers",
    "peft",
    "trl",
    "accelerate",
    "huggingface_hub",
    "datasets",
    "sentence_transformers",
)
QUIET = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TQDM_DISABLE": "1",
    "BITSANDBYTES_NOWELCOME": "1",
    "TOKENIZERS_PARALLELISM": "true",
    "TRL_EXPERIMENTAL_SILENCE": "1",
    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
}
Optimizer = Literal["adamw", "adamw_8bit"]
BYTES_EACH = 16.0
"""For each parameter of a whole model with AdamW: weight, gradient and two moments, all in fp32."""
MOST_OF_GPU = 0.8
"""The share of the GPU that these may take; the rest is for activations."""


EAGER_LENGTH = 1024
"""On a CPU plain attention is the faster one up to about here; its memory grows with the square of the length."""


def prepare(model_location: str) -> None:
    """Set what torch and the Hugging Face libraries read when they are imported. Call before importing them."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if is_here(model_location):
        os.environ["HF_HUB_OFFLINE"] = "1"
    for library in NOISY:
        logging.getLogger(library).setLevel(logging.ERROR)
    os.environ.setdefault("OMP_NUM_THREADS", str(usable_cores()))
    if "WORLD_SIZE" not in os.environ:
        _choose_gpu()


def check_gpus(assigned: str) -> None:
    """Raise `GpuUnavailable` where the task was given a GPU and torch sees none: it would train on the CPU for hours.

    Args:
        assigned: the physical numbers of the task's GPUs, separated by commas; empty on a machine without one.
    """
    if not assigned:
        return
    import torch

    if not torch.cuda.is_available():
        raise GpuUnavailable(
            Text("nvidia-smi lists GPU {assigned}, but CUDA cannot open it.", assigned=assigned),
            Text(
                "Run `make doctor`. Reboot after a driver update, or start the container with --gpus all; then resume."
            ),
        )


def usable_cores() -> int:
    """Physical cores this process may use; the CPU quota of a container counts."""
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    cores = min(affinity, psutil.cpu_count(logical=False) or affinity)
    quota = CPU_QUOTA.read_text().split() if CPU_QUOTA.is_file() else ["max"]
    return max(1, min(cores, round(int(quota[0]) / int(quota[1])))) if quota[0].isdigit() else cores


def cpu_has_bf16(flags: Path = CPU_FLAGS) -> bool:
    """Whether the CPU has native bf16 instructions; without them bf16 is slower than fp32."""
    try:
        words = set(flags.read_text().split())
    except OSError:
        return False
    return bool(words & {"avx512_bf16", "amx_bf16", "bf16"})


def compute_type(precision: str) -> Any:
    """The torch dtype to compute in: bf16 where the hardware has it, fp16 on an older GPU, else fp32."""
    import torch

    if precision != "auto":
        return torch.bfloat16 if precision == "bf16" else torch.float32
    if torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.bfloat16 if cpu_has_bf16() else torch.float32


def optimizer_for(recipe: Mapping[str, Any], parameters: int, gpu_bytes: float) -> Optimizer:
    """What a recipe's ``optimizer`` means for a model on a device.

    ``auto`` is AdamW, unless a whole model that writes text would fill the GPU with it.

    Args:
        recipe: its fields.
        parameters: of the whole model.
        gpu_bytes: memory of the GPU; 0 without one.
    """
    asked = recipe.get("optimizer", "auto")
    if asked != "auto":
        return cast("Optimizer", asked)
    whole = not recipe["use_lora"] and recipe["type"] != "embedding"
    too_large = gpu_bytes > 0 and BYTES_EACH * parameters > MOST_OF_GPU * gpu_bytes
    return "adamw_8bit" if whole and too_large else "adamw"


def memory_gb() -> tuple[float, float]:
    """Memory this process uses now and what there is, in GiB: the GPU's, or the machine's without one."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.memory_reserved() / 2**30, torch.cuda.get_device_properties(0).total_memory / 2**30
    return psutil.Process().memory_info().rss / 2**30, psutil.virtual_memory().total / 2**30


def gpu_bytes() -> float:
    """All memory of the GPU that this process trains on, in bytes; 0 without one."""
    import torch

    if not torch.cuda.is_available():
        return 0.0
    return float(torch.cuda.get_device_properties(int(os.environ.get("LOCAL_RANK", "0"))).total_memory)


def peak_memory_gb() -> float:
    """The most memory this process has used, in GiB: on the GPU, or resident without one."""
    import torch

    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_reserved()) / 2**30
    if OWN_STATUS.is_file():  # ru_maxrss may be the parent's: Linux hands it down through fork and exec
        found = re.search(r"VmHWM:\s+(\d+)", OWN_STATUS.read_text())
        if found is not None:
            return int(found[1]) / 2**20
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 2**30 if sys.platform == "darwin" else most / 2**20


def device_name() -> str:
    """The GPU's name, or the number of threads used without one."""
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"


def versions() -> dict[str, str]:
    """The versions of the libraries that decide what a run computes."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _choose_gpu() -> None:
    """Without a launcher one process drives one GPU: of those it may see, the one with the most free memory."""
    gpus = detect_hardware().gpus
    if len(gpus) > 1:
        os.environ[VISIBLE] = str(max(gpus, key=lambda gpu: gpu.free_gb).index)
