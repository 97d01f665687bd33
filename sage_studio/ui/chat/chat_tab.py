"""The Chat tab: talk to the current model, to another registered one, or to several at once."""

from collections.abc import Iterator, Sequence
from typing import Any

import gradio as gr
from markupsafe import Markup

from sage_studio.serving.types import EngineState, EngineStatus, RegisteredModel
from sage_studio.text import Language, Text
from sage_studio.ui.chat.compare_panel import ComparePanel
from sage_studio.ui.chat.conversation import (
    ChatbotMessage,
    cleared,
    conversation,
    pending,
    reply,
    rewind,
    stopped,
    take,
    unanswered,
)
from sage_studio.ui.chat.documents_panel import DocumentsPanel, documents_of
from sage_studio.ui.components.composer import composer
from sage_studio.ui.components.events import follow, on
from sage_studio.ui.components.format import bar, short
from sage_studio.ui.components.html import html, notice, strong
from sage_studio.ui.components.labels import ENGINE_COLOUR, MODEL_KIND
from sage_studio.ui.components.page_context import PageContext
from sage_studio.ui.components.picker import Picker
from sage_studio.ui.status_bar import engine_state, start_percent

CURRENT = ""
CURRENT_MODEL = Text("Current backend")
ENGINE = Text("Inference engine")
DOWN = Text("The engine is not running. It starts by itself with your first message; the first start takes a while.")
WAITING = Text("It answers as soon as the engine is ready.")
WELCOME = Text(
    "## Talk to your model\nAsk something about what it was trained on, then switch to the base model and ask again."
)


