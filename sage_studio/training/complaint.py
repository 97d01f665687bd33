"""What is wrong with a recipe: for a script, which knows fields, and for a person at the form, who sees labels.

Knows pydantic's kinds of errors. Knows nothing of any particular recipe.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from sage_studio.errors import InvalidRecipe
from sage_studio.text import Text
from sage_studio.training.field import field_help, field_label

RULES: dict[str, Text] = {
    "missing": Text("it must be given", "必须填写"),
    "extra_forbidden": Text("there is no such field", "没有这个字段"),
    "greater_than": Text("it must be greater than {gt}", "必须大于 {gt}"),
    "greater_than_equal": Text("it must be at least {ge}", "必须不小于 {ge}"),
    "less_than": Text("it must be less than {lt}", "必须小于 {lt}"),
    "less_than_equal": Text("it must be at most {le}", "必须不大于 {le}"),
    "float_parsing": Text("it must be a number", "必须是数字"),
    "float_type": Text("it must be a number", "必须是数字"),
    "finite_number": Text("it must be a finite number", "必须是有限的数字"),
    "int_parsing": Text("it must be a whole number", "必须是整数"),
    "int_type": Text("it must be a whole number", "必须是整数"),
    "int_from_float": Text("it must be a whole number", "必须是整数"),
    "bool_parsing": Text("it must be true or false", "必须是 true 或 false"),
    "bool_type": Text("it must be true or false", "必须是 true 或 false"),
    "string_type": Text("it must be text", "必须是文本"),
    "string_too_short": Text("it must not be empty", "不能为空"),
    "string_too_long": Text("it must have at most {max_length} characters", "最多 {max_length} 个字符"),
    "string_pattern_mismatch": Text("it must be numbers separated by commas", "必须是以逗号分隔的数字"),
    "literal_error": Text("it must be one of {expected}", "必须是 {expected} 之一"),
}
"""pydantic's error types in words for a person; a rule missing here falls back to pydantic's English."""


def explain(recipe: type[BaseModel], error: ErrorDetails) -> InvalidRecipe:
    """One of pydantic's complaints about a recipe, naming field, value, rule and remedy in both languages."""
    field = str(error["loc"][-1]) if error["loc"] else ""
    rule = RULES.get(error["type"])
    context = {name: _plain(value) for name, value in error.get("ctx", {}).items()}
    if not field:
        reason = str(context.get("error", error["msg"]))
        return InvalidRecipe(
            Text(f"The recipe does not fit together: {reason}.", f"训练配置自相矛盾：{WHOLE.get(reason, reason)}。"),
            Text("Change one of these fields.", "请修改其中一个字段。"),
            at_form=_whole_at_form(reason, error["input"]),
        )
    said = Text(rule.en.format(**context), rule.zh.format(**context)) if rule else Text(error["msg"], error["msg"])
    value = "" if error["type"] == "missing" else f" = {error['input']!r}"
    return InvalidRecipe(
        Text(f"{field}{value}: {said.en}.", f"{field}{value}：{said.zh}。"),
        _remedy(recipe, field, error["type"]),
        field=field,
        at_form=_field_at_form(recipe, field, said, error),
    )


