"""Whether there is memory for one more engine, for an engine beside a training, and for how many adapters.

Pure arithmetic on recorded facts, tested without a card. Asks no machine anything and starts nothing.
"""

from dataclasses import dataclass
from enum import StrEnum

from sage_studio.hardware import Hardware
from sage_studio.serving.gpu import Plan, Shape
from sage_studio.serving.records import EngineKind, EngineRecord
from sage_studio.settings import Settings

GIB = 2**30
FACTOR = {"vllm": 1.2, "transformers": 2.4}
"""Memory in use for each byte of weights on disk; the small server computes in 32 bits where there is no card."""
PROCESS_GB = 2.0
"""Python, torch and the engine itself, without a model."""
MARGIN_GB = 2.0
MARGIN_CARD_GB = 0.5
ADAPTER_SHARE = 0.1
"""Of the free memory, for adapters that are kept ready."""
MOST_ADAPTERS = 64
USUAL_ADAPTERS = 16
LORA_BYTES = 2


@dataclass(frozen=True, slots=True)
class Need:
    """What an engine takes, in GiB.

    Attributes:
        memory_gb: of main memory.
        card_share: of each card's memory, 0 to 1, where the engine takes that much whatever the model; else None.
        card_gb: of one card, where the engine takes what the model needs.
    """

    memory_gb: float
    card_share: float | None = None
    card_gb: float = 0.0


class Yielding(StrEnum):
    """What the engine does while a training runs."""

    NOTHING = "nothing"
    SLEEP = "sleep"
    STOP = "stop"


def engine_need(kind: EngineKind, weights_bytes: int, plan: Plan) -> Need:
    """What an engine takes with a model of so many bytes on disk."""
    weights = weights_bytes / GIB * FACTOR.get(kind, 1.0)
    if plan.memory_share is None:
        return Need(weights + plan.cache_gb + PROCESS_GB)
    if kind == "vllm":
        return Need(PROCESS_GB, card_share=plan.memory_share)
    return Need(PROCESS_GB, card_gb=weights_bytes / GIB * FACTOR["vllm"] + 1.0)


def fits_beside(need: Need, hardware: Hardware) -> bool:
    """Whether an engine can start while all that runs now goes on."""
    if hardware.memory_gb - hardware.used_gb < need.memory_gb + MARGIN_GB:
        return False
    return has_card_room(need, hardware)


def has_card_room(need: Need, hardware: Hardware) -> bool:
    """Whether the cards have the free memory that an engine takes; true where it needs none."""
    if need.card_share is not None:
        return all(
            card.memory_gb - card.used_gb >= need.card_share * card.memory_gb + MARGIN_CARD_GB
            or card.used_gb <= MARGIN_CARD_GB
            for card in hardware.cards
        )
    if need.card_gb:
        return any(card.memory_gb - card.used_gb >= need.card_gb + MARGIN_CARD_GB for card in hardware.cards)
    return True


def adapters_kept(hardware: Hardware, max_loras: int, rank: int, shape: Shape) -> int:
    """How many adapters stay loaded beside the base (vLLM's ``max_cpu_loras``): as many as a tenth of the free memory
    holds, at least those that answer side by side, at most `MOST_ADAPTERS`.

    Args:
        hardware: what is free now.
        max_loras: adapters that answer side by side.
        rank: the room for each.
        shape: the model's; without its sizes, `USUAL_ADAPTERS`.
    """
    size = adapter_bytes(rank, shape)
    if size == 0:
        return max(USUAL_ADAPTERS, max_loras)
    free = max(0.0, hardware.memory_gb - hardware.used_gb) * GIB
    return max(max_loras, min(MOST_ADAPTERS, int(ADAPTER_SHARE * free / size)))


def adapter_bytes(rank: int, shape: Shape) -> int:
    """Bytes of a LoRA adapter of a rank on every linear layer; 0 where the model's sizes are not known."""
    if not (shape.hidden and shape.inner and shape.layers):
        return 0
    attention = 4 * 2 * shape.hidden
    mlp = 3 * (shape.hidden + shape.inner)
    return rank * (attention + mlp) * shape.layers * LORA_BYTES


def before_training(hardware: Hardware, engine: EngineRecord | None, settings: Settings) -> Yielding:
    """What to do with an engine so that a training has the card to itself.

    Without a card both share the processor, and someone else's server is not ours to stop. vLLM can sleep: it gives the
    card's memory back and keeps its weights in main memory, so it must fit there; else it stops and starts again.
    """
    if not hardware.has_gpu or engine is None or engine.pid is None:
        return Yielding.NOTHING
    if engine.kind != "vllm" or not settings.sleep_mode:
        return Yielding.STOP
    held = sum(card.used_gb for card in hardware.cards)
    cache_and_weights = min(held, max(card.memory_gb for card in hardware.cards))
    free = hardware.memory_gb - hardware.used_gb
    return Yielding.SLEEP if free > SLEEP_SHARE * cache_and_weights else Yielding.STOP


SLEEP_SHARE = 0.5
"""Of what the engine holds on the card, the most that its weights are: the rest is cache, which sleep throws away."""
