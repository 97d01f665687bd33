"""GPUs without bf16 (Turing: T4, RTX 20xx, GTX 16xx): training in fp16 with a gradient scaler, on every base.

There is none here. So the real trainers compute in fp16 on the CPU, as accelerate has them do on a GPU: with autocast
and torch's own scaler, whose kernel is held to the types that CUDA has one for. The CPU's kernel takes bf16 as well,
and would let pass what breaks off on a Turing GPU.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from bitsandbytes.backends.default import ops as bitsandbytes_ops

from sage_studio.training import environment, trainer

NewTask = Callable[..., Any]
KERNEL = "_amp_foreach_non_finite_check_and_unscale_"
CUDA_HAS = {torch.float16, torch.float32, torch.float64}
"""The types that libtorch_cuda.so of torch 2.13 holds instances of that kernel for."""


@pytest.fixture
def unscaled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The types of the gradients that the scaler was given, empty before the first step."""
    seen: list[Any] = []
    kernel, begin = getattr(torch, KERNEL), Accelerator.__init__

    def as_on_cuda(gradients: list[Any], *rest: Any) -> Any:
        seen.extend(gradient.dtype for gradient in gradients)
        missing = {gradient.dtype for gradient in gradients} - CUDA_HAS
        if missing:
            raise NotImplementedError(f'"{KERNEL}cuda" not implemented for {missing}')
        return kernel(gradients, *rest)

    def begin_as_on_cuda(self: Any, *args: Any, **options: Any) -> None:
        begin(self, *args, **options)
        if self.mixed_precision == "fp16":  # what accelerate does where the device is not "cpu"
            self.scaler, self.native_amp = torch.amp.GradScaler("cpu"), True

    def multiply(*matrices: Any) -> Any:
        with torch.autocast("cpu", enabled=False):
            return as_floats(*matrices)

    # without AVX-512 bitsandbytes multiplies int8 as floats, and autocast would make these fp16, which overflows; CUDA
    # multiplies integers
    as_floats = bitsandbytes_ops._int8_linear_matmul_impl
    monkeypatch.setattr(bitsandbytes_ops, "_int8_linear_matmul_impl", multiply)
    monkeypatch.setattr(torch, KERNEL, as_on_cuda)
    monkeypatch.setattr(Accelerator, "__init__", begin_as_on_cuda)
    monkeypatch.setattr(environment, "compute_type", lambda _: torch.float16)
    return seen


def preference(number: int) -> dict[str, Any]:
    said = {"chosen": f"It is {number}.", "rejected": "I do not know."}
    answers = {name: [{"role": "assistant", "content": text}] for name, text in said.items()}
    return {"prompt": [{"role": "user", "content": f"How much is {number}?"}], **answers, "origin": {"file": "t"}}


@pytest.mark.training
@pytest.mark.parametrize("quantization", ["none", "8bit", "4bit"])
@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_every_base_trains_in_fp16(new_task: NewTask, unscaled: list[Any], kind: str, quantization: str):
    rows = [preference(number) for number in range(8)] if kind == "dpo" else None
    task = new_task(rows, type=kind, quantization=quantization)
    assert task.run().status == "completed"
    assert set(unscaled) == {torch.float32}
    if kind == "sft":
        assert task.losses[-1] < task.losses[0]


@pytest.mark.training
def test_a_whole_model_trains_in_fp16(new_task: NewTask, unscaled: list[Any]):
    assert new_task(use_lora=False, learning_rate=1e-3).run().status == "completed"
    assert set(unscaled) == {torch.float32}


@pytest.mark.training
def test_without_the_cast_the_scaler_has_no_kernel(
    new_task: NewTask, unscaled: list[Any], monkeypatch: pytest.MonkeyPatch
):
    """TRL still casts the adapter of a quantized base to bf16; the day that it does not, the cast can go."""
    monkeypatch.setattr(trainer, "cast_trained_to_fp32", lambda _: None)
    result = new_task(quantization="4bit").run(expect=1)
    assert set(unscaled) == {torch.bfloat16}
    assert "NotImplementedError" in result.message[0]
