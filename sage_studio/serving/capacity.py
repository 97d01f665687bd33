"""GPU and memory capacity: which GPUs an engine takes, and what fits on them.

Pure arithmetic on recorded facts, tested without a GPU. vLLM refuses to start where less is free than it is told to
take, so the share follows what is free now. Sizes are in GiB unless a name says bytes.
"""

import functools
import hashlib
import math
import platform
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from sage_studio.catalog import read_entries
from sage_studio.errors import InvalidModel
from sage_studio.hardware import Gpu, Hardware, ask_nvidia_smi
from sage_studio.models.model_folder import (
    CHAT_TEMPLATE,
    TOKENIZER_CONFIG,
    read_chat_template,
    read_config,
    read_json,
    read_tokenizer_config,
    weights_bytes,
)
from sage_studio.serving.types import EngineKind, EngineRecord
from sage_studio.text import Text

GIB = 2**30
LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
LORA_BYTES = 2
LORA_PER_ROOT = 32
"""Parameters of an adapter for each rank and the square root of the model's: 27 to 39 for models of 0.5B to 14B."""
CPU_CONTEXT = 2048
CPU_SEQUENCES = 16
CPU_CACHE_GB = 1
CPU_LARGE_MEMORY_GB = 64.0
SMALL_GPU_GB = 16
"""Up to here vLLM's defaults (256 sequences, 51 CUDA graphs) take memory that a handful of chats never use."""
SMALL_SEQUENCES = 32
SMALL_GRAPHS = (1, 2, 4, 8, 16, 24, 32)
SHARE_MARGIN_GB = 0.75
"""Left free of what is free now. `nvidia-smi` counts up to 0.46 GiB more memory than CUDA does (a 24 GB GPU: 23.99 and
23.53), and vLLM's own context has 0.25 GiB by the time that it compares."""
UNSEEN_GB = 0.4
"""What `nvidia-smi` counts and CUDA does not, of a GPU's total, on average."""
CUDA_CONTEXT_GB = 0.4
GRAPHS_GB, SMALL_GRAPHS_GB = 0.7, 0.3
SPARE_GB = 0.3
"""cuBLAS workspaces, and what the allocator cannot use."""
UNKNOWN_WORK_GB = 0.7
TRANSFORMERS_GB = 1.3
"""CUDA context, activations and some adapters of the transformers engine, which serves one chat at a time."""
EMBEDDING_SHARE = 0.15
"""Of the parameters, where the vocabulary's size is not known: quantization leaves embeddings and head as they are."""
FP8_CAPABILITY = (7, 5)
BF16_CAPABILITY = (8, 0)
FOUR_BIT_BYTES = 0.53
"""Of a 4-bit weight, its scales included; as in `sage_studio.training.memory`, which is not imported for one number."""


class WeightFormat(StrEnum):
    """In which form an engine holds the weights."""

    BF16 = "bf16"
    FP8 = "fp8_per_tensor"
    FOUR_BIT = "4bit"
    STORED = "as_stored"
    CPU = "cpu"
    EXTERNAL = "external"
    EMBEDDER = "embedder"
    UNKNOWN = "unknown"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Architecture:
    """The sizes in a model's config that memory depends on; None where they are not known.

    Attributes:
        context: longest sequence in tokens that the model, and its tokenizer, were made for.
        heads, kv_heads, head_dim: attention heads, those of keys and values, and the width of one.
        intermediate_size: width of the feed-forward layers.
        tied_embeddings: whether the LM head shares the weights of the embedding.
    """

    context: int | None = None
    heads: int | None = None
    kv_heads: int | None = None
    hidden_size: int | None = None
    intermediate_size: int | None = None
    layers: int | None = None
    head_dim: int | None = None
    vocab_size: int | None = None
    tied_embeddings: bool = False


