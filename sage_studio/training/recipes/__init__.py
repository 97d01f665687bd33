"""The recipes: one class per training method, read from a form, a REST body or YAML.

A new method is entered in `RECIPES`.
"""

import errno
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from sage_studio.data.rows import RowKind
from sage_studio.errors import InvalidInput, InvalidRecipe
from sage_studio.files import path_of, read_regular
from sage_studio.text import NOTHING, Text
from sage_studio.training.recipes.base import OTHER_NAMES, Recipe, field_help, field_label
from sage_studio.training.recipes.methods import DPORecipe, EmbeddingRecipe, KBAlignRecipe, SFTRecipe
from sage_studio.validation_errors import FieldError, cut, first_error, shown

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

LARGEST = 64 << 10
"""Bytes of YAML that are read: a recipe has 3 KB, and PyYAML takes a second for this much."""
DEEPEST = 20
LONGEST_NAME = 255
"""Characters of a path that an error repeats: cut to those of a value, it could not be told from others."""
FIELD_NAME = re.compile(r"[A-Za-z_]\w{0,39}", re.ASCII)
FIELD = "config_file"
PATHS = ("model_name_or_path", "train_data_path", "input_path", "output_dir", "start_from")
"""Fields that hold a path, or may."""
SHAPE = Text("Give one field a line, such as learning_rate: 1e-4.")


def parse_recipe(values: Mapping[str, Any], resolve: Callable[[str, str], object] = path_of) -> Recipe:
    """Check a recipe that came from a form, a REST body or a YAML file; fields in its ``config_file`` are read in.

    Args:
        resolve: given each path and its field's name, raises `InvalidInput` for one that may not be used; for a
            request it is `sage_studio.paths.LocalPaths.resolve`.

    Raises:
        InvalidRecipe: naming the first wrong field, its value, the rule and the remedy.
    """
    recipe = _recipe(values, resolve)
    for field in PATHS:
        if path := getattr(recipe, field, ""):
            _resolved(resolve, path, field)
    return recipe


def _resolved(resolve: Callable[[str, str], object], path: str, field: str) -> None:
    try:
        resolve(path, field)
    except InvalidInput as error:
        raise InvalidRecipe(error.message, error.hint, field=field) from error


def _recipe(values: Mapping[str, Any], resolve: Callable[[str, str], object]) -> Recipe:
    named = values.get(FIELD)
    if not isinstance(named, str) or not named.strip():
        recipe = _method(values.get("type", "sft"))
        return _checked(recipe, _own_names(recipe, values))
    _resolved(resolve, named.strip(), FIELD)
    in_file = read_fields(named.strip())
    if in_file.get("type", "sft") not in [*RECIPES]:
        raise _refused(named, Text("its type is no training method"))
    recipe = _method(values.get("type", in_file.get("type", "sft")))
    if in_file.get("type", recipe_type(recipe)) != recipe_type(recipe):
        raise _of_another_method(named, in_file["type"], recipe_type(recipe))
    given = {name: value for name, value in _own_names(recipe, values).items() if name != FIELD}
    in_file = _own_names(recipe, in_file, hidden=True)
    values = merged(recipe, in_file, given)
    return _checked(recipe, values, hidden={name for name in in_file if values.get(name) is in_file[name]})


def recipe_type(recipe: type[Recipe]) -> str:
    """The method's name in a recipe."""
    return str(recipe.model_fields["type"].default)


