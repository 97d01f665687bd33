"""Model search on the hub from the Train form: results fill the model field.

Where the hub does not answer, a quiet line says so.
"""

from typing import Any

import gradio as gr
from markupsafe import Markup

from sage_studio.errors import HubUnavailable
from sage_studio.hub import HubModel
from sage_studio.text import Language, Text
from sage_studio.training.recipes import RECIPES
from sage_studio.ui.components.events import on
from sage_studio.ui.components.format import compact
from sage_studio.ui.components.html import html
from sage_studio.ui.components.page_context import PageContext

TITLE = Text("Search Hugging Face for a model")
NAME = Text("Part of its name")
EXAMPLE = Text("for example qwen3 or owner/name")
SEARCH = Text("Search")
RESULTS = Text("Found on the hub")
NONE = Text("No model of this kind has “{}” in its name.")
MORE = Text("Type at least two letters.")
FOUND = Text("{} found, the most used first. Pick one to use it.")
GATED = Text("needs an agreement")


class ModelSearch:
    """A folded search; a pick goes into ``model``, the form's model field."""

    def __init__(self, context: PageContext, method: gr.Radio, model: Any) -> None:
        self.studio, words = context.studio, context.words
        with words(gr.Accordion, label=TITLE, open=False, elem_id="model-search"):
            with gr.Row():
                text = words(gr.Textbox, label=NAME, placeholder=EXAMPLE, elem_id="model-search-text", scale=4)
                button = words(gr.Button, value=SEARCH, elem_id="model-search-button", scale=1, min_width=90)
            self.note = html("model-search-note")
            results = words(
                gr.Radio, label=RESULTS, choices=[], value=None, visible=False, elem_id="model-search-results"
            )
        on([button.click, text.submit], self.find, [text, method], [results, self.note])
        on(results.input, take, results, model, queue=False)

    def find(self, language: Language, text: str, method: str) -> tuple[Any, Markup]:
        """Ask the hub."""
        text = text.strip()
        if len(text) < 2:
            return gr.update(choices=[], visible=False), quiet_line(MORE.in_(language))
        try:
            found = self.studio.models.search(text, RECIPES[method].model_task)
        except HubUnavailable as error:
            return gr.update(choices=[], visible=False), quiet_line(error.say(language))
        if not found:
            return gr.update(choices=[], visible=False), quiet_line(NONE.in_(language).format(text))
        choices = [(described(each, language), each.name) for each in found]
        return gr.update(choices=choices, value=None, visible=True), quiet_line(FOUND.in_(language).format(len(found)))


def take(_: Language, name: str) -> Any:
    """Fill in the model field."""
    return gr.update(value=name) if name else gr.skip()


def described(model: HubModel, language: Language) -> str:
    """``Qwen/Qwen3-4B · 4.0 B · needs an agreement``."""
    size = compact(model.parameters).replace(" G", " B") if model.parameters else ""
    return " · ".join(part for part in (model.name, size, GATED.in_(language) if model.gated else "") if part)


def quiet_line(text: str) -> Markup:
    """A remark that does not call."""
    return Markup('<p class="quiet" role="status">{}</p>').format(text)