UNKNOWN = Architecture()


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What bears on serving a model.

    Attributes:
        parameters: how many; 0 where it is not known yet.
        stored_bytes: of its weights on this machine; 0 where they are not here.
        quantized: the method that it is stored quantized with (``bitsandbytes``, ``awq``, …); empty for 16 or 32 bits.
        shape: the sizes in its config.
    """

    parameters: int = 0
    stored_bytes: int = 0
    quantized: str = ""
    shape: Architecture = UNKNOWN

    @property
    def known(self) -> bool:
        """Whether its size is known."""
        return bool(self.parameters or (self.quantized and self.stored_bytes))


NO_FACTS = ModelFacts()


@dataclass(frozen=True, slots=True)
class LoraSlots:
    """LoRA slots: how many adapters are active at the same time, and the largest rank of one."""

    count: int = 0
    rank: int = 0


@dataclass(frozen=True, slots=True)
class EnginePlan:
    """What an engine is told of the hardware.

    Attributes:
        context: longest prompt plus answer, in tokens (``max_model_len``).
        memory_share: share of each GPU, 0 to 1, that vLLM takes; None without a GPU.
        gpus: the GPUs that the model is spread over (tensor parallel where several); empty without one.
        cache_gb: room for the KV cache in main memory; 0 on a GPU.
        sequences: most answers at the same time; 0 leaves it to vLLM.
        graphs: batch sizes for which CUDA graphs are captured; empty leaves it to vLLM.
        form: in which the weights are held.
        need_gb, available_gb: what it takes of each GPU, as estimated, and what is free for it.
    """

    context: int
    memory_share: float | None = None
    gpus: tuple[Gpu, ...] = ()
    kv_cache_gb: int = 0
    sequences: int = 0
    graphs: tuple[int, ...] = ()
    form: WeightFormat = WeightFormat.CPU
    need_gb: float = 0.0
    available_gb: float = field(default=math.inf)

    @property
    def fits(self) -> bool:
        """Whether there is memory enough."""
        return self.need_gb <= self.available_gb

    @property
    def indices(self) -> tuple[int, ...]:
        """The GPUs' numbers, as `nvidia-smi` counts."""
        return tuple(gpu.index for gpu in self.gpus)


def plan(
    hardware: Hardware,
    memory_share: float,
    model: ModelFacts = NO_FACTS,
    slots: LoraSlots | None = None,
    forms: Sequence[WeightFormat] = (WeightFormat.BF16, WeightFormat.FP8),
) -> EnginePlan:
    """Decide for vLLM on a machine.

    The fewest GPUs that hold the model in bf16 are taken, so that a training has the others; where none hold it, the
    fewest that hold it in 8 bits. Where nothing holds it, the plan that comes closest is returned and does not `fit`.

    Args:
        hardware: what was found, with what our own engine holds counted as free.
        memory_share: the operator's ``gpu_memory_utilization``.
        model: its sizes; limits in its shape are never exceeded.
        slots: LoRA slots; None for none.
        forms: those that may be chosen, the best first; what is stored quantized stays so.
    """
    if not hardware.has_gpu:
        cache = CPU_CACHE_GB if hardware.memory_gb < CPU_LARGE_MEMORY_GB else 4 * CPU_CACHE_GB
        return EnginePlan(_bounded(CPU_CONTEXT, model.shape), kv_cache_gb=cache, sequences=CPU_SEQUENCES)
    plans = [
        _on_gpus(gpus, form, memory_share, model, slots or LoraSlots())
        for form in ((WeightFormat.STORED,) if model.quantized else forms)
        for gpus in gpu_combinations(hardware.gpus, model)
        if form is not WeightFormat.FP8 or all(_capability(gpu) >= FP8_CAPABILITY for gpu in gpus)
    ]
    fitting = next((each for each in plans if each.fits), None)
    return fitting or max(plans, key=lambda each: each.available_gb - each.need_gb)


def plan_transformers(hardware: Hardware, model: ModelFacts = NO_FACTS) -> EnginePlan:
    """Decide for the transformers engine: one GPU in 16 bits, else in 4, else the CPU; it never spreads a model."""
    forms = (WeightFormat.STORED,) if model.quantized else (WeightFormat.BF16, WeightFormat.FOUR_BIT)
    for form in forms:
        for gpus in gpu_combinations(hardware.gpus, model):
            context = _bounded(context_for(gpus), model.shape)
            need = weights_gb(model, form) + TRANSFORMERS_GB + kv_cache_gb(model.shape, context)
            available = max(0.0, gpus[0].free_gb - SHARE_MARGIN_GB)
            if len(gpus) == 1 and need <= available:
                return EnginePlan(context, gpus=gpus, form=form, need_gb=need, available_gb=available)
    return EnginePlan(_bounded(CPU_CONTEXT, model.shape))


