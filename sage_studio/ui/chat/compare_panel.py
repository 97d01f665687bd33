"""The Chat tab's comparison: one message to several models, their answers side by side."""

import random
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import gradio as gr
from markupsafe import Markup

from sage_studio.errors import Conflict
from sage_studio.evaluation.arena import MOST, Reply
from sage_studio.serving.types import ChatMessage
from sage_studio.text import Language, Text
from sage_studio.ui.chat.compare_view import VOTE_JS, Round, columns, standings_table, welcome
from sage_studio.ui.components.composer import composer
from sage_studio.ui.components.events import follow, on
from sage_studio.ui.components.html import html
from sage_studio.ui.components.page_context import PageContext
from sage_studio.ui.components.picker import Picker
from sage_studio.ui.components.table import picked_key

PAUSE_SECONDS = 0.1
"""Between two pictures of the columns: no eye reads faster, and each is sent whole."""


class ComparePanel:
    """Columns, votes and a line to write in.

    Attributes:
        models, blind: stand in the Chat tab's toolbar; who is asked, and whether the names are hidden.
        box: all the rest.
    """

    def __init__(self, context: PageContext) -> None:
        self.context, self.studio, self.words = context, context.studio, context.words

    def choose(self) -> None:
        """Make the inputs of the toolbar."""
        words = self.words
        self.models = words(
            Picker,
            label=Text("Models to compare (2–4)"),
            choices=[],
            value=[],
            multiselect=True,
            max_choices=MOST,
            visible=False,
            scale=5,
            min_width=240,
            elem_id="compare-models",
        )
        self.blind = words(
            gr.Checkbox,
            label=Text("Blind: shuffle, names after the vote"),
            value=False,
            visible=False,
            container=False,
            scale=0,
            min_width=200,
            elem_id="compare-blind",
            elem_classes="switch",
        )

    def build(self, settings: list[Any]) -> None:
        """Make the panel, and hang everything up.

        Args:
            settings: the inputs for system prompt, temperature and longest answer.
        """
        with gr.Column(visible=False, elem_id="compare-box") as self.box:
            self.columns = html("compare-columns", VOTE_JS)
            self._compose()
            self.tally = html("compare-tally")
        self.round = gr.State(None)
        self._wire(settings)

    def _compose(self) -> None:
        with gr.Row(elem_classes="toolbar compose"):
            self.line = composer(self.words, "compare", Text("Message to all of them"))

    def _wire(self, settings: list[Any]) -> None:
        context, shown = self.context, [self.round, self.columns]
        asked = on(
            [self.line.message.submit, self.line.send.click],
            self.ask,
            [self.line.message, self.models, self.blind, *settings],
            [self.line.message, *shown],
            reveals="compare-columns",
            concurrency_limit=None,
        )
        on(self.line.stop.click, self.stopped, self.round, shown, cancels=[asked], queue=False)
        on(self.columns.select, self.vote, [context.revision, self.round], [context.revision, *shown])
        on(context.page.load, self.show_nothing, None, self.columns, queue=False)
        follow([context.page.load, context.revision.change], self.show_tally, [], [self.tally])

    # Handlers

    def ask(
        self,
        language: Language,
        message: str,
        models: list[str],
        blind: bool,
        system: str,
        temperature: float,
        max_tokens: int,
    ) -> Iterator[tuple[str, Round, Markup]]:
        """Stream all answers; in a blind comparison in a random order."""
        order = random.sample(models, len(models)) if blind else models
        first: list[ChatMessage] = [{"role": "system", "content": system.strip()}] if system.strip() else []
        messages: list[ChatMessage] = [*first, {"role": "user", "content": message.strip()}]
        pieces = self.studio.chat.compare(messages, order, temperature=temperature, max_tokens=int(max_tokens))
        shown = Round(message.strip(), tuple(Reply(name) for name in order), blind)
        yield "", shown, columns(shown, language)
        painted = 0.0
        for piece in pieces:
            replies = (*shown.replies[: piece.column], piece.reply, *shown.replies[piece.column + 1 :])
            shown = replace(shown, replies=replies)
            if time.monotonic() - painted > PAUSE_SECONDS:
                painted = time.monotonic()
                yield "", shown, columns(shown, language)
        yield "", shown, columns(shown, language)

    def stopped(self, language: Language, shown: Round | None) -> tuple[Round | None, Markup]:
        """What was said so far stays."""
        if shown is None:
            return None, welcome(language)
        over = shown if all(reply.is_over for reply in shown.replies) else replace(shown, stopped=True)
        return over, columns(over, language)

    def vote(self, language: Language, revision: int, shown: Round, event: gr.EventData) -> tuple[int, Round, Markup]:
        """Keep a vote, and show who is who."""
        place = int(picked_key(event))
        if not shown.takes_votes or not -1 <= place < len(shown.replies):
            raise Conflict(Text("This comparison has been voted on."))
        names = [reply.asked for reply in shown.replies if reply.done]
        self.studio.chat.vote(shown.message, names, shown.replies[place].asked if place >= 0 else "")
        voted = replace(shown, vote=place)
        return revision + 1, voted, columns(voted, language)

    def show_nothing(self, language: Language) -> Markup:
        """What this place is for, before the first question."""
        return welcome(language)

    def show_tally(self, language: Language) -> tuple[Markup]:
        """How the models stand."""
        return (standings_table(self.studio.chat.standings(), language),)
