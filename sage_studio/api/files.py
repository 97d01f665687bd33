"""The routes that answer a file: the findings of a dataset and a preset as YAML."""

from collections.abc import Iterator
from typing import Literal

from fastapi import APIRouter, Response
from fastapi.responses import StreamingResponse

from sage_studio.api.errors import YAML, error_responses, file_response
from sage_studio.data.quality import as_csv, as_jsonl
from sage_studio.errors import InvalidName, NotFound
from sage_studio.fields import Id
from sage_studio.studio import Studio
from sage_studio.training.presets import as_yaml

SHAPES = {"csv": (as_csv, "text/csv"), "jsonl": (as_jsonl, "application/x-ndjson")}


def routes(studio: Studio) -> APIRouter:
    """``/api/datasets/{dataset_id}/findings`` and ``/api/finetune/templates/{template_id}/yaml``."""
    router = APIRouter()

    @router.get(
        "/api/datasets/{dataset_id}/findings",
        response_class=StreamingResponse,
        responses=file_response(*(media_type for _, media_type in SHAPES.values()))
        | error_responses(NotFound, InvalidName),
        tags=["datasets"],
    )
    def findings(dataset_id: Id, format: Literal["csv", "jsonl"] = "jsonl", kind: str = "") -> StreamingResponse:
        """Every row that was left out or found wanting, with its number and why, as a file."""
        write, media_type = SHAPES[format]
        lines: Iterator[bytes] = write(studio.datasets.findings(dataset_id, kind))
        name = {"Content-Disposition": f'attachment; filename="{dataset_id}-findings.{format}"'}
        return StreamingResponse(lines, media_type=media_type, headers=name)

    @router.get(
        "/api/finetune/templates/{template_id}/yaml",
        response_class=Response,
        responses=file_response(YAML) | error_responses(NotFound, InvalidName),
        tags=["presets"],
    )
    def read(template_id: str) -> Response:
        """A preset as YAML."""
        return Response(as_yaml(studio.presets.store.get(template_id)), media_type=YAML)

    return router
