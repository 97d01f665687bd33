"""vLLM's server for a machine without a GPU, with adapters computed one by one. A script; see `engine_server.py`.

vLLM 0.32 on a CPU copies an adapter's matrices for every single token, and gives a token that asked for no adapter
the one in the last slot (its index is -1). Here the tokens of one adapter are multiplied at once and tokens without
one are left alone, so that a tuned model answers about as fast as its base.

Imports nothing of the studio: it may run in an environment that has only vLLM.
"""

import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from vllm.lora.model_manager import LoRAModelManager
from vllm.lora.punica_wrapper import punica_cpu

FEW = 48
"""Up to so many tokens a call costs more than its sums: then the slices are joined, in single precision, whose
multiplication starts five times as fast as that of bfloat16."""

Group = tuple[int, torch.Tensor | None]
Matrices = tuple[torch.Tensor, ...]
Joined = tuple[torch.Tensor, torch.Tensor]


class GroupedAdapters(punica_cpu.PunicaWrapperCPU):  # type: ignore[misc]  # vllm's types are not read
    """Applies adapters to linear layers, one multiplication per adapter in the batch."""

    groups: tuple[Group, ...] = ()

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.joined: dict[int, dict[int, Joined]] = {}

    def update_metadata(self, *arguments: Any, **options: Any) -> None:
        """Note once per step which tokens belong to which adapter."""
        super().update_metadata(*arguments, **options)
        self.groups = grouped(self.token_lora_indices.tolist())

    def add_lora_linear(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: Matrices,
        lora_b_stacked: Matrices,
        scale: float,
        output_slices: tuple[int, ...],
        **_: Any,
    ) -> None:
        """Add each adapter's part to the outputs of its tokens, in place.

        Args:
            y, x: the layer's outputs and inputs, (tokens, features).
            lora_a_stacked, lora_b_stacked: per slice of the outputs, (slots, 1, rank, inputs) and (slots, 1, outputs,
                rank).
            output_slices: width of each slice.
        """
        outputs, inputs = y.view(-1, y.shape[-1]), x.view(-1, x.shape[-1])
        for slot, tokens in self.groups:
            rows = inputs if tokens is None else inputs[tokens]
            if len(rows) <= FEW:
                down, up = self.joined_of(slot, lora_a_stacked, lora_b_stacked)
                _add(outputs, tokens, ((rows.float() @ down) @ up).to(y.dtype), scale)
                continue
            places = outputs.split(output_slices, dim=1)
            for place, down, up in zip(places, lora_a_stacked, lora_b_stacked, strict=True):
                _add(place, tokens, (rows @ down[slot, 0].t()) @ up[slot, 0].t(), scale)

    def joined_of(self, slot: int, lora_a_stacked: Matrices, lora_b_stacked: Matrices) -> Joined:
        """A slot's matrices of all slices as two; made once and kept until the slot is forgotten."""
        layers = self.joined.setdefault(slot, {})
        key = id(lora_a_stacked[0])
        if key not in layers:
            layers[key] = joined([each[slot, 0] for each in lora_a_stacked], [each[slot, 0] for each in lora_b_stacked])
        return layers[key]

    def forget(self, slot: int) -> None:
        """Another adapter has come into the slot."""
        self.joined.pop(slot, None)


def joined(down: list[torch.Tensor], up: list[torch.Tensor]) -> Joined:
    """Matrices of several slices as one pair in single precision: (inputs, ranks) and (ranks, outputs).

    Args:
        down, up: per slice, (rank, inputs) and (outputs, rank).
    """
    whole = torch.zeros(sum(each.shape[1] for each in up), sum(each.shape[0] for each in up))
    rank = width = 0
    for each in up:
        whole[rank : rank + each.shape[1], width : width + each.shape[0]] = each.t()
        rank, width = rank + each.shape[1], width + each.shape[0]
    return torch.cat(down).float().t().contiguous(), whole


def forgetting(activate: Callable[[Any, int], bool]) -> Callable[[Any, int], bool]:
    """The method that puts an adapter into a slot, which then also forgets what was kept of the one before."""

    def activate_adapter(manager: Any, lora_id: int) -> bool:
        activated = activate(manager, lora_id)
        if activated:
            for wrapper in manager.punica_wrapper_mapping.values():
                wrapper.forget(manager.lora_index_to_id.index(lora_id))
        return activated

    return activate_adapter


def grouped(slots: list[int]) -> tuple[Group, ...]:
    """The tokens of each adapter: (slot, their positions), or None in place of the positions for all tokens.

    Args:
        slots: per token its adapter's slot, -1 for none.
    """
    if not slots or min(slots) == max(slots) == slots[0]:
        return ((slots[0], None),) if slots and slots[0] >= 0 else ()
    return tuple(
        (slot, torch.tensor([at for at, each in enumerate(slots) if each == slot]))
        for slot in sorted(set(slots))
        if slot >= 0
    )


def _add(outputs: torch.Tensor, tokens: torch.Tensor | None, part: torch.Tensor, scale: float) -> None:
    if tokens is None:
        outputs.add_(part, alpha=scale)
    else:
        outputs.index_add_(0, tokens, part, alpha=scale)


# Not under the guard below: the engine's own process imports this script again, and needs the class too.
punica_cpu.PunicaWrapperCPU = GroupedAdapters
LoRAModelManager.activate_adapter = forgetting(LoRAModelManager.activate_adapter)

if __name__ == "__main__":
    sys.exit(runpy.run_path(str(Path(__file__).with_name("engine_server.py")))["main"]())
