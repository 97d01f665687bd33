"""How much of which GPU an engine is given: pure arithmetic on recorded facts, tested without a GPU.

A plan says on which GPUs a model goes, in which form, and with how much of their memory. vLLM refuses to start where
less is free than it is told to take, so the share follows what is free now. Sizes are in GiB unless a name says bytes.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from sage_studio.hardware import Card, Hardware
from sage_studio.training.memory import BYTES_PER_WEIGHT

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


class Form(StrEnum):
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
class Shape:
    """What a model's config says that bears on the plan; None where it is not at hand.

    Attributes:
        context: longest sequence in tokens that the model, and its tokenizer, were made for.
        heads, kv_heads, head_size: attention heads, those of keys and values, and the width of one.
        hidden, inner, layers: width, width inside the feed-forward part, and how many layers.
        vocabulary: tokens that it knows.
        tied: whether the head is the embedding again.
    """

    context: int | None = None
    heads: int | None = None
    kv_heads: int | None = None
    hidden: int | None = None
    inner: int | None = None
    layers: int | None = None
    head_size: int | None = None
    vocabulary: int | None = None
    tied: bool = False


UNKNOWN = Shape()


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What bears on serving a model.

    Attributes:
        parameters: how many; 0 where nobody knows yet.
        stored_bytes: of its weights on this machine; 0 where they are not here.
        quantized: the method that it is stored quantized with (``bitsandbytes``, ``awq``, …); empty for 16 or 32 bits.
        shape: the sizes in its config.
    """

    parameters: int = 0
    stored_bytes: int = 0
    quantized: str = ""
    shape: Shape = UNKNOWN

    @property
    def known(self) -> bool:
        """Whether its size is known."""
        return bool(self.parameters or (self.quantized and self.stored_bytes))


NO_FACTS = ModelFacts()


@dataclass(frozen=True, slots=True)
class Slots:
    """Room for LoRA adapters: how many answer side by side, and the largest rank of one."""

    count: int = 0
    rank: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """What an engine is told of the hardware.

    Attributes:
        context: longest prompt plus answer, in tokens (``max_model_len``).
        memory_share: share of each GPU, 0 to 1, that vLLM takes; None without a GPU.
        cards: the GPUs that the model is spread over (tensor parallel where several); empty without one.
        cache_gb: room for the KV cache in main memory; 0 on a GPU.
        sequences: most answers at the same time; 0 leaves it to vLLM.
        graphs: batch sizes for which CUDA graphs are captured; empty leaves it to vLLM.
        form: in which the weights are held.
        need_gb, room_gb: what it takes of each GPU, as estimated, and what there is for it.
    """

    context: int
    memory_share: float | None = None
    cards: tuple[Card, ...] = ()
    cache_gb: int = 0
    sequences: int = 0
    graphs: tuple[int, ...] = ()
    form: Form = Form.CPU
    need_gb: float = 0.0
    room_gb: float = field(default=math.inf)

    @property
    def fits(self) -> bool:
        """Whether there is memory enough."""
        return self.need_gb <= self.room_gb

    @property
    def indices(self) -> tuple[int, ...]:
        """The GPUs' numbers, as `nvidia-smi` counts."""
        return tuple(card.index for card in self.cards)


def plan(
    hardware: Hardware,
    memory_share: float,
    model: ModelFacts = NO_FACTS,
    slots: Slots | None = None,
    forms: Sequence[Form] = (Form.BF16, Form.FP8),
) -> Plan:
    """Decide for vLLM on a machine.

    The fewest GPUs that hold the model in bf16 are taken, so that a training has the others; where none hold it, the
    fewest that hold it in 8 bits. Where nothing holds it, the plan with the most room is returned and does not `fit`.

    Args:
        hardware: what was found, with what our own engine holds counted as free.
        memory_share: the operator's ``gpu_memory_utilization``.
        model: its sizes; limits in its shape are never exceeded.
        slots: room for adapters; None for none.
        forms: those that may be chosen, the best first; what is stored quantized stays so.
    """
    if not hardware.has_gpu:
        cache = CPU_CACHE_GB if hardware.memory_gb < CPU_LARGE_MEMORY_GB else 4 * CPU_CACHE_GB
        return Plan(_bounded(CPU_CONTEXT, model.shape), cache_gb=cache, sequences=CPU_SEQUENCES)
    plans = [
        _on_cards(cards, form, memory_share, model, slots or Slots())
        for form in ((Form.STORED,) if model.quantized else forms)
        for cards in combinations(hardware.cards, model)
        if form is not Form.FP8 or all(_capability(card) >= FP8_CAPABILITY for card in cards)
    ]
    fitting = next((each for each in plans if each.fits), None)
    return fitting or max(plans, key=lambda each: each.room_gb - each.need_gb)


