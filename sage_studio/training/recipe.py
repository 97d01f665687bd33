"""Reading and writing recipes: from a form, a REST body or a YAML file, and the ready ones of ``configs/recipes``.

Knows how a wrong recipe is refused. Knows nothing of the fields, which stand in `sage_studio.training.recipes`.
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
from sage_studio.training.recipes import RECIPES, Recipe


def parse_recipe(values: Mapping[str, Any]) -> Recipe:
    """Check a recipe that came from a form, a REST body or a YAML file.

    Raises:
        InvalidRecipe: naming the first wrong field, its value, the rule and the remedy.
    """
    kind = values.get("type", "sft")
    if not isinstance(kind, str) or kind not in RECIPES:
        known = ", ".join(RECIPES)
        raise InvalidRecipe(
            Text(f"There is no training method {kind!r}.", f"没有名为 {kind!r} 的训练方法。"),
            Text(f"Known methods: {known}.", f"可用的方法：{known}。"),
            field="type",
        )
    try:
        return RECIPES[kind].model_validate(dict(values))
    except ValidationError as error:
        raise explain(RECIPES[kind], error.errors()[0]) from error


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
    """A ready recipe from ``configs/recipes``: a title and the fields that differ from the defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    type: str
    title: dict[Literal["en", "zh"], str]
    note: dict[Literal["en", "zh"], str]
    values: dict[str, Any]


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
