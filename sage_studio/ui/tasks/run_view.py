"""Live view of a task: state, progress, figures, plots and the last lines of its log.

Stands on the Train tab for the task under way and on the Tasks tab for the one picked. Everything is read from the
task's folder at each tick, so a page that is opened later, or by someone else, shows the same at once.
"""

import math
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import gradio as gr
from markupsafe import Markup

from sage_studio.studio import Studio
from sage_studio.tasks.task import Task, TaskProgress
from sage_studio.text import Language, Text
from sage_studio.training.progress import Event, Phase
from sage_studio.training.recipes import RECIPES
from sage_studio.training.recipes.base import LOSS as CURVE
from sage_studio.ui.components.format import EMPTY, bar, copyable, duration, joined, number, rate
from sage_studio.ui.components.html import COPY_JS, LOG_JS, html, log, notice, quiet, strong, tiles
from sage_studio.ui.components.labels import TASK_COLOUR, TASK_STATUS
from sage_studio.ui.components.localization import LabelRegistry
from sage_studio.ui.components.plots import line, line_plot, plotted
from sage_studio.ui.components.progress import doing
from sage_studio.ui.components.table import Column, Row, table

LOG_LINES = 200
LOSS = Text("Loss")
RATE = Text("Learning rate")
SPEED = Text("Speed")
TOKENS_A_SECOND = Text("Tokens per second")
STEP = Text("Step")
ETA = Text("Left")
TOOK = Text("Took")
MEMORY, PEAK = Text("Memory"), Text("Peak memory")
ESTIMATED = Text("Estimated")
QUEUE = Text("Number {} in the queue")
HELD_OUT = Text("Held-out rows, before and after")
MEASURED = (
    Column(Text("Figure")),
    Column(Text("Before"), figures=True),
    Column(Text("After"), figures=True),
    Column(Text("Change"), figures=True),
)
NEXT = Text("What to do:")


class RunView:
    """Headline, plots and a log.

    ``prefix`` begins every ``elem_id``: ``-head``, ``-loss``, ``-rate``, ``-speed``, ``-extra-1`` and so on for what
    only some methods measure, ``-log``.
    """

    def __init__(self, studio: Studio, words: LabelRegistry, prefix: str) -> None:
        self.studio = studio
        self.head = html(f"{prefix}-head", COPY_JS)
        with gr.Row(elem_classes="plots", elem_id=f"{prefix}-plots") as self.plots:
            self.loss = line_plot(words, LOSS, f"{prefix}-loss", "~g", [CURVE])
            self.rate = line_plot(words, RATE, f"{prefix}-rate", "~e", [])
            self.speed = line_plot(words, TOKENS_A_SECOND, f"{prefix}-speed", "~s", [])
            self.extra = [
                line_plot(words, LOSS, f"{prefix}-extra-{number}", "~g", [each for each in plots if each])
                for number, plots in enumerate(zip_longest(*(recipe.plots for recipe in RECIPES.values())), 1)
            ]
        self.log = html(f"{prefix}-log", LOG_JS)

    @property
    def outputs(self) -> list[gr.components.Component]:
        """What `render` fills, in its order."""
        return [self.head, self.plots, self.loss, self.rate, self.speed, *self.extra, self.log]

    def render(self, language: Language, task: Task) -> tuple[Any, ...]:
        """The task as it stands now."""
        progress = self.studio.tasks.progress(task.id)
        curve = self.studio.tasks.curve(task.id)
        lines = self.studio.tasks.logs(task.id, limit=LOG_LINES).lines
        extra = [plotted(plot, curve, language) for plot in RECIPES[task.type].plots]
        hidden = [gr.update(visible=False)] * (len(self.extra) - len(extra))
        return (
            head(task, progress, language),
            gr.update(visible=True),
            plotted(CURVE, curve, language),
            line(curve.steps, curve.learning_rate),
            line(curve.steps, curve.tokens_per_second),
            *extra,
            *hidden,
            log(lines, language),
        )

    def render_log(self, shown: Markup, lines: Sequence[str], language: Language) -> tuple[Any, ...]:
        """A headline and a log without plots, of a task that is no training."""
        plots = [gr.skip() for _ in (self.loss, self.rate, self.speed, *self.extra)]
        return (shown, gr.update(visible=False), *plots, log(lines, language))