def gpu_combinations(gpus: Sequence[Gpu], model: ModelFacts = NO_FACTS) -> Iterator[tuple[Gpu, ...]]:
    """The sets of GPUs that a model may go on, in the order in which they are tried.

    Single ones first: the smallest, then the freest, of equal ones the last, since trainings begin with the first.
    Where the model's size is not known, the freest alone. Then several: only GPUs of one name and size, as many as its
    attention heads divide by.
    """
    if not model.known:
        yield from ((gpu,) for gpu in sorted(gpus, key=lambda gpu: (-gpu.free_gb, -gpu.index))[:1])
        return
    single = sorted(gpus, key=lambda gpu: (round(gpu.memory_gb), -round(gpu.free_gb), -gpu.index))
    yield from ((gpu,) for gpu in single)
    groups: dict[tuple[str, int], list[Gpu]] = {}
    for gpu in gpus:
        groups.setdefault((gpu.name, round(gpu.memory_gb)), []).append(gpu)
    for count in range(2, max((len(group) for group in groups.values()), default=0) + 1):
        for group in groups.values():
            if len(group) >= count and tensor_parallel_size(count, model.shape) == count:
                freest = sorted(group, key=lambda gpu: -gpu.free_gb)[:count]
                yield tuple(sorted(freest, key=lambda gpu: gpu.index))


def _on_gpus(
    gpus: tuple[Gpu, ...], form: WeightFormat, memory_share: float, model: ModelFacts, slots: LoraSlots
) -> EnginePlan:
    context = _bounded(context_for(gpus), model.shape)
    small = is_small(gpus)
    share = memory_share_for(gpus, memory_share)
    need = (weights_gb(model, form) + kv_cache_gb(model.shape, context)) / len(gpus)
    need += lora_slots_gb(model, slots)
    need += CUDA_CONTEXT_GB + SPARE_GB + (SMALL_GRAPHS_GB if small else GRAPHS_GB) + _work_gb(model.shape, gpus)
    return EnginePlan(
        context,
        memory_share=share,
        gpus=gpus,
        sequences=SMALL_SEQUENCES if small else 0,
        graphs=SMALL_GRAPHS if small else (),
        form=form,
        need_gb=need if model.known else 0.0,
        available_gb=share * (min(gpu.memory_gb for gpu in gpus) - UNSEEN_GB),
    )


def memory_share_for(gpus: Sequence[Gpu], memory_share: float) -> float:
    """The share of each of these GPUs that vLLM can take now: the operator's, or less where less is free.

    Example:
        >>> memory_share_for([Gpu(0, "RTX 3060", 12.0, 3.0)], 0.8)  # 3 GiB of desktop
        0.687
    """
    free = min((gpu.free_gb - SHARE_MARGIN_GB) / gpu.memory_gb for gpu in gpus)
    return max(0.01, math.floor(1000 * min(memory_share, free)) / 1000)


def is_small(gpus: Sequence[Gpu]) -> bool:
    """Whether one of these GPUs has 16 GB or less."""
    return min(round(gpu.memory_gb) for gpu in gpus) <= SMALL_GPU_GB


def context_for(gpus: Sequence[Gpu]) -> int:
    """``max_model_len`` by the smallest GPU's memory: under 8 GB 2048, under 16 GB 4096, else 8192.

    A GPU sold as 8 or 16 GB reports some MiB less or more than that in GiB, so its memory is rounded first.
    """
    smallest = round(min(gpu.memory_gb for gpu in gpus))
    if smallest < 8:
        return 2048
    return 4096 if smallest < 16 else 8192


def weights_gb(model: ModelFacts, form: WeightFormat) -> float:
    """The weights in a form. What is stored quantized stays so."""
    if model.quantized:
        return (model.stored_bytes or model.parameters * FOUR_BIT_BYTES) / GIB
    embedding = embedding_parameters(model)
    per_weight = {WeightFormat.FP8: 1.0, WeightFormat.FOUR_BIT: FOUR_BIT_BYTES, WeightFormat.CPU: 4.0}.get(form, 2.0)
    whole = 4.0 if form is WeightFormat.CPU else 2.0
    return (whole * embedding + per_weight * (model.parameters - embedding)) / GIB


