"""Whether there is memory for one more engine, for an engine beside a training, and for how many adapters.

Pure arithmetic on recorded facts, tested without a GPU. Asks no machine anything and starts nothing. Sizes in GiB.
"""

import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import StrEnum

from sage_studio.hardware import Hardware
from sage_studio.serving.gpu import GIB, Form, ModelFacts, Plan, Shape, Slots, adapter_bytes, slots_gb, weights_gb
from sage_studio.serving.records import EngineKind, EngineRecord

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
"""Of what an engine would take alone, the least that it is started with beside another: it keeps what it got."""
ASLEEP_GB = 1.2
"""What a sleeping vLLM keeps of each GPU: CUDA context, graphs, NCCL."""
WSL_PINNED_SHARE = 0.5
"""Of the memory, what Windows lets the Linux under it pin."""


class Yielding(StrEnum):
    """What the engine does while a training runs."""

    NOTHING = "nothing"
    SLEEP = "sleep"
    STOP = "stop"


def main_memory_gb(kind: EngineKind, model: ModelFacts, planned: Plan) -> float:
    """What an engine takes of main memory."""
    if planned.cards:
        return PROCESS_GB
    weights = weights_gb(model, Form.BF16)
    return weights * (1.0 if model.quantized else FACTOR.get(kind, 1.0)) + planned.cache_gb + PROCESS_GB


def fits_beside(memory_gb: float, beside: Plan, alone: Plan, hardware: Hardware) -> bool:
    """Whether an engine can start while all that runs now goes on, and get about what it would get alone.

    Args:
        memory_gb: what it takes of main memory.
        beside, alone: the plan with what is free now, and the one if the engine that runs were gone.
        hardware: what is free now.
    """
    if hardware.memory_gb - hardware.used_gb < memory_gb + MARGIN_GB:
        return False
    same = (beside.form, len(beside.cards)) == (alone.form, len(alone.cards))
    return same and beside.fits and (beside.memory_share or 0.0) >= AS_MUCH * (alone.memory_share or 0.0)


def freed(hardware: Hardware, held: Mapping[int, float]) -> Hardware:
    """The machine as it were without an engine that holds ``held`` of each GPU (GiB, by index)."""
    cards = (replace(card, used_gb=max(0.0, card.used_gb - held.get(card.index, 0.0))) for card in hardware.cards)
    return replace(hardware, cards=tuple(cards))


def without_cards(hardware: Hardware, taken: Sequence[int] | None) -> Hardware:
    """The machine without the GPUs that trainings use; unchanged where none would be left (or nobody knows which)."""
    left = tuple(card for card in hardware.cards if taken is not None and card.index not in taken)
    return replace(hardware, cards=left) if left else hardware


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


def before_training(
    hardware: Hardware,
    engine: EngineRecord | None,
    sleeps: bool,
    backed_up_gb: float,
    cards: Sequence[int] | None = None,
    pinned_gb: float = math.inf,
) -> Yielding:
    """What to do with an engine so that a training has its GPUs to itself.

    On a CPU both share the processor, and someone else's server is not ours to stop. vLLM can sleep: it gives the
    GPU's memory back and keeps its weights and adapters in main memory, pinned, so they must fit there; else it stops
    and starts again.

    Args:
        sleeps: whether the engine was started so that it can.
        backed_up_gb: what it would keep in main memory.
        cards: indices of the GPUs that the training uses; None: nobody knows, so all of them.
        pinned_gb: the most memory that may be pinned.
    """
    if not hardware.has_gpu or engine is None or engine.pid is None or engine.form == Form.CPU:
        return Yielding.NOTHING
    if cards is not None and not set(cards) & set(engine.cards or (card.index for card in hardware.cards)):
        return Yielding.NOTHING
    if engine.kind != "vllm" or not sleeps:
        return Yielding.STOP
    free = min(hardware.memory_gb - hardware.used_gb, pinned_gb)
    return Yielding.SLEEP if free >= backed_up_gb + MARGIN_GB else Yielding.STOP


def backed_up_gb(engine: EngineRecord, hardware: Hardware, model: ModelFacts, slots: Slots) -> float:
    """What vLLM keeps in main memory while it sleeps: the weights of all its GPUs, and each one's room for adapters.

    Where the model's size is not known, all that it holds: of that, only the cache is thrown away.
    """
    mine = [card for card in hardware.cards if card.index in engine.cards] or list(hardware.cards)
    if not model.known:
        return sum((engine.memory_share or 1.0) * card.memory_gb for card in mine)
    form = Form.FP8 if engine.form == Form.FP8 else Form.BF16
    return weights_gb(model, form) + len(mine) * slots_gb(model, slots)


def pinned_limit_gb(hardware: Hardware, release: str | None = None) -> float:
    """The most memory that may be pinned: under WSL2 about half of it, elsewhere no limit of its own.

    Args:
        release: of the kernel; None: this one's.
    """
    on_wsl = "microsoft" in (platform.release() if release is None else release).lower()
    return WSL_PINNED_SHARE * hardware.memory_gb if on_wsl else math.inf
