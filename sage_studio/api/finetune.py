"""Routes for training: the documentation as a dataset, tasks, logs, events, models. Knows nothing of trainers."""

import asyncio
from collections.abc import AsyncIterator
from operator import is_
from typing import Annotated, Any

from fastapi import APIRouter, Body, Header, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from sage_studio.api.guard import language
from sage_studio.run_views import ForecastView, StageFileView, TaskComparisonView
from sage_studio.serving_views import BackendView
from sage_studio.sse import sse_event
from sage_studio.studio import Studio
from sage_studio.tasks.archive import archive_name
from sage_studio.tasks.task import Task, TaskProgress
from sage_studio.text import Language
from sage_studio.training.recipes import RECIPES
from sage_studio.views import DatasetStatsView, DatasetView, TaskView

POLL_SECONDS = 0.5
JSON_LINES = "application/jsonl"


class PrepareRequest(BaseModel):
    """Whether to fetch the documentation again."""

    model_config = ConfigDict(extra="forbid")

    force_refresh: bool = False


class PrepareResponse(BaseModel):
    """The dataset made of the documentation."""

    status: str = "success"
    message: str
    data_file: str
    dataset_id: str
    stats: DatasetStatsView


class StartRequest(BaseModel):
    """What to train. ``config`` holds the recipe's fields; unknown ones are refused by name."""

    model_config = ConfigDict(extra="forbid")

    type: str = Field("sft", description=f"Training method: {', '.join(RECIPES)}")
    config: dict[str, Any] = Field(
        examples=[{"model_name_or_path": "SmolLM2-135M-Instruct", "dataset_id": "sage-docs-v1", "num_train_epochs": 1}]
    )

    def fields(self) -> dict[str, Any]:
        """The recipe's fields; a method that was not named may stand in the ``config_file``."""
        return {**self.model_dump(include={"type"}, exclude_unset=True), **self.config}


class LogResponse(BaseModel):
    """Lines of a log and the byte offset to go on from."""

    lines: list[str]
    offset: int
    size: int


class TaskRequest(BaseModel):
    """A task, by its id."""

    model_config = ConfigDict(extra="forbid")

    task_id: str


def routes(studio: Studio) -> APIRouter:
    """The routes under ``/api/finetune``."""
    router = APIRouter(prefix="/api/finetune", tags=["finetune"])
    _add_starting(router, studio)
    _add_watching(router, studio)
    _add_files(router, studio)
    _add_changing(router, studio)
    return router


def _add_starting(router: APIRouter, studio: Studio) -> None:
    @router.post("/prepare-sage-docs")
    def prepare_sage_docs(request: Request, body: PrepareRequest | None = None) -> PrepareResponse:
        """Fetch the SAGE documentation and make it a dataset."""
        dataset = studio.datasets.prepare_sage_docs(force_refresh=body is not None and body.force_refresh)
        view = DatasetView.of(dataset)
        said = {"en": f"{dataset.stats.total_samples} rows ready", "zh": f"已准备 {dataset.stats.total_samples} 条数据"}
        return PrepareResponse(
            message=said[language(request)],
            data_file=str(studio.settings.docs_data_path),
            dataset_id=dataset.id,
            stats=view.stats,
        )

    @router.post("/estimate")
    def estimate(request: Request, body: StartRequest) -> ForecastView:
        """What a training would take, and what would make it fit; some seconds the first time for a model."""
        return ForecastView.of(studio.estimates.estimate(body.fields()), language(request))

    @router.post("/start", status_code=201)
    def start(request: Request, body: StartRequest) -> TaskView:
        """Queue a training."""
        task = studio.training.start(body.fields())
        return _shown(studio, task.id, request)


