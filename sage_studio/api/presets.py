"""The route that gives a preset as YAML."""

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse

from sage_studio.api.routes import error_responses
from sage_studio.errors import InvalidName, NotFound
from sage_studio.studio import Studio
from sage_studio.training.presets import as_yaml


def routes(studio: Studio) -> APIRouter:
    """The route ``/api/finetune/templates/{template_id}/yaml``."""
    router = APIRouter(tags=["presets"])

    @router.get("/api/finetune/templates/{template_id}/yaml", responses=error_responses(NotFound, InvalidName))
    def read(template_id: str) -> PlainTextResponse:
        """A preset as YAML."""
        return PlainTextResponse(as_yaml(studio.presets.store.get(template_id)), media_type="application/yaml")

    return router
