"""Routes that bring data in: an upload, a look at a file, a repository's documents, a dataset of the hub.

Knows nothing of formats or of how rows are kept.
"""

import tempfile
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Form, Request, Response, UploadFile
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.types import Message

from sage_studio.api.guard import language
from sage_studio.data.column_mapping import ColumnMapping, parse_mapping
from sage_studio.data.sources.data_file import file_too_large
from sage_studio.data.sources.documents import DocumentRows
from sage_studio.errors import InvalidDataset, naming_full_disk
from sage_studio.files import upload_name
from sage_studio.intake_views import LookView, QuestionView
from sage_studio.studio import Studio
from sage_studio.text import Text
from sage_studio.views import DatasetView

PIECE = 1 << 20
ENVELOPE = 1 << 20
"""Bytes of a request beside its file: boundaries, names and the mapping."""
MAPPING = Form(description='JSON: {"format": "Alpaca", "columns": {"instruction": "column", "output": "column"}}')


class RepositoryRequest(BaseModel):
    """Documents in a folder of a Git repository."""

    address: str = Field(description="Anything git takes")
    branch: str = Field("", description="A branch or a tag; empty for the default")
    folder: str = Field("", description="Inside the repository; empty for all of it")
    name: str = ""
    rows: DocumentRows = "questions"


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
    router = APIRouter(
        prefix="/api/datasets", tags=["datasets"], route_class=_limited(studio.settings.max_upload_mb << 20)
    )

    @router.post("", status_code=201)
    def upload(
        file: UploadFile,
        name: Annotated[str, Form()] = "",
        mapping: Annotated[str, MAPPING] = "",
        rows: Annotated[DocumentRows, Form(description="What documents become")] = "questions",
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


def _limited(max_bytes: int) -> type[APIRoute]:
    """A route that refuses a body of more than ``max_bytes`` while it arrives, before it fills the disk."""

    class LimitedRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def limited(request: Request) -> Response:
                declared = request.headers.get("content-length", "")
                _check_size(int(declared) if declared.isdecimal() else 0, max_bytes)
                received, refused = 0, list[InvalidDataset]()

                async def receive() -> Message:
                    nonlocal received
                    message = await request.receive()
                    received += len(message.get("body", b""))
                    try:
                        _check_size(received, max_bytes)
                    except InvalidDataset as error:
                        refused.append(error)
                        raise MultiPartException(str(error)) from error  # the parser then closes its temporary files
                    return message

                try:
                    return await handle(Request(request.scope, receive))
                except (HTTPException, MultiPartException):
                    if refused:
                        raise refused[0] from None
                    raise

            return limited

    return LimitedRoute


def _check_size(size: int, max_bytes: int) -> None:
    if size > max_bytes + ENVELOPE:
        raise file_too_large(Text("The upload", "上传的文件"), size, max_bytes)


@contextmanager
def _received(studio: Studio, file: UploadFile) -> Iterator[Path]:
    """A received file on the studio's own disk, moved there in pieces, gone afterwards."""
    with tempfile.TemporaryDirectory(dir=studio.settings.uploads_dir) as folder:
        path = Path(folder) / upload_name(file.filename or "")
        with naming_full_disk(path), path.open("wb") as target:
            while piece := file.file.read(PIECE):
                target.write(piece)
        yield path
