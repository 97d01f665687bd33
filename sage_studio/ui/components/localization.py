"""English or Chinese: the language of a request, and every label of the page in it.

One mechanism for all words. The language of a request is the person's explicit choice (a cookie) or else the
browser's ``Accept-Language``; the server says every word in it, the labels in the page that it serves and the
changing texts whenever they change. So labels, tables, hints and errors cannot disagree. Gradio's own ``gr.I18n`` is
not used: it follows the browser only, cannot be switched, and takes a plain ``zh`` for English.
"""

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any, TypeVar

import gradio as gr
from gradio.blocks import Block
from gradio.data_classes import BlocksConfigDict
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from sage_studio.text import LANGUAGES, Language, Text, language_of

COOKIE = "sage_studio_language"
DEFAULT: Language = "en"
"""What is said where nobody asks."""

ASKED: ContextVar[Language] = ContextVar("ASKED", default=DEFAULT)
"""The language of the HTTP request that is being answered."""

SWITCH_JS = (
    f"(language) => {{ document.cookie = `{COOKIE}=${{language}}; path=/; max-age=31536000; samesite=lax`;"
    " location.reload(); }"
)
"""Remembers a choice of language for a year and shows the page in it."""

B = TypeVar("B", bound=Block)


def requested_language(cookies: Mapping[str, str], headers: Mapping[str, str]) -> Language:
    """The person's explicit choice, else the browser's language."""
    chosen = cookies.get(COOKIE)
    return chosen if chosen in LANGUAGES else language_of(headers.get("accept-language"))


class RequestLanguage:
    """ASGI middleware that notes a request's language in `ASKED`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            asked = HTTPConnection(scope)
            ASKED.set(requested_language(asked.cookies, asked.headers))
        await self._app(scope, receive, send)


class LabelRegistry:
    """Remembers which property of which component is a `Text`, to say all of them in one language.

    Example:
        >>> words = LabelRegistry()
        >>> with LocalizedBlocks(words) as page:
        ...     button = words(gr.Button, value=Text("Stop"), variant="stop")
        >>> words.say(page.config, "zh")["components"][0]["props"]["value"]
        '停止'
    """

    def __init__(self) -> None:
        self._texts: dict[int, dict[str, Any]] = {}

    def __call__(self, component: Callable[..., B], **properties: Any) -> B:
        """Make a component; each property that is a `Text`, or holds some as choices, is translated from now on."""
        texts = {name: value for name, value in properties.items() if _has_text(value)}
        made = component(**{**properties, **{name: localized(value, DEFAULT) for name, value in texts.items()}})
        if texts:
            self._texts[made._id] = texts
        return made

    def say(self, config: BlocksConfigDict, language: Language) -> BlocksConfigDict:
        """A page's configuration, as Gradio makes it for the browser, in a language; the given one stays as it is."""
        if language == DEFAULT:
            return config
        return {**config, "components": [self._say_component(each, language) for each in config["components"]]}

    def _say_component(self, component: dict[str, Any], language: Language) -> dict[str, Any]:
        texts = self._texts.get(component["id"], {})
        return {
            **component,
            "props": component["props"] | {name: localized(text, language) for name, text in texts.items()},
        }


class LocalizedBlocks(gr.Blocks):
    """Blocks that a browser gets with every label in the language it asks for.

    Updates after the load would do it too, but the browser looks through the whole page for each of them: 200 labels
    took it seconds.
    """

    def __init__(self, words: LabelRegistry, **options: Any) -> None:
        self._words = words
        super().__init__(**options)

    @property
    def config(self) -> BlocksConfigDict:
        """What the browser builds the page from."""
        return self._words.say(self._config, ASKED.get())

    @config.setter
    def config(self, made: BlocksConfigDict) -> None:
        self._config = made


def localized(value: Any, language: Language) -> Any:
    """A `Text`, or a list of ``(Text, value)`` choices, in one language."""
    if isinstance(value, Text):
        return value.in_(language)
    return [(label.in_(language), choice) if isinstance(label, Text) else (label, choice) for label, choice in value]


def _has_text(value: Any) -> bool:
    if isinstance(value, list):
        return any(isinstance(item, tuple) and item and isinstance(item[0], Text) for item in value)
    return isinstance(value, Text)
