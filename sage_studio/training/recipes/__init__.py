"""The recipes: one class per training method, read from a form, a REST body or YAML.

A new method is entered in `RECIPES`.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from sage_studio.data.rows import RowKind
from sage_studio.errors import InvalidRecipe
from sage_studio.text import NOTHING, Text
from sage_studio.training.recipes.base import OTHER_NAMES, Recipe, field_help, field_label
from sage_studio.training.recipes.methods import DPORecipe, EmbeddingRecipe, KBAlignRecipe, SFTRecipe
from sage_studio.validation_errors import FieldError, first_error

__all__ = ["RECIPES", "DPORecipe", "EmbeddingRecipe", "KBAlignRecipe", "Recipe", "SFTRecipe", "methods_for"]

RECIPES: dict[str, type[Recipe]] = {
    "sft": SFTRecipe,
    "dpo": DPORecipe,
    "embedding": EmbeddingRecipe,
    "kbalign": KBAlignRecipe,
}


def methods_for(kind: RowKind) -> list[str]:
    """The methods that learn from rows of a kind."""
    return [method for method, recipe in RECIPES.items() if kind in recipe.accepts]


# Reading and writing

LARGEST = 1 << 20
FIELD = "config_file"
SHAPE = Text("Give one field a line, such as learning_rate: 1e-4.", "每行一个字段，例如 learning_rate: 1e-4。")


def parse_recipe(values: Mapping[str, Any]) -> Recipe:
    """Check a recipe that came from a form, a REST body or a YAML file; fields in its ``config_file`` are read in.

    Raises:
        InvalidRecipe: naming the first wrong field, its value, the rule and the remedy.
    """
    named = values.get(FIELD)
    if not isinstance(named, str) or not named.strip():
        recipe = _method(values.get("type", "sft"))
        return _checked(recipe, _own_names(recipe, values))
    in_file = read_fields(named.strip())
    recipe = _method(values.get("type", in_file.get("type", "sft")))
    if in_file.get("type", recipe_type(recipe)) != recipe_type(recipe):
        raise _of_another_method(named, in_file["type"], recipe_type(recipe))
    given = {name: value for name, value in _own_names(recipe, values).items() if name != FIELD}
    return _checked(recipe, merged(recipe, _own_names(recipe, in_file), given))


def recipe_type(recipe: type[Recipe]) -> str:
    """The method's name in a recipe."""
    return str(recipe.model_fields["type"].default)


def load_recipe(path: Path) -> Recipe:
    """Read ``recipe.yaml``. Raises `InvalidRecipe` for a file that holds none."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidRecipe(Text(f"{path} cannot be read: {error}", f"无法读取 {path}：{error}")) from error
    if not isinstance(values, dict):
        raise InvalidRecipe(Text(f"{path} holds no recipe.", f"{path} 中没有训练配置。"))
    return parse_recipe(values)


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as YAML, every field written out."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), allow_unicode=True, sort_keys=False)


def _method(kind: Any) -> type[Recipe]:
    if isinstance(kind, str) and kind in RECIPES:
        return RECIPES[kind]
    known = ", ".join(RECIPES)
    raise InvalidRecipe(
        Text(f"There is no training method {kind!r}.", f"没有名为 {kind!r} 的训练方法。"),
        Text(f"Known methods: {known}.", f"可用的方法：{known}。"),
        field="type",
    )


def _own_names(recipe: type[Recipe], values: Mapping[str, Any]) -> dict[str, Any]:
    """Each field under its own name. Raises `InvalidRecipe` where one is given under two."""
    own = dict(values)
    for name in [name for name in own if name in OTHER_NAMES and name not in recipe.model_fields]:
        value, field = own.pop(name), OTHER_NAMES[name]
        if value in (None, ""):
            continue
        if own.get(field) not in (None, ""):
            raise InvalidRecipe(
                Text(
                    f"{name} = {value!r}: {field} is given too, which is the same field.",
                    f"{name} = {value!r}：与 {field} 是同一字段，不能同时填写。",
                ),
                Text("Give one of them.", "请只填写其中一个。"),
                field=name,
            )
        own[field] = value
    return own


def _checked(recipe: type[Recipe], values: dict[str, Any]) -> Recipe:
    try:
        return recipe.model_validate(values)
    except ValidationError as error:
        raise recipe_error(recipe, first_error(error.errors())) from error


def _of_another_method(file: str, there: Any, asked: str) -> InvalidRecipe:
    return InvalidRecipe(
        Text(
            f"{FIELD} = {file!r}: its type is {there!r}, and {asked!r} was asked for.",
            f"{FIELD} = {file!r}：其中的 type 是 {there!r}，而要求的是 {asked!r}。",
        ),
        Text("Ask for that method, or name another file.", "请改用该方法，或填写其他文件。"),
        field=FIELD,
    )


# Fields in a YAML file


def read_fields(name: str) -> dict[str, Any]:
    """The fields in a file: a recipe as tasks keep it, or a template.

    Raises:
        InvalidRecipe: the file is not there, is too large, or holds no fields; the text names it.
    """
    path = Path(name).expanduser()
    try:
        if path.stat().st_size > LARGEST:
            raise _refused(name, Text(f"it is larger than {LARGEST >> 20} MiB", f"超过 {LARGEST >> 20} MiB"))
        return fields_of(yaml.safe_load(path.read_text(encoding="utf-8-sig")))
    except yaml.YAMLError as error:  # its own text would quote the file
        mark = getattr(error, "problem_mark", None)
        line = f" {mark.line + 1}" if mark is not None else ""
        raise _refused(name, Text(f"line{line} is no YAML", f"第{line} 行不是有效的 YAML")) from error
    except UnicodeDecodeError as error:
        raise _refused(name, Text("it is no text in UTF-8", "不是 UTF-8 文本")) from error
    except OSError as error:
        why = error.strerror or str(error)
        raise _refused(name, Text(f"it cannot be read ({why})", f"无法读取（{why}）")) from error
    except ValueError as error:
        raise _refused(name, Text("it holds no fields", "其中没有训练配置")) from error


def fields_of(content: Any) -> dict[str, Any]:
    """The fields in what YAML was read as; those of a template stand under ``values``. Raises `ValueError`."""
    values = content.get("values", content) if isinstance(content, dict) else None
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        raise ValueError("no fields")
    return {**({"type": content["type"]} if "type" in content else {}), **values}


def merged(recipe: type[Recipe], in_file: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of both. Given ones count over the file's, unless they are empty or what they would be anyway.

    So a form, which gives every field, changes of the file what a person changed in it. Rows that are given take the
    place of those in the file.
    """
    fields = recipe.model_fields
    told = {
        name: value
        for name, value in given.items()
        if name not in in_file or not (value in (None, "") or (name in fields and value == fields[name].default))
    }
    if any(told.get(name) for name in recipe.sources):
        in_file = {name: value for name, value in in_file.items() if name not in recipe.sources}
    return {**in_file, **told}


