"""The recipes of the methods that train a text generator: SFT and DPO."""

from typing import ClassVar, Literal, Self

from pydantic import model_validator

from sage_studio.data.rows import RowKind
from sage_studio.text import Text
from sage_studio.training.recipes.base import Plot, Recipe, recipe_field, with_default
from sage_studio.validation_errors import RuleError


class GenerativeRecipe(Recipe):
    """Trains a causal language model."""

    start_from: str = recipe_field(
        "",
        "what",
        Text("Continue from", "在已有任务上继续"),
        Text(
            "Optional: a finished task, or the folder of its adapter.",
            "可选：已完成任务的 id，或其适配器文件夹。",
        ),
    )
    quantization: Literal["none", "8bit", "4bit"] = recipe_field(
        "none",
        "common",
        Text("Quantization", "量化"),
        Text("Load the base in 8 or 4 bits to save memory.", "以 8 或 4 位加载基座以节省显存。"),
    )
    use_rslora: bool = recipe_field(
        False,
        "lora",
        Text("rsLoRA", "rsLoRA"),
        Text(
            "Scale by alpha / sqrt(rank): keeps high ranks useful (arXiv 2312.03732).",
            "按 alpha / sqrt(r) 缩放，高秩时更有效（arXiv 2312.03732）。",
        ),
    )
    use_dora: bool = recipe_field(
        False,
        "lora",
        Text("DoRA", "DoRA"),
        Text(
            "Train magnitude and direction separately: better at low ranks, slower (arXiv 2402.09353).",
            "分别训练幅度与方向：低秩时效果更好，但更慢（arXiv 2402.09353）。",
        ),
    )
    eval_share: float = recipe_field(
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
    eval_steps: int = recipe_field(
        0,
        "more",
        Text("Evaluate every", "评估间隔"),
        Text("N steps (0 = 10 times per run).", "每 N 步评估一次（0 = 全程约 10 次）。"),
        ge=0,
    )
    load_best_model: bool = recipe_field(
        True,
        "more",
        Text("Keep best checkpoint", "保留最佳检查点"),
        Text(
            "With a hold-out set: keep the checkpoint with the lowest hold-out loss, not the last one.",
            "设置验证集时：最终模型取验证损失最低的一次，而非最后一步。",
        ),
    )
    early_stopping_patience: int = recipe_field(
        0,
        "more",
        Text("Early stopping", "提前停止"),
        Text(
            "Stop after N evaluations without improvement (0 = never).",
            "连续若干次评估没有改善即停止；0 表示不提前停止。",
        ),
        ge=0,
        le=1000,
    )

    @model_validator(mode="after")
    def _adapter_fields_need_adapter(self) -> Self:
        if self.quantization != "none" and not self.use_lora:
            raise RuleError(
                Text("a quantized base can only be trained with use_lora", "量化的基座只能用 LoRA 训练（use_lora）"),
                Text(
                    "A quantized base can only be trained with LoRA: turn on Use LoRA, or set Quantization to none.",
                    "量化的基座只能用 LoRA 训练：请启用“使用 LoRA”，或将“量化”设为 none。",
                ),
            )
        if self.start_from and not self.use_lora:
            raise RuleError(
                Text(
                    "start_from continues an adapter and needs use_lora",
                    "start_from 是在适配器上继续训练，需要 use_lora",
                ),
                Text(
                    "Continuing from a finished task needs an adapter: turn on Use LoRA.",
                    "在已有任务上继续训练需要适配器：请启用“使用 LoRA”。",
                ),
            )
        if (self.use_dora or self.use_rslora) and not self.use_lora:
            raise RuleError(
                Text("use_dora and use_rslora need use_lora", "use_dora 与 use_rslora 需要 use_lora"),
                Text("DoRA and rsLoRA need Use LoRA.", "DoRA 与 rsLoRA 需要启用“使用 LoRA”。"),
            )
        return self

    @model_validator(mode="after")
    def _stopping_needs_held_out_rows(self) -> Self:
        if self.early_stopping_patience and not self.eval_share:
            raise RuleError(
                Text(
                    "early_stopping_patience needs a hold-out set (eval_share)",
                    "early_stopping_patience 需要设置验证集（eval_share）",
                ),
                Text(
                    "Early stopping needs a hold-out set: set Hold-out above 0.",
                    "“提前停止”需要验证集：请将“验证集比例”设为大于 0。",
                ),
            )
        if self.early_stopping_patience and not self.load_best_model:
            raise RuleError(
                Text("early_stopping_patience needs load_best_model", "early_stopping_patience 需要 load_best_model"),
                Text("Early stopping needs Keep best checkpoint.", "“提前停止”需要启用“保留最佳检查点”。"),
            )
        return self


class SFTRecipe(GenerativeRecipe):
    """Supervised fine-tuning: the loss falls on the answers, prompts are masked."""

    title: ClassVar[Text] = Text("SFT", "SFT 指令微调")
    accepts: ClassVar[tuple[RowKind, ...]] = ("conversation", "preference")

    type: Literal["sft"] = "sft"
    packing: bool = recipe_field(
        False,
        "more",
        Text("Packing", "打包"),
        Text(
            "Pack short rows into sequences of max_length tokens: faster where lengths vary, fewer steps.",
            "将短样本拼接到 max_length：长度差异大时更快，步数更少。",
        ),
    )


class DPORecipe(GenerativeRecipe):
    """Direct preference optimization (arXiv 2305.18290): makes the chosen answer likelier than the rejected one.

    The reference model is the one that training starts from: the base, or the adapter in ``start_from``.
    """

    title: ClassVar[Text] = Text("DPO", "DPO 偏好优化")
    accepts: ClassVar[tuple[RowKind, ...]] = ("preference",)
    plots: ClassVar[tuple[Plot, ...]] = (
        Plot(
            Text("Rewards", "奖励"),
            {
                "rewards/chosen": Text("chosen", "偏好回答"),
                "rewards/rejected": Text("rejected", "拒绝回答"),
                "rewards/margins": Text("margin", "差距"),
            },
        ),
        Plot(
            Text("Preference accuracy", "偏好准确率"),
            {
                "rewards/accuracies": Text("training", "训练"),
                "eval_rewards/accuracies": Text("hold-out", "验证"),
            },
        ),
    )

    type: Literal["dpo"] = "dpo"
    num_train_epochs: float = with_default(GenerativeRecipe, "num_train_epochs", 1.0)
    learning_rate: float = with_default(GenerativeRecipe, "learning_rate", 1e-5)
    lora_dropout: float = with_default(GenerativeRecipe, "lora_dropout", 0.0)
    warmup_ratio: float = with_default(GenerativeRecipe, "warmup_ratio", 0.1)
    beta: float = recipe_field(
        0.1,
        "common",
        Text("Beta", "Beta"),
        Text(
            "Strength of the KL penalty towards the reference model.", "对参考模型的 KL 惩罚强度，越大越接近参考模型。"
        ),
        gt=0,
        le=10,
    )
    loss_type: Literal[
        "sigmoid", "hinge", "ipo", "robust", "sigmoid_norm", "apo_zero", "apo_down", "sppo_hard", "nca_pair", "bco_pair"
    ] = recipe_field(
        "sigmoid",
        "common",
        Text("Loss", "损失类型"),
        Text(
            "sigmoid is the original DPO loss; robust tolerates label noise.",
            "sigmoid 为原始 DPO；robust 可容忍错误标注。",
        ),
    )
    label_smoothing: float = recipe_field(
        0.0,
        "more",
        Text("Label noise", "错误标注比例"),
        Text("Estimated share of swapped pairs; for the robust loss.", "估计的反向标注比例，用于 robust 损失。"),
        ge=0,
        lt=0.5,
    )
    sft_weight: float = recipe_field(
        0.0,
        "more",
        Text("SFT share", "SFT 权重"),
        Text(
            "Weight of an additional SFT loss on the chosen answers, which keeps them likely; 0 = off.",
            "在偏好回答上附加的 SFT 损失权重，防止其概率下降；0 表示不附加。",
        ),
        ge=0,
        le=100,
    )

    @model_validator(mode="after")
    def _smoothing_is_for_robust(self) -> Self:
        if bool(self.label_smoothing) != (self.loss_type == "robust"):
            raise RuleError(
                Text(
                    "label_smoothing and loss_type robust need each other",
                    "label_smoothing 与 loss_type robust 须同时使用",
                ),
                Text(
                    "Label noise and the loss robust need each other: set both or neither.",
                    "“标签噪声”与损失类型 robust 须同时使用。",
                ),
            )
        return self
