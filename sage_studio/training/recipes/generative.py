"""What the methods share that train a model which writes text.

Knows the fields about how the base is loaded, what the adapter is like and what is held out. Knows nothing of any one
method.
"""

from typing import Literal, Self

from pydantic import model_validator

from sage_studio.text import Text
from sage_studio.training.field import knob
from sage_studio.training.recipes.base import Recipe


class GenerativeRecipe(Recipe):
    """Trains a causal language model."""

    start_from: str = knob(
        "",
        "what",
        Text("Continue from", "在已有任务上继续"),
        Text(
            "Optional: a finished task, or the folder of its adapter.",
            "可选：已完成任务的 id，或其适配器文件夹。",
        ),
    )
    quantization: Literal["none", "8bit", "4bit"] = knob(
        "none",
        "common",
        Text("Quantization", "量化"),
        Text("Load the base in 8 or 4 bits to save memory.", "以 8 或 4 位加载基座以节省显存。"),
    )
    use_rslora: bool = knob(
        False,
        "lora",
        Text("rsLoRA", "rsLoRA"),
        Text(
            "Scale by alpha / sqrt(rank): keeps high ranks useful (arXiv 2312.03732).",
            "按 alpha / sqrt(r) 缩放，高秩时更有效（arXiv 2312.03732）。",
        ),
    )
    use_dora: bool = knob(
        False,
        "lora",
        Text("DoRA", "DoRA"),
        Text(
            "Train size and direction apart: better at low ranks, slower (arXiv 2402.09353).",
            "分别训练幅度与方向：低秩时效果更好，但更慢（arXiv 2402.09353）。",
        ),
    )
    eval_share: float = knob(
        0.0,
        "more",
        Text("Hold-out", "验证集比例"),
        Text(
            "Share kept for evaluation (0 = none); rows with the same question or long answer stay on one side.",
            "留作评估的数据比例（0 = 不评估）；问题或长回答相同的行不会分在两边。",
        ),
        ge=0,
        le=0.5,
    )
    eval_steps: int = knob(
        0,
        "more",
        Text("Evaluate every", "评估间隔"),
        Text("N steps (0 = 10 times per run).", "每 N 步评估一次（0 = 全程约 10 次）。"),
        ge=0,
    )
    load_best_model: bool = knob(
        True,
        "more",
        Text("Keep best checkpoint", "保留最佳检查点"),
        Text(
            "With a hold-out set: the model of the lowest hold-out loss, not of the last step.",
            "设置验证集时：最终模型取验证损失最低的一次，而非最后一步。",
        ),
    )
    early_stopping_patience: int = knob(
        0,
        "more",
        Text("Early stopping", "提前停止"),
        Text(
            "Stop after so many measurements without improvement; 0: never.",
            "连续若干次评估没有改善即停止；0 表示不提前停止。",
        ),
        ge=0,
        le=1000,
    )

    @model_validator(mode="after")
    def _adapter_fields_need_adapter(self) -> Self:
        if self.quantization != "none" and not self.use_lora:
            raise ValueError("a quantized base can only be trained with use_lora")
        if self.start_from and not self.use_lora:
            raise ValueError("start_from goes on with an adapter and needs use_lora")
        if (self.use_dora or self.use_rslora) and not self.use_lora:
            raise ValueError("use_dora and use_rslora need use_lora")
        return self

    @model_validator(mode="after")
    def _stopping_needs_held_out_rows(self) -> Self:
        if self.early_stopping_patience and not self.eval_share:
            raise ValueError("early_stopping_patience needs rows held out (eval_share)")
        if self.early_stopping_patience and not self.load_best_model:
            raise ValueError("early_stopping_patience needs load_best_model")
        return self