def _refused(name: str, why: Text) -> InvalidRecipe:
    return InvalidRecipe(
        Text(f"{FIELD} = {name!r}: {why.en}.", f"{FIELD} = {name!r}：{why.zh}。"),
        Text(f"Name a YAML file on this machine. {SHAPE.en}", f"请填写本机的 YAML 文件。{SHAPE.zh}"),
        field=FIELD,
    )


# What is wrong with a recipe

CHOOSE_MODEL = Text("Choose a model first.", "请先选择模型。")
FIELD_RULES = {"gpu_vis": Text("it must be numbers separated by commas", "必须是以逗号分隔的数字")}
"""Said of a field in place of its pattern."""


def recipe_error(recipe: type[Recipe], error: FieldError) -> InvalidRecipe:
    """The error of a recipe: for a script it names the field, for a person at the form its label."""
    rule = FIELD_RULES.get(error.name, error.rule) if error.kind == "string_pattern_mismatch" else error.rule
    if not error.path:
        return InvalidRecipe(
            Text(f"The recipe contradicts itself: {rule.en}.", f"训练配置自相矛盾：{rule.zh}。"),
            Text("Change one of these fields.", "请修改其中一个字段。"),
            at_form=error.at_form,
        )
    field, message = error.path[-1], replace(error, path=error.path[-1:], rule=rule).sentence
    return InvalidRecipe(
        Text(f"{message.en}.", f"{message.zh}。"),
        _remedy(recipe, field, error.kind),
        field=field,
        at_form=_at_form(recipe, field, rule, error),
    )


def _at_form(recipe: type[Recipe], field: str, rule: Text, error: FieldError) -> Text:
    """``Epochs: it must be greater than 0 (now 0).``"""
    if field == "model_name_or_path" and error.kind in ("missing", "string_too_short", "string_type"):
        return CHOOSE_MODEL
    info = recipe.model_fields.get(field)
    if info is None or not info.json_schema_extra:
        return NOTHING
    label = field_label(info)
    if error.value is None or error.value == "":
        return Text(f"{label.en}: fill it in; {rule.en}.", f"{label.zh}：请填写，{rule.zh}。")
    return Text(f"{label.en}: {rule.en} (now {error.value}).", f"{label.zh}：{rule.zh}（当前为 {error.value}）。")


def _remedy(recipe: type[Recipe], field: str, kind: str) -> Text:
    info = recipe.model_fields.get(field)
    if kind == "extra_forbidden" or info is None:
        known = ", ".join(recipe.model_fields)
        return Text(f"Known fields: {known}.", f"可用的字段：{known}。")
    help = field_help(info) if info.json_schema_extra else NOTHING
    if info.is_required():
        return help
    default = info.default
    return Text(f"{help.en} The default is {default!r}.".lstrip(), f"{help.zh} 默认值为 {default!r}。".lstrip())
