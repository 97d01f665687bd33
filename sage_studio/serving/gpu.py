"""How much of the hardware an engine is given: pure arithmetic on recorded facts, tested without a card.

Knows the documented limits for vLLM. Starts nothing and asks no card anything.
"""

from dataclasses import dataclass

from sage_studio.hardware import Hardware

LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
CPU_CONTEXT = 2048
CPU_SEQUENCES = 16
CPU_CACHE_GB = 1
CPU_LARGE_MEMORY_GB = 64.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What vLLM is told of the hardware.

    Attributes:
        context: longest prompt plus answer, in tokens (``max_model_len``).
        memory_share: share of each card, 0 to 1; None without a card.
        cards: over how many cards the model is spread (``tensor_parallel_size``); 0 without one.
        cache_gb: room for the KV cache in main memory, in GiB; 0 with a card.
        sequences: most answers at the same time; 0 leaves it to vLLM.
    """

    context: int
    memory_share: float | None
    cards: int
    cache_gb: int
    sequences: int


@dataclass(frozen=True, slots=True)
class Shape:
    """What a model's config says that bears on the plan; None where it is not at hand.

    Attributes:
        context: longest sequence in tokens that the model was made for.
        heads, kv_heads: attention heads, and those of keys and values.
        hidden, inner, layers: width, width inside the feed-forward part, and how many layers.
    """

    context: int | None = None
    heads: int | None = None
    kv_heads: int | None = None
    hidden: int | None = None
    inner: int | None = None
    layers: int | None = None


UNKNOWN = Shape()


def plan(hardware: Hardware, memory_share: float, shape: Shape = UNKNOWN) -> Plan:
    """Decide for a machine.

    Args:
        hardware: what was found on it.
        memory_share: the operator's ``gpu_memory_utilization``.
        shape: the model's own limits, never exceeded.
    """
    context = context_for(hardware)
    if shape.context is not None:
        context = min(context, shape.context)
    if hardware.has_gpu:
        return Plan(context, memory_share, usable_cards(len(hardware.cards), shape), 0, 0)
    cache = CPU_CACHE_GB if hardware.memory_gb < CPU_LARGE_MEMORY_GB else 4 * CPU_CACHE_GB
    return Plan(context, None, 0, cache, CPU_SEQUENCES)


def context_for(hardware: Hardware) -> int:
    """``max_model_len`` by the smallest card's memory: under 8 GB 2048, under 16 GB 4096, else 8192; 2048 without one.

    A card sold as 8 or 16 GB reports some MiB less or more than that in GiB, so its memory is rounded first.
    """
    if not hardware.has_gpu:
        return CPU_CONTEXT
    smallest = round(min(card.memory_gb for card in hardware.cards))
    if smallest < 8:
        return 2048
    return 4096 if smallest < 16 else 8192


def usable_cards(count: int, shape: Shape = UNKNOWN) -> int:
    """Over how many of ``count`` cards a model can be spread: all, unless its attention heads do not divide by that."""
    heads, groups = shape.heads, shape.kv_heads or shape.heads
    if heads is None or groups is None:
        return count
    return next(n for n in range(count, 0, -1) if heads % n == 0 and (groups % n == 0 or n % groups == 0))


def lora_rank_for(rank: int) -> int:
    """The smallest rank vLLM can be started with that holds ``rank``; its largest if there is none."""
    return next((allowed for allowed in LORA_RANKS if allowed >= rank), LORA_RANKS[-1])
