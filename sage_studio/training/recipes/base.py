"""The fields that every training method has, each declared once."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self, cast

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.fields import FieldInfo

from sage_studio.data.rows import RowKind
from sage_studio.models.model_folder import ModelTask
from sage_studio.text import Text
from sage_studio.validation_errors import RuleError

Group = Literal["what", "common", "lora", "more", "files"]


def recipe_field(default: Any, group: Group, label: Text, help: Text, **rules: Any) -> Any:
    """Declare a recipe's field.

    Args:
        default: its default; ``...`` for a field that must be given.
        group: which part of the form shows it.
        label: its name for a person.
        help: what it does, in a sentence.
        rules: pydantic's bounds (``gt``, ``le``, …).
    """
    extra = {"group": group, "label": label._asdict(), "help": help._asdict()}
    return Field(default, description=help.en, json_schema_extra=cast("dict[str, Any]", extra), **rules)


def with_default(recipe: type[BaseModel], name: str, default: Any) -> Any:
    """A field of a recipe, declared there, with another default for a method to which that suits better."""
    info = copy.copy(recipe.model_fields[name])
    info.default = default
    info._attributes_set = {**info._attributes_set, "default": default}
    return info


def field_label(info: FieldInfo) -> Text:
    """The label a field was declared with."""
    return Text(**_extra(info)["label"])


def field_help(info: FieldInfo) -> Text:
    """The explanation a field was declared with."""
    return Text(**_extra(info)["help"])


def field_group(info: FieldInfo) -> Group:
    """The part of the form that a field belongs to."""
    return cast("Group", _extra(info)["group"])


def _extra(info: FieldInfo) -> dict[str, Any]:
    extra = info.json_schema_extra
    if not isinstance(extra, dict):
        raise TypeError("a recipe's field is declared with recipe_field()")
    return cast("dict[str, Any]", extra)


@dataclass(frozen=True)
class Plot:
    """A plot of the run view.

    Attributes:
        title: what it shows.
        lines: at most three lines: the figure's name in the trainer's logs, and what it is called.
    """

    title: Text
    lines: Mapping[str, Text]


LOSS = Plot(Text("Loss", "损失"), {"loss": Text("training", "训练"), "eval_loss": Text("hold-out", "验证")})

CHOOSE_DATASET = Text("Choose a dataset first.", "请先选择数据集。")
ONE_SOURCE = Text(
    "Dataset and Data file are both filled in; clear one of them.", "“数据集”与“数据文件”只能填写一个，请清空其一。"
)
OTHER_NAMES = {"train_data": "train_data_path", "input_path": "train_data_path"}
"""Names that a field may be given under besides its own; a method with a field of that very name means that one."""


class Recipe(BaseModel):
    """What every method asks for.

    Attributes:
        title: the method's name for a person.
        accepts: kinds of rows that the method can learn from, as `sage_studio.data.rows` names them.
        plots: what the method plots besides loss and learning rate.
        model_task: what the models that it trains are for.
        fewest_rows: with less, there is nothing to learn or nothing to measure it by.
        sources: fields of which one, and only one, says where the rows come from.
    """

    title: ClassVar[Text]
    accepts: ClassVar[tuple[RowKind, ...]] = ()
    plots: ClassVar[tuple[Plot, ...]] = ()
    model_task: ClassVar[ModelTask] = "generative"
    fewest_rows: ClassVar[int] = 1
    sources: ClassVar[tuple[str, ...]] = ("dataset_id", "train_data_path")

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)

    type: str
    name: str = recipe_field(
        "",
        "what",
        Text("Name", "名称"),
        Text("Optional name of this run.", "可选：本次训练的名称。"),
        max_length=80,
    )
    model_name_or_path: str = recipe_field(
        ...,
        "what",
        Text("Model", "模型"),
        Text(
            "Pick one, or paste a Hugging Face id or a folder path.",
            "从列表选择，或填写 Hugging Face id / 模型文件夹路径。",
        ),
        min_length=1,
    )
    dataset_id: str = recipe_field(
        "", "what", Text("Dataset", "数据集"), Text("The rows to train on.", "用于训练的数据。")
    )
    train_data_path: str = recipe_field(
        "",
        "files",
        Text("Data file", "数据文件"),
        Text("A JSON or JSONL file on this machine, instead of a dataset.", "本机的 JSON/JSONL 文件，可代替数据集。"),
    )
    output_dir: str = recipe_field(
        "",
        "files",
        Text("Copy to", "另存到"),
        Text("Folder that gets a copy of the finished model; empty: none.", "训练完成后另存模型的文件夹，可留空。"),
    )
    config_file: str = recipe_field(
        "",
        "files",
        Text("Settings file", "配置文件"),
        Text(
            "A YAML file on this machine with any of these fields; values you change here take precedence.",
            "本机的 YAML 文件，可包含任意字段；在此处修改的值优先。",
        ),
    )

    num_train_epochs: float = recipe_field(
        3.0,
        "common",
        Text("Epochs", "训练轮数"),
        Text("Passes over the dataset.", "遍历数据集的次数。"),
        gt=0,
        le=1000,
    )
    per_device_train_batch_size: int = recipe_field(
        1,
        "common",
        Text("Batch size", "批大小"),
        Text("Rows per step on each GPU; more needs more memory.", "每步每张 GPU 的样本数，越大越占内存。"),
        ge=1,
        le=1024,
    )
    learning_rate: float = recipe_field(
        5e-5,
        "common",
        Text("Learning rate", "学习率"),
        Text("LoRA: 1e-4 to 2e-4 is usual; full fine-tuning: 1e-5.", "LoRA 常用 1e-4 至 2e-4；全参数微调常用 1e-5。"),
        gt=0,
        le=1,
    )
    max_length: int = recipe_field(
        1024,
        "common",
        Text("Max sequence length", "最大序列长度"),
        Text("In tokens; longer rows are truncated.", "以 token 计，超出部分截断。"),
        ge=16,
        le=131072,
    )

    use_lora: bool = recipe_field(
        True,
        "lora",
        Text("Use LoRA", "使用 LoRA"),
        Text("Train a small adapter instead of the whole model.", "只训练小型适配器，不改动整个模型。"),
    )
    lora_r: int = recipe_field(
        16, "lora", Text("Rank", "秩 r"), Text("Size of the adapter.", "适配器的大小。"), ge=1, le=512
    )
    lora_alpha: int = recipe_field(
        32,
        "lora",
        Text("Alpha", "Alpha"),
        Text("Scale of the adapter; twice the rank is usual.", "适配器的缩放，通常为秩的两倍。"),
        ge=1,
        le=4096,
    )
    lora_dropout: float = recipe_field(
        0.05,
        "lora",
        Text("Dropout", "Dropout"),
        Text("Share of adapter inputs dropped while training.", "训练时随机丢弃的比例。"),
        ge=0,
        lt=1,
    )
    lora_target_modules: str = recipe_field(
        "all-linear",
        "lora",
        Text("Target modules", "目标模块"),
        Text("all-linear, or module names separated by commas.", "all-linear，或以逗号分隔的模块名。"),
        min_length=1,
    )

    gradient_accumulation_steps: int = recipe_field(
        1,
        "more",
        Text("Gradient accumulation", "梯度累积"),
        Text("Batches accumulated before each optimizer step.", "每次更新前累积的批数。"),
        ge=1,
        le=4096,
    )
    gradient_checkpointing: bool = recipe_field(
        False,
        "more",
        Text("Gradient checkpointing", "梯度检查点"),
        Text("Less memory, about a third slower.", "节省显存，约慢三分之一。"),
    )
    max_steps: int = recipe_field(
        0,
        "more",
        Text("Max steps", "最多步数"),
        Text("Stop after N steps (0 = use epochs).", "达到 N 步即停止（0 = 按轮数）。"),
        ge=0,
    )
    max_samples: int = recipe_field(
        0,
        "more",
        Text("Max rows", "最多行数"),
        Text("Train on the first N rows (0 = all).", "只用前 N 行训练（0 = 全部）。"),
        ge=0,
    )
    warmup_ratio: float = recipe_field(
        0.03,
        "more",
        Text("Warm-up", "预热比例"),
        Text("Share of steps in which the learning rate rises.", "学习率上升阶段占总步数的比例。"),
        ge=0,
        lt=1,
    )
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"] = recipe_field(
        "cosine",
        "more",
        Text("Learning-rate schedule", "学习率调度"),
        Text("After the warm-up.", "预热之后的变化方式。"),
    )
    optimizer: Literal["auto", "adamw", "adamw_8bit"] = recipe_field(
        "auto",
        "more",
        Text("Optimizer", "优化器"),
        Text(
            "adamw_8bit keeps optimizer states in 8 bits and, in full fine-tuning, weights in bf16: 6 bytes per "
            "parameter instead of 16; very slow on a CPU. auto: adamw, unless full fine-tuning would fill the GPU.",
            "adamw_8bit 以 8 位保存优化器状态；不用 LoRA 时权重为 bf16，每个参数 6 字节而非 16 字节；在 CPU 上很慢。"
            "auto：使用 adamw，除非全量训练会占满 GPU 显存。",
        ),
    )
    weight_decay: float = recipe_field(
        0.0,
        "more",
        Text("Weight decay", "权重衰减"),
        Text("Regularisation strength; 0 is usual for LoRA.", "正则强度，LoRA 常用 0。"),
        ge=0,
        le=1,
    )
    max_grad_norm: float = recipe_field(
        1.0,
        "more",
        Text("Max gradient norm", "最大梯度范数"),
        Text("Larger gradients are scaled down to it.", "超出的梯度会被缩小。"),
        gt=0,
        le=1000,
    )
    logging_steps: int = recipe_field(
        1,
        "more",
        Text("Log every", "记录间隔"),
        Text("Steps between two points of the plots.", "曲线两点之间的步数。"),
        ge=1,
    )
    save_steps: int = recipe_field(
        100,
        "more",
        Text("Checkpoint every", "保存间隔"),
        Text("Steps between two checkpoints.", "两次检查点之间的步数。"),
        ge=1,
    )
    save_total_limit: int = recipe_field(
        2,
        "more",
        Text("Keep last N checkpoints", "最多保留检查点数"),
        Text("Older ones are deleted.", "更早的会被删除。"),
        ge=1,
        le=100,
    )
    precision: Literal["auto", "bf16", "fp32"] = recipe_field(
        "auto",
        "more",
        Text("Precision", "精度"),
        Text("auto: bf16 where the hardware has it.", "auto：硬件支持时用 bf16。"),
    )
    gpu_vis: str = recipe_field(
        "",
        "more",
        Text("GPUs", "GPU 编号"),
        Text(
            "0 or 0,1 (empty = the one with most free memory).",
            "如 0 或 0,1（留空 = 空闲显存最多的）。",
        ),
        pattern=r"^(\d+(,\d+)*)?$",
    )
    seed: int = recipe_field(
        42,
        "more",
        Text("Seed", "随机种子"),
        Text("For reproducible runs.", "用于复现训练。"),
        ge=0,
        le=2**32 - 1,
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if sum(bool(getattr(self, name)) for name in self.sources) != 1:
            filled = any(getattr(self, name) for name in self.sources)
            names = " or ".join(self.sources), "、".join(self.sources)
            raise RuleError(
                Text(f"give either {names[0]}", f"{names[1]} 须填写且只填写一个"),
                ONE_SOURCE if filled else CHOOSE_DATASET,
            )
        return self
