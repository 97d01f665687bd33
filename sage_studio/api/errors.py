"""How an error becomes an HTTP answer, and what OpenAPI says of it: every failing request answers in one shape."""

from collections import defaultdict
from typing import Any

from fastapi import Request
from fastapi.exception_handlers import http_exception_handler
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import Response

from sage_studio.api.stream import EventStream
from sage_studio.errors import InvalidInput, NotAllowed, StudioError
from sage_studio.text import Language, Text, language_of
from sage_studio.validation_errors import first_error

OWN_PATHS = ("/api/", "/v1/")
OPENAI_PATHS = "/v1/"
NOT_LOGGED_IN = "not_logged_in"
YAML = "application/yaml"
SCHEMAS: dict[str, dict[str, Any]] = {EventStream.media_type: {}, YAML: {"type": "object"}}
"""Of what is told apart after it was read: an event, a YAML document. Other files are text or bytes."""
SEE_DOCS = Text("See /docs for what this route takes.")


class ErrorDetail(BaseModel):
    """What is wrong and what to do about it, in the language of ``Accept-Language``."""

    code: str
    message: str
    hint: str


class ErrorView(BaseModel):
    """The answer of every request that fails."""

    detail: ErrorDetail


class OpenAIErrorDetail(BaseModel):
    """What is wrong, as OpenAI's clients read it."""

    message: str
    type: str
    param: str | None
    code: str


class OpenAIErrorView(BaseModel):
    """The answer of a request under ``/v1`` that fails."""

    error: OpenAIErrorDetail


class BadRequest(StudioError):
    """A request that is no well-formed HTTP for this studio: its Host header, or a body that cannot be parsed."""

    code, status = "bad_request", 400


class UnsupportedMediaType(StudioError):
    """A body that is not JSON, where the route takes JSON."""

    code, status = "unsupported_media_type", 415


class PayloadTooLarge(StudioError):
    """A body of more bytes than a request to this path may have."""

    code, status = "payload_too_large", 413


class TooManyRequests(StudioError):
    """The caller has to wait before the next attempt."""

    code, status = "too_many_requests", 429


class NoSuchRoute(StudioError):
    """No route has this path."""

    code, status = "not_found", 404


class MethodNotAllowed(StudioError):
    """The path has routes, but none for this method."""

    code, status = "method_not_allowed", 405


def error_responses(*raised: type[StudioError], openai: bool = False) -> dict[int | str, dict[str, Any]]:
    """What OpenAPI is to say of the errors of a route.

    Args:
        raised: what the operation itself can raise; what the middleware and the reading of a request can is added.
        openai: whether the route answers errors in OpenAI's shape; a missing login is told in the studio's own.
    """
    meanings: dict[int, list[str]] = defaultdict(list)
    meanings[401].append(NOT_LOGGED_IN)
    front = (BadRequest, NotAllowed, PayloadTooLarge, TooManyRequests)
    expected: tuple[type[StudioError], ...] = (*front, InvalidInput, *raised)
    for error in expected:
        meanings[error.status].append(error.code)
    return {
        status: {
            "model": OpenAIErrorView if openai and status != 401 else ErrorView,
            "description": ", ".join(dict.fromkeys(codes)),
        }
        for status, codes in sorted(meanings.items())
    }


def file_response(*media_types: str) -> dict[int | str, dict[str, Any]]:
    """What OpenAPI is to say of an answer that is a file or, as ``text/event-stream``, a stream of events."""
    return {200: {"content": {each: {"schema": SCHEMAS.get(each, {"type": "string"})} for each in media_types}}}


def request_language(request: HTTPConnection) -> Language:
    """The caller's language, by ``Accept-Language``."""
    return language_of(request.headers.get("accept-language"))


def studio_error(request: Request, error: Exception) -> Response:
    """`StudioError` -> ``{"detail": {"code", "message", "hint"}}`` with its status."""
    assert isinstance(error, StudioError)
    return error_answer(request, error)


def validation_error(request: Request, error: Exception) -> Response:
    """A body that does not fit the route's schema, in the same shape."""
    assert isinstance(error, RequestValidationError)
    said = first_error(error.errors()).sentence
    return error_answer(
        request,
        InvalidInput(Text("The request does not fit. {said}.", said=said), SEE_DOCS),
    )


async def http_error(request: Request, error: Exception) -> Response:
    """What FastAPI and Starlette refuse by themselves on the studio's own paths, in the same shape."""
    assert isinstance(error, HTTPException)
    path, method = request.url.path, request.method
    if not path.startswith(OWN_PATHS) or isinstance(error.detail, dict):
        return await http_exception_handler(request, error)
    refusal: StudioError
    match error.status_code:
        case 404:
            refusal = NoSuchRoute(Text("There is no route {path}.", path=path), SEE_DOCS)
        case 405:
            allowed = ", ".join(methods_of(request))
            refusal = MethodNotAllowed(
                Text("{path} does not take {method}.", path=path, method=method),
                Text("It takes {allowed}.", allowed=allowed),
            )
            return error_answer(request, refusal, {"Allow": allowed})
        case 400:
            refusal = BadRequest(Text("The body cannot be read."), SEE_DOCS)
        case _:
            return await http_exception_handler(request, error)
    return error_answer(request, refusal)


def methods_of(request: Request) -> list[str]:
    """The methods that a path takes, of all routes whose template is the one with the fewest parameters."""
    routes = [each for each in request.app.routes if isinstance(each, APIRoute)]
    found = [each for each in routes if each.path_regex.match(request.url.path)]
    if not found:
        return []
    closest = min(found, key=lambda route: len(route.param_convertors)).path
    return sorted({method for route in found if route.path == closest for method in route.methods})


def own_error(error: StudioError, language: Language) -> dict[str, str]:
    """An error in the shape of the studio's own routes."""
    return {"code": error.code, "message": error.message.in_(language), "hint": error.hint.in_(language)}


def openai_error(error: StudioError, language: Language) -> dict[str, dict[str, str | None]]:
    """An error in the shape that OpenAI's clients read."""
    return {"error": {"message": error.say(language), "type": error.code, "param": None, "code": error.code}}


def error_answer(request: HTTPConnection, error: StudioError, headers: dict[str, str] | None = None) -> Response:
    """An error with its status, in the shape and the language of who asks."""
    language = request_language(request)
    content = openai_error(error, language) if _speaks_openai(request) else {"detail": own_error(error, language)}
    return JSONResponse(content, status_code=error.status, headers=headers)


def _speaks_openai(request: HTTPConnection) -> bool:
    return request.url.path.startswith(OPENAI_PATHS)
