"""Who may use the REST routes, by cookie, the hub's session, Basic or Bearer credentials and the Origin header."""

import base64
import binascii
import secrets
from urllib.parse import urlsplit

from fastapi import HTTPException, Request

from sage_studio.api.errors import NOT_LOGGED_IN, request_language
from sage_studio.api.hub_login import HubLogin
from sage_studio.errors import NotAllowed
from sage_studio.settings import PREFIX
from sage_studio.text import Text

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
REALM = {"WWW-Authenticate": 'Basic realm="SAGE Studio"'}


class Guard:
    """A dependency of every own route.

    Gradio's ``auth`` guards only Gradio's routes, so this checks its login cookie, or for scripts the same user and
    password: by HTTP Basic, or as the Bearer key ``user:password``, which is all that OpenAI's clients can send. It
    also refuses changes asked for by another site's page.

    Args:
        credentials: user and password, or None where they open nothing.
        hub: who may come in with an account on the hub; None where nobody can sign in so.
    """

    def __init__(self, credentials: tuple[str, str] | None, hub: HubLogin | None = None) -> None:
        self._credentials = credentials
        self._hub = hub

    def __call__(self, request: Request) -> None:
        """Raise `NotAllowed` or HTTP 401 unless the caller may proceed.

        A person signed in on the hub but not on the list is told so.
        """
        if request.method not in SAFE_METHODS and _is_cross_site(request):
            raise NotAllowed(
                Text("A page of another site asked for this change."),
                Text("Use the studio's own page, or a script."),
            )
        if not self.needs_login or self.user_of(request) is not None:
            return
        if (name := self.hub_name(request)) is not None:
            raise NotAllowed(
                Text("{name} is not on this Space's list.", name=name),
                Text("Its owner can add the name to {prefix}ALLOWED_USERS.", prefix=PREFIX),
            )
        language = request_language(request)
        detail = {"code": NOT_LOGGED_IN, "message": LOGIN.in_(language), "hint": LOGIN_HINT.in_(language)}
        raise HTTPException(401, detail=detail, headers=REALM)

    @property
    def needs_login(self) -> bool:
        """Whether a login is needed."""
        return self._credentials is not None or self._hub is not None

    def user_of(self, request: Request) -> str | None:
        """Who asks, if they may come in; None for a stranger. Fit to be gradio's ``auth_dependency``."""
        name = self.hub_name(request)
        if self._hub is not None and self._hub.admits(name):
            return name
        if self._credentials is not None and (_gradio_user(request) or self._knows(request)):
            return self._credentials[0]
        return None

    def hub_name(self, request: Request) -> str | None:
        """The name on the hub of who asks, on the list or not; None where nobody has signed in there."""
        return self._hub.signed_in(request) if self._hub is not None else None

    def _knows(self, request: Request) -> bool:
        scheme, _, sent = request.headers.get("authorization", "").partition(" ")
        given = _read(scheme.lower(), sent)
        if given is None or self._credentials is None:
            return False
        return secrets.compare_digest(given, ":".join(self._credentials).encode())


LOGIN = Text("Login is required.")
LOGIN_HINT = Text("Log in on the page, or send user and password with HTTP Basic, or user:password as the Bearer key.")


def _read(scheme: str, sent: str) -> bytes | None:
    """``user:password`` as it was sent; None where it cannot be read."""
    if scheme == "bearer":
        return sent.encode()
    if scheme != "basic":
        return None
    try:
        return base64.b64decode(sent, validate=True)
    except (binascii.Error, ValueError):
        return None


def _is_cross_site(request: Request) -> bool:
    site = request.headers.get("sec-fetch-site")
    if site in ("same-origin", "cross-site"):  # said by the browser itself, whatever a proxy makes of the Host header
        return site == "cross-site"
    origin = request.headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != request.headers.get("host", "")


def _gradio_user(request: Request) -> bool:
    app = request.app
    names = (f"access-token-{app.cookie_id}", f"access-token-unsecure-{app.cookie_id}")
    return any(request.cookies.get(name) in app.tokens for name in names)
