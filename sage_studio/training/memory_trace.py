"""Child that traces the memory of a training step without loading any weights.

``python -m sage_studio.training.memory_trace``.

The model is built on the meta device. A few of its layers are trained for one step on fake tensors while all living
storages are counted, so the figure is what autograd really keeps, for any architecture. Lengths and depths in between
are interpolated.

Reads a `TraceRequest` as JSON from standard input and prints a `MemoryTrace`.
"""

import json
import sys
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import psutil
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from sage_studio.processes import end_with_parent
from sage_studio.training.memory import MemoryTrace, StepMemory, TraceRequest
from sage_studio.training.model_loading import patch_lora_layers

LENGTHS = (128, 256, 512)
DEPTHS = (1, 2)
"""Layers of the models that are traced; what a layer adds is their difference."""


class LiveTensorTracker(TorchDispatchMode):  # type: ignore[misc]  # torch is not typed here
    """Counts the bytes of the storages that are alive, and the most there were at a time."""

    def __init__(self, known: Iterator[Any]) -> None:
        super().__init__()
        self.now = self.most = 0
        self._seen = weakref.WeakSet(tensor.untyped_storage() for tensor in known)

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        tree_map_only(torch.Tensor, self._note, made)
        return made

    def _note(self, tensor: Any) -> None:
        storage = tensor.untyped_storage()
        if storage in self._seen:
            return
        self._seen.add(storage)
        self.now += storage.nbytes()
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._forget, storage.nbytes())

    def _forget(self, size: int) -> None:
        self.now -= size


def measure(request: TraceRequest) -> MemoryTrace:
    """Count parameters on the whole model and trace steps on a shallow one. Raises what transformers raises."""
    config = AutoConfig.from_pretrained(request.location, trust_remote_code=request.trust_remote_code)
    model = _on_meta(config, request, "eager")
    embedding = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)}
    linear = sum(
        module.weight.numel()
        for module in model.modules()
        if isinstance(module, torch.nn.Linear) and id(module.weight) not in embedding
    )
    head = model.get_output_embeddings() if request.generative else None
    if head is not None and id(head.weight) not in embedding:
        linear -= head.weight.numel()  # bitsandbytes leaves it as it is
    total = sum(parameter.numel() for parameter in model.parameters())
    if request.use_lora:
        model = _with_adapter(model, request)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    steps = {
        f"{attention}{'+checkpointing' if checkpointing else ''}": _curve(config, request, attention, checkpointing)
        for attention in (("sdpa",) if request.on_gpu else ("eager", "sdpa"))
        for checkpointing in (False, True)
    }
    return MemoryTrace(
        parameters=total,
        quantizable=linear,
        trained=trained,
        weight_bytes=4 if request.dtype == "float32" else 2,
        context=_context(request),
        steps=steps,
    )


def _curve(config: Any, request: TraceRequest, attention: str, checkpointing: bool) -> StepMemory:
    """Bytes of one row's step over its length: a parabola through three lengths, extended to the model's depth."""
    depth = int(getattr(config.get_text_config(), "num_hidden_layers", 0)) or 1
    few, more = DEPTHS if depth > 1 else (1, 1)
    parts = []
    for layers in (few, more):
        shallow = type(config).from_dict({**config.to_dict(), "num_hidden_layers": layers, "layer_types": None})
        model = _on_meta(shallow, request, attention)
        parts.append(_parabola([_step(model, request, length, checkpointing) for length in LENGTHS]))
    per_layer = [(b - a) / (more - few) if more > few else 0.0 for a, b in zip(*parts, strict=True)]
    constant, linear, square = (a + slope * (depth - few) for a, slope in zip(parts[0], per_layer, strict=True))
    return StepMemory(constant=constant, linear=linear, square=square)


def _parabola(sizes: list[int]) -> tuple[float, float, float]:
    x, y, z = LENGTHS
    square = ((sizes[2] - sizes[0]) / (z - x) - (sizes[1] - sizes[0]) / (y - x)) / (z - y)
    linear = (sizes[1] - sizes[0]) / (y - x) - square * (x + y)
    return sizes[0] - linear * x - square * x * x, linear, square


def _on_meta(config: Any, request: TraceRequest, attention: str) -> Any:
    kind = AutoModelForCausalLM if request.generative else AutoModel
    with torch.device("meta"):
        model = kind.from_config(
            config,
            dtype=getattr(torch, request.dtype) if request.use_lora or request.half_weights else torch.float32,
            attn_implementation=attention,
            trust_remote_code=request.trust_remote_code,
        )
    model.config.use_cache = False
    return model


