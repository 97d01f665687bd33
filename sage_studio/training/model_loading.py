"""Loads what a method trains: tokenizer, base model in the right precision, LoRA adapter."""

import inspect
import os
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora.layer import Linear
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from sage_studio.errors import InvalidModel
from sage_studio.text import NOTHING, Text
from sage_studio.training.environment import EAGER_LENGTH
from sage_studio.training.failures import explain
from sage_studio.training.progress import Reason, TrainingJob
from sage_studio.training.recipes.methods import GenerativeRecipe

ALL_LINEAR = "all-linear"
TRAINED, REFERENCE = "default", "ref"
"""The adapter that is trained and, where a method has one, the frozen copy of what it was: PEFT's and TRL's names."""
UNUSABLE = (OSError, ValueError, ImportError, KeyError, TypeError, AttributeError)
"""What transformers raises for a folder or a hub id that is no model it can load."""


def load_tokenizer(job: TrainingJob) -> Any:
    """The model's tokenizer. Raises `InvalidModel`."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(job.model_location, trust_remote_code=job.trust_remote_code)
    except UNUSABLE as error:
        raise _unusable(job, error) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    return tokenizer


def stored_dtype(job: TrainingJob) -> Any:
    """The dtype that the base's weights are stored in; a model trained whole goes back to it. Raises `InvalidModel`."""
    try:
        config = AutoConfig.from_pretrained(job.model_location, trust_remote_code=job.trust_remote_code)
    except UNUSABLE as error:
        raise _unusable(job, error) from error
    return config.dtype or torch.float32


def load_model(job: TrainingJob, recipe: GenerativeRecipe, dtype: Any) -> Any:
    """The base model as it is to be trained: quantized, in ``dtype`` under an adapter, or to be trained whole.

    A whole model is loaded in fp32; where its optimizer is the small one and the GPU has bf16, in bf16.

    Raises:
        InvalidModel: the folder or the hub has no usable model there.
    """
    on_cpu = not torch.cuda.is_available()
    options: dict[str, Any] = {"dtype": dtype if recipe.use_lora else full_training_dtype(recipe, dtype)}
    if recipe.quantization != "none":
        options["quantization_config"] = _quantization(recipe, dtype)
        options["device_map"] = {"": "cpu" if on_cpu else own_gpu()}
    if on_cpu and recipe.max_length <= EAGER_LENGTH:
        options["attn_implementation"] = "eager"
    try:
        model = AutoModelForCausalLM.from_pretrained(
            job.model_location, trust_remote_code=job.trust_remote_code, **options
        )
    except (*UNUSABLE, RuntimeError, SafetensorError) as error:
        raise _unusable(job, error) from error
    model.config.use_cache = False
    if on_cpu and recipe.quantization == "4bit":
        keep_trainable(model)
    return model


def full_training_dtype(recipe: GenerativeRecipe, dtype: Any) -> Any:
    """The dtype of the weights of a model that is trained whole, computing in ``dtype``."""
    return torch.bfloat16 if recipe.optimizer == "adamw_8bit" and dtype == torch.bfloat16 else torch.float32


def count_parameters(job: TrainingJob) -> int:
    """Parameters of the model, without loading it. Raises `InvalidModel`."""
    try:
        config = AutoConfig.from_pretrained(job.model_location, trust_remote_code=job.trust_remote_code)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=job.trust_remote_code)
    except UNUSABLE as error:
        raise _unusable(job, error) from error
    return sum(parameter.numel() for parameter in model.parameters())


def keep_trainable(model: Any) -> None:
    """Keep a 4-bit base on the CPU in the layout that gradients pass through.

    On a CPU with AVX-512 BF16, bitsandbytes repacks each layer when it is first used for reading only, as by a
    measurement of held-out rows. The kernel for that layout has no backward pass: from then on nothing is learned, and
    nothing says so.
    """
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def keeps_logits(model: Any) -> bool:
    """Whether a model's ``forward`` takes ``logits_to_keep``; one that comes with its own code may not."""
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    return "logits_to_keep" in inspect.signature(base.forward).parameters


