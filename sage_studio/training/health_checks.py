"""Checks a finished model: finite weights, something learned, loads again and answers."""

from pathlib import Path
from typing import Any

import psutil
import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM

from sage_studio.safetensors_file import is_finite, is_zero, read_tensors
from sage_studio.text import Text
from sage_studio.training.failures import LOWER_LEARNING_RATE, ModelHealthError, explain
from sage_studio.training.model_loading import UNUSABLE
from sage_studio.training.progress import Reason

PROMPT = "Hello!"
ANSWER_TOKENS = 8
COLLAPSED = 0.995
"""Mean cosine between different texts from which on an embedder tells nothing apart."""
SAVED = "saved"
"""The adapter's name beside the one that was trained."""
ROOM = 1.5
"""Free memory, in sizes of the model on the disk, from which on a whole model is loaded a second time."""
SAME_VECTOR = 0.99
"""Least cosine between a text's vector before and after the model was saved."""


def check_weights(folder: Path, kind: str) -> None:
    """Raise `ModelHealthError` if a saved weight is not finite, or if an adapter is all zero."""
    learned = kind != "adapter"
    for path in sorted(folder.glob("adapter_model.safetensors" if kind == "adapter" else "model*.safetensors")):
        for tensor in read_tensors(path):
            if not is_finite(path, tensor):
                raise _not_finite(tensor.name)
            learned = learned or ("lora_B" in tensor.name and not is_zero(path, tensor))
    if not learned:
        raise ModelHealthError(
            Text("The adapter is all zero: nothing was learned."),
            Text("Train for more steps or at a higher learning rate."),
        )


def check_answer(model: Any, tokenizer: Any) -> str:
    """Ask the model one thing. Returns its answer, a few tokens; raises `ModelHealthError` if it has none."""
    import torch

    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": PROMPT}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    ).to(model.device)
    model.eval()
    with torch.inference_mode():
        if not bool(model(**prompt).logits[:, -1].isfinite().all()):
            raise _not_finite("logits")
        answer = model.generate(**prompt, max_new_tokens=ANSWER_TOKENS, do_sample=False, use_cache=True)
    new = answer[0, prompt["input_ids"].shape[1] :]
    if not len(new):
        raise ModelHealthError(Text("The tuned model answers nothing."), LOWER_LEARNING_RATE)
    return str(tokenizer.decode(new, skip_special_tokens=True))


def check_vectors(trained: Any, loaded: Any) -> None:
    """Raise `ModelHealthError` unless an embedder tells texts apart, and does so too once it was saved and loaded.

    Args:
        trained: its vectors of different texts, each of length 1; shape (texts, dimensions).
        loaded: the vectors that the saved model gives for the same texts.
    """
    import numpy as np

    if not np.isfinite(trained).all() or not np.isfinite(loaded).all():
        raise _not_finite("embeddings")
    alike = trained @ trained.T
    if len(trained) > 1 and float(alike[~np.eye(len(trained), dtype=bool)].mean()) > COLLAPSED:
        raise ModelHealthError(
            Text("The tuned embedder gives nearly the same vector for every text: it has collapsed."),
            LOWER_LEARNING_RATE,
        )
    if float((trained * loaded).sum(axis=1).min()) < SAME_VECTOR:
        raise ModelHealthError(
            Text("Loaded again, the tuned embedder gives other vectors than when it was trained."),
            Text("Train again; if it happens once more, please report it."),
        )


def _not_finite(name: str) -> ModelHealthError:
    return ModelHealthError(
        Text("The tuned model holds values that are not numbers ({name}).", name=name),
        LOWER_LEARNING_RATE,
    )


def reload_saved_model(model: Any, folder: Path, is_adapter: bool, trust_remote_code: bool) -> Any:
    """The model that was saved in a folder; the one in memory where there is no room for another.

    Args:
        model: the trained model. An adapter is put on it beside the trained one and takes its place.

    Raises:
        ModelHealthError: what was saved cannot be loaded.
    """
    try:
        if is_adapter:
            model.load_adapter(str(folder), SAVED)
            model.set_adapter(SAVED)
            return model
        size = sum(path.stat().st_size for path in folder.glob("model*.safetensors"))
        if psutil.virtual_memory().available < ROOM * size:
            print("the saved model is not loaded again: too little memory is free")
            return model
        return AutoModelForCausalLM.from_pretrained(
            folder, dtype=next(model.parameters()).dtype, trust_remote_code=trust_remote_code
        ).to(torch.device("cpu"))
    except (*UNUSABLE, RuntimeError, SafetensorError) as error:
        if explain(error)[0] in (Reason.MEMORY, Reason.DISK):
            raise
        message = str(error).strip().partition("\n")[0][:300]
        raise ModelHealthError(
            Text("The saved model cannot be loaded again: {message}", message=message),
            Text("Train again; if it happens once more, please report it."),
        ) from error