def _with_adapter(model: Any, request: TraceRequest) -> Any:
    targets: Any = [name.strip() for name in request.lora_target_modules.split(",") if name.strip()]
    config = LoraConfig(
        r=request.lora_r,
        lora_dropout=request.lora_dropout,
        target_modules=targets[0] if targets == ["all-linear"] else targets,
        task_type="CAUSAL_LM" if request.generative else None,
    )
    with torch.device("meta"):
        adapted = get_peft_model(model, config)
    return patch_lora_layers(adapted) if request.generative and not request.on_gpu else adapted


def _step(model: Any, request: TraceRequest, length: int, checkpointing: bool) -> int:
    """Most bytes alive in a step of one row besides weights and, of a model trained whole, gradients.

    Those are as large as the model, and would hide what a few of its layers keep.
    """
    if checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    else:
        model.gradient_checkpointing_disable()
    trained = _with_adapter(model, request) if request.use_lora and not hasattr(model, "peft_config") else model
    if checkpointing and request.use_lora:
        trained.enable_input_require_grads()
    trained.train()
    if not request.use_lora:
        trained.get_input_embeddings().requires_grad_(False)
    with FakeTensorMode(), _made_fake(trained):
        rows = torch.zeros(1, length, dtype=torch.long)
        living = LiveTensorTracker(iter([*trained.parameters(), *trained.buffers()]))
        for weight in trained.parameters():
            if weight.requires_grad and not request.use_lora:
                weight.register_post_accumulate_grad_hook(_forget_gradient)
        with living, _dropout(request):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=request.dtype != "float32"):
                out = _forward(trained, rows, request)
            _loss(out, rows, request).backward()
            del out
    return int(living.most)


def _forget_gradient(weight: Any) -> None:
    weight.grad = None


def _forward(trained: Any, rows: Any, request: TraceRequest) -> Any:
    """On a GPU TRL's head works in tiles too small to count, so there the head is left out."""
    if not request.generative:
        return trained(input_ids=rows)
    if not request.on_gpu:
        return trained(input_ids=rows, use_cache=False)
    model = trained.get_base_model() if isinstance(trained, PeftModel) else trained
    return model.base_model(input_ids=rows, use_cache=False)


def _loss(out: Any, rows: Any, request: TraceRequest) -> Any:
    if request.on_gpu or not request.generative:
        return out.last_hidden_state.float().mean()
    logits = out.logits.reshape(-1, out.logits.shape[-1]).float()
    return torch.nn.functional.cross_entropy(logits, rows.reshape(-1))


def _dropout(request: TraceRequest) -> AbstractContextManager[object]:
    """On a GPU dropout keeps a byte an element, on the CPU as much as the element itself."""
    if not request.on_gpu:
        return nullcontext()

    def on_gpu(x: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
        return torch.native_dropout(x, p, training)[0]

    return patch.object(torch.nn.functional, "dropout", on_gpu)


@contextmanager
def _made_fake(model: Any) -> Iterator[None]:
    """Fake tensors on the CPU in place of those on meta, for autocast asks where a tensor lies."""
    kept = [(module, dict(module._parameters), dict(module._buffers)) for module in model.modules()]
    fakes: dict[int, Any] = {}
    for module, parameters, buffers in kept:
        for name, tensor in parameters.items():
            if tensor is not None:
                fake = torch.nn.Parameter(torch.empty(tensor.shape, dtype=tensor.dtype), tensor.requires_grad)
                module._parameters[name] = fakes.setdefault(id(tensor), fake)
        for name, tensor in buffers.items():
            if tensor is not None:
                module._buffers[name] = torch.empty(tensor.shape, dtype=tensor.dtype)
    yield
    for module, parameters, buffers in kept:
        module._parameters.update(parameters)
        module._buffers.update(buffers)


def _context(request: TraceRequest) -> int:
    """Resident bytes of a training process before it has loaded anything."""
    from transformers import AutoTokenizer

    from sage_studio.training.runner import method_for

    method_for(request.type)
    AutoTokenizer.from_pretrained(request.location, trust_remote_code=request.trust_remote_code)
    return int(psutil.Process().memory_info().rss)


def main() -> int:
    """Answer one request."""
    end_with_parent()
    request = TraceRequest.model_validate_json(sys.stdin.read())
    print(json.dumps(measure(request).model_dump()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