def plan_transformers(hardware: Hardware, model: ModelFacts = NO_FACTS) -> Plan:
    """Decide for the transformers engine: one GPU in 16 bits, else in 4, else the CPU; it never spreads a model."""
    forms = (Form.STORED,) if model.quantized else (Form.BF16, Form.FOUR_BIT)
    for form in forms:
        for cards in combinations(hardware.cards, model):
            context = _bounded(context_for(cards), model.shape)
            need = weights_gb(model, form) + TRANSFORMERS_GB + cache_gb(model.shape, context)
            room = max(0.0, cards[0].free_gb - SHARE_MARGIN_GB)
            if len(cards) == 1 and need <= room:
                return Plan(context, cards=cards, form=form, need_gb=need, room_gb=room)
    return Plan(_bounded(CPU_CONTEXT, model.shape))


def combinations(cards: Sequence[Card], model: ModelFacts = NO_FACTS) -> Iterator[tuple[Card, ...]]:
    """The sets of GPUs that a model may go on, in the order in which they are tried.

    Single ones first: the smallest, then the freest, of equal ones the last, since trainings begin with the first.
    Where the model's size is not known, the freest alone. Then several: only GPUs of one name and size, as many as its
    attention heads divide by.
    """
    if not model.known:
        yield from ((card,) for card in sorted(cards, key=lambda card: (-card.free_gb, -card.index))[:1])
        return
    single = sorted(cards, key=lambda card: (round(card.memory_gb), -round(card.free_gb), -card.index))
    yield from ((card,) for card in single)
    groups: dict[tuple[str, int], list[Card]] = {}
    for card in cards:
        groups.setdefault((card.name, round(card.memory_gb)), []).append(card)
    for count in range(2, max((len(group) for group in groups.values()), default=0) + 1):
        for group in groups.values():
            if len(group) >= count and tensor_parallel_size(count, model.shape) == count:
                freest = sorted(group, key=lambda card: -card.free_gb)[:count]
                yield tuple(sorted(freest, key=lambda card: card.index))


def _on_cards(cards: tuple[Card, ...], form: Form, memory_share: float, model: ModelFacts, slots: Slots) -> Plan:
    context = _bounded(context_for(cards), model.shape)
    small = is_small(cards)
    share = share_of(cards, memory_share)
    need = (weights_gb(model, form) + cache_gb(model.shape, context)) / len(cards)
    need += slots_gb(model, slots)
    need += CUDA_CONTEXT_GB + SPARE_GB + (SMALL_GRAPHS_GB if small else GRAPHS_GB) + _work_gb(model.shape, cards)
    return Plan(
        context,
        memory_share=share,
        cards=cards,
        sequences=SMALL_SEQUENCES if small else 0,
        graphs=SMALL_GRAPHS if small else (),
        form=form,
        need_gb=need if model.known else 0.0,
        room_gb=share * (min(card.memory_gb for card in cards) - UNSEEN_GB),
    )


def share_of(cards: Sequence[Card], memory_share: float) -> float:
    """The share of each of these GPUs that vLLM can take now: the operator's, or less where less is free.

    Example:
        >>> share_of([Card(0, "RTX 3060", 12.0, 3.0)], 0.8)  # 3 GiB of desktop
        0.687
    """
    free = min((card.free_gb - SHARE_MARGIN_GB) / card.memory_gb for card in cards)
    return max(0.01, math.floor(1000 * min(memory_share, free)) / 1000)


def is_small(cards: Sequence[Card]) -> bool:
    """Whether one of these GPUs has 16 GB or less."""
    return min(round(card.memory_gb) for card in cards) <= SMALL_GPU_GB


