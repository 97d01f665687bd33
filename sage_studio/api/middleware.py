"""ASGI middleware in front of every route, gradio's own included.

Gradio's ``auth`` covers some of its routes, and a FastAPI dependency runs only after the body has been read. So names,
origins, sizes and logins are checked here, before anything else sees the request; whatever is not named as public
needs the login.

The order, from the outside: `SafeHeaders`, `KnownHosts` (only without a login), `OneOrigin`, `LoginRequired`,
`BodyLimit`, `SignInPage`.
"""

import re
from collections.abc import Callable, Collection, Iterable
from urllib.parse import urlsplit

from fastapi import Request
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sage_studio.api.errors import (
    NOT_LOGGED_IN,
    OWN_PATHS,
    BadRequest,
    PayloadTooLarge,
    TooManyRequests,
    error_answer,
    request_language,
)
from sage_studio.api.guard import Guard
from sage_studio.api.hub_login import SIGN_IN, SIGN_OUT
from sage_studio.api.notice_page import Link, notice_page
from sage_studio.errors import NotAllowed, StudioError
from sage_studio.settings import PREFIX
from sage_studio.text import Text

HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::\d*)?")
DEFAULT_PORTS = {"http": ":80", "https": ":443"}
LOGIN_PATH, LOGOUT_PATH = "/login", "/logout"
HUB_PATHS = ("/login/huggingface", "/login/callback")
HUB_PUBLIC_PATHS = (*HUB_PATHS, LOGOUT_PATH)
PUBLIC_PATHS = re.compile(
    r"/|/login|/robots\.txt|/favicon\.ico|/manifest\.json|/pwa_icon(/.*)?|/theme\.css|/(assets|static|svelte)(/.*)?"
    r"|/gradio_api/(theme\.css|startup-events|app_id|user|login_check)"
)
"""What a person who is not logged in gets: the page, which is then gradio's login form, and what that form loads."""
CLOSED_PATHS = ("/gradio_api/token",)
"""Gives the login's cookie to any script that asks, which a cookie for HTTP alone is meant to prevent."""
BASIC = {"WWW-Authenticate": 'Basic realm="SAGE Studio"'}
CLOSE = {"Connection": "close"}
"""For a refusal before the body was read: the server then closes the connection and does not take the rest of it."""
MAX_BODY = 4 << 20
"""Bytes of a request that is no upload."""
MAX_HEADERS = 64 << 10
"""Bytes of all headers of a request."""
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors {}"
)
"""Gradio's page needs inline scripts. What counts is that nothing is sent to or loaded from another origin: a
document could have a model answer with the picture of an address that holds the conversation."""
HUB_FRAMES = "'self' https://huggingface.co https://*.hf.space"

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
LOGIN = Text("Login is required.")
LOGIN_HINT = Text("Log in on the page, or send user and password with HTTP Basic, or user:password as the Bearer key.")


class SafeHeaders:
    """Refuses malformed requests, and adds the headers that keep a browser from doing what a page must not.

    The login's cookie becomes ``SameSite=Lax``: gradio sets ``None``, with which every other site's page sends it. In
    the hub's iframe, which is another site, it has to stay ``None``; there `OneOrigin` alone keeps other pages out.

    Args:
        app: what is behind it.
        in_hub_frame: whether the page is shown in the hub's iframe.
        public_names: hosts under which a proxy offers the studio; ``X-Forwarded-Host`` is read for these only.
    """

    def __init__(self, app: ASGIApp, in_hub_frame: bool = False, public_names: Collection[str] = ()) -> None:
        self._app, self._in_hub_frame, self._names = app, in_hub_frame, frozenset(map(host_name, public_names))
        self._policy = POLICY.format(HUB_FRAMES if in_hub_frame else "'self'")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and the answer back with the headers."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._protect(MutableHeaders(scope=message))
            await send(message)

        if CONTROL.search(scope["path"]):
            refused = BadRequest(
                Text("The path {path!r} holds control characters.", path=scope["path"][:80]), Text("Leave them out.")
            )
            await _refuse(scope, receive, answer, refused)
        elif sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEADERS:
            refused = BadRequest(
                Text("The headers have more than {most:,} bytes.", most=MAX_HEADERS), Text("Send fewer cookies.")
            )
            await _refuse(scope, receive, answer, refused)
        else:
            await self._app({**scope, "headers": list(self._trusted(scope["headers"]))}, receive, answer)

    def _trusted(self, headers: Iterable[tuple[bytes, bytes]]) -> Iterable[tuple[bytes, bytes]]:
        """Without what gradio would take for the studio's own address though anybody can send it."""
        for name, value in headers:
            if name == b"x-gradio-server" or (name == b"x-forwarded-host" and not self._is_public(value)):
                continue
            yield name, value

    def _is_public(self, value: bytes) -> bool:
        return all(host_name(each.strip()) in self._names for each in value.decode("latin-1").split(","))

    def _protect(self, headers: MutableHeaders) -> None:
        headers["X-Content-Type-Options"] = "nosniff"
        headers["Referrer-Policy"] = "same-origin"
        headers.setdefault("Content-Security-Policy", self._policy)
        if not self._in_hub_frame:
            headers["X-Frame-Options"] = "SAMEORIGIN"
        cookies = headers.getlist("set-cookie")
        if cookies and not self._in_hub_frame:
            del headers["set-cookie"]
            for cookie in cookies:
                headers.append("set-cookie", re.sub(r"(?i)samesite=none", "SameSite=Lax", cookie))


