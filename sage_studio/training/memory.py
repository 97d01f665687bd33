"""How much memory a training will take, by component, and what lowers it.

The sizes that belong to a model come from `sage_studio.training.footprint`, a child process; this is the arithmetic on
them. Knows recipes and bytes. Knows nothing of processes or screens; imports no torch.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

from sage_studio.text import Text

EAGER_LENGTH = 1024
"""On a CPU plain attention is the faster one up to about here; its memory grows with the square of the length."""
SEQUENCES = {"sft": 1, "kbalign": 1, "dpo": 2, "embedding": 3}
"""Texts that a method runs through the model for one row: chosen and rejected; query, positive and negative."""
FRAGMENTED = {"cpu": 1.18, "cuda": 1.06}
"""What an allocator takes beyond what is asked of it, on activations: measured on the CPU and on an H100."""
CUDA_CONTEXT = 0.6 * 2**30
"""What the driver takes of a card for a process: on an H100."""
LEFT_BY_LOADING = 0.2 * 2**30
"""What the loading of a quantized base leaves with the card's allocator: on an H100."""
STATE_BYTES = {"adamw": 8.0, "adamw_8bit": 2.04}
"""Of AdamW's two moments for each trained parameter; in 8 bits with a scale for each 256 of them."""
BYTES_PER_WEIGHT = {"8bit": 1.0, "4bit": 0.53}
"""Of a quantized weight, its scales included."""
UPDATED_ON_CPU = 24.0
"""Bytes that 8-bit Adam takes on a CPU for each parameter of the tensor that it updates: it works on copies in fp32.
Measured; on a GPU it works in place."""
SHORTEST = 256
FEW_MORE_TOKENS = 64
"""What a chat template adds to a row, at most as a rule."""


class FootprintRequest(BaseModel):
    """What a footprint depends on.

    Attributes:
        dtype: computed in; that of the weights under an adapter.
        half_weights: whether the weights of a model that is trained whole are in ``dtype``, too, and not in fp32.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: str
    location: str
    trust_remote_code: bool = False
    generative: bool = True
    use_lora: bool = True
    lora_r: int = 16
    lora_dropout: float = 0.0
    lora_target_modules: str = "all-linear"
    dtype: str = "bfloat16"
    half_weights: bool = False
    on_card: bool = False


class Curve(BaseModel):
    """Bytes over the tokens of a row; ``linear`` and ``square`` count for each row of a batch."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    constant: float
    linear: float
    square: float

    def at(self, rows: int, length: int) -> float:
        """Bytes for a batch of rows of one length."""
        return max(0.0, self.constant + rows * (self.linear * length + self.square * length**2))


