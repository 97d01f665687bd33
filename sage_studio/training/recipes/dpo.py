"""The recipe of direct preference optimization. Knows its fields. Knows nothing of how it is done (`methods.dpo`)."""

from typing import ClassVar, Literal, Self

from pydantic import model_validator

from sage_studio.data.rows import RowKind
from sage_studio.text import Text
from sage_studio.training.curves import Plot
from sage_studio.training.field import knob, with_default
from sage_studio.training.recipes.generative import GenerativeRecipe


class DPORecipe(GenerativeRecipe):
    """Direct preference optimization (arXiv 2305.18290): the better answer is made likelier than the worse one.

    The reference is the model as it was before: the base, or the one of the adapter in ``start_from``.
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
    beta: float = knob(
        0.1,
        "common",
        Text("Beta", "Beta"),
        Text("How firmly the model is held to where it began.", "对初始模型的约束强度，越大越接近原模型。"),
        gt=0,
        le=10,
    )
    loss_type: Literal[
        "sigmoid", "hinge", "ipo", "robust", "sigmoid_norm", "apo_zero", "apo_down", "sppo_hard", "nca_pair", "bco_pair"
    ] = knob(
        "sigmoid",
        "common",
        Text("Loss", "损失类型"),
        Text("sigmoid is DPO as published; robust bears wrong labels.", "sigmoid 为原始 DPO；robust 可容忍错误标注。"),
    )
    label_smoothing: float = knob(
        0.0,
        "more",
        Text("Label noise", "错误标注比例"),
        Text("Share of pairs believed to be swapped; for the robust loss.", "估计的反向标注比例，用于 robust 损失。"),
        ge=0,
        lt=0.5,
    )
    sft_weight: float = knob(
        0.0,
        "more",
        Text("SFT share", "SFT 权重"),
        Text(
            "Weight of an SFT loss on the chosen answers, added to keep them likely; 0: none.",
            "在偏好回答上附加的 SFT 损失权重，防止其概率下降；0 表示不附加。",
        ),
        ge=0,
        le=100,
    )

    @model_validator(mode="after")
    def _smoothing_is_for_robust(self) -> Self:
        if bool(self.label_smoothing) != (self.loss_type == "robust"):
            raise ValueError("label_smoothing belongs to loss_type robust, which needs it")
        return self
