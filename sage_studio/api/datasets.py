"""Routes for datasets: list, look at, delete. Knows nothing of formats or of how rows are kept."""

from fastapi import APIRouter
from pydantic import BaseModel

from sage_studio.studio import Studio
from sage_studio.views import DatasetView, RowView


class PreviewResponse(BaseModel):
    """Some rows and how many there are."""

    total: int
    offset: int
    rows: list[RowView]


def routes(studio: Studio) -> APIRouter:
    """The routes under ``/api/datasets``."""
    router = APIRouter(prefix="/api/datasets", tags=["datasets"])

    @router.get("")
    def datasets() -> list[DatasetView]:
        """All datasets, newest first."""
        return [DatasetView.of(dataset) for dataset in studio.datasets.list()]

    @router.get("/{dataset_id}")
    def dataset(dataset_id: str) -> DatasetView:
        """One dataset."""
        return DatasetView.of(studio.datasets.get(dataset_id))

    @router.get("/{dataset_id}/preview")
    def preview(dataset_id: str, offset: int = 0, limit: int = 20, search: str = "") -> PreviewResponse:
        """Some rows of a dataset."""
        page = studio.datasets.preview(dataset_id, offset=offset, limit=limit, search=search)
        rows = [RowView.of(row, number) for row, number in zip(page.rows, page.numbers, strict=True)]
        return PreviewResponse(total=page.total, offset=page.offset, rows=rows)

    @router.delete("/{dataset_id}")
    def delete(dataset_id: str) -> dict[str, str]:
        """Delete a dataset."""
        studio.datasets.delete(dataset_id)
        return {"status": "success", "dataset_id": dataset_id}

    return router