def epoch_of(now: Event) -> str:
    """``2/3``: the epoch under way, of so many."""
    return f"{max(1, math.ceil(now.epoch or 0))}/{math.ceil(now.total_epochs or 0)}"


def head(task: Task, progress: TaskProgress, language: Language) -> Markup:
    """State, what it is doing, the bar, the figures, and why it failed with what to do."""
    colour = TASK_COLOUR[task.status]
    chip = Markup('<span class="chip {}">{}</span>').format(colour, TASK_STATUS[task.status].in_(language))
    under_way = _doing(task, progress, language)
    return Markup('<div class="run-head"><div class="run-title">{} {} {}</div>{}{}{}</div>').format(
        chip,
        copyable(task.id, language),
        quiet(joined(task.name, task.model, task.dataset_name)),
        Markup('<p class="doing" data-testid="doing">{}</p>').format(under_way) if under_way else "",
        bar(progress.percent, under_way, colour),
        Markup("{}{}{}").format(
            figures(task, progress, language), reason(task, language), measured(progress, language)
        ),
    )


def figures(task: Task, progress: TaskProgress, language: Language) -> Markup:
    """The newest figures, each with its unit."""
    now, result = progress.now, progress.result
    left = duration(now.eta_seconds, language) if now and now.eta_seconds and not task.status.is_over else ""
    speed = now.tokens_per_second if now else None
    loss = result.train_loss if result and result.train_loss is not None else now.loss if now else None
    shown = [
        (STEP, f"{now.step:,} / {now.total_steps:,}" if now and now.step is not None and now.total_steps else EMPTY),
        (LOSS, number(loss)),
        (RATE, rate(now.learning_rate if now else None)),
        (SPEED, f"{speed:,.0f} tok/s" if speed is not None else EMPTY),
        (ETA, left) if left else (TOOK, duration(progress.seconds, language) if task.started_at else EMPTY),
        *_memory(progress),
    ]
    return tiles([(label.in_(language), value) for label, value in shown])


def measured(progress: TaskProgress, language: Language) -> Markup:
    """What was measured on the held-out rows before the training and after it; nothing while it runs."""
    details = progress.result.details if progress.result is not None else {}
    before, after = details.get("held_out_before"), details.get("held_out_after")
    if not isinstance(before, dict) or not isinstance(after, dict):
        return Markup()
    rows = [
        Row(
            (
                name.removeprefix("eval_"),
                number(before[name]),
                number(after[name]),
                f"{after[name] - before[name]:+.3g}",
            )
        )
        for name in before
        if name in after
    ]
    return table(MEASURED, rows, language, HELD_OUT)


def reason(task: Task, language: Language) -> Markup:
    """Why it failed or was stopped, and what to do next; nothing otherwise."""
    if not task.reason:
        return Markup()
    hint = Markup("{} {}").format(strong(NEXT.in_(language)), task.hint.in_(language)) if task.hint else ""
    return notice(TASK_COLOUR[task.status], task.reason.in_(language), hint)


def _doing(task: Task, progress: TaskProgress, language: Language) -> str:
    if progress.queue_place is not None:
        return QUEUE.in_(language).format(progress.queue_place)
    now = progress.now
    if now is None:
        return ""
    epochs = f"Epoch {epoch_of(now)} ({progress.percent:.0f}%)" if now.total_epochs else ""
    over = task.status.is_over or now.phase is Phase.TRAINING
    return " · ".join(part for part in (epochs, (now.detail or "") if over else doing(now, language)) if part)


def _memory(progress: TaskProgress) -> list[tuple[Text, str]]:
    """What it takes now; of a run that is over its peak, beside what was estimated."""
    now, result = progress.now, progress.result
    if result is None or result.peak_memory_gb is None:
        return [(MEMORY, _gb(now.memory_gb) if now is not None and now.memory_gb is not None else EMPTY)]
    guess = result.estimated_memory_gb
    return [(PEAK, _gb(result.peak_memory_gb)), *([(ESTIMATED, _gb(guess))] if guess is not None else [])]


def _gb(size: float) -> str:
    return f"{size:.1f} GB"