class ChatTab:
    """Model and settings on top, the conversation below."""

    def __init__(self, context: PageContext) -> None:
        self.context, self.studio, self.words = context, context.studio, context.words
        self.compare = ComparePanel(context)
        self._choose()
        self.banner = html("chat-banner")
        with gr.Column(elem_id="chat-box") as self.box:
            self.documents = DocumentsPanel(self.context, self.model)
            self._conversation()
            self._compose()
        self.compare.build([self.system, self.temperature, self.max_tokens])
        self._wire()

    def _choose(self) -> None:
        words = self.words
        with gr.Row(elem_classes="toolbar"):
            self.model = words(
                Picker,
                label=Text("Model"),
                choices=[(CURRENT_MODEL, CURRENT)],
                value=CURRENT,
                elem_id="chat-model",
                scale=3,
                min_width=200,
            )
            self.base = words(
                gr.Button,
                value=Text("Back to the base model"),
                elem_id="chat-base",
                scale=0,
                min_width=200,
            )
            self.compare.choose()
            self.several = words(
                gr.Checkbox,
                label=Text("Compare"),
                value=False,
                container=False,
                scale=0,
                min_width=90,
                elem_id="chat-compare",
                elem_classes="switch",
            )
        self._settings()

    def _settings(self) -> None:
        words = self.words
        with words(gr.Accordion, label=Text("Settings"), open=False, elem_id="chat-settings"):
            self.system = words(
                gr.Textbox,
                value="",
                label=Text("System prompt"),
                lines=2,
                max_lines=6,
                elem_id="chat-system",
                placeholder=Text("You are a helpful assistant."),
            )
            with gr.Row(elem_classes="fields"):
                self.temperature = words(
                    gr.Slider,
                    label=Text("Temperature"),
                    info=Text("0 answers the same each time."),
                    minimum=0,
                    maximum=2,
                    value=0.7,
                    step=0.05,
                    elem_id="chat-temperature",
                    min_width=200,
                )
                self.max_tokens = words(
                    gr.Slider,
                    label=Text("Max tokens"),
                    info=Text("Longest answer."),
                    minimum=16,
                    maximum=4096,
                    value=512,
                    step=16,
                    elem_id="chat-max-tokens",
                    min_width=200,
                )

    def _conversation(self) -> None:
        self.chat = self.words(
            gr.Chatbot,
            label=Text("Conversation"),
            show_label=False,
            placeholder=WELCOME,
            height="52vh",
            buttons=["copy"],
            feedback_options=None,
            elem_id="chat-messages",
            layout="panel",
            latex_delimiters=[],
        )

    def _compose(self) -> None:
        with gr.Row(elem_classes="toolbar compose"):
            self.line = composer(self.words, "chat", Text("Message"))
            self.clear = self.words(gr.Button, value=Text("New chat"), scale=0, min_width=110, elem_id="chat-clear")

    def _wire(self) -> None:
        context = self.context
        sampling = [self.model, self.system, self.temperature, self.max_tokens, *self.documents.inputs]
        asked = on(
            [self.line.message.submit, self.line.send.click],
            take,
            [self.line.message, self.chat],
            [self.line.message, self.chat],
            queue=False,
        )
        awaited: dict[str, Any] = {
            "concurrency_limit": None,
            "show_progress_on": self.chat,
        }  # the dots until the first word
        answered = on(asked.then, self.answer, [self.chat, *sampling], self.chat, **awaited)
        again = on(self.chat.retry, rewind, self.chat, self.chat, queue=False)
        retried = on(again.then, self.answer, [self.chat, *sampling], self.chat, **awaited)
        for attempt in (answered, retried):
            on(attempt.failure, unanswered, self.chat, self.chat, queue=False)
        on(self.line.stop.click, stopped, self.chat, self.chat, cancels=[answered, retried], queue=False)
        on(self.clear.click, cleared, None, self.chat, cancels=[answered, retried], queue=False)
        on(self.base.click, self.back_to_base, context.revision, [self.model, context.revision], concurrency_limit=None)
        follow([*context.ticks], self.show_engine, [], [self.banner])
        follow([*context.ticks], self.show_models, [], [self.model, self.compare.models])
        compare = self.compare
        faces = [self.model, self.base, self.box, compare.models, compare.blind, compare.box]
        on(self.several.input, self.turn, [self.several, compare.models], faces, queue=False)

    # Handlers

    def answer(
        self,
        language: Language,
        turns: list[ChatbotMessage],
        model: str,
        system: str,
        temperature: float,
        max_tokens: int,
        from_documents: bool,
        dataset_id: str | None,
        twice: bool,
    ) -> Iterator[list[ChatbotMessage]]:
        """Stream the answer to the last turn, under it which model gave it, how fast, and from which sources."""
        yield [*turns, pending()]
        chunks = self.studio.chat.answer(
            conversation(turns, system),
            model or None,
            documents_of(from_documents, dataset_id),
            from_documents and twice,
            temperature=temperature,
            max_tokens=int(max_tokens),
        )
        text = ""
        for chunk in chunks:
            text += chunk.text
            yield [*turns, reply(text, chunk, language)]

    def turn(self, _: Language, several: bool, chosen: list[str]) -> list[Any]:
        """Show the conversation, or several models side by side; nobody chosen yet means the current and the newest."""
        models = sorted(self.studio.serving.models(), key=lambda model: (not model.current, -model.created_at))
        names = [model.name for model in models]
        picked = gr.update(visible=several, value=[name for name in chosen if name in names] or names[:2])
        single = gr.update(visible=not several)
        return [single, single, single, picked, gr.update(visible=several), gr.update(visible=several)]

    def back_to_base(self, _: Language, revision: int) -> tuple[str, int]:
        """Let the base model answer from now on."""
        self.studio.serving.use_base()
        return CURRENT, revision + 1

    def show_engine(self, language: Language) -> tuple[Markup]:
        """How far the engine is, unless it is ready."""
        return (banner(self.studio.serving.status(), language),)

    def show_models(self, language: Language) -> tuple[Any, Any]:
        """The models there are to talk to, and to compare; the choices stay."""
        models = self.studio.serving.models()
        current = next((model.name for model in models if model.current), "")
        first = CURRENT_MODEL.in_(language) + (f" · {short(current, 40)}" if current else "")
        choices = named(models, language)
        return gr.update(choices=[(first, CURRENT), *choices]), gr.update(choices=choices)


def named(models: Sequence[RegisteredModel], language: Language) -> list[tuple[str, str]]:
    """Choices of models, each with its kind."""
    return [(f"{short(model.name, 40)} · {MODEL_KIND[model.kind].in_(language)}", model.name) for model in models]


def banner(status: EngineStatus, language: Language) -> Markup:
    """The engine's state while it cannot answer; once it can, only why another engine than the chosen one does."""
    if status.state is EngineState.READY:
        return notice("waiting", status.message.in_(language)) if status.message else Markup()
    message = strong(f"{ENGINE.in_(language)} {engine_state(status, language)}")
    starting = status.state in (EngineState.STARTING, EngineState.SWITCHING)
    share = start_percent(status)
    if status.state is EngineState.DOWNLOADING and status.download is not None and status.download.total:
        starting, share = True, 100 * status.download.done / status.download.total
    shown = bar(share, ENGINE.in_(language), "running") if starting else Markup()
    more = status.message or (DOWN if status.state is EngineState.DOWN else WAITING)
    return notice(ENGINE_COLOUR[status.state], message, shown, more.in_(language))