def own_gpu() -> int:
    """Of the GPUs that this process sees, the one that is its own: of several processes each has another."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def add_adapter(model: Any, job: TrainingJob, recipe: GenerativeRecipe) -> Any:
    """Put a new LoRA adapter on the model, or the one to go on from.

    A quantized base keeps its embeddings, norms and head in the type that is computed in: PEFT's
    ``prepare_model_for_kbit_training`` would make them fp32, 2.2 GB more for a model of 7B, and TRL does without.

    Raises:
        InvalidModel: the model does not have the target modules, or the adapter to go on from does not fit it.
    """
    model = _load_adapter(model, job) if job.adapter_location else _new_adapter(model, job, recipe)
    return model if torch.cuda.is_available() else patch_lora_layers(model)


def target_modules(model: Any, wanted: str) -> str | list[str]:
    """Read ``lora_target_modules``: ``all-linear`` or names separated by commas, each found in the model."""
    names = [name.strip() for name in wanted.split(",") if name.strip()]
    if names == [ALL_LINEAR]:
        return ALL_LINEAR
    head = model.get_output_embeddings()
    linear = [
        name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear) and module is not head
    ]
    unknown = [name for name in names if not any(f".{known}".endswith(f".{name}") for known in linear)]
    if unknown or not names:
        known = ", ".join(sorted({name.rpartition(".")[2] for name in linear}))
        bad = ", ".join(unknown) or wanted
        raise InvalidModel(
            Text("lora_target_modules = {wanted!r}: the model has no linear module {bad}.", wanted=wanted, bad=bad),
            Text("Give {all_linear}, or some of: {known}.", all_linear=ALL_LINEAR, known=known),
        )
    return names


def _new_adapter(model: Any, job: TrainingJob, recipe: GenerativeRecipe) -> Any:
    config = LoraConfig(
        r=recipe.lora_r,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=recipe.lora_dropout,
        target_modules=target_modules(model, recipe.lora_target_modules),
        use_rslora=recipe.use_rslora,
        use_dora=recipe.use_dora,
        task_type="CAUSAL_LM",
        base_model_name_or_path=job.model_location,
    )
    return get_peft_model(model, config)


def _load_adapter(model: Any, job: TrainingJob) -> Any:
    try:
        return PeftModel.from_pretrained(model, job.adapter_location, adapter_name=TRAINED, is_trainable=True)
    except (*UNUSABLE, RuntimeError, SafetensorError) as error:
        message = str(error).strip().partition("\n")[0][:300]
        raise InvalidModel(
            Text(
                "The adapter {adapter_location} cannot be put on {model_location}: {message}",
                adapter_location=job.adapter_location,
                model_location=job.model_location,
                message=message,
            ),
            Text("Choose another task in start_from, or leave it empty."),
        ) from error


def _quantization(recipe: GenerativeRecipe, dtype: Any) -> Any:
    if recipe.quantization == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )


def _unusable(job: TrainingJob, error: Exception) -> Exception:
    reason, _, __ = explain(error)
    if reason in (Reason.MEMORY, Reason.DISK):
        return error
    message = str(error).strip().partition("\n")[0][:300]
    hint = NOTHING if Path(job.model_location).is_absolute() else HUB
    return InvalidModel(
        Text(
            "The model {model_location} cannot be loaded: {message}", model_location=job.model_location, message=message
        ),
        hint or FOLDER,
    )


HUB = Text("Check the name and the network, or set HF_ENDPOINT to a mirror.")
FOLDER = Text("Check that the folder holds a whole transformers model, or choose another.")


# Faster LoRA layers on a CPU

STEPS = 2**16
"""Dropout comes in this many steps: two bytes of chance an element."""


class FastLoraLinear(Linear):  # type: ignore[misc]  # peft ships no types
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


def patch_lora_layers(model: Any) -> Any:
    """Let the LoRA layers over linear layers that are not quantized be quick ones. Changes the model and returns it."""
    for module in model.modules():
        if type(module) is Linear and type(module.base_layer) is torch.nn.Linear:
            module.__class__ = FastLoraLinear
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
