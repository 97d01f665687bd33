"""Reading and writing recipes: from a form, a REST body or a YAML file, and the ready ones of ``configs/recipes``.

Knows under which names fields may be given, and how a wrong recipe is refused. Knows nothing of the fields themselves,
which stand in `sage_studio.training.recipes`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from sage_studio.errors import InvalidRecipe
from sage_studio.settings import CONFIGS
from sage_studio.text import Text
from sage_studio.training.complaint import explain
from sage_studio.training.config_file import FIELD, merged, read_fields
from sage_studio.training.recipes import RECIPES, Recipe
from sage_studio.training.recipes.base import OTHER_NAMES


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


class Preset(BaseModel):
    """A ready recipe from ``configs/recipes``: a title and the fields that differ from the defaults.

    Attributes:
        machine: what it is meant for; ``gpu`` is not offered where there is none.
        dataset_kind: the one kind of dataset that it was made for, as `sage_studio.data.dataset` names it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    type: str
    title: dict[Literal["en", "zh"], str]
    note: dict[Literal["en", "zh"], str]
    values: dict[str, Any]
    machine: Literal["cpu", "gpu", "any"] = "any"
    dataset_kind: str = ""


def load_presets(folder: Path = CONFIGS / "recipes") -> list[Preset]:
    """All ready recipes, in the order of their file names.

    Raises:
        InvalidRecipe: a file with an unknown key or a value out of bounds.
    """
    presets = []
    for path in sorted(folder.glob("*.yaml")):
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        preset = Preset(id=path.stem.split("-", 1)[-1], **content)
        parse_recipe({"type": preset.type, "model_name_or_path": "any", "dataset_id": "any", **preset.values})
        presets.append(preset)
    return presets


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
        raise explain(recipe, error.errors()[0]) from error


def _of_another_method(file: str, there: Any, asked: str) -> InvalidRecipe:
    return InvalidRecipe(
        Text(
            f"{FIELD} = {file!r}: its type is {there!r}, and {asked!r} was asked for.",
            f"{FIELD} = {file!r}：其中的 type 是 {there!r}，而要求的是 {asked!r}。",
        ),
        Text("Ask for that method, or name another file.", "请改用该方法，或填写其他文件。"),
        field=FIELD,
    )
