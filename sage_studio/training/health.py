"""Whether a finished model is fit to be used: looked at on the disk, and asked once.

Knows the signs of a run that "succeeded" and learned nothing, or broke. Knows nothing of how it was trained or loaded.
"""

from pathlib import Path
from typing import Any

from sage_studio.errors import StudioError
from sage_studio.safetensors_file import is_finite, is_zero, read_tensors
from sage_studio.text import Text

PROMPT = "Hello!"
ANSWER_TOKENS = 8
COLLAPSED = 0.995
"""Mean cosine between different texts from which on an embedder tells nothing apart."""
SAME_VECTOR = 0.99
"""Least cosine between a text's vector before and after the model was saved."""


class Unhealthy(StudioError):
    """A model or a loss that is not a number, or an adapter that learned nothing."""

    code = "unhealthy"


LOWER = Text(
    "Lower the learning rate, and check the data for rows that are empty or repeat one another.",
    "请降低学习率，并检查数据中是否有空行或重复行。",
)


def diverged(what: str, value: float, step: int) -> Unhealthy:
    """The error for a loss or gradient that is no number any more."""
    return Unhealthy(
        Text(
            f"At step {step} the {what} became {value}: the training diverged.",
            f"第 {step} 步的 {what} 变为 {value}：训练已发散。",
        ),
        LOWER,
    )


def check_weights(folder: Path, kind: str) -> None:
    """Raise `Unhealthy` if a saved weight is not finite, or if an adapter is all zero."""
    learned = kind != "adapter"
    for path in sorted(folder.glob("adapter_model.safetensors" if kind == "adapter" else "model*.safetensors")):
        for tensor in read_tensors(path):
            if not is_finite(path, tensor):
                raise _not_finite(tensor.name)
            learned = learned or ("lora_B" in tensor.name and not is_zero(path, tensor))
    if not learned:
        raise Unhealthy(
            Text("The adapter is all zero: nothing was learned.", "适配器全为零：没有学到任何内容。"),
            Text("Train for more steps or at a higher learning rate.", "请增加训练步数或提高学习率。"),
        )


def check_answer(model: Any, tokenizer: Any) -> str:
    """Ask the model one thing. Returns its answer, a few tokens; raises `Unhealthy` if it has none."""
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
        raise Unhealthy(Text("The tuned model answers nothing.", "微调后的模型没有任何回答。"), LOWER)
    return str(tokenizer.decode(new, skip_special_tokens=True))


def check_vectors(trained: Any, loaded: Any) -> None:
    """Raise `Unhealthy` unless an embedder tells texts apart, and does so too once it was saved and loaded.

    Args:
        trained: its vectors of different texts, each of length 1; shape (texts, dimensions).
        loaded: the vectors that the saved model gives for the same texts.
    """
    import numpy as np

    if not np.isfinite(trained).all() or not np.isfinite(loaded).all():
        raise _not_finite("embeddings")
    alike = trained @ trained.T
    if len(trained) > 1 and float(alike[~np.eye(len(trained), dtype=bool)].mean()) > COLLAPSED:
        raise Unhealthy(
            Text(
                "The tuned embedder gives nearly the same vector for every text: it has collapsed.",
                "微调后的嵌入模型对所有文本给出几乎相同的向量：模型已坍缩。",
            ),
            LOWER,
        )
    if float((trained * loaded).sum(axis=1).min()) < SAME_VECTOR:
        raise Unhealthy(
            Text(
                "Loaded again, the tuned embedder gives other vectors than when it was trained.",
                "重新加载后，微调后的嵌入模型给出的向量与训练时不同。",
            ),
            Text("Train again; if it happens once more, please report it.", "请重新训练；如再次出现，请反馈该问题。"),
        )


def _not_finite(name: str) -> Unhealthy:
    return Unhealthy(
        Text(f"The tuned model holds values that are not numbers ({name}).", f"微调后的模型含有非数值（{name}）。"),
        LOWER,
    )