def embedding_parameters(model: ModelFacts) -> float:
    """Parameters of embedding and head, which no form shrinks."""
    shape = model.shape
    if not (shape.vocab_size and shape.hidden_size):
        return EMBEDDING_SHARE * model.parameters
    return min(float(model.parameters), shape.vocab_size * shape.hidden_size * (1.0 if shape.tied_embeddings else 2.0))


def kv_cache_gb(shape: Architecture, context: int) -> float:
    """The KV cache of one conversation of full length; vLLM does not start without that much."""
    heads = shape.kv_heads or shape.heads
    if not (heads and shape.layers and (shape.head_dim or (shape.hidden_size and shape.heads))):
        return 0.0
    width = shape.head_dim or (shape.hidden_size or 0) // (shape.heads or 1)
    return 2 * 2 * shape.layers * heads * width * context / GIB


def adapter_bytes(rank: int, shape: Architecture) -> int:
    """Bytes of a LoRA adapter of a rank on every linear layer; 0 where the model's sizes are not known."""
    if not (shape.hidden_size and shape.intermediate_size and shape.layers):
        return 0
    attention = 4 * 2 * shape.hidden_size
    mlp = 3 * (shape.hidden_size + shape.intermediate_size)
    return rank * (attention + mlp) * shape.layers * LORA_BYTES


def lora_slots_gb(model: ModelFacts, slots: LoraSlots) -> float:
    """Memory of the LoRA slots on each GPU; from the number of parameters alone where the sizes are not known."""
    guess = LORA_BYTES * LORA_PER_ROOT * slots.rank * math.sqrt(model.parameters)
    return slots.count * (adapter_bytes(slots.rank, model.shape) or guess) / GIB


def tensor_parallel_size(count: int, shape: Architecture = UNKNOWN) -> int:
    """Over how many of ``count`` GPUs a model can be spread: all, unless its attention heads do not divide by that."""
    heads, groups = shape.heads, shape.kv_heads or shape.heads
    if heads is None or groups is None:
        return count
    return next(n for n in range(count, 0, -1) if heads % n == 0 and (groups % n == 0 or n % groups == 0))


def lora_rank_for(rank: int) -> int:
    """The smallest rank vLLM can be started with that holds ``rank``; its largest if there is none."""
    return next((allowed for allowed in LORA_RANKS if allowed >= rank), LORA_RANKS[-1])


def _work_gb(shape: Architecture, gpus: Sequence[Gpu]) -> float:
    """Activations of one step and the logits, by vLLM's own defaults for the GPU."""
    if not (shape.hidden_size and shape.intermediate_size and shape.vocab_size):
        return UNKNOWN_WORK_GB
    large = min(gpu.memory_gb for gpu in gpus) >= 70
    tokens, sequences = (8192, 1024) if large else (2048, SMALL_SEQUENCES if is_small(gpus) else 256)
    return (2 * tokens * (4 * shape.hidden_size + 3 * shape.intermediate_size) + 8 * sequences * shape.vocab_size) / GIB


def _bounded(context: int, shape: Architecture) -> int:
    return context if shape.context is None else min(context, shape.context)


def _capability(gpu: Gpu) -> tuple[int, int]:
    return gpu.capability or FP8_CAPABILITY


# An engine beside another engine or a training

FACTOR = {"vllm": 1.2, "transformers": 2.4}
"""Memory in use for each byte of 16-bit weights on a CPU; the small server computes in 32 bits there."""
PROCESS_GB = 2.0
"""Python, torch and the engine itself, without a model."""
MARGIN_GB = 2.0
ADAPTER_SHARE = 0.1
"""Of the free memory, for adapters that are kept ready."""
MOST_ADAPTERS = 64
USUAL_ADAPTERS = 16
AS_MUCH = 0.95
"""An engine is started beside another only with this share of what it would get alone: it keeps what it got."""
ASLEEP_GB = 1.2
"""What a sleeping vLLM keeps of each GPU: CUDA context, graphs, NCCL."""
WSL_PINNED_SHARE = 0.5
"""Of the memory, what Windows lets the Linux under it pin."""


class GpuRelease(StrEnum):
    """What the engine does while a training runs."""

    NOTHING = "nothing"
    SLEEP = "sleep"
    STOP = "stop"


