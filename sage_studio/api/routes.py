"""The REST routes of the table of operations, with every status that each can answer."""

import inspect
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Body, Form, Query, Request, UploadFile
from fastapi import Path as PathParameter
from pydantic import BaseModel

from sage_studio.api.guard import language
from sage_studio.errors import InvalidInput, StudioError, naming_full_disk
from sage_studio.files import upload_name
from sage_studio.operations import operations
from sage_studio.operations.operation import Operation, is_upload
from sage_studio.studio import Studio

PIECE = 1 << 20


class ErrorDetail(BaseModel):
    """What is wrong and what to do about it, in the language of ``Accept-Language``."""

    code: str
    message: str
    hint: str


class ErrorView(BaseModel):
    """The answer of every request that fails."""

    detail: ErrorDetail


def routes(studio: Studio) -> APIRouter:
    """A route for each operation that REST offers."""
    router = APIRouter()
    for operation in operations("rest"):
        router.add_api_route(
            operation.path,
            _endpoint(studio, operation),
            methods=[operation.method],
            status_code=operation.status,
            name=operation.name,
            operation_id=operation.name.removesuffix("_by_rest"),
            response_model=operation.response,
            description=operation.description,
            tags=[operation.noun],
            responses=error_responses(*operation.raises),
        )
    return router


def error_responses(*raised: type[StudioError]) -> dict[int | str, dict[str, Any]]:
    """What OpenAPI is to say of the errors of a route, beside those that the guard and the schema can have."""
    meanings: dict[int, list[str]] = defaultdict(list)
    meanings[401].append("not_logged_in")
    meanings[403].append("cross_site")
    expected: tuple[type[StudioError], ...] = (*raised, InvalidInput)
    for error in expected:
        meanings[error.status].append(error.code)
    return {
        status: {"model": ErrorView, "description": ", ".join(dict.fromkeys(codes))}
        for status, codes in sorted(meanings.items())
    }


def _endpoint(studio: Studio, operation: Operation) -> Callable[..., Any]:
    """A function with the signature that FastAPI is to read."""
    upload = operation.file_parameter

    def endpoint(request: Request, **given: Any) -> Any:
        body = given.pop("body", None)
        if isinstance(body, BaseModel):
            given |= {name: getattr(body, name) for name in body.model_fields_set}
        if upload is None:
            return operation.run(studio, given, language(request))
        with _received(studio, given[upload]) as path:
            return operation.run(studio, {**given, upload: path}, language(request))

    parameters = [inspect.Parameter("request", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=Request)]
    parameters += _parameters(operation)
    endpoint.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    endpoint.__doc__ = operation.description
    return endpoint


def _parameters(operation: Operation) -> Iterator[inspect.Parameter]:
    own = inspect.signature(operation.function).parameters
    for name in operation.path_parameters:
        yield _keyword(name, Annotated[operation.hints[name], PathParameter()], inspect.Parameter.empty)
    fields = operation.body.model_fields
    if operation.method != "POST":
        for name in fields:
            yield _keyword(name, Annotated[operation.hints[name], Query()], own[name].default)
    elif operation.file_parameter is not None:
        for name in fields:
            hint = UploadFile if is_upload(operation.hints[name]) else Annotated[operation.hints[name], Form()]
            yield _keyword(name, hint, own[name].default)
    elif fields:
        needed = any(info.is_required() for info in fields.values())
        body: Any = operation.body if needed else operation.body | None
        yield _keyword("body", Annotated[body, Body()], inspect.Parameter.empty if needed else None)


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


@contextmanager
def _received(studio: Studio, file: UploadFile) -> Iterator[Path]:
    """A received file on the studio's own disk, moved there in pieces, gone afterwards."""
    with tempfile.TemporaryDirectory(dir=studio.settings.uploads_dir) as folder:
        path = Path(folder) / upload_name(file.filename or "")
        with naming_full_disk(path), path.open("wb") as target:
            while piece := file.file.read(PIECE):
                target.write(piece)
        yield path
