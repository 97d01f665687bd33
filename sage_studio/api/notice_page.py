"""Pages for people who may not use the studio: they say why, and what to do about it.

A Space is on the public internet. One without a login would let anybody train on it and read its data; one that
merely ends looks broken, with the reason in a log that nobody thinks of. `serve_closed` answers in its place.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import uvicorn
from markupsafe import Markup
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from sage_studio.api.guard import FAILURES, REFILL_SECONDS
from sage_studio.errors import StudioError
from sage_studio.settings import PREFIX, Settings
from sage_studio.text import TAGS, Language, Text, language_of

OWN_TAB = Text("Open the studio in its own tab")
OWN_TAB_REASON = Text(
    "The page on huggingface.co shows the studio in a frame. Safari and private windows refuse the login cookie there, "
    "and the login then comes back again and again. In its own tab it works."
)
CLOSED = Text("SAGE Studio is not open yet")
REMEDIES = (
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
FAILED_LOGINS = Text(
    "After {failures} failed logins every further attempt has to wait {seconds:g} s.",
    failures=FAILURES,
    seconds=REFILL_SECONDS,
)
STYLE = """
:root { color-scheme: light dark; --line: #d4d4d8; --quiet: #52525b; --button: #1d4ed8; }
@media (prefers-color-scheme: dark) { :root { --line: #3f3f46; --quiet: #a1a1aa; --button: #3b5fd9; } }
body { font: 15px/1.6 system-ui, sans-serif; margin: 0; }
main { max-width: 36rem; margin: 12vh auto 0; padding: 0 1.25rem; }
h1 { font-size: 1.25rem; margin: 0 0 1rem; }
p { margin: 0 0 1rem; }
.quiet { color: var(--quiet); border-top: 1px solid var(--line); padding-top: 1rem; margin-top: 1.5rem; }
.button { display: inline-block; background: var(--button); color: #fff; text-decoration: none; padding: .5rem 1rem;
  border-radius: 4px; }
code { font-size: .92em; overflow-wrap: anywhere; }
"""


@dataclass(frozen=True)
class Link:
    """A way on from the page; ``button`` for the one that a person is meant to take."""

    where: str
    label: Text
    button: bool = False


def notice_page(title: Text, lines: Sequence[Text], links: Sequence[Link], address: str, language: Language) -> str:
    """The page's HTML.

    Args:
        title: what it is about.
        lines: a paragraph each.
        links: ways on.
        address: of the Space outside the hub's frame; empty where there is none.
        language: of the words.
    """
    message = Markup().join(Markup("<p>{}</p>").format(line.in_(language)) for line in lines)
    ways = Markup().join(
        Markup('<p><a href="{}"{}>{}</a></p>').format(
            link.where, Markup(' class="button"') if link.button else "", link.label.in_(language)
        )
        for link in links
    )
    outside = Markup('<p class="quiet">{}</p>').format(own_tab(address, language)) if address else ""
    return str(
        Markup(
            '<!doctype html><html lang="{}"><head><meta charset="utf-8"><title>SAGE Studio</title>'
            '<meta name="viewport" content="width=device-width, initial-scale=1"><style>{}</style></head>'
            "<body><main><h1>{}</h1>{}{}{}</main></body></html>"
        ).format(TAGS.get(language, language), Markup(STYLE), title.in_(language), message, ways, outside)
    )


def login_note(address: str, language: Language) -> Markup:
    """What stands above gradio's login form, which says nothing when a login is refused for the sake of its number.

    Args:
        address: of the Space outside the hub's frame; empty where there is none.
        language: of the words.
    """
    lead = own_tab(address, language) + Markup("<br>") if address else Markup()
    return lead + FAILED_LOGINS.in_(language)


def own_tab(address: str, language: Language) -> Markup:
    """The link that leaves the hub's frame, and why one may need it."""
    return Markup('<a href="{}" target="_blank" rel="noopener">{} ↗</a><br>{}').format(
        address, OWN_TAB.in_(language), OWN_TAB_REASON.in_(language)
    )


def serve_closed(settings: Settings, reason: StudioError) -> None:
    """Answer at the studio's address until SIGINT or SIGTERM."""
    uvicorn.run(closed_app(reason), host=settings.host, port=settings.port, log_level="warning")


def closed_app(reason: StudioError) -> Starlette:
    """The page at ``/``; 503 with the reason for every other path and method."""

    async def page(request: Request) -> Response:
        language = language_of(request.headers.get("accept-language"))
        lines = [reason.message, *REMEDIES]
        return HTMLResponse(notice_page(CLOSED, lines, [], "", language), headers={"Cache-Control": "no-store"})

    async def refuse(request: Request) -> Response:
        language = language_of(request.headers.get("accept-language"))
        message = {"code": reason.code, "message": reason.message.in_(language), "hint": reason.hint.in_(language)}
        return JSONResponse({"detail": message}, status_code=503)

    app = Starlette()
    app.add_route("/", page, methods=["GET"])  # and HEAD
    methods = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
    app.add_route("/{path:path}", refuse, methods=methods)
    return app
