"""A recipe's fields as inputs, each derived from its declaration in the recipe.

No field is known by name and no value is checked here: `parse_recipe` checks everyone's values.
"""

import math
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Union

import gradio as gr
from annotated_types import Ge, Gt, Le, Lt
from gradio.components import Component
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from sage_studio.text import Language, Text, multilingual
from sage_studio.training.recipes.base import Group, field_group, field_help, field_label
from sage_studio.ui.components.localization import LabelRegistry

SIGNS = {Gt: ">", Ge: "≥", Lt: "<", Le: "≤"}


def fields_in(recipes: Iterable[type[BaseModel]], group: Group) -> dict[str, FieldInfo]:
    """The fields of one group in any of the recipes, in the order of their declaration; ``type`` is no input."""
    fields: dict[str, FieldInfo] = {}
    for recipe in recipes:
        for name, info in recipe.model_fields.items():
            if info.json_schema_extra is not None and field_group(info) == group:
                fields.setdefault(name, info)
    return fields


def inputs_for(
    words: LabelRegistry, recipe: type[BaseModel], fields: Mapping[str, FieldInfo], choices: Mapping[str, Sequence[Any]]
) -> dict[str, Component]:
    """One input a field, with ``elem_id`` ``field-<name>``; those that the recipe has are seen.

    Args:
        choices: for fields whose text is picked from a list; any other text may be typed as well.
    """
    return {
        name: input_for(words, name, info, choices.get(name), name in recipe.model_fields)
        for name, info in fields.items()
    }


def input_for(
    words: LabelRegistry, name: str, info: FieldInfo, choices: Sequence[Any] | None = None, visible: bool = True
) -> Component:
    """The input for one field."""
    common: dict[str, Any] = {
        "label": field_label(info),
        "info": explained(info),
        "value": "" if info.is_required() else info.default,
        "elem_id": f"field-{name}",
        "min_width": 150,
        "visible": visible,
    }
    kind = plain_type(info.annotation)
    if choices is not None:
        common["value"] = common["value"] or next(iter(choices), None)
        return words(gr.Dropdown, choices=list(choices), allow_custom_value=True, filterable=True, **common)
    if typing.get_origin(kind) is Literal:
        return words(gr.Dropdown, choices=list(typing.get_args(kind)), **common)
    if kind is bool:
        return words(gr.Checkbox, **common)
    if kind in (int, float):
        return words(gr.Number, step=step_of(info), **common)
    return words(gr.Textbox, max_lines=1, **common)


def explained(info: FieldInfo) -> Text:
    """The field's explanation and its bounds."""
    bounds, help = bounds_of(info), field_help(info)
    if not bounds:
        return help
    stopless = multilingual({language: said.rstrip(".。") for language, said in help.translations().items()})
    return Text("{help} ({bounds}).", help=stopless, bounds=bounds)


def bounds_of(info: FieldInfo) -> str:
    """``> 0, ≤ 1000`` from a field's rules; empty without any."""
    shown = []
    for rule in info.metadata:
        for kind, sign in SIGNS.items():
            if isinstance(rule, kind):
                limit: Any = getattr(rule, kind.__name__.lower())
                shown.append(f"{sign} {limit:g}" if limit < 1e6 else f"{sign} {limit}")
    return ", ".join(shown)


def step_of(info: FieldInfo) -> float:
    """What one press of an arrow key adds: a whole for integers, else one in the first decimal of the default."""
    default = info.default
    if not isinstance(default, float) or default >= 1:
        return 1
    return float(10.0 ** math.floor(math.log10(default))) if default > 0 else 0.01


def plain_type(annotation: Any) -> Any:
    """A field's type without ``| None``."""
    if typing.get_origin(annotation) in (Union, types.UnionType):
        return next(kind for kind in typing.get_args(annotation) if kind is not type(None))
    return annotation


def given(recipe: type[BaseModel], names: Sequence[str], values: Sequence[Any]) -> dict[str, Any]:
    """What a person gave, by field of the recipe; an emptied picker or line is an empty text."""
    both = {name: value for name, value in zip(names, values, strict=True) if name in recipe.model_fields}
    return {
        name: "" if value == [] or (value is None and _is_text(recipe, name)) else value for name, value in both.items()
    }


def _is_text(recipe: type[BaseModel], name: str) -> bool:
    return plain_type(recipe.model_fields[name].annotation) is str


def form_updates(recipe: type[BaseModel], names: Sequence[str], values: Mapping[str, Any]) -> list[Any]:
    """Updates that show a method's fields, each with a preset's value or its default; what is trained stays."""
    fields = recipe.model_fields
    return [
        gr.update(visible=name in fields)
        if name not in fields or field_group(fields[name]) in ("what", "files")
        else gr.update(visible=True, value=values.get(name, fields[name].default))
        for name in names
    ]


def said_choices(choices: Sequence[tuple[Text, str]], language: Language) -> list[tuple[str, str]]:
    """Choices with their labels in one language."""
    return [(label.in_(language), value) for label, value in choices]
