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

TITLE = Text("SAGE Studio is not open yet", "SAGE Studio 尚未开放")
STEPS = (
    Text(
        f"For the owner: open Settings of this Space, then Variables and secrets, then New secret. Name it "
        f"{PREFIX}AUTH and give it a value of the form user:password. The Space restarts by itself.",
        f"所有者请打开此 Space 的 Settings → Variables and secrets → New secret，名称填 {PREFIX}AUTH，"
        "值的格式为 用户名:密码。Space 会自动重启。",
    ),
    Text(
        "Or let people sign in with their Hugging Face account: put hf_oauth: true into the header of README.md. "
        f"The owner may then come in, and whoever {PREFIX}ALLOWED_USERS names.",
        "也可以让用户使用 Hugging Face 账号登录：在 README.md 文件头中加入 hf_oauth: true。此后所有者以及 "
        f"{PREFIX}ALLOWED_USERS 中列出的人可以进入。",
    ),
)


def serve_closed(settings: Settings, reason: StudioError) -> None:
    """Answer at the studio's address until SIGINT or SIGTERM."""
    uvicorn.run(closed_app(reason), host=settings.host, port=settings.port, log_level="warning")


def closed_app(reason: StudioError) -> Starlette:
    """The page at ``/``; 503 with the reason for every other path and method."""

    async def page(request: Request) -> Response:
        language = language_of(request.headers.get("accept-language"))
        lines = [Text(reason.message.en, reason.message.zh), *STEPS]
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
