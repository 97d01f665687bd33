"""Routes that bring data in: an upload, a look at a file, a repository's documents, a dataset of the hub.

Knows nothing of formats or of how rows are kept.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Form, Request, UploadFile
from pydantic import BaseModel, Field

from sage_studio.api.guard import language
from sage_studio.data.document_source import Rows
from sage_studio.data.mapping import ColumnMapping, parse_mapping
from sage_studio.errors import naming_full_disk
from sage_studio.files import upload_name
from sage_studio.intake_views import LookView, QuestionView
from sage_studio.studio import Studio
from sage_studio.views import DatasetView

PIECE = 1 << 20
MAPPING = Form(description='JSON: {"format": "Alpaca", "columns": {"instruction": "column", "output": "column"}}')


class RepositoryRequest(BaseModel):
    """Documents in a folder of a Git repository."""

    address: str = Field(description="Anything git takes")
    branch: str = Field("", description="A branch or a tag; empty for the default")
    folder: str = Field("", description="Inside the repository; empty for all of it")
    name: str = ""
    rows: Rows = "questions"


class HubRequest(BaseModel):
    """A dataset of the hub at ``HF_ENDPOINT``."""

    repo: str = Field(description="owner/name")
    config: str = ""
    split: str = ""
    max_rows: int = Field(0, ge=0, description="Most rows to take; 0 for all")
    name: str = ""
    mapping: ColumnMapping | None = None


def routes(studio: Studio) -> APIRouter:
    """The routes under ``/api/datasets`` that make or look at a new one."""
    router = APIRouter(prefix="/api/datasets", tags=["datasets"])

    @router.post("", status_code=201)
    def upload(
        file: UploadFile,
        name: Annotated[str, Form()] = "",
        mapping: Annotated[str, MAPPING] = "",
        rows: Annotated[Rows, Form(description="What documents become")] = "questions",
    ) -> DatasetView:
        """Keep a file as a dataset: JSON, JSONL, CSV, Parquet (also .gz), Markdown, HTML, TXT, PDF, DOCX or a zip."""
        given = parse_mapping(mapping)
        with _received(studio, file) as path:
            return DatasetView.of(studio.datasets.upload(path, name, mapping=given, rows=rows))

    @router.post("/look")
    def look(request: Request, file: UploadFile) -> LookView:
        """What a file holds: columns, first rows, formats, the methods it can train. Nothing is kept."""
        with _received(studio, file) as path:
            return LookView.of(studio.datasets.inspect_file(path), language(request))

    @router.post("/from-repository", status_code=201)
    def from_repository(body: RepositoryRequest) -> DatasetView:
        """Make a dataset of the documents in a Git repository's folder."""
        return DatasetView.of(
            studio.datasets.add_repository(body.address, body.branch, body.folder, body.name, body.rows)
        )

    @router.post("/from-hub", status_code=201)
    def from_hub(body: HubRequest) -> DatasetView:
        """Fetch a dataset from the hub by its id. Loading scripts are never run."""
        return DatasetView.of(
            studio.datasets.add_from_hub(body.repo, body.config, body.split, body.max_rows, body.name, body.mapping)
        )

    @router.post("/quickstart", status_code=201)
    def quickstart() -> DatasetView:
        """Keep the questions about SAGE that come with the studio as a dataset."""
        return DatasetView.of(studio.datasets.add_quickstart())

    @router.get("/quickstart/test")
    def quickstart_test() -> list[QuestionView]:
        """The test questions of the quick-start set, which are in no dataset, and what makes an answer right."""
        return [QuestionView.of(question) for question in studio.datasets.quickstart_test()]

    return router


@contextmanager
def _received(studio: Studio, file: UploadFile) -> Iterator[Path]:
    """A received file on the studio's own disk, moved there in pieces, gone afterwards."""
    with tempfile.TemporaryDirectory(dir=studio.settings.uploads_dir) as folder:
        path = Path(folder) / upload_name(file.filename or "")
        with naming_full_disk(path), path.open("wb") as target:
            while piece := file.file.read(PIECE):
                target.write(piece)
        yield path
