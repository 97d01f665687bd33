"""LoRA layers that cost little on a CPU: the same arithmetic in fewer passes over memory.

On a CPU the time of a LoRA layer does not go into its products but into everything between them: PEFT casts each input
to float32 and back, draws one random number for each of its elements, and scales and adds the result in passes of their
own. Here nothing is cast, four elements share one draw, and the product is added where it is computed. Knows PEFT's
plain linear layer; leaves DoRA, other variants and quantized weights to PEFT. Knows nothing of training.
"""

from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.lora.layer import Linear

STEPS = 2**16
"""Dropout comes in this many steps: two bytes of chance an element."""


class QuickLinear(Linear):  # type: ignore[misc]  # peft ships no types
    """PEFT's linear LoRA layer with one adapter at work; in any other state it does as its base class does."""

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """The base layer's output plus the adapter's, of shape (..., out)."""
        if args or kwargs or self.disable_adapters or self.merged or not self._plain():
            return super().forward(x, *args, **kwargs)
        name, base = self.active_adapters[0], self.base_layer
        on = self.training and isinstance(self.lora_dropout[name], torch.nn.Dropout)
        dropped = round(self.lora_dropout[name].p * STEPS) if on else 0
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        a, b = self.lora_A[name].weight, self.lora_B[name].weight
        bias = None if base.bias is None else base.bias.to(dtype)
        return _Lora.apply(
            x.to(dtype), base.weight.to(dtype), bias, a.to(dtype), b.to(dtype), self.scaling[name], dropped
        )

    def _plain(self) -> bool:
        """Whether one adapter is at work, without DoRA and the like or a bias of its own, over a frozen layer."""
        names = self.active_adapters
        if len(names) != 1 or names[0] not in self.lora_A or names[0] in self.lora_variant or self.lora_bias[names[0]]:
            return False
        return not any(each.requires_grad for each in self.base_layer.parameters())


def quicken(model: Any) -> Any:
    """Let the LoRA layers over linear layers that are not quantized be quick ones. Changes the model and returns it."""
    for module in model.modules():
        if type(module) is Linear and type(module.base_layer) is torch.nn.Linear:
            module.__class__ = QuickLinear
    return model


class _Lora(torch.autograd.Function):  # type: ignore[misc]  # torch is not followed by mypy
    """``x W' + bias + s (drop(x) A') B'`` for frozen ``W``; ``s`` holds the adapter's scaling and dropout's."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        a: torch.Tensor,
        b: torch.Tensor,
        scaling: float,
        dropped: int,
    ) -> torch.Tensor:
        rows = x.reshape(-1, x.shape[-1])
        kept = _kept(rows, dropped) if dropped else None
        seen = rows if kept is None else rows * kept  # several times as fast as filling by a mask
        scaling *= STEPS / (STEPS - dropped)
        inner = seen @ a.t()
        out = F.linear(rows, weight, bias).addmm_(inner, b.t(), alpha=scaling)
        ctx.save_for_backward(seen, kept, inner, weight, a, b)
        ctx.scaling = scaling
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        seen, kept, inner, weight, a, b = ctx.saved_tensors
        grad = grads[0].reshape(-1, grads[0].shape[-1])
        scaled = (grad @ b) * ctx.scaling
        to_a, to_b = scaled.t() @ seen, (grad.t() @ inner) * ctx.scaling
        if not ctx.needs_input_grad[0]:
            return None, None, None, to_a, to_b, None, None
        to_x = grad @ weight
        if kept is None:
            to_x.addmm_(scaled, a)
        else:
            to_x.addcmul_(scaled @ a, kept)
        return to_x.view(*grads[0].shape[:-1], -1), None, None, to_a, to_b, None, None


def _kept(rows: torch.Tensor, dropped: int) -> torch.Tensor:
    """Ones, and zeros with a chance of ``dropped / STEPS``, like ``rows``; four from each draw of the generator."""
    draws = torch.empty((rows.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    chance = draws.view(torch.int16)[: rows.numel()].view(rows.shape)
    return (chance >= dropped - STEPS // 2).view(torch.int8).to(rows.dtype)
