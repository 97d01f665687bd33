"""Operations on presets: the ready recipes and a person's own."""

from typing import Annotated, Any

from pydantic import Field

from sage_studio.errors import Conflict, InvalidName, InvalidRecipe, NotFound, StorageFull
from sage_studio.operations.operation import Acknowledged, Noun
from sage_studio.studio import Studio
from sage_studio.training.presets import Preset

presets = Noun("presets")


class PresetDeleted(Acknowledged):
    """Which preset is gone."""

    template_id: str


@presets.get("/api/finetune/templates", "list")
def list_templates(studio: Studio) -> list[Preset]:
    """The ready presets and your own."""
    return studio.presets.all()


@presets.get("/api/finetune/templates/diff", "diff", raises=(NotFound, InvalidName))
def compare_templates(studio: Studio, first: str, second: str) -> dict[str, list[Any]]:
    """The fields in which two presets differ: the first's value and the second's."""
    return {name: list(values) for name, values in studio.presets.store.difference(first, second).items()}


@presets.post("/api/finetune/templates", "save", status=201, raises=(InvalidRecipe, InvalidName, Conflict, StorageFull))
def save_template(
    studio: Studio,
    title: str = "",
    type: str = "sft",
    config: Annotated[dict[str, Any] | None, Field(description="Fields of the recipe")] = None,
    yaml: Annotated[str, Field(description="In place of type and config")] = "",
) -> Preset:
    """Save a preset; one of the same name is replaced."""
    if yaml:
        return studio.presets.store.load(yaml, title)
    return studio.presets.store.save(title, {"type": type, **(config or {})})


@presets.post(
    "/api/finetune/templates/{template_id}/duplicate",
    "duplicate",
    status=201,
    raises=(NotFound, InvalidName, InvalidRecipe, Conflict, StorageFull),
)
def duplicate_template(studio: Studio, template_id: str, title: str) -> Preset:
    """Save a copy under another name."""
    return studio.presets.store.duplicate(template_id, title)


@presets.delete("/api/finetune/templates/{template_id}", "delete", raises=(NotFound, InvalidName, Conflict))
def delete_template(studio: Studio, template_id: str) -> PresetDeleted:
    """Delete one of your own presets."""
    studio.presets.store.delete(template_id)
    return PresetDeleted(template_id=template_id)
