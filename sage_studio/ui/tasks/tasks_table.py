"""What tasks look like: the table, the download link and a task's settings, as HTML."""

from collections.abc import Callable, Sequence

from markupsafe import Markup

from sage_studio.studio import Studio
from sage_studio.tasks.task import Task, TaskStatus
from sage_studio.text import Language, Text
from sage_studio.training.methods.kbalign.stage_files import StageFile
from sage_studio.training.recipes import RECIPES
from sage_studio.training.recipes.base import field_label
from sage_studio.ui.components.format import EMPTY, ago, bar, copyable, duration, number
from sage_studio.ui.components.html import Lead, empty, leading
from sage_studio.ui.components.labels import TASK_COLOUR, TASK_STATUS
from sage_studio.ui.components.table import Column, Row, table
from sage_studio.ui.tasks.other_work import row_of

SHOWN = 100
"""Rows at most: the newest."""

FILTERS: dict[str, tuple[Text, Callable[[TaskStatus], bool]]] = {
    "all": (Text("All"), lambda status: True),
    "running": (Text("Running", context="filter"), lambda status: not status.is_over),
    "done": (Text("Completed"), lambda status: status is TaskStatus.COMPLETED),
    "failed": (
        Text("Failed or stopped"),
        lambda status: status in (TaskStatus.FAILED, TaskStatus.STOPPED),
    ),
}
TASKS = Text("Tasks")
COLUMNS = (
    Column(Text("Status")),
    Column(Text("Task")),
    Column(Text("Model"), css="desktop"),
    Column(Text("Dataset"), css="desktop"),
    Column(Text("Progress"), figures=True),
    Column(Text("Loss"), figures=True, css="desktop"),
    Column(Text("Started"), figures=True, css="desktop"),
    Column(Text("Took"), figures=True, css="desktop"),
)
NONE_YET = Text("No task yet")
START_ONE = Text("Start a fine-tuning on the Train tab; it will be listed here.")
TRAIN = Lead(Text("Train a model →"), "train-start train-missing", "train")
OTHERS = Lead(Text("Show others"), "tasks-filter")
NONE_SUCH = Text("No task of this kind.")
MORE = Text("The newest {} of {} tasks are shown.")
DOWNLOAD = Text("Download")
DOWNLOAD_HELP = Text("Download the model of {} as tar.gz")
SETTING, VALUE = Text("Setting"), Text("Value")
SETTINGS = Text("Settings", context="training")
FILES = Text("Files of the stages")
FILE_COLUMNS = (Column(Text("File")), Column(Text("What")), Column(Text("Rows"), figures=True))
EDIT_THEM = Text("Stop the task, edit them, resume: what stands in them counts. They lie in")
SPARKS = "▁▂▃▄▅▆▇█"
SPARK_POINTS = 10


def tasks_table(studio: Studio, chosen_filter: str, picked: str, language: Language, kind: str = "") -> Markup:
    """The tasks of a kind (empty: of all) that a filter lets through, newest first."""
    trainings, others = studio.tasks.list(), studio.tasks.others()
    if not trainings and not others:
        return empty(NONE_YET.in_(language), START_ONE.in_(language), TRAIN, language)
    passes = FILTERS[chosen_filter][1]
    jobs = {task.id: job for task, job in others}
    passing = [task for task in trainings if kind in ("", "train") and passes(task.status)]
    passing += [task for task, _ in others if kind in ("", task.kind) and passes(task.status)]
    passing.sort(key=lambda task: task.created_at, reverse=True)
    if not passing:
        return Markup('<p class="quiet">{} {}</p>').format(NONE_SUCH.in_(language), leading(OTHERS, language))
    rows = [
        row_of(task, jobs[task.id], language) if task.id in jobs else task_row(studio, task, language)
        for task in passing[:SHOWN]
    ]
    shown = table(COLUMNS, rows, language, TASKS, picked)
    if len(passing) <= SHOWN:
        return shown
    return shown + Markup('<p class="quiet">{}</p>').format(MORE.in_(language).format(SHOWN, len(passing)))


def task_row(studio: Studio, task: Task, language: Language) -> Row:
    """One task, with the newest figures."""
    progress = studio.tasks.progress(task.id)
    loss = progress.now.loss if progress.now is not None else None
    if progress.result is not None and progress.result.train_loss is not None:
        loss = progress.result.train_loss
    colour = TASK_COLOUR[task.status]
    name = TASK_STATUS[task.status].in_(language)
    return Row(
        (
            Markup('<span class="chip {}">{}</span>').format(colour, name),
            Markup("{}{}").format(
                Markup('<span class="name">{}</span> ').format(task.name) if task.name else "",
                copyable(task.id, language),
            ),
            Markup('<span title="{}">{}</span>').format(task.model, task.model.rsplit("/", 1)[-1]),
            task.dataset_name,
            Markup('<span class="progress">{}<span>{:.0f} %</span></span>').format(
                bar(progress.percent, name, colour), progress.percent
            ),
            Markup('<span class="spark" aria-hidden="true">{}</span> {}').format(
                sparkline(studio.tasks.curve(task.id, SPARK_POINTS).loss), number(loss)
            ),
            ago(task.started_at, language),
            duration(progress.seconds, language) if task.started_at else EMPTY,
        ),
        key=task.id,
    )


def sparkline(values: Sequence[float | None]) -> str:
    """A curve as a row of blocks; empty below two points."""
    points = [value for value in values if value is not None]
    if len(points) < 2:
        return ""
    low, high = min(points), max(points)
    step = (high - low) / (len(SPARKS) - 1) or 1.0
    return "".join(SPARKS[round((value - low) / step)] for value in points[:: max(1, len(points) // SPARK_POINTS)])


def download_link(task: Task, language: Language) -> Markup:
    """A link that looks like a button; empty unless there is a model to download."""
    if task.status is not TaskStatus.COMPLETED:
        return Markup()
    return Markup('<a class="button" href="api/finetune/tasks/{}/download" download aria-label="{}">{}</a>').format(
        task.id, DOWNLOAD_HELP.in_(language).format(task.id), DOWNLOAD.in_(language)
    )


def files_table(task: Task, files: Sequence[StageFile], language: Language) -> Markup:
    """The files that the stages left, each a link, with where they lie; empty without any."""
    if not files:
        return Markup()
    link = Markup('<a href="api/finetune/tasks/{}/files/{}" download>{}</a>')
    rows = [
        Row((link.format(task.id, file.name, file.name), file.meaning.in_(language), f"{file.rows:,}"))
        for file in files
    ]
    return table(FILE_COLUMNS, rows, language, FILES) + Markup('<p class="quiet">{} <code>{}</code></p>').format(
        EDIT_THEM.in_(language), files[0].path.parent
    )


def settings_table(task: Task, language: Language) -> Markup:
    """Every field of the task's recipe under its label."""
    rows = [
        Row((field_label(info).in_(language), Markup("<code>{}</code>").format(name), str(task.recipe[name])))
        for name, info in RECIPES[task.type].model_fields.items()
        if info.json_schema_extra is not None and task.recipe.get(name) not in (None, "")
    ]
    columns = (Column(SETTING), Column(Text("Field")), Column(VALUE, figures=True))
    return table(columns, rows, language, SETTINGS)
