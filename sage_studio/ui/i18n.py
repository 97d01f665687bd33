"""Chinese or English: which one a request wants, and every label of the page in it.

One mechanism for all words. The language of a request is the person's explicit choice (a cookie) or else the browser's
``Accept-Language``; the server says every word in it, the labels once when a page loads and the changing texts whenever
they change. So labels, tables, hints and errors cannot disagree. Gradio's own ``gr.I18n`` is not used: it follows the
browser only, cannot be switched, and takes a plain ``zh`` for English.

Knows nothing of what the words mean.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import gradio as gr
from gradio.blocks import Block

from sage_studio.text import Language, Text, language_of

COOKIE = "sage_studio_language"
DEFAULT: Language = "en"
"""What a page says in the instant before it has loaded."""

SWITCH_JS = (
    f"(language) => {{ document.cookie = `{COOKIE}=${{language}}; path=/; max-age=31536000; samesite=lax`;"
    " location.reload(); }"
)
"""Remembers a choice of language for a year and shows the page in it."""

B = TypeVar("B", bound=Block)


def requested_language(cookies: Mapping[str, str], headers: Mapping[str, str]) -> Language:
    """The person's explicit choice, else the browser's language."""
    chosen = cookies.get(COOKIE)
    if chosen == "zh":
        return "zh"
    return "en" if chosen == "en" else language_of(headers.get("accept-language"))


class Phrasebook:
    """Remembers which property of which component is a `Text`, to say all of them in one language.

    Example:
        >>> words = Phrasebook()
        >>> with gr.Blocks():
        ...     button = words(gr.Button, value=Text("Stop", "停止"), variant="stop")
        >>> words.updates("zh")[0]["value"]
        '停止'
    """

    def __init__(self) -> None:
        self.components: list[Block] = []
        self._texts: list[dict[str, Any]] = []

    def __call__(self, component: Callable[..., B], **properties: Any) -> B:
        """Make a component; each property that is a `Text`, or holds some as choices, is translated from now on."""
        texts = {name: value for name, value in properties.items() if _has_text(value)}
        made = component(**{**properties, **{name: said(value, DEFAULT) for name, value in texts.items()}})
        if texts:
            self.components.append(made)
            self._texts.append(texts)
        return made

    def updates(self, language: Language) -> list[dict[str, Any]]:
        """One update for each of `components`, in their order."""
        return [gr.update(**{name: said(value, language) for name, value in texts.items()}) for texts in self._texts]


def said(value: Any, language: Language) -> Any:
    """A `Text`, or a list of ``(Text, value)`` choices, in one language."""
    if isinstance(value, Text):
        return value.in_(language)
    return [(label.in_(language), choice) if isinstance(label, Text) else (label, choice) for label, choice in value]


def _has_text(value: Any) -> bool:
    if isinstance(value, list):
        return any(isinstance(item, tuple) and item and isinstance(item[0], Text) for item in value)
    return isinstance(value, Text)