class _Listing:
    """All tasks as JSON; one that is over and has not changed is not written anew: a page asks every second."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, Language], tuple[tuple[object, ...], str]] = {}

    def json_of(self, tasks: list[tuple[Task, TaskProgress]], spoken: Language) -> str:
        known: dict[tuple[str, Language], tuple[tuple[object, ...], str]] = {}
        for task, progress in tasks:
            now, before = (task, progress.now, progress.result), self._known.get((task.id, spoken))
            is_same = task.status.is_over and before is not None and all(map(is_, before[0], now))
            shown = before[1] if before and is_same else TaskView.of(task, progress, spoken).model_dump_json()
            known[task.id, spoken] = now, shown
        self._known = {**{key: value for key, value in self._known.items() if key[1] != spoken}, **known}
        return f"[{','.join(shown for _, shown in known.values())}]"


def _add_watching(router: APIRouter, studio: Studio) -> None:
    listing = _Listing()

    @router.get("/tasks", response_model=list[TaskView])
    def tasks(request: Request) -> Response:
        """All tasks, newest first."""
        return Response(
            listing.json_of(studio.tasks.list_with_progress(), language(request)), media_type="application/json"
        )

    @router.get("/compare")
    def compare(ids: str) -> TaskComparisonView:
        """Two to eight runs beside each other, given by their ids separated by commas."""
        return TaskComparisonView.of(studio.tasks.compare([part.strip() for part in ids.split(",") if part.strip()]))

    @router.get("/tasks/{task_id}")
    def task(request: Request, task_id: str) -> TaskView:
        """One task."""
        return _shown(studio, task_id, request)

    @router.get("/tasks/{task_id}/logs")
    def logs(task_id: str, limit: int = 100, offset: int | None = None) -> LogResponse:
        """The last lines of the log, or those from a byte offset on."""
        page = studio.tasks.logs(task_id, limit=limit, offset=offset)
        return LogResponse(lines=list(page.lines), offset=page.offset, size=page.size)

    @router.get("/tasks/{task_id}/events")
    async def events(task_id: str, last_event_id: Annotated[int, Header(ge=0)] = 0) -> StreamingResponse:
        """Progress as server-sent events; an event's id is the byte offset to resume from."""
        await run_in_threadpool(studio.tasks.get, task_id)
        return StreamingResponse(_follow(studio, task_id, last_event_id), media_type="text/event-stream")

    @router.get("/tasks/{task_id}/download")
    def download(task_id: str) -> StreamingResponse:
        """The tuned model as a tar.gz, streamed."""
        pieces = studio.tasks.download(task_id)
        name = archive_name(studio.tasks.get(task_id))
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        return StreamingResponse(pieces, media_type="application/gzip", headers=headers)


def _add_files(router: APIRouter, studio: Studio) -> None:
    @router.get("/tasks/{task_id}/files")
    def files(request: Request, task_id: str) -> list[StageFileView]:
        """What the stages of a KBAlign task have left: JSON lines to open and edit."""
        return [StageFileView.of(file, language(request)) for file in studio.training.stage_files(task_id)]

    @router.get("/tasks/{task_id}/files/{name}")
    def file(task_id: str, name: str) -> FileResponse:
        """One of these files."""
        found = studio.training.stage_file(task_id, name)
        return FileResponse(found.path, media_type=JSON_LINES, filename=found.name)

    @router.put("/tasks/{task_id}/files/{name}")
    def edit(
        request: Request, task_id: str, name: str, text: Annotated[str, Body(media_type=JSON_LINES)]
    ) -> StageFileView:
        """Put an edited file in its place; the task must be stopped, and goes on from it when it is resumed."""
        return StageFileView.of(studio.training.edit_stage_file(task_id, name, text), language(request))


def _add_changing(router: APIRouter, studio: Studio) -> None:
    @router.delete("/tasks/{task_id}")
    def stop(request: Request, task_id: str) -> TaskView:
        """Stop a task, keeping a checkpoint to resume from."""
        studio.tasks.stop(task_id)
        return _shown(studio, task_id, request)

    @router.post("/tasks/{task_id}/resume")
    def resume(request: Request, task_id: str) -> TaskView:
        """Go on from the newest checkpoint of a stopped or failed task."""
        studio.tasks.resume(task_id)
        return _shown(studio, task_id, request)

    @router.post("/tasks/{task_id}/retry")
    def retry(request: Request, task_id: str) -> TaskView:
        """Do what is to be done next about a stopped or failed task: resume, halve the batch, lower the rate."""
        return _shown(studio, studio.training.retry(task_id).id, request)

    @router.post("/tasks/{task_id}/reproduce", status_code=201)
    def reproduce(request: Request, task_id: str) -> TaskView:
        """Queue the very run of a completed task again."""
        return _shown(studio, studio.training.reproduce(task_id).id, request)

    @router.delete("/tasks/{task_id}/delete")
    def delete(task_id: str) -> dict[str, str]:
        """Delete a task and its folder."""
        studio.tasks.delete(task_id)
        return {"status": "success", "task_id": task_id}

    @router.post("/use-as-backend")
    def use_as_backend(request: Request, body: TaskRequest) -> BackendView:
        """Let a completed task's model answer the chat."""
        return BackendView.of(studio.serving.use_task(body.task_id), language(request))


def _shown(studio: Studio, task_id: str, request: Request) -> TaskView:
    return TaskView.of(studio.tasks.get(task_id), studio.tasks.progress(task_id), language(request))


async def _follow(studio: Studio, task_id: str, offset: int) -> AsyncIterator[str]:
    while True:
        over = (await run_in_threadpool(studio.tasks.get, task_id)).status.is_over
        events = await run_in_threadpool(studio.tasks.events, task_id, offset)
        for offset, event in events:
            yield sse_event(event.model_dump_json(exclude_none=True), event="progress", id=offset)
        if over and not events:
            status = (await run_in_threadpool(studio.tasks.get, task_id)).status
            yield sse_event({"status": str(status)}, event="end", id=offset)
            return
        await asyncio.sleep(POLL_SECONDS)
