"""Middleware before all routes: the studio's own names only, and the page for whoever has not signed in on the hub."""

import re
from collections.abc import Collection

from fastapi import Request
from starlette.requests import HTTPConnection
from starlette.responses import HTMLResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from sage_studio.api.errors import BadRequest, error_answer, request_language
from sage_studio.api.guard import Guard
from sage_studio.api.hub_login import SIGN_IN, SIGN_OUT
from sage_studio.api.notice_page import Link, notice_page
from sage_studio.settings import PREFIX
from sage_studio.text import Text

HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::\d*)?")
SIGN_IN_LABEL = Text("Sign in with Hugging Face")
SIGN_OUT_LABEL = Text("Sign out")
TITLE = Text("SAGE Studio: sign in")
WHO = Text(
    "This studio trains and runs models on the Space's machine, so only its owner and the people the owner names "
    "may use it."
)
NOT_LISTED = Text("You are signed in as {name}, who is not on this Space's list.")
REMEDY = Text(
    "The owner can add the name to the variable {prefix}ALLOWED_USERS in the Space's settings "
    "(names separated by commas), or you can duplicate the Space and run your own.",
    prefix=PREFIX,
)


class KnownHosts:
    """ASGI middleware: refuses a Host header with another name than the studio's own.

    A page that points its own name at 127.0.0.1 (DNS rebinding) would otherwise pass for this machine's user.

    Args:
        app: what is behind it.
        names: without ports.
    """

    def __init__(self, app: ASGIApp, names: Collection[str]) -> None:
        self._app, self._names = app, frozenset(names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request, or let it pass."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        request = HTTPConnection(scope)
        host = request.headers.get("host", "")
        if _name_of(host) in self._names:
            await self._app(scope, receive, send)
            return
        names = ", ".join(sorted(self._names))
        refused = BadRequest(
            Text("{host!r} is not this studio's name.", host=host),
            Text("Open it as one of: {names}.", names=names),
        )
        await error_answer(request, refused)(scope, receive, send)


def _name_of(host: str) -> str:
    """The name in a Host header, in lower case; empty where there is none."""
    found = HOST.fullmatch(host)
    return (found[1] or found[2]).lower() if found else ""


class SignInPage:
    """ASGI middleware: answers for the page in place of gradio where the guard knows nobody.

    Gradio's own login form knows only user and password; with another way in it answers a bare 401.

    Args:
        app: what is behind the door.
        guard: knows who may come in.
        address: of the Space outside the hub's frame.
    """

    def __init__(self, app: ASGIApp, guard: Guard, address: str) -> None:
        self._app, self._guard, self._address = app, guard, address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Show the door, or let the request pass."""
        if scope["type"] == "http" and scope["path"] == "/" and scope["method"] in ("GET", "HEAD"):
            request = Request(scope)
            if self._guard.user_of(request) is None:
                await self._page(request)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _page(self, request: Request) -> HTMLResponse:
        name = self._guard.hub_name(request)
        if name is None:
            lines, link = [WHO], Link(SIGN_IN, SIGN_IN_LABEL, button=True)
        else:
            refused = NOT_LISTED.with_values(name=name)
            lines, link = [refused, REMEDY], Link(SIGN_OUT, SIGN_OUT_LABEL, button=True)
        page = notice_page(TITLE, lines, [link], self._address, request_language(request))
        return HTMLResponse(page, headers={"Cache-Control": "no-store"})
