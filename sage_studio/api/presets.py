"""The route that gives a preset as YAML."""

from fastapi import APIRouter, Response

from sage_studio.api.errors import YAML, error_responses, file_response
from sage_studio.errors import InvalidName, NotFound
from sage_studio.studio import Studio
from sage_studio.training.presets import as_yaml


def routes(studio: Studio) -> APIRouter:
    """The route ``/api/finetune/templates/{template_id}/yaml``."""
    router = APIRouter(tags=["presets"])

    @router.get(
        "/api/finetune/templates/{template_id}/yaml",
        response_class=Response,
        responses=file_response(YAML) | error_responses(NotFound, InvalidName),
    )
    def read(template_id: str) -> Response:
        """A preset as YAML."""
        return Response(as_yaml(studio.presets.store.get(template_id)), media_type=YAML)

    return router