class KnownHosts:
    """Refuses a Host header with another name than the studio's own.

    A page that points its own name at 127.0.0.1 (DNS rebinding) would otherwise pass for this machine's user.

    Args:
        app: what is behind it.
        names: without ports.
    """

    def __init__(self, app: ASGIApp, names: Collection[str]) -> None:
        self._app, self._names = app, frozenset(names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request, or let it pass."""
        if scope["type"] in ("http", "websocket"):
            host = HTTPConnection(scope).headers.get("host", "")
            if host_name(host) not in self._names:
                names = ", ".join(sorted(self._names))
                refused = BadRequest(
                    Text("{host!r} is not this studio's name.", host=host),
                    Text("Open it as one of: {names}.", names=names),
                )
                await _refuse(scope, receive, send, refused)
                return
        await self._app(scope, receive, send)


class OneOrigin:
    """Refuses what a page of another origin asks for, reads included: gradio's CORS answers every origin.

    A browser says where a request comes from (``Origin``, ``Sec-Fetch-Site``) and a page cannot change it; scripts
    send neither header. The one thing that another page may do is to lead a person here.

    Args:
        app: what is behind it.
        public_names: hosts under which a proxy offers the studio, with a port where it is not the usual one.
        in_hub_frame: whether the hub may show the page in an iframe, and send people back from its sign-in.
    """

    def __init__(self, app: ASGIApp, public_names: Collection[str] = (), in_hub_frame: bool = False) -> None:
        self._app, self._in_hub_frame = app, in_hub_frame
        self._names = frozenset(name.lower() for name in public_names)
        self._entries = ("/", *HUB_PATHS) if in_hub_frame else ("/",)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse the request, or let it pass."""
        if scope["type"] in ("http", "websocket") and self._is_foreign(scope):
            refused = NotAllowed(
                Text("A page of another site asked for this."),
                Text(
                    "Use the studio's own page, or a script. Behind a proxy, name its host in {prefix}PUBLIC_NAMES.",
                    prefix=PREFIX,
                ),
            )
            await _refuse(scope, receive, send, refused)
            return
        await self._app(scope, receive, send)

    def _is_foreign(self, scope: Scope) -> bool:
        headers = HTTPConnection(scope).headers
        site, origin = headers.get("sec-fetch-site"), headers.get("origin")
        if site == "same-origin":  # said by the browser itself, whatever a proxy makes of the Host header
            return False
        if site in ("cross-site", "same-site"):
            return not self._leads_here(scope, headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest"))
        if origin is None:
            return False
        address = urlsplit(origin)
        port = DEFAULT_PORTS.get(address.scheme, "")
        own = {headers.get("host", "").lower().removesuffix(port), *self._names}
        return address.netloc.lower().removesuffix(port) not in own

    def _leads_here(self, scope: Scope, mode: str | None, destination: str | None) -> bool:
        frames = ("document", "iframe") if self._in_hub_frame else ("document",)
        navigates = scope.get("method") in ("GET", "HEAD") and mode == "navigate"
        return navigates and destination in frames and scope["path"] in self._entries


class LoginRequired:
    """Answers 401 before the body is read, for every path that is not public.

    Also counts failed logins by gradio's form, and logs out by POST: a picture's address can ask for a GET.

    Args:
        app: what is behind it.
        guard: knows who may come in.
    """

    def __init__(self, app: ASGIApp, guard: Guard) -> None:
        self._app, self._guard = app, guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request pass, or say what is missing."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        request, path, method = HTTPConnection(scope), scope["path"].rstrip("/") or "/", scope.get("method")
        wait = self._guard.seconds_to_wait(request)  # before this attempt counts
        user = self._guard.user_of(request)
        if path in CLOSED_PATHS:
            await Response(status_code=404)(scope, receive, send)
        elif path == LOGIN_PATH and method == "POST" and user is None:
            await self._log_in(request, wait, scope, receive, send)
        elif path == LOGOUT_PATH and not self._guard.has_hub:
            await self._log_out(request, scope, receive, send)
        elif user is not None or PUBLIC_PATHS.fullmatch(path) or (self._guard.has_hub and path in HUB_PUBLIC_PATHS):
            await self._app(scope, receive, send)
        else:
            await self._turn_away(request, wait, scope, receive, send)

    async def _log_out(self, request: HTTPConnection, scope: Scope, receive: Receive, send: Send) -> None:
        if scope.get("method") != "POST":
            await Response(status_code=405, headers={"Allow": "POST"})(scope, receive, send)
            return
        self._guard.log_out(request)
        leave = RedirectResponse("/", 303)
        for name in self._guard.cookie_names(request):
            leave.delete_cookie(name, path="/")
        await leave(scope, receive, send)

    async def _log_in(self, request: HTTPConnection, wait: int, scope: Scope, receive: Receive, send: Send) -> None:
        if wait > 0:
            await _refuse(scope, receive, send, too_many_logins(wait), {"Retry-After": str(wait)})
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 400:
                self._guard.count_failure(request)
            await send(message)

        await self._app(scope, receive, answer)

    async def _turn_away(self, request: HTTPConnection, wait: int, scope: Scope, receive: Receive, send: Send) -> None:
        own = request.url.path.startswith((*OWN_PATHS, "/docs", "/openapi.json"))
        if own and (name := self._guard.hub_name(request)) is not None:
            refused = NotAllowed(
                Text("{name} is not on this Space's list.", name=name),
                Text("Its owner can add the name to {prefix}ALLOWED_USERS.", prefix=PREFIX),
            )
            await _refuse(scope, receive, send, refused)
        elif "authorization" in request.headers and wait > 0:
            await _refuse(scope, receive, send, too_many_logins(wait), {"Retry-After": str(wait)})
        else:
            language = request_language(request)
            detail = {"code": NOT_LOGGED_IN, "message": LOGIN.in_(language), "hint": LOGIN_HINT.in_(language)}
            headers = {**CLOSE, **(BASIC if own else {})}  # with which a browser asks for user and password itself
            await JSONResponse({"detail": detail}, 401, headers=headers)(scope, receive, send)


def too_many_logins(seconds: int) -> TooManyRequests:
    """The error for a caller who has failed to log in too often.

    Args:
        seconds: until the next attempt.
    """
    return TooManyRequests(
        Text("There were too many failed logins."), Text("Try again in {seconds} s.", seconds=seconds)
    )


class BodyLimit:
    """Refuses a body that is too large while it arrives, whoever reads it.

    Args:
        app: what is behind it.
        limit_of: bytes that a request to a path may have, by its method and path.
    """

    def __init__(self, app: ASGIApp, limit_of: Callable[[str, str], int]) -> None:
        self._app, self._limit_of = app, limit_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request pass; when it turns out too large, answer in the route's place."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._limit_of(scope["method"], scope["path"])
        declared = HTTPConnection(scope).headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > limit:
            await _refuse(scope, receive, send, body_too_large(limit), CLOSE)
            return
        received, begun, refused = 0, False, False

        async def count() -> Message:
            nonlocal received, refused
            message = await receive()
            received += len(message.get("body", b""))
            if received <= limit:
                return message
            if not (begun or refused):
                refused = True
                await _refuse(scope, receive, send, body_too_large(limit), CLOSE)
            return {"type": "http.disconnect"}

        async def answer(message: Message) -> None:
            nonlocal begun
            if not refused:  # else what the route makes of the broken-off body is of no interest to anybody
                begun = True
                await send(message)

        try:
            await self._app(scope, count, answer)
        except ClientDisconnect:
            if not refused:
                raise


def body_too_large(limit: int) -> PayloadTooLarge:
    """The error for a body of more than ``limit`` bytes."""
    return PayloadTooLarge(
        Text("The request has more than {limit:.0f} MiB, which is the limit.", limit=limit / (1 << 20)),
        Text("Upload large files as datasets."),
    )


class SignInPage:
    """Answers for the page in place of gradio where the guard knows nobody.

    Gradio's own login form knows only user and password; with another way in it answers a bare 401.

    Args:
        app: what is behind it.
        guard: knows who may come in.
        address: of the Space outside the hub's frame.
    """

    def __init__(self, app: ASGIApp, guard: Guard, address: str) -> None:
        self._app, self._guard, self._address = app, guard, address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Show the page, or let the request pass."""
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


async def _refuse(
    scope: Scope, receive: Receive, send: Send, error: StudioError, headers: dict[str, str] | None = None
) -> None:
    """Answer with an error; a websocket, of which the studio has none, is closed."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    await error_answer(HTTPConnection(scope), error, {**CLOSE, **(headers or {})})(scope, receive, send)


def host_name(host: str) -> str:
    """The name in a Host header, in lower case and without the port; empty where there is none."""
    found = HOST.fullmatch(host)
    return (found[1] or found[2]).lower() if found else ""