def load_recipe(path: Path) -> Recipe:
    """Read ``recipe.yaml``. Raises `InvalidRecipe` for a file that holds none."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidRecipe(Text("{path} cannot be read: {error}", path=path, error=error)) from error
    if not isinstance(values, dict):
        raise InvalidRecipe(Text("{path} holds no recipe.", path=path))
    return parse_recipe(values)


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as YAML, every field written out."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), allow_unicode=True, sort_keys=False)


def _method(kind: Any) -> type[Recipe]:
    if isinstance(kind, str) and kind in RECIPES:
        return RECIPES[kind]
    known = ", ".join(RECIPES)
    raise InvalidRecipe(
        Text("There is no training method {kind}.", kind=shown(kind)),
        Text("Known methods: {known}.", known=known),
        field="type",
    )


def _own_names(recipe: type[Recipe], values: Mapping[str, Any], *, hidden: bool = False) -> dict[str, Any]:
    """Each field under its own name. Raises `InvalidRecipe` where one is given under two.

    Args:
        hidden: leave the value out of the error.
    """
    own = dict(values)
    for name in [name for name in own if name in OTHER_NAMES and name not in recipe.model_fields]:
        value, field = own.pop(name), OTHER_NAMES[name]
        if value in (None, ""):
            continue
        if own.get(field) not in (None, ""):
            raise InvalidRecipe(
                Text(
                    "{name}{value}: {field} is given too, which is the same field.",
                    name=name,
                    value="" if hidden else f" = {shown(value)}",
                    field=field,
                ),
                Text("Give one of them."),
                field=name,
            )
        own[field] = value
    return own


def _checked(recipe: type[Recipe], values: dict[str, Any], hidden: Collection[str] = ()) -> Recipe:
    """Args: hidden: fields that stand in a file, whose content no error repeats."""
    try:
        return recipe.model_validate(values)
    except ValidationError as error:
        first = first_error(error.errors())
        if first.path and first.path[0] in hidden:
            name = first.path[0] if FIELD_NAME.fullmatch(first.path[0]) else "…"
            first = replace(first, path=(name,), hidden=True)
        raise recipe_error(recipe, first) from error


def _of_another_method(file: str, there: str, asked: str) -> InvalidRecipe:
    return InvalidRecipe(
        Text(
            "{field} = {file}: its type is {there!r}, and {asked!r} was asked for.",
            field=FIELD,
            file=repr(cut(file, LONGEST_NAME)),
            there=there,
            asked=asked,
        ),
        Text("Ask for that method, or name another file."),
        field=FIELD,
    )


# Fields in a YAML file


def read_fields(name: str) -> dict[str, Any]:
    """The fields in a file: a recipe as tasks keep it, or a template.

    Raises:
        InvalidRecipe: the file is not there, is too large, or holds no fields; the text names it.
    """
    path = path_of(name, FIELD)
    try:
        return fields_of(load_yaml(read_regular(path, LARGEST).decode("utf-8-sig")))
    except UnusualYaml as error:
        raise _refused(name, Text("line {line} {why}", line=error.line, why=error.why)) from error
    except yaml.YAMLError as error:  # its own text would quote the file
        mark = getattr(error, "problem_mark", None)
        line = f" {mark.line + 1}" if mark is not None else ""
        raise _refused(name, Text("line{line} is no YAML", line=line)) from error
    except UnicodeDecodeError as error:
        raise _refused(name, Text("it is no text in UTF-8")) from error
    except OSError as error:
        if error.errno == errno.EFBIG:
            raise _refused(name, Text("it is larger than {largest} KiB", largest=LARGEST >> 10)) from error
        why = error.strerror or str(error)
        raise _refused(name, Text("it cannot be read ({why})", why=why)) from error
    except ValueError as error:
        raise _refused(name, Text("it holds no fields")) from error


class UnusualYaml(yaml.YAMLError):
    """YAML that no recipe needs and that a few bytes make huge.

    Attributes:
        line: where it stands, from 1.
        why: the rule, as the second half of "line 3 …".
    """

    def __init__(self, line: int, why: Text) -> None:
        super().__init__(f"line {line} {why.en}")
        self.line, self.why = line, why


class _PlainLoader(yaml.SafeLoader):
    """Refuses aliases, of which seven levels of nine make a gigabyte, and deep nesting, which ends in a crash."""

    _depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]  # of PyYAML
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            raise UnusualYaml(line, Text("holds an alias (*), which is not taken"))
        self._depth += 1
        if self._depth > DEEPEST:
            raise UnusualYaml(line, Text("is nested too deeply"))
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


def load_yaml(text: str) -> Any:
    """What a caller's YAML holds.

    Raises:
        UnusualYaml: it has aliases or is nested too deeply.
        yaml.YAMLError, ValueError: it is no YAML.
    """
    loader = _PlainLoader(text)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()  # type: ignore[no-untyped-call]  # of PyYAML


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
        Text("{field} = {name}: {why}.", field=FIELD, name=repr(cut(name, LONGEST_NAME)), why=why),
        Text("Name a YAML file on this machine. {shape}", shape=SHAPE),
        field=FIELD,
    )


# What is wrong with a recipe

CHOOSE_MODEL = Text("Choose a model first.")
FIELD_RULES = {"gpu_vis": Text("it must be numbers separated by commas")}
"""Said of a field in place of its pattern."""


def recipe_error(recipe: type[Recipe], error: FieldError) -> InvalidRecipe:
    """The error of a recipe: for a script it names the field, for a person at the form its label."""
    rule = FIELD_RULES.get(error.name, error.rule) if error.kind == "string_pattern_mismatch" else error.rule
    if not error.path:
        return InvalidRecipe(
            Text("The recipe contradicts itself: {rule}.", rule=rule),
            Text("Change one of these fields."),
            at_form=error.at_form,
        )
    field, message = error.path[-1], replace(error, path=error.path[-1:], rule=rule).sentence
    return InvalidRecipe(
        Text("{message}.", message=message),
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
        return Text("{label}: fill it in; {rule}.", label=label, rule=rule)
    if error.hidden:
        return Text("{label}: {rule}.", label=label, rule=rule)
    value = cut(error.value) if isinstance(error.value, str) else shown(error.value)
    return Text("{label}: {rule} (now {value}).", label=label, rule=rule, value=value)


def _remedy(recipe: type[Recipe], field: str, kind: str) -> Text:
    info = recipe.model_fields.get(field)
    if kind == "extra_forbidden" or info is None:
        known = ", ".join(recipe.model_fields)
        return Text("Known fields: {known}.", known=known)
    help = field_help(info) if info.json_schema_extra else NOTHING
    if info.is_required():
        return help
    default = info.default
    if not help:
        return Text("The default is {default!r}.", default=default)
    return Text("{help} The default is {default!r}.", help=help, default=default)
