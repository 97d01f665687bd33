"""All REST routes as one router, and what an app needs besides to serve them."""

from typing import Any

from fastapi import APIRouter, Depends, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from starlette.exceptions import HTTPException

from sage_studio import __version__
from sage_studio.api import chat, files, openai, routes, tasks
from sage_studio.api.errors import http_error, studio_error, validation_error
from sage_studio.api.guard import Guard
from sage_studio.api.hub_login import HubLogin
from sage_studio.api.middleware import KnownHosts, SignInPage
from sage_studio.errors import StudioError
from sage_studio.settings import LOOPBACK
from sage_studio.studio import Studio

TITLE = "SAGE Studio"


def build_router(studio: Studio, guard: Guard) -> APIRouter:
    """Every own route, each behind the guard."""
    router = APIRouter(dependencies=[Depends(guard)])
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
    before = [] if guard.needs_login else [Middleware(KnownHosts, names=LOOPBACK)]
    if hub is not None:
        before.append(Middleware(SignInPage, guard=guard, address=address))
    return {
        "middleware": before,
        "routes": [*build_router(studio, guard).routes, Route("/robots.txt", no_robots), assets],
        "exception_handlers": {
            StudioError: studio_error,
            RequestValidationError: validation_error,
            HTTPException: http_error,
        },
        "docs_url": None,
        "openapi_url": None,
    }


def no_robots(_: Request) -> PlainTextResponse:
    """No studio is for a search engine: a public link least of all."""
    return PlainTextResponse("User-agent: *\nDisallow: /")
