"""Tasks other than training on the Tasks tab: what their kinds are called, and what stopping and resuming them does."""

import functools
import time
from typing import Any

import gradio as gr
from markupsafe import Markup

from sage_studio.data.jobs import Job, JobState
from sage_studio.tasks.task import Task, TaskStatus
from sage_studio.text import Language, Text, verbatim
from sage_studio.ui.components.format import EMPTY, ago, bar, copyable, count, duration, joined, short, size
from sage_studio.ui.components.html import notice, quiet, strong, tiles
from sage_studio.ui.components.labels import TASK_COLOUR, TASK_STATUS
from sage_studio.ui.components.table import Column, Row, table

KINDS: dict[str, Text] = {
    "": Text("All kinds"),
    "train": Text("Training", context="kind of task"),
    "report": Text("Check a dataset"),
    "augment": Text("Paraphrase rows"),
    "annotate": Text("Write questions"),
    "import": Text("Import a dataset"),
    "mix": Text("Combine datasets"),
    "merge": Text("Merge an adapter"),
    "download": Text("Download a model"),
    "unpack": Text("Unpack a model"),
    "inspect": Text("Estimate memory"),
}
"""Kinds of tasks, as the filter offers them."""
BEGINS_ANEW = Text("Resume starts it from the beginning.")
RESUMES: dict[str, Text] = {
    "augment": Text("The rows written so far are kept. Resume continues from there."),
    "annotate": Text("The questions written so far are kept. Resume continues from there."),
    "download": Text("What was downloaded is kept. Resume continues from there."),
}
"""What Resume does; of the other kinds `BEGINS_ANEW`."""
AWAITED: dict[str, Text] = {
    "merge": Text("If “Set as backend” is waiting for it, that fails."),
    "download": Text("A chat that waits for this model fails."),
    "unpack": Text("What waits for this model fails."),
    "inspect": Text("The estimate that waits for it is not shown."),
    "import": Text("The request that waits for the dataset fails."),
    "mix": Text("The request that waits for the dataset fails."),
}
"""What else comes of stopping it."""
STOP = Text("Stop this task?")
DELETE = Text("Delete this task with its log and what it has written so far? A dataset or a model that it made stays.")
MAKES_DATASET = {"import", "mix"}
"""Kinds whose subject is where a dataset comes from, or its name."""
IN_UNITS = {"report", "augment", "annotate"}
UNITS, DOWNLOADED = Text("Rows"), Text("Downloaded")
BEGAN, TOOK, MADE = Text("Started"), Text("Took"), Text("Result")
NEXT = Text("What to do:")
ORDERED = Text("What was ordered")
COLUMNS = (Column(Text("Field")), Column(Text("Value"), figures=True))
STOP_FIRST = Text("Stop it first to delete it.")
STOPPING = Text("It stops after the piece of work at hand.")


def kind_of(task: Task) -> Text:
    """What a task's kind is called; a kind of a newer studio by its own name."""
    return KINDS.get(task.kind, verbatim(task.kind))


def stop_question(task: Task) -> Text:
    """The question before a task is stopped: it says what becomes of it."""
    parts = [each for each in (STOP, AWAITED.get(task.kind), RESUMES.get(task.kind, BEGINS_ANEW)) if each is not None]
    return functools.reduce(lambda one, two: Text("{one} {two}", context="two sentences", one=one, two=two), parts)


