"""All REST routes as one router, and what an app needs besides to serve them."""

import re
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from starlette.exceptions import HTTPException
from starlette.routing import compile_path

from sage_studio import __version__
from sage_studio.api import chat, files, openai, routes, tasks
from sage_studio.api.errors import http_error, studio_error, validation_error
from sage_studio.api.guard import Guard
from sage_studio.api.hub_login import HubLogin
from sage_studio.api.middleware import (
    MAX_BODY,
    BodyLimit,
    KnownHosts,
    LoginRequired,
    OneOrigin,
    SafeHeaders,
    SignInPage,
    host_name,
)
from sage_studio.api.routes import ENVELOPE
from sage_studio.errors import StudioError
from sage_studio.operations import operations
from sage_studio.settings import LOOPBACK, split_names
from sage_studio.studio import Studio

TITLE = "SAGE Studio"
STAGE_FILES = re.compile(r"/api/finetune/tasks/[^/]+/files/[^/]+")
MAX_STAGE_FILE = 64 << 20
"""Bytes of an edited stage file, which is held in memory."""


def build_router(studio: Studio) -> APIRouter:
    """Every own route."""
    router = APIRouter()
    for part in (tasks, files, chat, openai, routes):
        router.include_router(part.routes(studio))

    described = list(router.routes)

    @router.get("/openapi.json", include_in_schema=False)
    def openapi() -> JSONResponse:
        return JSONResponse(get_openapi(title=TITLE, version=__version__, routes=described))

    @router.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url="openapi.json",
            title=f"{TITLE} REST",
            swagger_js_url="docs/assets/swagger-ui-bundle.js",
            swagger_css_url="docs/assets/swagger-ui.css",
            swagger_favicon_url="favicon.ico",
        )

    return router


def app_arguments(
    studio: Studio, credentials: tuple[str, str] | None, hub: HubLogin | None = None, address: str = ""
) -> dict[str, Any]:
    """Arguments for the FastAPI app that gradio makes: our routes, and our errors in one shape.

    Args:
        studio: the services that the page and the routes call.
        credentials: user and password, or None where they open nothing.
        hub: who may come in with an account on the hub; None where nobody can sign in so.
        address: of the Space outside the hub's frame, if it is one.
    """
    from starlette.middleware import Middleware
    from starlette.routing import Mount, Route
    from starlette.staticfiles import StaticFiles
    from swagger_ui_bundle import swagger_ui_path

    assets = Mount("/docs/assets", StaticFiles(directory=swagger_ui_path))
    guard = Guard(credentials, hub)
    router = build_router(studio)
    names = [*split_names(studio.settings.public_names), *([urlsplit(address).netloc] if address else [])]
    before = [Middleware(SafeHeaders, in_hub_frame=bool(address), public_names=names)]
    if not guard.needs_login:
        before.append(Middleware(KnownHosts, names=[*LOOPBACK, *map(host_name, names)]))
    before.append(Middleware(OneOrigin, public_names=names, in_hub_frame=bool(address)))
    if guard.needs_login:
        before.append(Middleware(LoginRequired, guard=guard))
    before.append(Middleware(BodyLimit, limit_of=body_limits(studio)))
    if hub is not None:
        before.append(Middleware(SignInPage, guard=guard, address=address))
    return {
        "middleware": before,
        "routes": [*router.routes, Route("/robots.txt", no_robots), assets],
        "exception_handlers": {
            StudioError: studio_error,
            RequestValidationError: validation_error,
            HTTPException: http_error,
        },
        "docs_url": None,
        "openapi_url": None,
    }


def body_limits(studio: Studio) -> Callable[[str, str], int]:
    """The bytes that a request may have, by its method and path. The routes that take a file count for themselves."""
    gradio_upload = (studio.settings.max_upload_mb << 20) + ENVELOPE
    limits = [("POST", re.compile("/gradio_api/upload/?"), gradio_upload), ("PUT", STAGE_FILES, MAX_STAGE_FILE)]
    for operation in operations("rest"):
        if operation.file_parameter is not None:
            limits.append((operation.method, compile_path(operation.path)[0], sys.maxsize))

    def limit_of(method: str, path: str) -> int:
        found = (limit for each, pattern, limit in limits if each == method and pattern.fullmatch(path))
        return next(found, MAX_BODY)

    return limit_of


def no_robots(_: Request) -> PlainTextResponse:
    """No studio is for a search engine: a public link least of all."""
    return PlainTextResponse("User-agent: *\nDisallow: /")