def _plain(value: Any) -> Any:
    """A bound as a person writes it: 0 for 0.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


WHOLE = {
    "give either dataset_id or train_data_path": "请在 dataset_id 与 train_data_path 中填写且只填写一个",
    "give either dataset_id or train_data_path or input_path": (
        "请在 dataset_id、train_data_path 与 input_path 中填写且只填写一个"
    ),
    "short_dependency and long_dependency cannot both be off": "short_dependency 与 long_dependency 不能同时关闭",
    "a quantized base can only be trained with use_lora": "量化的基座只能用 LoRA 训练（use_lora）",
    "start_from goes on with an adapter and needs use_lora": "start_from 是在适配器上继续训练，需要 use_lora",
    "use_dora and use_rslora need use_lora": "use_dora 与 use_rslora 需要 use_lora",
    "early_stopping_patience needs rows held out (eval_share)": "early_stopping_patience 需要设置验证集（eval_share）",
    "early_stopping_patience needs load_best_model": "early_stopping_patience 需要 load_best_model",
    "label_smoothing belongs to loss_type robust, which needs it": "label_smoothing 与 loss_type robust 须同时使用",
}

CHOOSE_DATASET = Text("Choose a dataset first.", "请先选择数据集。")
CHOOSE_MODEL = Text("Choose a model first.", "请先选择模型。")
ONE_SOURCE = Text(
    "Dataset and Data file are both filled in; clear one of them.", "“数据集”与“数据文件”只能填写一个，请清空其一。"
)
SOURCES = ("dataset_id", "train_data_path", "input_path")
WHOLE_AT_FORM = {
    "short_dependency and long_dependency cannot both be off": Text(
        "Short dependency and Long dependency cannot both be off.", "“短依赖标注”与“长依赖标注”不能同时关闭。"
    ),
    "a quantized base can only be trained with use_lora": Text(
        "A quantized base can only be trained with LoRA: turn on Use LoRA, or set Quantization to none.",
        "量化的基座只能用 LoRA 训练：请启用“使用 LoRA”，或将“量化”设为 none。",
    ),
    "start_from goes on with an adapter and needs use_lora": Text(
        "Continuing from a finished task needs an adapter: turn on Use LoRA.",
        "在已有任务上继续训练需要适配器：请启用“使用 LoRA”。",
    ),
    "use_dora and use_rslora need use_lora": Text(
        "DoRA and rsLoRA need Use LoRA.", "DoRA 与 rsLoRA 需要启用“使用 LoRA”。"
    ),
    "early_stopping_patience needs rows held out (eval_share)": Text(
        "Early stopping needs a hold-out set: set Hold-out above 0.",
        "“提前停止”需要验证集：请将“验证集比例”设为大于 0。",
    ),
    "early_stopping_patience needs load_best_model": Text(
        "Early stopping needs Keep best checkpoint.", "“提前停止”需要启用“保留最佳检查点”。"
    ),
    "label_smoothing belongs to loss_type robust, which needs it": Text(
        "Label noise belongs to the loss robust, which needs it: set both or neither.",
        "“标签噪声”与损失类型 robust 须同时使用。",
    ),
}
"""What `WHOLE` says, for a person at the form."""


def _whole_at_form(reason: str, given: Any) -> Text:
    if reason.startswith("give either dataset_id"):
        filled = [name for name in SOURCES if isinstance(given, Mapping) and given.get(name)]
        return ONE_SOURCE if filled else CHOOSE_DATASET
    return WHOLE_AT_FORM.get(reason, Text("", ""))


def _field_at_form(recipe: type[BaseModel], field: str, rule: Text, error: ErrorDetails) -> Text:
    """``Epochs: it must be greater than 0 (now 0).``"""
    if field == "model_name_or_path" and error["type"] in ("missing", "string_too_short", "string_type"):
        return CHOOSE_MODEL
    info = recipe.model_fields.get(field)
    if info is None or not info.json_schema_extra:
        return Text("", "")
    label, value = field_label(info), error["input"]
    if value is None or value == "":
        return Text(f"{label.en}: fill it in; {rule.en}.", f"{label.zh}：请填写，{rule.zh}。")
    return Text(f"{label.en}: {rule.en} (now {value}).", f"{label.zh}：{rule.zh}（当前为 {value}）。")


def _remedy(recipe: type[BaseModel], field: str, kind: str) -> Text:
    info = recipe.model_fields.get(field)
    if kind == "extra_forbidden" or info is None:
        known = ", ".join(recipe.model_fields)
        return Text(f"Known fields: {known}.", f"可用的字段：{known}。")
    default = "" if info.is_required() else repr(info.default)
    if not default:
        return field_help(info) if info.json_schema_extra else Text("", "")
    if not info.json_schema_extra:
        return Text(f"The default is {default}.", f"默认值为 {default}。")
    help = field_help(info)
    return Text(f"{help.en} The default is {default}.", f"{help.zh} 默认值为 {default}。")
