"""Routes for templates: list, save, load from YAML, duplicate, compare, delete. Knows nothing of what stands in one."""

from typing import Any

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse
from pydantic import BaseModel, ConfigDict, Field

from sage_studio.studio import Studio
from sage_studio.training.presets import Preset, as_yaml


class SaveRequest(BaseModel):
    """A template: fields of a recipe, or a YAML text that holds them."""

    model_config = ConfigDict(extra="forbid")

    title: str = ""
    type: str = "sft"
    config: dict[str, Any] = Field(default_factory=dict)
    yaml: str = Field("", description="In place of type and config")


class DuplicateRequest(BaseModel):
    """The copy's name."""

    model_config = ConfigDict(extra="forbid")

    title: str


def routes(studio: Studio) -> APIRouter:
    """The routes under ``/api/finetune/templates``."""
    router = APIRouter(prefix="/api/finetune/templates", tags=["finetune"])
    _add_reading(router, studio)
    _add_changing(router, studio)
    return router


def _add_reading(router: APIRouter, studio: Studio) -> None:
    @router.get("")
    def templates() -> list[Preset]:
        """The ready templates and your own."""
        return studio.presets.all()

    @router.get("/diff")
    def difference(first: str, second: str) -> dict[str, list[Any]]:
        """The fields in which two templates differ: the first's value and the second's."""
        return {name: list(values) for name, values in studio.presets.store.difference(first, second).items()}

    @router.get("/{template_id}/yaml")
    def read(template_id: str) -> PlainTextResponse:
        """A template as YAML."""
        return PlainTextResponse(as_yaml(studio.presets.store.get(template_id)), media_type="application/yaml")


def _add_changing(router: APIRouter, studio: Studio) -> None:
    @router.post("", status_code=201)
    def save(body: SaveRequest) -> Preset:
        """Keep a template; one of the same name is replaced."""
        if body.yaml:
            return studio.presets.store.load(body.yaml, body.title)
        return studio.presets.store.save(body.title, {"type": body.type, **body.config})

    @router.post("/{template_id}/duplicate", status_code=201)
    def duplicate(template_id: str, body: DuplicateRequest) -> Preset:
        """Keep a copy under another name."""
        return studio.presets.store.duplicate(template_id, body.title)

    @router.delete("/{template_id}")
    def delete(template_id: str) -> dict[str, str]:
        """Delete one of your own."""
        studio.presets.store.delete(template_id)
        return {"status": "success", "template_id": template_id}