def main_memory_gb(kind: EngineKind, model: ModelFacts, planned: EnginePlan) -> float:
    """What an engine takes of main memory."""
    if planned.gpus:
        return PROCESS_GB
    weights = weights_gb(model, WeightFormat.BF16)
    return weights * (1.0 if model.quantized else FACTOR.get(kind, 1.0)) + planned.kv_cache_gb + PROCESS_GB


def fits_beside(memory_gb: float, beside: EnginePlan, alone: EnginePlan, hardware: Hardware) -> bool:
    """Whether an engine can start while all that runs now goes on, and get about what it would get alone.

    Args:
        memory_gb: what it takes of main memory.
        beside, alone: the plans with what is free now, and with the running engine stopped.
        hardware: what is free now.
    """
    if hardware.memory_gb - hardware.used_gb < memory_gb + MARGIN_GB:
        return False
    same = (beside.form, len(beside.gpus)) == (alone.form, len(alone.gpus))
    return same and beside.fits and (beside.memory_share or 0.0) >= AS_MUCH * (alone.memory_share or 0.0)


def without_engine(hardware: Hardware, held: Mapping[int, float]) -> Hardware:
    """The machine as it were without an engine that holds ``held`` of each GPU (GiB, by index)."""
    gpus = (replace(gpu, used_gb=max(0.0, gpu.used_gb - held.get(gpu.index, 0.0))) for gpu in hardware.gpus)
    return replace(hardware, gpus=tuple(gpus))


def without_gpus(hardware: Hardware, taken: Sequence[int] | None) -> Hardware:
    """The machine without the GPUs that trainings use; unchanged if none would be left, or if unknown."""
    left = tuple(gpu for gpu in hardware.gpus if taken is not None and gpu.index not in taken)
    return replace(hardware, gpus=left) if left else hardware


def adapters_kept_loaded(hardware: Hardware, max_loras: int, rank: int, shape: Architecture) -> int:
    """How many adapters stay loaded beside the base (vLLM's ``max_cpu_loras``): as many as a tenth of the free memory
    holds, at least those that answer side by side, at most `MOST_ADAPTERS`.

    Args:
        hardware: what is free now.
        max_loras: adapters that answer side by side.
        rank: of each slot.
        shape: the model's; without its sizes, `USUAL_ADAPTERS`.
    """
    size = adapter_bytes(rank, shape)
    if size == 0:
        return max(USUAL_ADAPTERS, max_loras)
    free = max(0.0, hardware.memory_gb - hardware.used_gb) * GIB
    return max(max_loras, min(MOST_ADAPTERS, int(ADAPTER_SHARE * free / size)))


def before_training(
    hardware: Hardware,
    engine: EngineRecord | None,
    sleeps: bool,
    sleep_memory_gb: float,
    gpus: Sequence[int] | None = None,
    pinned_gb: float = math.inf,
) -> GpuRelease:
    """What to do with an engine so that a training has its GPUs to itself.

    On a CPU both share the processor, and an external server is not ours to stop. vLLM can sleep: it gives the
    GPU's memory back and keeps its weights and adapters in main memory, pinned, so they must fit there; else it stops
    and starts again.

    Args:
        sleeps: whether the engine was started so that it can.
        backed_up_gb: what it would keep in main memory.
        gpus: indices of the GPUs that the training uses; None if unknown: then it counts as all of them.
        pinned_gb: the most memory that may be pinned.
    """
    if not hardware.has_gpu or engine is None or engine.pid is None or engine.form == WeightFormat.CPU:
        return GpuRelease.NOTHING
    if gpus is not None and not set(gpus) & set(engine.gpus or (gpu.index for gpu in hardware.gpus)):
        return GpuRelease.NOTHING
    if engine.kind != "vllm" or not sleeps:
        return GpuRelease.STOP
    free = min(hardware.memory_gb - hardware.used_gb, pinned_gb)
    return GpuRelease.SLEEP if free >= sleep_memory_gb + MARGIN_GB else GpuRelease.STOP