def row_of(task: Task, job: Job, language: Language) -> Row:
    """Such a task in the table of tasks."""
    name, colour = TASK_STATUS[task.status].in_(language), TASK_COLOUR[task.status]
    said = job.doing if job.state is JobState.RUNNING else job.message
    model, dataset = ("", task.model) if task.kind in MAKES_DATASET else (task.model, task.dataset_id)
    return Row(
        (
            Markup('<span class="chip {}" title="{}">{}</span>').format(colour, said.in_(language), name),
            Markup('<span class="name">{}</span> {}').format(kind_of(task).in_(language), copyable(task.id, language)),
            Markup('<span title="{}">{}</span>').format(model, model.rstrip("/").rsplit("/", 1)[-1] or EMPTY),
            Markup('<span title="{}">{}</span>').format(dataset, short(dataset) or EMPTY),
            Markup('<span class="progress">{}<span>{:.0f} %</span></span>').format(
                bar(percent(job), name, colour), percent(job)
            ),
            EMPTY,
            ago(task.started_at, language),
            duration(took(task), language) if task.started_at else EMPTY,
        ),
        key=task.id,
    )


def percent(job: Job) -> float:
    """How much is done."""
    if job.state is JobState.COMPLETED:
        return 100.0
    return 100.0 * job.done / job.total if job.total else 0.0


def head(task: Task, job: Job, language: Language) -> Markup:
    """State, what it is doing, the bar, what it made, and why it ended with what to do."""
    colour = TASK_COLOUR[task.status]
    under_way = job.doing.in_(language) if job.state is JobState.RUNNING else ""
    if task.status is TaskStatus.STOPPING:
        under_way = STOPPING.in_(language)
    chip = Markup('<span class="chip {}">{}</span>').format(colour, TASK_STATUS[task.status].in_(language))
    shown = [
        (BEGAN, ago(task.started_at, language)),
        (TOOK, duration(took(task), language) if task.started_at else EMPTY),
    ]
    if task.kind in IN_UNITS:
        shown.insert(0, (UNITS, f"{count(job.done)} / {count(job.total)}" if job.total else EMPTY))
    if task.kind == "download":
        shown.insert(0, (DOWNLOADED, f"{size(job.done)} / {size(job.total)}" if job.total else EMPTY))
    if job.result:
        shown.append((MADE, job.result))
    return Markup('<div class="run-head"><div class="run-title">{} {} {}</div>{}{}{}{}</div>').format(
        chip,
        copyable(task.id, language),
        quiet(joined(kind_of(task).in_(language), task.model, task.dataset_id)),
        Markup('<p class="doing" data-testid="doing">{}</p>').format(under_way) if under_way else "",
        bar(percent(job), under_way, colour),
        tiles([(label.in_(language), value) for label, value in shown], "wide"),
        ending(task, job, language),
    )


def ending(task: Task, job: Job, language: Language) -> Markup:
    """Why it stopped or failed and what to do next; nothing otherwise."""
    if job.state not in (JobState.STOPPED, JobState.FAILED):
        return Markup()
    why = job.message.in_(language) or TASK_STATUS[task.status].in_(language)
    after = job.hint if job.hint else RESUMES.get(task.kind, BEGINS_ANEW)
    return notice(
        TASK_COLOUR[task.status], why, Markup("{} {}").format(strong(NEXT.in_(language)), after.in_(language))
    )


def order_table(task: Task, language: Language) -> Markup:
    """What was asked, field by field."""
    rows = [
        Row((Markup("<code>{}</code>").format(name), str(value)))
        for name, value in task.recipe.items()
        if value not in (None, "", [])
    ]
    return table(COLUMNS, rows, language, ORDERED)


def took(task: Task) -> float:
    """Seconds from its start until now, or until its end."""
    return max(0.0, (task.finished_at or time.time()) - task.started_at) if task.started_at is not None else 0.0


def delete_button(is_deletable: bool, language: Language) -> tuple[Any, Markup]:
    """The button, and why it cannot be pressed."""
    why = Markup() if is_deletable else quiet(STOP_FIRST.in_(language))
    return gr.update(interactive=is_deletable), why


def buttons(status: TaskStatus) -> tuple[Any, Any]:
    """Resume and stop of a task in a state; one that is stopping already cannot be stopped again."""
    return (
        gr.update(visible=status in (TaskStatus.STOPPED, TaskStatus.FAILED)),
        gr.update(visible=not status.is_over, interactive=status is not TaskStatus.STOPPING),
    )
