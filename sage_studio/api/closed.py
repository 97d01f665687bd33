"""App of a studio that must not open: a page that says why, a refusal for everything else.

A Space is on the public internet. One without a login would let anybody train on it and read its data; one that
merely ends looks broken, with the reason in a log that nobody thinks of.
"""

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from sage_studio.api.door_page import door_page
from sage_studio.errors import StudioError
from sage_studio.settings import PREFIX, Settings
from sage_studio.text import Text, language_of

TITLE = Text("SAGE Studio is not open yet")
STEPS = (
    Text(
        "For the owner: open Settings of this Space, then Variables and secrets, then New secret. "
        "Name it {prefix}AUTH and give it a value of the form user:password. The Space restarts by "
        "itself.",
        prefix=PREFIX,
    ),
    Text(
        "Or let people sign in with their Hugging Face account: put hf_oauth: true into the header "
        "of README.md. The owner may then come in, and whoever {prefix}ALLOWED_USERS names.",
        prefix=PREFIX,
    ),
)


def serve_closed(settings: Settings, reason: StudioError) -> None:
    """Answer at the studio's address until SIGINT or SIGTERM."""
    uvicorn.run(closed_app(reason), host=settings.host, port=settings.port, log_level="warning")


def closed_app(reason: StudioError) -> Starlette:
    """The page at ``/``; 503 with the reason for every other path and method."""

    async def page(request: Request) -> Response:
        language = language_of(request.headers.get("accept-language"))
        lines = [reason.message, *STEPS]
        return HTMLResponse(door_page(TITLE, lines, [], "", language), headers={"Cache-Control": "no-store"})

    async def refuse(request: Request) -> Response:
        language = language_of(request.headers.get("accept-language"))
        message = {"code": reason.code, "message": reason.message.in_(language), "hint": reason.hint.in_(language)}
        return JSONResponse({"detail": message}, status_code=503)

    app = Starlette()
    app.add_route("/", page, methods=["GET"])  # and HEAD
    methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
    app.add_route("/{path:path}", refuse, methods=methods)
    return app