class Footprint(BaseModel):
    """Sizes of a model in training: parameters in numbers, everything else in bytes.

    Attributes:
        quantizable: parameters that 8- and 4-bit loading shrinks.
        weight_bytes: of one weight of the base, unquantized.
        trained: parameters of the adapter, or all of them.
        context: resident bytes of a process on the CPU that has loaded libraries and tokenizer.
        steps: what a step takes besides weights, by attention with or without checkpointing; an adapter's gradients are
            in it, those of a model trained whole are not.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    parameters: int
    quantizable: int
    trained: int
    weight_bytes: int
    context: int
    steps: dict[str, Curve]


@dataclass(frozen=True, slots=True)
class Memory:
    """An estimate in bytes, by component.

    Attributes:
        factor: measured over estimated peak of earlier runs of this model and method; 1 before the first.
    """

    context: float
    weights: float
    adapter: float
    gradients: float
    optimizer: float
    activations: float
    factor: float = 1.0

    @property
    def total(self) -> float:
        """The peak."""
        parts = (self.context, self.weights, self.adapter, self.gradients, self.optimizer, self.activations)
        return self.factor * sum(parts)


@dataclass(frozen=True, slots=True)
class Remedy:
    """Changes to a recipe, by field, with which it would take ``total`` bytes."""

    label: Text
    changes: dict[str, Any]
    total: float


def estimate(recipe: dict[str, Any], footprint: Footprint, device: str, length: int, factor: float = 1.0) -> Memory:
    """The peak memory of a run.

    Args:
        recipe: its fields; an ``optimizer`` that is ``auto`` counts as AdamW.
        device: ``cpu`` or ``cuda``.
        length: tokens of the longest row; ``max_length`` bounds it.
        factor: measured over estimated peak of earlier runs.
    """
    length = min(length, recipe["max_length"])
    rows = recipe["per_device_train_batch_size"] * SEQUENCES.get(recipe["type"], 1)
    quantized = BYTES_PER_WEIGHT.get(recipe.get("quantization", "none"), footprint.weight_bytes)
    plain = footprint.parameters - footprint.quantizable
    small = recipe.get("quantization", "none") != "none"
    base = plain * footprint.weight_bytes + footprint.quantizable * quantized
    base += LEFT_BY_LOADING if small and device == "cuda" else 0.0
    optimizer = "adamw_8bit" if recipe.get("optimizer") == "adamw_8bit" else "adamw"
    each = float(footprint.weight_bytes) if halved(recipe) else 4.0
    trained = each * footprint.trained
    attention = "eager" if device == "cpu" and recipe["max_length"] <= EAGER_LENGTH else "sdpa"
    step = footprint.steps[attention + ("+checkpointing" if recipe["gradient_checkpointing"] else "")].at(rows, length)
    kept = max(0.0, step - trained) if recipe["gradient_accumulation_steps"] == 1 else step
    if not recipe["use_lora"]:
        kept = max(kept, 2 * each * plain)  # the embedding's gradient is the sum of two as large as it
        if optimizer == "adamw_8bit" and device == "cpu":
            kept = max(kept, UPDATED_ON_CPU * plain)
    return Memory(
        context=footprint.context if device == "cpu" else CUDA_CONTEXT,
        weights=base if recipe["use_lora"] else each * footprint.parameters,
        adapter=trained if recipe["use_lora"] else 0.0,
        gradients=trained,
        optimizer=STATE_BYTES[optimizer] * footprint.trained,
        activations=FRAGMENTED[device] * kept,
        factor=factor,
    )


def halved(recipe: dict[str, Any]) -> bool:
    """Whether a model that is trained whole has its weights and gradients in the type that is computed in."""
    return recipe.get("optimizer") == "adamw_8bit" and not recipe["use_lora"] and recipe["type"] != "embedding"


def remedies(
    recipe: dict[str, Any], footprint: Footprint, device: str, length: int, factor: float, room: float
) -> list[Remedy]:
    """Changes that make a run fit into ``room`` bytes: each that does alone, else the first few together that do."""

    def with_changes(changes: dict[str, Any]) -> float:
        return estimate({**recipe, **changes}, footprint, device, length, factor).total

    single = [Remedy(label, changes, with_changes(changes)) for label, changes in _changes(recipe, device)]
    fitting = [remedy for remedy in single if remedy.total <= room]
    if fitting:
        return _least_of_each(fitting)
    together: dict[str, Any] = {}
    for label, changes in _changes(recipe, device):
        together |= changes
        if (total := with_changes(together)) <= room:
            return [Remedy(TOGETHER if len(together) > len(changes) else label, together, total)]
    return []


def longest_row(histogram: tuple[tuple[int, int], ...], max_length: int) -> int:
    """Tokens of a dataset's longest row, from its histogram of ``(upper bound, rows)``; ``max_length`` without one."""
    bounds = [bound for bound, rows in histogram if rows]
    return min(max_length, max(bounds) + FEW_MORE_TOKENS) if bounds else max_length


TOGETHER = Text("Several changes together", "同时调整多项")
CHECKPOINTING = Text("Gradient checkpointing", "梯度检查点")
BATCH = Text("Batch size {}, accumulated", "批大小 {}，梯度累积")
BITS = Text("Base in {}", "基座以 {} 加载")
SMALL_OPTIMIZER = Text("8-bit Adam, weights in bf16", "8 位 Adam，权重为 bf16")
SHORTER = Text("Max sequence length {}", "最大序列长度 {}")


def _changes(recipe: dict[str, Any], device: str) -> Iterator[tuple[Text, dict[str, Any]]]:
    """From what costs least to what costs most of quality or time."""
    if not recipe["gradient_checkpointing"]:
        yield CHECKPOINTING, {"gradient_checkpointing": True}
    batch, accumulated = recipe["per_device_train_batch_size"], recipe["gradient_accumulation_steps"]
    while batch > 1:
        batch, accumulated = (batch + 1) // 2, accumulated * 2
        said = Text(BATCH.en.format(batch), BATCH.zh.format(batch))
        yield said, {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulated}
    whole = not recipe["use_lora"] and recipe["type"] != "embedding"
    if whole and device == "cuda" and recipe.get("optimizer") != "adamw_8bit":  # on a CPU it takes many times as long
        yield SMALL_OPTIMIZER, {"optimizer": "adamw_8bit"}
    if recipe["use_lora"]:
        order = ("none", "8bit", "4bit")
        for bits in order[order.index(recipe.get("quantization", "4bit")) + 1 :]:
            yield Text(BITS.en.format(bits), BITS.zh.format(bits)), {"quantization": bits}
    length = recipe["max_length"]
    while length > SHORTEST:
        length = max(SHORTEST, length // 2)
        yield Text(SHORTER.en.format(length), SHORTER.zh.format(length)), {"max_length": length}


def _least_of_each(fitting: list[Remedy]) -> list[Remedy]:
    """Of several changes to the same fields, the smallest."""
    kept: dict[tuple[str, ...], Remedy] = {}
    for remedy in fitting:
        kept.setdefault(tuple(remedy.changes), remedy)
    return list(kept.values())
