"""Routes for datasets: upload, list, look at, delete. Knows nothing of formats or of how rows are kept."""

import tempfile
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Form, UploadFile
from pydantic import BaseModel

from sage_studio.errors import naming_full_disk
from sage_studio.files import upload_name
from sage_studio.studio import Studio
from sage_studio.views import DatasetView, RowView

PIECE = 1 << 20


class PreviewResponse(BaseModel):
    """Some rows and how many there are."""

    total: int
    offset: int
    rows: list[RowView]


def routes(studio: Studio) -> APIRouter:
    """The routes under ``/api/datasets``."""
    router = APIRouter(prefix="/api/datasets", tags=["datasets"])

    @router.post("", status_code=201)
    def upload(file: UploadFile, name: Annotated[str, Form()] = "") -> DatasetView:
        """Keep a JSON or JSONL file (Alpaca: instruction, input, output) as a dataset."""
        with tempfile.TemporaryDirectory(dir=studio.settings.uploads_dir) as folder:
            path = _received(file, Path(folder))
            return DatasetView.of(studio.upload_dataset(path, name))

    @router.get("")
    def datasets() -> list[DatasetView]:
        """All datasets, newest first."""
        return [DatasetView.of(dataset) for dataset in studio.list_datasets()]

    @router.get("/{dataset_id}")
    def dataset(dataset_id: str) -> DatasetView:
        """One dataset."""
        return DatasetView.of(studio.get_dataset(dataset_id))

    @router.get("/{dataset_id}/preview")
    def preview(dataset_id: str, offset: int = 0, limit: int = 20, search: str = "") -> PreviewResponse:
        """Some rows of a dataset."""
        page = studio.preview_dataset(dataset_id, offset=offset, limit=limit, search=search)
        rows = [RowView.of(row, number) for row, number in zip(page.rows, page.numbers, strict=True)]
        return PreviewResponse(total=page.total, offset=page.offset, rows=rows)

    @router.delete("/{dataset_id}")
    def delete(dataset_id: str) -> dict[str, str]:
        """Delete a dataset."""
        studio.delete_dataset(dataset_id)
        return {"status": "success", "dataset_id": dataset_id}

    return router


def _received(file: UploadFile, folder: Path) -> Path:
    """Move a received file to the studio's own disk, in pieces."""
    path = folder / upload_name(file.filename or "")
    with naming_full_disk(path), path.open("wb") as target:
        while piece := file.file.read(PIECE):
            target.write(piece)
    return path
