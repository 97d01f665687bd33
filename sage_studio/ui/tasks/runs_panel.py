"""Compares runs: the curves in one plot, and a table of the settings that differ."""

from collections.abc import Sequence
from typing import Any

import gradio as gr
from markupsafe import Markup

from sage_studio.tasks.compare import FEWEST, MOST, TaskComparison, last_loss
from sage_studio.tasks.task import Task
from sage_studio.text import Language, Text, verbatim
from sage_studio.training.recipes import RECIPES
from sage_studio.training.recipes.base import field_label
from sage_studio.ui.components.events import follow, on
from sage_studio.ui.components.format import EMPTY, duration, number, short
from sage_studio.ui.components.html import html
from sage_studio.ui.components.page_context import PageContext
from sage_studio.ui.components.picker import Picker
from sage_studio.ui.components.plots import RUN_COLOURS, loss_of_runs, runs_plot
from sage_studio.ui.components.table import Column, Row, table

CHOICES = 200
COMPARE = Text("Compare runs")
RUNS = Text("Runs")
PICK = Text("Choose {fewest} to {most} runs.", fewest=FEWEST, most=MOST)
SETTING = Text("Setting")
SAME = Text("All settings are the same.")
LOSS, TOOK, PEAK = Text("Loss"), Text("Took"), Text("Peak memory, GB")


class RunsPanel:
    """A picker of several runs, a plot and a table."""

    def __init__(self, context: PageContext) -> None:
        self.studio, words = context.studio, context.words
        with words(gr.Accordion, label=COMPARE, open=False, elem_id="runs-compare"):
            self.picker = words(
                Picker,
                label=RUNS,
                info=PICK,
                choices=[],
                multiselect=True,
                max_choices=MOST,
                elem_id="runs-picker",
            )
            self.plot = runs_plot(words, LOSS, "runs-loss", visible=False)
            self.table = html("runs-settings")
        on(
            [context.page.load, context.revision.change, context.task.change],
            self.renew,
            None,
            self.picker,
            queue=False,
        )
        follow([*context.ticks, self.picker.change], self.show, [self.picker], [self.plot, self.table])

    def renew(self, _: Language) -> Any:
        """The newest tasks to choose from; what is picked stays."""
        return gr.update(choices=[(named(task), task.id) for task in self.studio.tasks.list()[:CHOICES]])

    def show(self, language: Language, picked: Sequence[str] | None) -> tuple[Any, Markup]:
        """The picked runs beside each other."""
        known = {task.id for task in self.studio.tasks.list()}
        ids = [task_id for task_id in picked or () if task_id in known]
        if len(ids) < FEWEST:
            return gr.update(value=None, visible=False), Markup('<p class="quiet">{}</p>').format(PICK.in_(language))
        compared = self.studio.tasks.compare(ids)
        drawn = loss_of_runs([(curve.steps, curve.loss) for curve in compared.curves])
        return gr.update(value=drawn, visible=True), differences(compared, language)


def named(task: Task) -> str:
    """A run in few words, told apart from every other by its id."""
    return f"{task.name} · {task.id}" if task.name else f"{task.model.rsplit('/', 1)[-1]} · {task.id}"


def differences(compared: TaskComparison, language: Language) -> Markup:
    """A column a run: how it did, then the settings that differ."""
    columns = [
        Column(SETTING),
        *(
            Column(coloured(named(task), colour), True)
            for task, colour in zip(compared.tasks, RUN_COLOURS, strict=False)
        ),
    ]
    took = [duration(progress.seconds, language) for progress in compared.progress]
    peaks = [progress.result.peak_memory_gb if progress.result else None for progress in compared.progress]
    rows = [
        Row((LOSS.in_(language), *(number(last_loss(progress)) for progress in compared.progress))),
        Row((TOOK.in_(language), *took)),
        Row((PEAK.in_(language), *(number(peak, 2) for peak in peaks))),
        *(Row((label_of(name, language), *map(shown, values))) for name, values in compared.settings.items()),
    ]
    below = Markup() if compared.settings else Markup('<p class="quiet">{}</p>').format(SAME.in_(language))
    return table(columns, rows, language, COMPARE) + below


def coloured(name: str, colour: str) -> Text:
    """A run's name behind a dot in the colour of its line."""
    shown = Markup('<span aria-hidden="true" style="color:{}">●</span> {}').format(colour, short(name, 40))
    return verbatim(shown)


def label_of(name: str, language: Language) -> str:
    """A field's label, from whichever method has it."""
    infos = [recipe.model_fields[name] for recipe in RECIPES.values() if name in recipe.model_fields]
    declared = [info for info in infos if info.json_schema_extra is not None]
    return field_label(declared[0]).in_(language) if declared else name


def shown(value: Any) -> str:
    """A setting's value; a dash where a method has no such setting."""
    return EMPTY if value in (None, "") else str(value)
