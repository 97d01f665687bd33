"""The REST routes of the table of operations, with every status that each can answer."""

import inspect
import tempfile
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Body, Form, Query, Request, Response, UploadFile
from fastapi import Path as PathParameter
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.types import Message

from sage_studio.api.errors import UnsupportedMediaType, error_responses, request_language
from sage_studio.api.strict_json import strict
from sage_studio.data.sources.local import file_too_large
from sage_studio.errors import InvalidDataset, StudioError, naming_full_disk
from sage_studio.files import upload_name
from sage_studio.operations import operations
from sage_studio.operations.operation import Operation, is_upload
from sage_studio.studio import Studio
from sage_studio.text import Text

PIECE = 1 << 20
ENVELOPE = 1 << 20
"""Bytes of a request beside its file: boundaries, names and the mapping."""


def routes(studio: Studio) -> APIRouter:
    """A route for each operation that REST offers."""
    router = APIRouter()
    limited = _limited(studio.settings.max_upload_mb << 20)
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
            responses=error_responses(*_reading(operation), *operation.raises),
            route_class_override=limited if operation.file_parameter is not None else None,
        )
    return router


def _endpoint(studio: Studio, operation: Operation) -> Callable[..., Any]:
    """A function with the signature that FastAPI is to read."""
    upload = operation.file_parameter

    def endpoint(request: Request, **given: Any) -> Any:
        body = given.pop("body", None)
        if isinstance(body, BaseModel):
            given |= {name: getattr(body, name) for name in body.model_fields_set}
        if upload is None:
            return operation.run(studio, given, request_language(request))
        with _received(studio, given[upload]) as path:
            return operation.run(studio, {**given, upload: path}, request_language(request))

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
        yield _keyword("body", Annotated[body, strict(body), Body()], inspect.Parameter.empty if needed else None)


def _reading(operation: Operation) -> tuple[type[StudioError], ...]:
    """The errors that reading the request can have, beside those of every route."""
    takes_json = operation.method == "POST" and operation.file_parameter is None and operation.body.model_fields
    return (UnsupportedMediaType,) if takes_json else ()


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
        raise file_too_large(Text("The upload"), size, max_bytes)
