"""The Dataset tab's mixing: several datasets as one, with a weight and a cap each."""

from typing import Any

import gradio as gr
from gradio.components import Component

from sage_studio.text import Language, Text
from sage_studio.ui.components.events import on
from sage_studio.ui.components.format import count
from sage_studio.ui.components.html import FIRST_DATASET, Lead, empty, html, quiet
from sage_studio.ui.components.page_context import PageContext
from sage_studio.ui.components.picker import Picker

SLOTS = 6
NONE = Text("none")
EXPLAINED = Text(
    "Weight 1 takes every row once, 0.5 a random half, 2 every row twice; a cap of 0 is none. Each row of the result "
    "names the dataset and the row it came from."
)


NONE_YET, ONE_MORE = (
    Text("Nothing to combine yet"),
    Text("One more is needed"),
)
WHAT = Text(
    "Here you mix datasets into one, each with its weight: a task of your own with general questions, for example. "
    "It takes at least two."
)
ANOTHER = Lead(Text("Get another dataset"), "dataset-source", "dataset")


class CombinePanel:
    """Slots, each with a dataset, its weight and its cap; the next one shows when one is filled."""

    def __init__(self, context: PageContext) -> None:
        self.context, self.studio, self.words = context, context.studio, context.words
        self.note = html("combine-note")
        self.boxes: list[gr.Row] = []
        self.slots: list[Component] = []
        with gr.Column(visible=False) as self.box:
            self._order()
        self._wire()

    def _order(self) -> None:
        for slot in range(SLOTS):
            self._slot(slot)
        words = self.words
        with gr.Row(elem_classes="toolbar"):
            self.name = words(
                gr.Textbox,
                value="combined",
                label=Text("Name"),
                max_lines=1,
                scale=3,
                min_width=160,
                elem_id="combine-name",
            )
            self.seed = words(
                gr.Number,
                value=42,
                precision=0,
                label=Text("Seed"),
                scale=1,
                min_width=100,
                elem_id="combine-seed",
            )
            self.shuffle = words(
                gr.Checkbox,
                value=True,
                label=Text("Shuffle"),
                container=False,
                scale=0,
                min_width=100,
                elem_id="combine-shuffle",
                elem_classes="switch",
            )
            self.combine = words(
                gr.Button,
                value=Text("Combine"),
                variant="primary",
                scale=0,
                min_width=100,
                elem_id="combine-start",
            )

    def _slot(self, slot: int) -> None:
        words = self.words
        with gr.Row(visible=slot < 2, elem_classes="toolbar") as box:
            which = words(
                Picker,
                label=Text("Dataset"),
                choices=[(NONE, "")],
                value="",
                scale=4,
                min_width=180,
                elem_id=f"combine-dataset-{slot + 1}",
            )
            weight = words(
                gr.Number,
                label=Text("Weight"),
                value=1,
                minimum=0,
                step=0.1,
                scale=1,
                min_width=90,
                elem_id=f"combine-weight-{slot + 1}",
            )
            cap = words(
                gr.Number,
                label=Text("Cap"),
                value=0,
                minimum=0,
                precision=0,
                scale=1,
                min_width=90,
                elem_id=f"combine-cap-{slot + 1}",
            )
        self.boxes.append(box)
        self.slots += [which, weight, cap]

    def _wire(self) -> None:
        context, pickers = self.context, self.slots[::3]
        renew = [context.page.load, context.dataset.change, context.revision.change]
        on(renew, self.renew, pickers, [self.note, self.box, *pickers], queue=False)
        on([picker.change for picker in pickers], show_slots, pickers, self.boxes, queue=False)  # type: ignore[attr-defined]
        on(
            self.combine.click,
            self.begin,
            [self.name, self.seed, self.shuffle, *self.slots],
            context.dataset,
            show_progress="minimal",
        )

    # Handlers

    def renew(self, language: Language, *picked: str) -> list[Any]:
        """The datasets there are, what was picked kept."""
        known = [
            (f"{item.name} v{item.version} · {count(item.stats.total_samples)}", item.id)
            for item in self.studio.datasets.list()
        ]
        ids = [key for _, key in known]
        choices = [(NONE.in_(language), ""), *known]
        updates = [gr.update(choices=choices, value=each if each in ids else "") for each in picked]
        if len(known) < 2:
            title, lead = (ONE_MORE, ANOTHER) if known else (NONE_YET, FIRST_DATASET)
            return [empty(title.in_(language), WHAT.in_(language), lead, language), gr.update(visible=False), *updates]
        return [quiet(EXPLAINED.in_(language)), gr.update(visible=True), *updates]

    def begin(self, _: Language, name: str, seed: float, shuffle: bool, *slots: Any) -> str:
        """Make one dataset of them, and look at it."""
        portions = [
            {"dataset_id": which, "weight": weight, "cap": cap or 0}
            for which, weight, cap in zip(slots[::3], slots[1::3], slots[2::3], strict=True)
            if which
        ]
        return self.studio.datasets.combine(portions, name.strip(), int(seed or 0), shuffle).id


def show_slots(_: Language, *picked: str) -> list[Any]:
    """Those that are filled, and one more; never fewer than two."""
    filled = max((at + 1 for at, each in enumerate(picked) if each), default=0)
    return [gr.update(visible=at < max(filled + 1, 2)) for at in range(len(picked))]
