"""Routes of tasks that stream or send files: the list, events, the archive, stage files."""

import asyncio
from collections.abc import AsyncIterator
from operator import is_
from typing import Annotated

from fastapi import APIRouter, Body, Header, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import FileResponse, StreamingResponse
from pydantic import TypeAdapter

from sage_studio.api.errors import error_responses, file_response, request_language
from sage_studio.api.stream import EventStream
from sage_studio.errors import Conflict, InvalidDataset, InvalidName, NotFound
from sage_studio.fields import Id
from sage_studio.operations.tasks import OfKind, TaskView, listed
from sage_studio.operations.training import StageFileView
from sage_studio.sse import sse_event
from sage_studio.studio import Studio
from sage_studio.tasks.archive import archive_name
from sage_studio.tasks.task import Task, TaskProgress
from sage_studio.text import Language

POLL_SECONDS = 0.5
ARCHIVE = "application/gzip"
EVENTS = EventStream.media_type
JSON_LINES = "application/jsonl"


class _Listing:
    """All tasks as JSON; one that is over and has not changed is not written anew: a page asks every second."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, Language], tuple[tuple[object, ...], str]] = {}

    def json_of(self, tasks: list[tuple[Task, TaskProgress]], language: Language) -> str:
        known: dict[tuple[str, Language], tuple[tuple[object, ...], str]] = {}
        for task, progress in tasks:
            now, before = (task, progress.now, progress.result), self._known.get((task.id, language))
            is_same = task.status.is_over and before is not None and all(map(is_, before[0], now))
            shown = before[1] if before and is_same else TaskView.of(task, progress, language).model_dump_json()
            known[task.id, language] = now, shown
        self._known = {**{key: value for key, value in self._known.items() if key[1] != language}, **known}
        return f"[{','.join(shown for _, shown in known.values())}]"


def routes(studio: Studio) -> APIRouter:
    """The routes under ``/api/finetune/tasks``."""
    router = APIRouter(prefix="/api/finetune/tasks", tags=["tasks"])
    listing = _Listing()

    @router.get("", response_model=list[TaskView], responses=error_responses())
    def tasks(request: Request, kind: OfKind = "train") -> Response:
        """All trainings, or the tasks of another kind, newest first."""
        if kind != "train":
            views = listed(studio, kind, request_language(request))
            return Response(TypeAdapter(list[TaskView]).dump_json(views), media_type="application/json")
        shown = listing.json_of(studio.tasks.list_with_progress(), request_language(request))
        return Response(shown, media_type="application/json")

    @router.get(
        "/{task_id}/events",
        response_class=StreamingResponse,
        responses=file_response(EVENTS) | error_responses(NotFound, InvalidName),
    )
    async def events(task_id: Id, last_event_id: Annotated[int, Header(ge=0)] = 0) -> StreamingResponse:
        """Progress as server-sent events; an event's id is the byte offset to resume from."""
        await run_in_threadpool(studio.tasks.get, task_id)
        return StreamingResponse(_follow(studio, task_id, last_event_id), media_type=EVENTS)

    @router.get(
        "/{task_id}/download",
        response_class=StreamingResponse,
        responses=file_response(ARCHIVE) | error_responses(NotFound, InvalidName, Conflict),
    )
    def download(task_id: Id) -> StreamingResponse:
        """The tuned model as a tar.gz, streamed."""
        pieces = studio.tasks.download(task_id)
        name = archive_name(studio.tasks.get(task_id))
        headers = {"Content-Disposition": f'attachment; filename="{name}"'}
        return StreamingResponse(pieces, media_type=ARCHIVE, headers=headers)

    @router.get(
        "/{task_id}/files/{name}",
        response_class=FileResponse,
        responses=file_response(JSON_LINES) | error_responses(NotFound, InvalidName),
    )
    def file(task_id: Id, name: str) -> FileResponse:
        """One of the files that the stages of a KBAlign task have left."""
        found = studio.training.stage_file(task_id, name)
        return FileResponse(found.path, media_type=JSON_LINES, filename=found.name)

    @router.put("/{task_id}/files/{name}", responses=error_responses(NotFound, InvalidName, InvalidDataset, Conflict))
    def edit(
        request: Request, task_id: Id, name: str, text: Annotated[str, Body(media_type=JSON_LINES)]
    ) -> StageFileView:
        """Put an edited file in its place; the task must be stopped, and continues from it when it is resumed."""
        return StageFileView.of(studio.training.edit_stage_file(task_id, name, text), request_language(request))

    return router


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
