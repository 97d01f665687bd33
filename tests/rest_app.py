"""The studio's routes as an app of their own: what gradio would make, without a page.

Every answer is held against the OpenAPI document: its status has to be there, and its JSON has to fit the schema.
"""

import json
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from starlette.datastructures import Headers
from starlette.middleware import Middleware

from sage_studio.api.app import app_arguments
from sage_studio.studio import Studio

try:
    from jsonschema import Draft202012Validator
except ImportError:  # it comes with vLLM: on other machines only the statuses and the types of content are checked
    Draft202012Validator = None

LOGIN = ("ada", "secret")
JSON = "application/json"
DOCUMENTS: dict[tuple[tuple[str, ...], ...], dict[str, Any]] = {}


class App(FastAPI):
    """With what gradio's app has and the guard reads: the login cookies' names and tokens."""

    cookie_id = "test"

    def __init__(self, **arguments) -> None:
        super().__init__(**arguments)
        self.tokens: dict[str, str] = {}


class Documented:
    """ASGI middleware: an answer that the OpenAPI document does not describe is an AssertionError.

    It is the outermost, so that it sees the refusals of the others too. A stream is not read.
    """

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start: dict[str, Any] = {}
        body = bytearray()

        async def look(message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
            elif _type_of(start) == JSON:
                body.extend(message.get("body", b""))
            if message["type"] == "http.response.body" and not message.get("more_body"):
                check(scope, start["status"], _type_of(start), bytes(body))
            await send(message)

        await self.app(scope, receive, look)


def check(scope: dict[str, Any], status: int, media_type: str, body: bytes) -> None:
    """Raise AssertionError where the document does not describe the answer."""
    routes = [each for each in scope["app"].routes if isinstance(each, APIRoute) and each.include_in_schema]
    asked = [each for each in routes if scope["method"] in each.methods and each.path_regex.match(scope["path"])]
    if not asked:  # no operation, so the document says nothing of it
        assert not scope["path"].startswith("/api/") or set(json.loads(body)) == {"detail"}, body
        return
    document, where = document_of(routes), f"{scope['method']} {asked[0].path_format}"
    answers = document["paths"][asked[0].path_format][scope["method"].lower()]["responses"]
    assert str(status) in answers, f"{where}: status {status} is not documented; it says {body[:500]!r}"
    content = answers[str(status)].get("content", {})
    assert media_type in content, f"{where}: {status} as {media_type!r} is not documented, but {list(content)}"
    if media_type == JSON and Draft202012Validator is not None:
        schema = {**content[media_type]["schema"], "components": document["components"]}
        for error in Draft202012Validator(schema).iter_errors(json.loads(body)):
            raise AssertionError(f"{where}: {status} breaks its schema at {list(error.path)}: {error.message[:500]}")


def document_of(routes: list[APIRoute]) -> dict[str, Any]:
    """The OpenAPI document of routes; made once, as all apps have the same."""
    known = tuple((route.path, *sorted(route.methods)) for route in routes)
    if known not in DOCUMENTS:
        DOCUMENTS[known] = get_openapi(title="test", version="0", routes=routes)
    return DOCUMENTS[known]


def _type_of(start: dict[str, Any]) -> str:
    return Headers(raw=start.get("headers", [])).get("content-type", "").partition(";")[0]


def app_of(studio: Studio, credentials: tuple[str, str] | None = None) -> App:
    arguments = app_arguments(studio, credentials)
    arguments["middleware"].insert(0, Middleware(Documented))
    return App(**arguments)
