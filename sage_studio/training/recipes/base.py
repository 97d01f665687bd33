"""The fields that every training method has, each declared once."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self, cast

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.fields import FieldInfo

from sage_studio.data.rows import RowKind
from sage_studio.models.model_folder import ModelTask
from sage_studio.text import Text, multilingual, verbatim
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
    extra = {"group": group, "label": label.translations(), "help": help.translations()}
    return Field(default, description=help.en, json_schema_extra=cast("dict[str, Any]", extra), **rules)


def with_default(recipe: type[BaseModel], name: str, default: Any) -> Any:
    """A field of a recipe, declared there, with another default for a method to which that suits better."""
    info = copy.copy(recipe.model_fields[name])
    info.default = default
    info._attributes_set = {**info._attributes_set, "default": default}
    return info


def field_label(info: FieldInfo) -> Text:
    """The label a field was declared with."""
    return multilingual(_extra(info)["label"])


def field_help(info: FieldInfo) -> Text:
    """The explanation a field was declared with."""
    return multilingual(_extra(info)["help"])


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


LOSS = Plot(Text("Loss"), {"loss": Text("training"), "eval_loss": Text("hold-out")})

CHOOSE_DATASET = Text("Choose a dataset first.")
ONE_SOURCE = Text("Dataset and Data file are both filled in; clear one of them.")
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
        Text("Name"),
        Text("Optional name of this run."),
        max_length=80,
    )
    model_name_or_path: str = recipe_field(
        ...,
        "what",
        Text("Model"),
        Text("Pick one, or paste a Hugging Face id or a folder path."),
        min_length=1,
    )
    dataset_id: str = recipe_field("", "what", Text("Dataset"), Text("The rows to train on."))
    train_data_path: str = recipe_field(
        "",
        "files",
        Text("Data file"),
        Text("A JSON or JSONL file on this machine, instead of a dataset."),
    )
    output_dir: str = recipe_field(
        "",
        "files",
        Text("Copy to"),
        Text("Folder that gets a copy of the finished model; empty: none."),
    )
    config_file: str = recipe_field(
        "",
        "files",
        Text("Settings file"),
        Text("A YAML file on this machine with any of these fields; values you change here take precedence."),
    )

    num_train_epochs: float = recipe_field(
        3.0,
        "common",
        Text("Epochs"),
        Text("Passes over the dataset."),
        gt=0,
        le=1000,
    )
    per_device_train_batch_size: int = recipe_field(
        1,
        "common",
        Text("Batch size"),
        Text("Rows per step on each GPU; more needs more memory."),
        ge=1,
        le=1024,
    )
    learning_rate: float = recipe_field(
        5e-5,
        "common",
        Text("Learning rate"),
        Text("LoRA: 1e-4 to 2e-4 is usual; full fine-tuning: 1e-5."),
        gt=0,
        le=1,
    )
    max_length: int = recipe_field(
        1024,
        "common",
        Text("Max sequence length"),
        Text("In tokens; longer rows are truncated."),
        ge=16,
        le=131072,
    )

    use_lora: bool = recipe_field(
        True,
        "lora",
        Text("Use LoRA"),
        Text("Train a small adapter instead of the whole model."),
    )
    lora_r: int = recipe_field(16, "lora", Text("Rank"), Text("Size of the adapter."), ge=1, le=512)
    lora_alpha: int = recipe_field(
        32,
        "lora",
        verbatim("Alpha"),
        Text("Scale of the adapter; twice the rank is usual."),
        ge=1,
        le=4096,
    )
    lora_dropout: float = recipe_field(
        0.05,
        "lora",
        verbatim("Dropout"),
        Text("Share of adapter inputs dropped while training."),
        ge=0,
        lt=1,
    )
    lora_target_modules: str = recipe_field(
        "all-linear",
        "lora",
        Text("Target modules"),
        Text("all-linear, or module names separated by commas."),
        min_length=1,
    )

    gradient_accumulation_steps: int = recipe_field(
        1,
        "more",
        Text("Gradient accumulation"),
        Text("Batches accumulated before each optimizer step."),
        ge=1,
        le=4096,
    )
    gradient_checkpointing: bool = recipe_field(
        False,
        "more",
        Text("Gradient checkpointing"),
        Text("Less memory, about a third slower."),
    )
    max_steps: int = recipe_field(
        0,
        "more",
        Text("Max steps"),
        Text("Stop after N steps (0 = use epochs)."),
        ge=0,
    )
    max_samples: int = recipe_field(
        0,
        "more",
        Text("Max rows"),
        Text("Train on the first N rows (0 = all)."),
        ge=0,
    )
    warmup_ratio: float = recipe_field(
        0.03,
        "more",
        Text("Warm-up"),
        Text("Share of steps in which the learning rate rises."),
        ge=0,
        lt=1,
    )
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"] = recipe_field(
        "cosine",
        "more",
        Text("Learning-rate schedule"),
        Text("After the warm-up."),
    )
    optimizer: Literal["auto", "adamw", "adamw_8bit"] = recipe_field(
        "auto",
        "more",
        Text("Optimizer"),
        Text(
            "adamw_8bit keeps optimizer states in 8 bits and, in full fine-tuning, weights in bf16: 6 bytes per "
            "parameter instead of 16; very slow on a CPU. auto: adamw, unless full fine-tuning would fill the GPU."
        ),
    )
    weight_decay: float = recipe_field(
        0.0,
        "more",
        Text("Weight decay"),
        Text("Regularisation strength; 0 is usual for LoRA."),
        ge=0,
        le=1,
    )
    max_grad_norm: float = recipe_field(
        1.0,
        "more",
        Text("Max gradient norm"),
        Text("Larger gradients are scaled down to it."),
        gt=0,
        le=1000,
    )
    logging_steps: int = recipe_field(
        1,
        "more",
        Text("Log every"),
        Text("Steps between two points of the plots."),
        ge=1,
    )
    save_steps: int = recipe_field(
        100,
        "more",
        Text("Checkpoint every"),
        Text("Steps between two checkpoints."),
        ge=1,
    )
    save_total_limit: int = recipe_field(
        2,
        "more",
        Text("Keep last N checkpoints"),
        Text("Older ones are deleted."),
        ge=1,
        le=100,
    )
    precision: Literal["auto", "bf16", "fp32"] = recipe_field(
        "auto",
        "more",
        Text("Precision"),
        Text("auto: bf16 where the hardware has it."),
    )
    gpu_vis: str = recipe_field(
        "",
        "more",
        Text("GPUs"),
        Text("0 or 0,1 (empty = the one with most free memory)."),
        pattern=r"^(\d+(,\d+)*)?$",
    )
    seed: int = recipe_field(
        42,
        "more",
        Text("Seed"),
        Text("For reproducible runs."),
        ge=0,
        le=2**32 - 1,
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if sum(bool(getattr(self, name)) for name in self.sources) != 1:
            filled = any(getattr(self, name) for name in self.sources)
            raise RuleError(
                Text("give one of {names}", names=self.sources),
                ONE_SOURCE if filled else CHOOSE_DATASET,
            )
        return self
