"""What is said of a run before it starts: the memory it would take, what lowers it, and how to start it elsewhere.

Knows how an estimate looks. Knows no rule about it: sizes, remedies and remarks are the house's.
"""

import functools
import json
import time
from typing import Any

import gradio as gr
from markupsafe import Markup

from sage_studio.errors import StudioError
from sage_studio.forecast import GIB, Forecast
from sage_studio.text import Language, Text
from sage_studio.training.recipes import RECIPES
from sage_studio.ui import commands
from sage_studio.ui.events import follow, on
from sage_studio.ui.form import given
from sage_studio.ui.format import COPY, COPY_ICON, bar
from sage_studio.ui.frame import Frame
from sage_studio.ui.parts import COPY_JS, html, quiet
from sage_studio.ui.table import picked_key

FRESH_SECONDS = 4
CHANGES_JS = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-changes]');
  if (button) trigger('select', {key: button.dataset.changes});
});
"""
MEMORY = Text("Memory", "内存")
OF = Text("{} of {} GB", "需 {} GB，可用 {} GB")
FITS, TOO_MUCH = Text("fits", "够用"), Text("does not fit", "不够")
ESTIMATING = Text("estimating what it takes …", "正在估算…")
LAST_TIME = Text("last time {} GB", "上次实测 {} GB")
MAKE_IT_FIT = Text("What makes it fit:", "可以这样调整：")
NOTHING_HELPS = Text("No smaller setting makes it fit; choose a smaller model.", "调小设置也不够，请选择更小的模型。")
ELSEWHERE = Text("The same run as a command", "用命令运行")
PARTS = {
    "context": Text("libraries", "运行库"),
    "weights": Text("weights", "权重"),
    "adapter": Text("adapter", "适配器"),
    "gradients": Text("gradients", "梯度"),
    "optimizer": Text("optimizer", "优化器"),
    "activations": Text("activations", "激活"),
}
NAMES = ("Shell", "gradio_client", "curl")


class BeforePanel:
    """Stands between the form and its Start button; ``inputs`` are the form's, by field."""

    def __init__(self, frame: Frame, method: gr.Radio, inputs: dict[str, Any]) -> None:
        self.studio, self.names = frame.studio, list(inputs)
        self.memory = html("train-memory", CHANGES_JS)
        with frame.words(gr.Accordion, label=ELSEWHERE, open=False, elem_id="train-elsewhere"):
            self.commands = html("train-commands", COPY_JS)
        fields = [inputs[name] for name in self.names]
        self._remembered = functools.lru_cache(maxsize=64)(self._line)
        follow(
            [*frame.ticks, method.change, *(field.change for field in fields)],
            self.show,
            [method, *fields],
            [self.memory, self.commands],
        )
        on(self.memory.select, self.change, None, fields, queue=False)

    def show(self, language: Language, method: str, *values: Any) -> tuple[Markup, Markup]:
        """The memory line and the commands for what the form holds now."""
        filled = given(RECIPES[method], self.names, values)
        asked = json.dumps({"type": method, **filled})
        line = self._remembered(language, asked, int(time.time() // FRESH_SECONDS))
        return line, commands_view(self.studio.settings, method, filled, language)

    def change(self, _: Language, event: gr.EventData) -> list[Any]:
        """Take over the changes that a person picked."""
        changes = json.loads(picked_key(event))
        return [gr.update(value=changes[name]) if name in changes else gr.skip() for name in self.names]

    def _line(self, language: Language, asked: str, _: int) -> Markup:
        """What is wrong with the form is said here quietly: a person may still be filling it in."""
        try:
            forecast = self.studio.known_estimate(json.loads(asked))
        except StudioError as error:
            return Markup('<p class="quiet">{}</p>').format(error.message.in_(language))
        if forecast is None:
            return Markup('<p class="quiet">{}: {}</p>').format(MEMORY.in_(language), ESTIMATING.in_(language))
        return forecast_view(forecast, language)


def forecast_view(forecast: Forecast, language: Language) -> Markup:
    """``memory 4.1 of 6.0 GB ▓▓▓░ fits``, the parts on hover; what would make it fit as buttons."""
    memory, total = forecast.memory, forecast.memory.total
    said = (FITS if forecast.fits else TOO_MUCH).in_(language)
    parts = " · ".join(f"{name.in_(language)} {_gb(getattr(memory, key))}" for key, name in PARTS.items())
    percent = 100 * total / forecast.free if forecast.free > 0 else 100.0
    line = Markup('<p class="estimate" title="{}"><span>{} {}</span>{}<b class="{}">{}</b></p>').format(
        parts,
        MEMORY.in_(language),
        OF.in_(language).format(_gb(total), _gb(forecast.free)),
        bar(percent, said, "done" if forecast.fits else "failed"),
        "done" if forecast.fits else "failed",
        said,
    )
    before = quiet(LAST_TIME.in_(language).format(_gb(forecast.measured))) if forecast.measured else Markup()
    remarks = (forecast.serving.said, *forecast.remarks)
    said_too = [Markup('<p class="quiet">{}</p>').format(remark.in_(language)) for remark in remarks]
    return line + before + remedies_view(forecast, language) + Markup().join(said_too)


def remedies_view(forecast: Forecast, language: Language) -> Markup:
    """A button for each change that makes it fit."""
    if forecast.fits:
        return Markup()
    if not forecast.remedies:
        return Markup('<p class="quiet">{}</p>').format(NOTHING_HELPS.in_(language))
    buttons = Markup().join(
        Markup('<button type="button" class="button" data-changes="{}">{} · {} GB</button>').format(
            json.dumps(remedy.changes), remedy.label.in_(language), _gb(remedy.total)
        )
        for remedy in forecast.remedies
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
            '<div class="command"><h3>{0} <button type="button" class="copy" data-copy="{1}" aria-label="{2} {0}">{3}'
            "</button></h3><pre>{1}</pre></div>"
        ).format(name, text, COPY.in_(language), COPY_ICON)
        for name, text in zip(NAMES, texts, strict=True)
    )


def _gb(size: float) -> str:
    return f"{size / GIB:.1f}"
