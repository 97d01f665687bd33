"""How a recipe's field is declared, once; form, schema and errors are derived from the declaration.

Knows what belongs to a declaration. Knows nothing of any particular field, nor of how one is shown.
"""

import copy
from typing import Any, Literal, cast

from pydantic import BaseModel, Field
from pydantic.fields import FieldInfo

from sage_studio.text import Text

Group = Literal["what", "common", "lora", "more", "files"]


def knob(default: Any, group: Group, label: Text, help: Text, **rules: Any) -> Any:
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
        raise TypeError("a recipe's field is declared with knob()")
    return cast("dict[str, Any]", extra)
