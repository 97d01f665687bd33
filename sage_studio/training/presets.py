"""Training presets: those in configs/recipes, and a person's own, one YAML file each."""

import hashlib
import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict

from sage_studio.errors import Conflict, InvalidRecipe, NotFound
from sage_studio.files import path_of, safe_name, write_atomically
from sage_studio.settings import CONFIGS
from sage_studio.text import Text
from sage_studio.training.recipes import (
    FIELD,
    LARGEST,
    RECIPES,
    SHAPE,
    UnusualYaml,
    fields_of,
    load_yaml,
    parse_recipe,
)
from sage_studio.validation_errors import cut, shown

logger = logging.getLogger("sage_studio")

OWN = "my-"
LONGEST_TITLE = 80
NOT_KEPT = frozenset({"type", "name", "dataset_id", "train_data_path", "input_path", "output_dir", "config_file"})
"""Belongs to one run, not to a way of training."""
UNNAMED = "any"
"""The model of a template that names none."""


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


class PresetStore:
    """The ready templates and a person's own.

    Args:
        folder: where a person's own are kept.
        resolve: of paths, as of `parse_recipe`.
    """

    def __init__(self, folder: Path, resolve: Callable[[str, str], object] = path_of) -> None:
        self._folder, self._resolve = folder, resolve
        self.ready = load_presets()

    def all(self) -> list[Preset]:
        """The ready ones, then a person's own by name; a file that is none is left out, and said in the log."""
        own = []
        for path in sorted(self._folder.glob(f"{OWN}*.yaml")):
            try:
                own.append(self._read(path))
            except InvalidRecipe as error:
                logger.error("%s", error)
        return [*self.ready, *sorted(own, key=lambda preset: preset.title["en"])]

    def get(self, template_id: str) -> Preset:
        """One of them. Raises `NotFound`."""
        for preset in self.all():
            if preset.id == template_id:
                return preset
        raise NotFound(
            Text("There is no template {template_id}.", template_id=shown(template_id)),
            Text("Take one from the list."),
        )

    def save(self, title: str, values: Mapping[str, Any]) -> Preset:
        """Keep a recipe's fields that differ from the defaults; what has the same name is replaced.

        Raises:
            InvalidRecipe: no title, or a field that is unknown or out of bounds.
        """
        title = title.strip()
        if not 0 < len(title) <= LONGEST_TITLE or not title.isprintable():
            raise InvalidRecipe(
                Text(
                    "title = {title}: 1 to {longest_title} characters that can be seen.",
                    title=shown(title),
                    longest_title=LONGEST_TITLE,
                ),
                Text("Give the template a short name."),
                field="title",
            )
        preset = Preset(
            id=_id_of(title),
            type=str(values.get("type", "sft")),
            title={"en": title, "zh": title},
            note={"en": "", "zh": ""},
            values=_kept(values, self._resolve),
        )
        self._folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self._folder / f"{preset.id}.yaml", as_yaml(preset))
        return preset

    def load(self, text: str, title: str = "") -> Preset:
        """Keep what a YAML text holds: a template as `as_yaml` writes it, or a recipe.

        Raises:
            InvalidRecipe: it is no YAML, holds neither, or a field is unknown or out of bounds.
        """
        try:
            if len(text) > LARGEST:
                raise InvalidRecipe(
                    Text("The YAML is larger than {largest} KiB.", largest=LARGEST >> 10), SHAPE, field="yaml"
                )
            content = load_yaml(text)
            values = fields_of(content)
        except UnusualYaml as error:
            raise InvalidRecipe(
                Text("The YAML's line {line} {why}.", line=error.line, why=error.why), SHAPE, field="yaml"
            ) from error
        except yaml.YAMLError as error:
            raise InvalidRecipe(Text("That is no YAML: {error}", error=cut(str(error))), SHAPE, field="yaml") from error
        except ValueError as error:
            raise InvalidRecipe(Text("The YAML holds no recipe."), SHAPE, field="yaml") from error
        named = content.get("title", content.get("name", ""))
        known = str(named.get("en", "") if isinstance(named, dict) else named)
        return self.save(title or known, values)

    def duplicate(self, template_id: str, title: str) -> Preset:
        """Keep a copy under another name. Raises `NotFound`, or `Conflict` where the name is taken."""
        preset = self.get(template_id)
        if any(other.id == _id_of(title.strip()) for other in self.all()):
            raise Conflict(
                Text("There is a template {title!r} already.", title=title),
                Text("Choose another name."),
            )
        return self.save(title, {"type": preset.type, **preset.values})

    def delete(self, template_id: str) -> None:
        """Delete one of a person's own. Raises `NotFound`, or `Conflict` for a ready one."""
        preset = self.get(template_id)
        if not preset.id.startswith(OWN):
            raise Conflict(
                Text("{template_id} comes with the studio.", template_id=template_id),
                Text("Only your own templates can be deleted."),
            )
        (self._folder / f"{safe_name(preset.id)}.yaml").unlink()

    def difference(self, first: str, second: str) -> dict[str, tuple[Any, Any]]:
        """The fields whose values differ, defaults counted in. Raises `NotFound`."""
        left, right = (_whole(self.get(each)) for each in (first, second))
        return {
            name: (left.get(name), right.get(name))
            for name in dict.fromkeys([*left, *right])
            if left.get(name) != right.get(name)
        }

    def _read(self, path: Path) -> Preset:
        try:
            preset = Preset(id=path.stem, **yaml.safe_load(path.read_text(encoding="utf-8")))
            _kept({"type": preset.type, **preset.values})
        except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
            raise InvalidRecipe(
                Text("{path} holds no template: {error}", path=path, error=error),
                Text("Correct or delete the file."),
            ) from error
        return preset


def as_yaml(preset: Preset) -> str:
    """The template's file, as `PresetStore.load` takes it."""
    return yaml.safe_dump(preset.model_dump(exclude={"id"}), allow_unicode=True, sort_keys=False)


def _kept(values: Mapping[str, Any], resolve: Callable[[str, str], object] = path_of) -> dict[str, Any]:
    """Checked, and only what differs from the defaults."""
    given = {name: value for name, value in values.items() if name in ("type", FIELD) or name not in NOT_KEPT}
    recipe = parse_recipe({"model_name_or_path": UNNAMED, **given, "dataset_id": "any"}, resolve)
    plain = recipe.model_dump(mode="json")
    return {
        name: plain[name]
        for name, info in type(recipe).model_fields.items()
        if name not in NOT_KEPT and plain[name] not in (info.default, UNNAMED)
    }


def _whole(preset: Preset) -> dict[str, Any]:
    defaults = RECIPES[preset.type].model_fields
    plain = {name: info.default for name, info in defaults.items() if name not in NOT_KEPT and not info.is_required()}
    return {**plain, "type": preset.type, **preset.values}


def _id_of(title: str) -> str:
    """Letters and figures of the title; a digest where it has none or they do not tell it apart."""
    slug = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:40]
    plain = slug.replace("-", " ") == title.lower()
    digest = "" if plain else hashlib.sha256(title.encode()).hexdigest()[:8]
    return OWN + "-".join(part for part in (slug, digest) if part)
