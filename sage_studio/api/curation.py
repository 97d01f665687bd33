"""Routes for the care of datasets: reports, rows as a model sees them, edits, combinations, and the jobs among them.

Knows nothing of how anything is found or made.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from sage_studio.api.guard import language
from sage_studio.curation_views import InspectionView, JobView, SeenView
from sage_studio.data.making.annotated import AnnotateOrder
from sage_studio.data.making.augmented import AugmentOrder
from sage_studio.data.making.combined import Portion
from sage_studio.data.making.edited import RowChange
from sage_studio.data.quality import as_csv, as_jsonl
from sage_studio.services.datasets import ReportOrder
from sage_studio.studio import Studio
from sage_studio.views import DatasetView

SHAPES = {"csv": (as_csv, "text/csv"), "jsonl": (as_jsonl, "application/x-ndjson")}


class CombineRequest(BaseModel):
    """Several datasets as one."""

    portions: list[Portion]
    name: str = "combined"
    seed: int = 42
    shuffle: bool = True


class EditRequest(BaseModel):
    """Changes to single rows."""

    changes: list[RowChange]


class ReportAnswer(BaseModel):
    """The last close look, or null before the first."""

    report: InspectionView | None


def routes(studio: Studio) -> APIRouter:
    """Routes under ``/api/datasets`` and ``/api/dataset-jobs``."""
    router = APIRouter(tags=["datasets"])
    _add_looking(router, studio)
    _add_making(router, studio)
    _add_jobs(router, studio)
    return router


def _add_looking(router: APIRouter, studio: Studio) -> None:
    @router.post("/api/datasets/report", status_code=202)
    def inspect(order: ReportOrder, request: Request) -> JobView:
        """Look closely at all rows, in the background."""
        return JobView.of(studio.datasets.inspect(**order.model_dump()), language(request))

    @router.get("/api/datasets/{dataset_id}/report")
    def report(dataset_id: str) -> ReportAnswer:
        """What the last close look found."""
        found = studio.datasets.inspection(dataset_id)
        if found is None:
            return ReportAnswer(report=None)
        return ReportAnswer(report=InspectionView.of(found, studio.training.tokens_per_second(found.model)))

    @router.get("/api/datasets/{dataset_id}/findings")
    def findings(dataset_id: str, format: Literal["csv", "jsonl"] = "jsonl", kind: str = "") -> StreamingResponse:
        """Every row that was left out or found wanting, with its number and why, as a file."""
        write, media_type = SHAPES[format]
        lines: Iterator[bytes] = write(studio.datasets.findings(dataset_id, kind))
        name = {"Content-Disposition": f'attachment; filename="{dataset_id}-findings.{format}"'}
        return StreamingResponse(lines, media_type=media_type, headers=name)

    @router.get("/api/datasets/{dataset_id}/rows/{row}/tokens")
    def tokens(
        dataset_id: str, row: int, model: str = "", max_length: Annotated[int, Query(ge=16, le=131072)] = 1024
    ) -> list[SeenView]:
        """A row, from 1, as a model would see it in a training: pieces, ids and labels."""
        return [SeenView.of(each) for each in studio.datasets.tokenized_row(dataset_id, row, model, max_length)]


def _add_making(router: APIRouter, studio: Studio) -> None:
    @router.post("/api/datasets/{dataset_id}/edit", status_code=201)
    def edit(dataset_id: str, body: EditRequest) -> DatasetView:
        """Change or leave out single rows: a new version; the old one stays."""
        return DatasetView.of(studio.datasets.edit(dataset_id, [change.model_dump() for change in body.changes]))

    @router.post("/api/datasets/combine", status_code=201)
    def combine(body: CombineRequest) -> DatasetView:
        """Make several datasets one."""
        portions = [portion.model_dump() for portion in body.portions]
        return DatasetView.of(studio.datasets.combine(portions, body.name, body.seed, body.shuffle))

    @router.post("/api/datasets/augment", status_code=202)
    def augment(order: AugmentOrder, request: Request) -> JobView:
        """Say rows in other words with the current chat model, in the background."""
        return JobView.of(studio.datasets.augment(**order.model_dump()), language(request))

    @router.post("/api/datasets/annotate", status_code=202)
    def annotate(order: AnnotateOrder, request: Request) -> JobView:
        """Write questions about texts with the current chat model, in the background."""
        return JobView.of(studio.datasets.annotate(**order.model_dump()), language(request))


def _add_jobs(router: APIRouter, studio: Studio) -> None:
    @router.get("/api/dataset-jobs")
    def jobs(request: Request, dataset_id: str = "") -> list[JobView]:
        """Long work on datasets, the newest first."""
        return [JobView.of(job, language(request)) for job in studio.datasets.list_jobs(dataset_id)]

    @router.get("/api/dataset-jobs/{job_id}")
    def job(job_id: str, request: Request) -> JobView:
        """How such work stands."""
        return JobView.of(studio.datasets.get_job(job_id), language(request))

    @router.post("/api/dataset-jobs/{job_id}/stop")
    def stop(job_id: str, request: Request) -> JobView:
        """Stop it after the piece at hand; what is done stays."""
        return JobView.of(studio.datasets.stop_job(job_id), language(request))

    @router.post("/api/dataset-jobs/{job_id}/resume")
    def resume(job_id: str, request: Request) -> JobView:
        """Go on with it."""
        return JobView.of(studio.datasets.resume_job(job_id), language(request))

    @router.delete("/api/dataset-jobs/{job_id}")
    def delete(job_id: str) -> dict[str, Any]:
        """Forget it; a dataset that it made stays."""
        studio.datasets.delete_job(job_id)
        return {"status": "success", "job_id": job_id}