def context_for(cards: Sequence[Card]) -> int:
    """``max_model_len`` by the smallest GPU's memory: under 8 GB 2048, under 16 GB 4096, else 8192.

    A GPU sold as 8 or 16 GB reports some MiB less or more than that in GiB, so its memory is rounded first.
    """
    smallest = round(min(card.memory_gb for card in cards))
    if smallest < 8:
        return 2048
    return 4096 if smallest < 16 else 8192


def weights_gb(model: ModelFacts, form: Form) -> float:
    """The weights in a form. What is stored quantized stays so."""
    if model.quantized:
        return (model.stored_bytes or model.parameters * BYTES_PER_WEIGHT["4bit"]) / GIB
    embedding = embedding_parameters(model)
    per_weight = {Form.FP8: 1.0, Form.FOUR_BIT: BYTES_PER_WEIGHT["4bit"], Form.CPU: 4.0}.get(form, 2.0)
    whole = 4.0 if form is Form.CPU else 2.0
    return (whole * embedding + per_weight * (model.parameters - embedding)) / GIB


def embedding_parameters(model: ModelFacts) -> float:
    """Parameters of embedding and head, which no form shrinks."""
    shape = model.shape
    if not (shape.vocabulary and shape.hidden):
        return EMBEDDING_SHARE * model.parameters
    return min(float(model.parameters), shape.vocabulary * shape.hidden * (1.0 if shape.tied else 2.0))


def cache_gb(shape: Shape, context: int) -> float:
    """The KV cache of one conversation of full length; vLLM does not start without room for it."""
    heads = shape.kv_heads or shape.heads
    if not (heads and shape.layers and (shape.head_size or (shape.hidden and shape.heads))):
        return 0.0
    width = shape.head_size or (shape.hidden or 0) // (shape.heads or 1)
    return 2 * 2 * shape.layers * heads * width * context / GIB


def adapter_bytes(rank: int, shape: Shape) -> int:
    """Bytes of a LoRA adapter of a rank on every linear layer; 0 where the model's sizes are not known."""
    if not (shape.hidden and shape.inner and shape.layers):
        return 0
    attention = 4 * 2 * shape.hidden
    mlp = 3 * (shape.hidden + shape.inner)
    return rank * (attention + mlp) * shape.layers * LORA_BYTES


def slots_gb(model: ModelFacts, slots: Slots) -> float:
    """The room for adapters on each GPU; from the number of parameters alone where the sizes are not known."""
    guess = LORA_BYTES * LORA_PER_ROOT * slots.rank * math.sqrt(model.parameters)
    return slots.count * (adapter_bytes(slots.rank, model.shape) or guess) / GIB


def tensor_parallel_size(count: int, shape: Shape = UNKNOWN) -> int:
    """Over how many of ``count`` GPUs a model can be spread: all, unless its attention heads do not divide by that."""
    heads, groups = shape.heads, shape.kv_heads or shape.heads
    if heads is None or groups is None:
        return count
    return next(n for n in range(count, 0, -1) if heads % n == 0 and (groups % n == 0 or n % groups == 0))


def lora_rank_for(rank: int) -> int:
    """The smallest rank vLLM can be started with that holds ``rank``; its largest if there is none."""
    return next((allowed for allowed in LORA_RANKS if allowed >= rank), LORA_RANKS[-1])


def _work_gb(shape: Shape, cards: Sequence[Card]) -> float:
    """Activations of one step and the logits, by vLLM's own defaults for the GPU."""
    if not (shape.hidden and shape.inner and shape.vocabulary):
        return UNKNOWN_WORK_GB
    large = min(card.memory_gb for card in cards) >= 70
    tokens, sequences = (8192, 1024) if large else (2048, SMALL_SEQUENCES if is_small(cards) else 256)
    return (2 * tokens * (4 * shape.hidden + 3 * shape.inner) + 8 * sequences * shape.vocabulary) / GIB


def _bounded(context: int, shape: Shape) -> int:
    return context if shape.context is None else min(context, shape.context)


def _capability(card: Card) -> tuple[int, int]:
    return card.capability or FP8_CAPABILITY
