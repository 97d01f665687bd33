"""The route that streams the findings of a dataset as a file."""

from collections.abc import Iterator
from typing import Literal

from fastapi import APIRouter
from fastapi.responses import StreamingResponse

from sage_studio.api.errors import error_responses, file_response
from sage_studio.data.quality import as_csv, as_jsonl
from sage_studio.errors import InvalidName, NotFound
from sage_studio.fields import Id
from sage_studio.studio import Studio

SHAPES = {"csv": (as_csv, "text/csv"), "jsonl": (as_jsonl, "application/x-ndjson")}


def routes(studio: Studio) -> APIRouter:
    """The route ``/api/datasets/{dataset_id}/findings``."""
    router = APIRouter(tags=["datasets"])

    @router.get(
        "/api/datasets/{dataset_id}/findings",
        response_class=StreamingResponse,
        responses=file_response(*(media_type for _, media_type in SHAPES.values()))
        | error_responses(NotFound, InvalidName),
    )
    def findings(dataset_id: Id, format: Literal["csv", "jsonl"] = "jsonl", kind: str = "") -> StreamingResponse:
        """Every row that was left out or found wanting, with its number and why, as a file."""
        write, media_type = SHAPES[format]
        lines: Iterator[bytes] = write(studio.datasets.findings(dataset_id, kind))
        name = {"Content-Disposition": f'attachment; filename="{dataset_id}-findings.{format}"'}
        return StreamingResponse(lines, media_type=media_type, headers=name)

    return router