def sleep_memory_gb(engine: EngineRecord, hardware: Hardware, model: ModelFacts, slots: LoraSlots) -> float:
    """What vLLM keeps in main memory while it sleeps: the weights of all its GPUs, and the LoRA slots of each.

    Where the model's size is not known, all that it holds: of that, only the cache is thrown away.
    """
    mine = [gpu for gpu in hardware.gpus if gpu.index in engine.gpus] or list(hardware.gpus)
    if not model.known:
        return sum((engine.memory_share or 1.0) * gpu.memory_gb for gpu in mine)
    form = WeightFormat.FP8 if engine.form == WeightFormat.FP8 else WeightFormat.BF16
    return weights_gb(model, form) + len(mine) * lora_slots_gb(model, slots)


def pinnable_memory_gb(hardware: Hardware, release: str | None = None) -> float:
    """The most memory that may be pinned: under WSL2 about half of it, elsewhere no limit of its own.

    Args:
        release: of the kernel; None: this one's.
    """
    on_wsl = "microsoft" in (platform.release() if release is None else release).lower()
    return WSL_PINNED_SHARE * hardware.memory_gb if on_wsl else math.inf


# GPU memory that our own engine holds

FIELDS = "pid,used_memory,gpu_uuid"


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """What a process holds of a GPU, in GiB; None where the driver does not tell."""

    pid: int
    used_gb: float | None
    uuid: str


def engine_memory_gb(
    engine: EngineRecord, hardware: Hardware, usage: Sequence[GpuProcess], members: Collection[int]
) -> dict[int, float]:
    """What an engine holds of each GPU, in GiB by index; nothing while it sleeps.

    Args:
        engine: as it is on record.
        usage: what all processes hold.
        members: process ids of the engine.
    """
    if engine.phase == "asleep":
        return {}
    held = {}
    for gpu in hardware.gpus:
        if gpu.index not in engine.gpus:
            continue
        told = [one.used_gb for one in usage if one.uuid == gpu.uuid and one.pid in members and one.used_gb]
        held[gpu.index] = min(sum(told) if told else engine.memory_share * gpu.memory_gb, gpu.used_gb)
    return held


def query_gpu_processes() -> tuple[GpuProcess, ...]:
    """Ask `nvidia-smi` now; empty where there is none, or it fails."""
    return parse_gpu_processes(ask_nvidia_smi("compute-apps", FIELDS))


def parse_gpu_processes(csv: str) -> tuple[GpuProcess, ...]:
    """Read what `nvidia-smi` printed for `FIELDS`; MiB become GiB.

    Example:
        >>> parse_gpu_processes("4711, 9830, GPU-77af\\n812, [N/A], GPU-77af\\n")[0]
        GpuProcess(pid=4711, used_gb=9.599609375, uuid='GPU-77af')
    """
    found = []
    for line in csv.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) == 3 and cells[0].isdigit():
            used = float(cells[1]) / 1024 if cells[1].replace(".", "", 1).isdigit() else None
            found.append(GpuProcess(int(cells[0]), used, cells[2]))
    return tuple(found)


# What a model's files say

