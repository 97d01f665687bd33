"""vLLM's server for a machine without a card, with adapters computed adapter by adapter. Run as a script.

vLLM 0.32 on a CPU copies an adapter's matrices for every single token, and gives a token that asked for no adapter the
one in the last slot (its index is -1). Here the tokens of one adapter are multiplied at once and tokens without one are
left alone, so that a tuned model answers about as fast as its base. Knows the one class of vLLM that it replaces. Knows
nothing of the studio, for it may run in an environment that has only vLLM.
"""

import sys
from typing import Any

import torch
from vllm.entrypoints.launchers.api_server.entry import main
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
        self.joined: dict[tuple[int, int], tuple[list[int], Joined]] = {}

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
        """A slot's matrices of all slices as two, made anew after any of them was written to."""
        key, versions = (id(lora_a_stacked[0]), slot), [each._version for each in (*lora_a_stacked, *lora_b_stacked)]
        kept = self.joined.get(key)
        if kept is None or kept[0] != versions:
            kept = (
                versions,
                joined([each[slot, 0] for each in lora_a_stacked], [each[slot, 0] for each in lora_b_stacked]),
            )
            self.joined[key] = kept
        return kept[1]


def joined(down: list[torch.Tensor], up: list[torch.Tensor]) -> Joined:
    """Matrices of several slices as one pair in single precision: (inputs, ranks) and (ranks, outputs).

    Args:
        down, up: per slice, (rank, inputs) and (outputs, rank).
    """
    return torch.cat(down).t().float().contiguous(), torch.block_diag(*up).t().float().contiguous()


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

if __name__ == "__main__":
    sys.exit(main())
