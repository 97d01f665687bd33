"""Loads what a method trains: the tokenizer, the base model in the right precision, and the adapter on it.

Knows transformers, peft and bitsandbytes, and which fault of theirs means that the model cannot be used. Knows nothing
of data, trainers or where results go.
"""

import os
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from sage_studio.errors import InvalidModel
from sage_studio.text import NOTHING, Text
from sage_studio.training.cpu_lora import quicken
from sage_studio.training.failures import explain
from sage_studio.training.memory import EAGER_LENGTH
from sage_studio.training.progress import Job, Reason
from sage_studio.training.recipes.generative import GenerativeRecipe

ALL_LINEAR = "all-linear"
TRAINED, REFERENCE = "default", "ref"
"""The adapter that is trained and, where a method has one, the frozen copy of what it was: PEFT's and TRL's names."""
UNUSABLE = (OSError, ValueError, ImportError, KeyError, TypeError, AttributeError)
"""What transformers raises for a folder or a hub id that is no model it can load."""


def load_tokenizer(job: Job) -> Any:
    """The model's tokenizer. Raises `InvalidModel`."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(job.model_location, trust_remote_code=job.trust_remote_code)
    except UNUSABLE as error:
        raise _unusable(job, error) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    return tokenizer


def published_type(job: Job) -> Any:
    """The dtype that the base's weights are stored in; a model trained whole goes back to it. Raises `InvalidModel`."""
    try:
        config = AutoConfig.from_pretrained(job.model_location, trust_remote_code=job.trust_remote_code)
    except UNUSABLE as error:
        raise _unusable(job, error) from error
    return config.dtype or torch.float32


def load_model(job: Job, recipe: GenerativeRecipe, dtype: Any) -> Any:
    """The base model as it is to be trained: quantized, in ``dtype`` under an adapter, or to be trained whole.

    A whole model is loaded in fp32; where its optimizer is the small one and the GPU has bf16, in bf16.

    Raises:
        InvalidModel: the folder or the hub has no usable model there.
    """
    on_cpu = not torch.cuda.is_available()
    options: dict[str, Any] = {"dtype": dtype if recipe.use_lora else whole_type(recipe, dtype)}
    if recipe.quantization != "none":
        options["quantization_config"] = _quantization(recipe, dtype)
        options["device_map"] = {"": "cpu" if on_cpu else own_card()}
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


def whole_type(recipe: GenerativeRecipe, dtype: Any) -> Any:
    """The dtype of the weights of a model that is trained whole, computing in ``dtype``."""
    return torch.bfloat16 if recipe.optimizer == "adamw_8bit" and dtype == torch.bfloat16 else torch.float32


def count_parameters(job: Job) -> int:
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


def own_card() -> int:
    """Of the GPUs that this process sees, the one that is its own: of several processes each has another."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def add_adapter(model: Any, job: Job, recipe: GenerativeRecipe) -> Any:
    """Put a new LoRA adapter on the model, or the one to go on from.

    A quantized base keeps its embeddings, norms and head in the type that is computed in: PEFT's
    ``prepare_model_for_kbit_training`` would make them fp32, 2.2 GB more for a model of 7B, and TRL does without.

    Raises:
        InvalidModel: the model does not have the target modules, or the adapter to go on from does not fit it.
    """
    model = _load_adapter(model, job) if job.adapter_location else _new_adapter(model, job, recipe)
    return model if torch.cuda.is_available() else quicken(model)


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
            Text(
                f"lora_target_modules = {wanted!r}: the model has no linear module {bad}.",
                f"lora_target_modules = {wanted!r}：模型中没有线性模块 {bad}。",
            ),
            Text(f"Give {ALL_LINEAR}, or some of: {known}.", f"请填写 {ALL_LINEAR}，或从以下名称中选择：{known}。"),
        )
    return names


def _new_adapter(model: Any, job: Job, recipe: GenerativeRecipe) -> Any:
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


def _load_adapter(model: Any, job: Job) -> Any:
    try:
        return PeftModel.from_pretrained(model, job.adapter_location, adapter_name=TRAINED, is_trainable=True)
    except (*UNUSABLE, RuntimeError, SafetensorError) as error:
        said = str(error).strip().partition("\n")[0][:300]
        raise InvalidModel(
            Text(
                f"The adapter {job.adapter_location} cannot be put on {job.model_location}: {said}",
                f"无法将适配器 {job.adapter_location} 用于 {job.model_location}：{said}",
            ),
            Text("Choose another task in start_from, or leave it empty.", "请在 start_from 中选择其他任务，或留空。"),
        ) from error


def _quantization(recipe: GenerativeRecipe, dtype: Any) -> Any:
    if recipe.quantization == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )


def _unusable(job: Job, error: Exception) -> Exception:
    reason, _, __ = explain(error)
    if reason in (Reason.MEMORY, Reason.DISK):
        return error
    said = str(error).strip().partition("\n")[0][:300]
    hint = NOTHING if Path(job.model_location).is_absolute() else HUB
    return InvalidModel(
        Text(
            f"The model {job.model_location} cannot be loaded: {said}",
            f"无法加载模型 {job.model_location}：{said}",
        ),
        hint or FOLDER,
    )


HUB = Text(
    "Check the name and the network, or set HF_ENDPOINT to a mirror.",
    "请检查名称与网络，或将 HF_ENDPOINT 设为镜像。",
)
FOLDER = Text(
    "Check that the folder holds a whole transformers model, or choose another.",
    "请确认该文件夹包含完整的 transformers 模型，或选择其他模型。",
)
