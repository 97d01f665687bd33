"""Child that measures how fast this machine trains a model, on a few steps.

``python -m sage_studio.training.speed_probe``.

A copy of the model with random weights is trained on random tokens of some lengths, as the trainer would do it: the
same precision, the same attention, the same adapter. Of a small model the copy is whole. A large one is measured on a
few of its layers: what a layer adds is the difference between two depths, so that it takes seconds and little memory.

Reads a `TraceRequest` as JSON from standard input and prints a `StepTime`. A child process, for it imports torch.
"""

import statistics
import sys
import time
from typing import Any

from sage_studio.processes import end_with_parent
from sage_studio.training.duration import StepTime
from sage_studio.training.environment import EAGER_LENGTH, prepare
from sage_studio.training.memory import TraceRequest

LENGTHS = (64, 256, 512)
MEASURED = 200_000_000
"""Parameters in layers that are really built; of a larger model as many layers as that, and a third of them."""
STEPS, ENOUGH_SECONDS = 3, 1.0
"""Timed steps of each length, fewer where they take long; the fastest counts, for what else runs only slows it."""
LEARNED = 0.6
"""Share of a row's tokens that are its answer: on a CPU the trainer computes logits for these alone."""


def measure(request: TraceRequest) -> StepTime:
    """Time some steps. Raises what transformers raises, and torch's error where there is no memory for it."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(request.location, trust_remote_code=request.trust_remote_code)
    depth = int(getattr(config.get_text_config(), "num_hidden_layers", 0)) or 1
    more = min(depth, max(2, MEASURED // _layer_size(config, request))) if depth > 1 else 1
    times = [_seconds(config, request, more, length) for length in LENGTHS]
    if more < depth:
        few = max(1, more // 3)
        below = [_seconds(config, request, few, length) for length in LENGTHS]
        layer = [max(0.0, high - low) / (more - few) for low, high in zip(below, times, strict=True)]
        times = [high + each * (depth - more) for high, each in zip(times, layer, strict=True)]
    return fitted(LENGTHS, times)


def fitted(lengths: tuple[int, ...], seconds: list[float]) -> StepTime:
    """A parabola through three measured lengths, or a line where noise has bent it the wrong way."""
    (x, y, z), (a, b, c) = lengths, seconds
    square = ((c - a) / (z - x) - (b - a) / (y - x)) / (z - y)
    linear = (b - a) / (y - x) - square * (x + y)
    constant = a - linear * x - square * x * x
    if min(square, constant, linear) < -1e-9:
        mean_x, mean_s = statistics.mean(lengths), statistics.mean(seconds)
        slope, _ = statistics.linear_regression(lengths, seconds)
        linear, square = max(slope, mean_s / mean_x / 2), 0.0
        constant = max(0.0, mean_s - linear * mean_x)
    return StepTime(constant=max(0.0, constant), linear=max(0.0, linear), square=max(0.0, square))


def _layer_size(config: Any, request: TraceRequest) -> int:
    """Parameters of one layer, its adapter left aside."""
    plain = request.model_copy(update={"use_lora": False, "on_gpu": False})
    one, two = (
        sum(weight.numel() for weight in _model(config, plain, layers, LENGTHS[0], "meta").parameters())
        for layers in (1, 2)
    )
    return max(1, int(two - one))


def _seconds(config: Any, request: TraceRequest, layers: int, length: int) -> float:
    import torch

    device = "cuda" if request.on_gpu else "cpu"
    model = _model(config, request, layers, length, device)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-5)
    rows = torch.randint(10, 100, (1, length), device=device)
    taken = list[float]()
    while len(taken) < 2 or (len(taken) <= STEPS and sum(taken) < ENOUGH_SECONDS):
        began = time.perf_counter()
        with torch.autocast(device, dtype=torch.bfloat16, enabled=request.dtype == "bfloat16"):
            loss = _loss(model, rows, request, length)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if request.on_gpu:
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - began)
    return min(taken[1:])  # the first one also sets things up


def _model(config: Any, request: TraceRequest, layers: int, length: int, device: str) -> Any:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModel, AutoModelForCausalLM

    from sage_studio.training.model_loading import patch_lora_layers

    shallow = type(config).from_dict({**config.to_dict(), "num_hidden_layers": layers, "layer_types": None})
    on_cpu = not request.on_gpu
    kind = AutoModelForCausalLM if request.generative else AutoModel
    with torch.device(device):
        model = kind.from_config(
            shallow,
            dtype=getattr(torch, request.dtype) if request.use_lora else torch.float32,
            attn_implementation="eager" if on_cpu and length <= EAGER_LENGTH and request.generative else "sdpa",
            trust_remote_code=request.trust_remote_code,
        )
        model.config.use_cache = False
        if request.use_lora:
            targets: Any = [name.strip() for name in request.lora_target_modules.split(",") if name.strip()]
            adapter = LoraConfig(
                r=request.lora_r,
                lora_dropout=request.lora_dropout,
                target_modules=targets[0] if targets == ["all-linear"] else targets,
                task_type="CAUSAL_LM" if request.generative else None,
            )
            model = get_peft_model(model, adapter)
            model = patch_lora_layers(model) if request.generative and on_cpu else model
    return model.train()


def _loss(model: Any, rows: Any, request: TraceRequest, length: int) -> Any:
    import torch

    from sage_studio.training.model_loading import keeps_logits

    if not request.generative:
        return model(input_ids=rows).last_hidden_state.float().mean()
    kept = length if request.on_gpu else max(1, round(LEARNED * length))
    few = {"logits_to_keep": kept} if keeps_logits(model) else {}
    logits = model(input_ids=rows, use_cache=False, **few).logits[0, -kept:].float()
    return torch.nn.functional.cross_entropy(logits, rows[0, -kept:])


def main() -> int:
    """Answer one request."""
    end_with_parent()
    request = TraceRequest.model_validate_json(sys.stdin.read())
    prepare(request.location)
    print(measure(request).model_dump_json())
    return 0


if __name__ == "__main__":
    sys.exit(main())