ITEM_BYTES = {"float32": 4, "float64": 8}
"""Bytes of a stored weight, where it is not 2."""
CONTEXT_KEYS = (
    *("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "model_max_length"),
    *("max_sequence_length", "max_seq_length", "seq_len"),
)
SCALED_ALREADY = ("su", "longrope", "llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling", "default", "mrope")
"""RoPE variants whose factor is in ``max_position_embeddings`` already; vLLM multiplies by that of all others."""
STORED_QUANTIZED = re.compile(r"(?:^|[-_.])(bnb|awq|gptq)(?:[-_.]|$)", re.IGNORECASE)


def read_facts(location: str, parameters: int = 0) -> ModelFacts:
    """What is known of a model on this machine.

    Args:
        location: a folder or a hub id.
        parameters: how many, for a model whose files are not here yet; without it what the catalogue says.
    """
    parameters = parameters or catalogue_parameters().get(location, 0)
    config, stored = read_config(location), weights_bytes(location)
    quantized = _quantized(location, config)
    item = ITEM_BYTES.get(str(config.get("torch_dtype") or config.get("dtype") or "").removeprefix("torch."), 2)
    known = (0 if quantized else stored // item) or parameters
    return ModelFacts(known, stored, quantized, _shape(config, read_tokenizer_config(location)))


def model_shape(location: str) -> Architecture:
    """What the model's configs say, if they lie on this machine."""
    return _shape(read_config(location), read_tokenizer_config(location))


@functools.cache
def catalogue_parameters() -> dict[str, int]:
    """How many parameters each model of the catalogue has, by its id."""
    return {entry.id: entry.parameters for entry in read_entries()}


def _quantized(location: str, config: dict[str, Any]) -> str:
    """The method that a model is stored quantized with: by its config, else, before that is here, by its name."""
    if config:
        found = config.get("quantization_config")
        return str(found.get("quant_method") or "unknown") if isinstance(found, dict) else ""
    named = STORED_QUANTIZED.search(location)
    return {"bnb": "bitsandbytes"}.get(named[1].lower(), named[1].lower()) if named else ""


def _shape(config: dict[str, Any], tokenizer: dict[str, Any]) -> Architecture:
    if not config:
        return UNKNOWN
    text = config.get("text_config")
    config = {**config, **text} if isinstance(text, dict) else config
    return Architecture(
        context=_context(config, tokenizer),
        heads=_whole(config.get("num_attention_heads")),
        kv_heads=_whole(config.get("num_key_value_heads")),
        hidden_size=_whole(config.get("hidden_size")),
        intermediate_size=_whole(config.get("intermediate_size")),
        layers=_whole(config.get("num_hidden_layers")),
        head_dim=_whole(config.get("head_dim")),
        vocab_size=_whole(config.get("vocab_size")),
        tied_embeddings=bool(config.get("tie_word_embeddings", False)),
    )


def _context(config: dict[str, Any], tokenizer: dict[str, Any]) -> int | None:
    """The longest sequence, derived as vLLM does (which refuses more), and never beyond the tokenizer's own limit."""
    stated = [found for key in CONTEXT_KEYS if (found := _whole(config.get(key))) is not None]
    longest = float(min(stated)) if stated else None
    if longest is not None and "gemma3" not in str(config.get("model_type", "")):
        for rope in _ropes(config):
            factor = rope.get("factor")
            if str(rope.get("rope_type") or rope.get("type") or "default") not in SCALED_ALREADY and factor:
                longest = longest * float(factor)
                break
    limits = [limit for limit in (longest, _whole(tokenizer.get("model_max_length"))) if limit is not None]
    return int(min(limits)) if limits else None


def _ropes(config: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The RoPE settings: one for all layers, or one for each kind of layer."""
    found = config.get("rope_parameters") or config.get("rope_scaling")
    if not isinstance(found, dict):
        return
    inner = [each for each in found.values() if isinstance(each, dict)]
    yield from inner or [found]


def _whole(value: object) -> int | None:
    return int(value) if isinstance(value, (int, float)) and 0 < value < 1 << 31 else None


# Chat templates

ARGUMENTS = "training_args.json"
HASH = "chat_template_sha256"
SHOWN = 12


def needs_own_template(folder: Path, base: str) -> bool:
    """Whether a tuned model must be served whole, with the template in its own folder: the base's is another one now.

    Args:
        folder: the tuned model, with ``training_args.json`` if the studio trained it.
        base: what the engine would take its template from, folder or hub id.

    Raises:
        InvalidModel: it was trained with a template that neither has; the message names the hashes.
    """
    trained = trained_hash(folder)
    if trained is None or (served := template_hash(base)) is None or served == trained:
        return False
    if template_hash(str(folder)) == trained:
        return True
    raise InvalidModel(
        Text(
            "{name} was trained with the chat template {trained}…, but {base} now has {served}… "
            "({chat_template} or {tokenizer_config}): its answers would get worse.",
            name=folder.name,
            trained=trained[:SHOWN],
            base=base,
            served=served[:SHOWN],
            chat_template=CHAT_TEMPLATE,
            tokenizer_config=TOKENIZER_CONFIG,
        ),
        Text(
            "Restore the base's template, copy the one from training to {folder}, or train again.",
            folder=folder / CHAT_TEMPLATE,
        ),
    )


def trained_hash(folder: Path) -> str | None:
    """The SHA-256 of the template that a model was trained with; None where training left no note of it."""
    found = read_json(folder / ARGUMENTS).get(HASH)
    return found if isinstance(found, str) else None


def template_hash(location: str) -> str | None:
    """The SHA-256 of a tokenizer's chat template; None where it is not on this machine or has none."""
    template = read_chat_template(location)
    return None if template is None else hashlib.sha256(template.encode()).hexdigest()
