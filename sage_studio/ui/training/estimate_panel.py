"""Estimate before a run: its time and memory, what lowers them, how to start it elsewhere."""

import functools
import json
import time
from typing import Any

import gradio as gr
from markupsafe import Markup

from sage_studio.errors import InvalidRecipe, StudioError
from sage_studio.services.estimates import GIB, Estimate
from sage_studio.text import Language, Text
from sage_studio.training.duration import Basis, Duration
from sage_studio.training.recipes import RECIPES
from sage_studio.training.recipes.base import CHOOSE_DATASET
from sage_studio.ui.components.events import follow, on
from sage_studio.ui.components.format import COPY, COPY_ICON, about, bar, count
from sage_studio.ui.components.html import COPY_JS, html, quiet
from sage_studio.ui.components.labels import in_labels
from sage_studio.ui.components.page_context import PageContext, go_to
from sage_studio.ui.components.table import picked_key
from sage_studio.ui.training import commands
from sage_studio.ui.training.form import given

FRESH_SECONDS = 4
LONG_SECONDS = 3600.0
"""From here on a run on a CPU is offered with fewer rows."""
CHANGES_JS = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-changes]');
  if (button) trigger('select', {key: button.dataset.changes});
});
"""
GO_JS = """
element.addEventListener('click', (event) => {
  if (event.target.closest('button')) trigger('select', {});
});
"""
NEEDS = Text("Needs about {} GB · {} GB free")
FITS, TOO_MUCH = Text("fits"), Text("does not fit")
LAST_TIME = Text("Measured in the last run: {} GB")
MAKE_IT_FIT = Text("What makes it fit:")
NOTHING_HELPS = Text("No smaller setting makes it fit; choose a smaller model.")
ELSEWHERE = Text("Run from code")
GO_TO_DATASET = Text("Go to Dataset →")
TAKES, TAKES_ROUGHLY = Text("About {}"), Text("Roughly {} to {}")
SOME_ROWS, EVERY_ROW = Text("on {} of {} rows"), Text("on all {} rows")
WHOLE_ON_CPU = Text("All {} rows would take about {} on this CPU.")
WHOLE_ON_GPU = Text("All {} rows would take about {} on this GPU.")
SHORTER = Text("{} rows · about {}")
LESS_TIME = Text("To see a result sooner:")
BASES: dict[Basis, Text] = {
    "runs": Text("by earlier runs here"),
    "probe": Text("speed measured here"),
    "rough": Text("by the model's size"),
}
PARTS = {
    "context": Text("libraries"),
    "weights": Text("weights"),
    "adapter": Text("adapter"),
    "gradients": Text("gradients"),
    "optimizer": Text("optimizer"),
    "activations": Text("activations"),
}
NAMES = ("Shell", "gradio_client", "curl")


class EstimatePanel:
    """Stands between the form and its Start button, which it makes; ``inputs`` are the form's, by field."""

    def __init__(self, context: PageContext, method: gr.Radio, inputs: dict[str, Any]) -> None:
        self.studio, self.names = context.studio, list(inputs)
        self.missing = html("train-missing", GO_JS)
        self.price = html("train-price", CHANGES_JS)
        self.start = context.words(gr.Button, value=Text("Start fine-tuning"), variant="primary", elem_id="train-start")
        with context.words(gr.Accordion, label=ELSEWHERE, open=False, elem_id="train-elsewhere"):
            self.commands = html("train-commands", COPY_JS)
        fields = [inputs[name] for name in self.names]
        self._remembered = functools.lru_cache(maxsize=64)(self._lines)
        follow(
            [*context.ticks, method.change, *(field.change for field in fields)],
            self.show,
            [method, *fields],
            [self.missing, self.price, self.commands, self.start],
        )
        on(self.price.select, self.change, None, fields, queue=False)
        on(self.missing.select, go_to("dataset"), None, context.tabs, queue=False)

    def show(self, language: Language, method: str, *values: Any) -> tuple[Markup, Markup, Markup, Any]:
        """What is missing, the price, the commands for what the form holds now, and whether it can be started."""
        filled = given(RECIPES[method], self.names, values)
        asked = json.dumps({"type": method, **filled})
        missing, price = self._remembered(language, asked, int(time.time() // FRESH_SECONDS))
        elsewhere = commands_view(self.studio.settings, method, filled, language)
        return missing, price, elsewhere, gr.update(interactive=not missing)

    def change(self, _: Language, event: gr.EventData) -> list[Any]:
        """Take over the changes that a person picked."""
        changes = json.loads(picked_key(event))
        return [gr.update(value=changes[name]) if name in changes else gr.skip() for name in self.names]

    def _lines(self, language: Language, asked: str, _: int) -> tuple[Markup, Markup]:
        """What is wrong with the form is said here quietly: a person may still be filling it in."""
        try:
            values = json.loads(asked)
            estimate = self.studio.estimates.known(values)
            if estimate is None:
                return Markup(), glance_view(*self.studio.estimates.glance(values), language)
        except InvalidRecipe as error:
            if error.at_form == CHOOSE_DATASET:
                return missing_view(language), Markup()
            message = in_labels(error.say_at_form(language), language)
            return Markup(), Markup('<p class="fault">{}</p>').format(message)
        except StudioError as error:
            return Markup(), _remark(in_labels(error.say_at_form(language), language))
        return Markup(), estimate_view(estimate, language)


def missing_view(language: Language) -> Markup:
    """Without a dataset there is nothing to train on: where one comes from."""
    return Markup(
        '<div class="notice idle missing"><div>{}</div><button type="button" class="link" data-asks>{}</button></div>'
    ).format(CHOOSE_DATASET.in_(language), GO_TO_DATASET.in_(language))


def estimate_view(estimate: Estimate, language: Language) -> Markup:
    """Time, memory and what else is known, each with what would make it less."""
    taken, unknown = estimate.duration, estimate.untimed
    message = _remark(unknown.in_(language)) if unknown else Markup()
    return Markup('<div class="price">{}{}{}</div>').format(
        message if taken is None else duration_view(taken, estimate.device, language),
        memory_view(estimate, language),
        Markup().join(_remark(in_labels(remark.in_(language), language)) for remark in _remarks(estimate)),
    )


def _remarks(estimate: Estimate) -> list[Text]:
    return [remark for remark in (estimate.serving.message, *estimate.remarks) if remark]


def glance_view(taken: Duration | None, why: Text, language: Language) -> Markup:
    """A rough time, and what the estimate waits for."""
    time_line = duration_view(taken, "cpu", language) if taken is not None else Markup()
    return Markup('<div class="price">{}<p class="quiet" aria-busy="true">{}</p></div>').format(
        time_line, why.in_(language)
    )


def duration_view(taken: Duration, device: str, language: Language) -> Markup:
    """``About 3 min on 256 of 6,119 rows``, and what all of them would take; where it is long, a button for less."""
    lowest, highest = about(taken.low, language), about(taken.high, language)
    message = TAKES.in_(language).format(about(taken.seconds, language))
    if taken.basis == "rough" and lowest != highest:
        message = TAKES_ROUGHLY.in_(language).format(lowest, highest)
    total, used = count(taken.total_rows), count(taken.rows)
    rows = EVERY_ROW.in_(language).format(total) if used == total else SOME_ROWS.in_(language).format(used, total)
    line = Markup('<p class="takes" title="{} – {}"><b>{}</b> {} {}</p>').format(
        lowest, highest, message, rows, quiet("· " + BASES[taken.basis].in_(language))
    )
    if taken.all_rows is not None:
        whole = WHOLE_ON_CPU if device == "cpu" else WHOLE_ON_GPU
        line += _remark(whole.in_(language).format(total, about(taken.all_rows, language)))
    return line + shorter_view(taken, device, language)


def shorter_view(taken: Duration, device: str, language: Language) -> Markup:
    """Of a run that takes hours on a CPU: buttons that train on fewer rows."""
    if device != "cpu" or taken.seconds < LONG_SECONDS:
        return Markup()
    buttons = Markup().join(
        Markup('<button type="button" class="button" data-changes="{}">{}</button>').format(
            json.dumps({"max_samples": rows}),
            SHORTER.in_(language).format(count(rows), about(max(60.0, taken.seconds * rows / taken.rows), language)),
        )
        for rows in (64, 256, 1024)
        if rows < taken.rows / 2
    )
    return Markup('<div class="remedies"><span class="quiet">{}</span>{}</div>').format(
        LESS_TIME.in_(language), buttons
    )


def memory_view(estimate: Estimate, language: Language) -> Markup:
    """``Needs about 1.8 GB · 15.3 GB free ▓▓▓░ fits``, the parts on hover; what would make it fit as buttons."""
    memory, total = estimate.memory, estimate.memory.total
    message = (FITS if estimate.fits else TOO_MUCH).in_(language)
    parts = " · ".join(f"{name.in_(language)} {_gb(getattr(memory, key))}" for key, name in PARTS.items())
    percent = 100 * total / estimate.free if estimate.free > 0 else 100.0
    line = Markup('<div class="estimate" title="{}"><span>{}</span>{}<b class="{}">{}</b></div>').format(
        parts,
        NEEDS.in_(language).format(_gb(total), _gb(estimate.free)),
        bar(percent, message, "done" if estimate.fits else "failed"),
        "done" if estimate.fits else "failed",
        f"{message} ✓" if estimate.fits else message,
    )
    before = _remark(LAST_TIME.in_(language).format(_gb(estimate.measured))) if estimate.measured else Markup()
    return line + before + remedies_view(estimate, language)


def remedies_view(estimate: Estimate, language: Language) -> Markup:
    """A button for each change that makes it fit."""
    if estimate.fits:
        return Markup()
    if not estimate.remedies:
        return Markup('<p class="quiet">{}</p>').format(NOTHING_HELPS.in_(language))
    buttons = Markup().join(
        Markup('<button type="button" class="button" data-changes="{}">{} · {} GB</button>').format(
            json.dumps(remedy.changes), remedy.label.in_(language), _gb(remedy.total)
        )
        for remedy in estimate.remedies
    )
    return Markup('<div class="remedies"><span class="quiet">{}</span>{}</div>').format(
        MAKE_IT_FIT.in_(language), buttons
    )


def commands_view(settings: Any, method: str, filled: dict[str, Any], language: Language) -> Markup:
    """The run as a shell command, a script and a REST call, each with a button that copies it."""
    values, address = commands.chosen(RECIPES[method], filled), commands.address_of(settings)
    texts = (
        commands.command(method, values, settings),
        commands.client_script(method, values, address),
        commands.curl(method, values, address),
    )
    return Markup().join(
        Markup(
            '<div class="command"><h2 class=minor>{0} <button type="button" class="copy" data-copy="{1}"'
            ' aria-label="{2} {0}">{3}</button></h2><pre tabindex="0" aria-label="{0}">{1}</pre></div>'
        ).format(name, text, COPY.in_(language), COPY_ICON)
        for name, text in zip(NAMES, texts, strict=True)
    )


def _remark(text: str) -> Markup:
    return Markup('<p class="quiet">{}</p>').format(text)


def _gb(size: float) -> str:
    return f"{size / GIB:.1f}"
