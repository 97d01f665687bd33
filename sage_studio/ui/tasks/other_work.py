"""Tasks other than training on the Tasks tab: what their kinds are called, and what stopping and resuming them does."""

import time
from typing import Any

import gradio as gr
from markupsafe import Markup

from sage_studio.data.jobs import Job, JobState
from sage_studio.tasks.task import Task, TaskStatus
from sage_studio.text import Language, Text
from sage_studio.ui.components.format import EMPTY, ago, bar, copyable, count, duration, joined, short, size
from sage_studio.ui.components.html import notice, quiet, strong, tiles
from sage_studio.ui.components.labels import TASK_COLOUR, TASK_STATUS
from sage_studio.ui.components.table import Column, Row, table

KINDS: dict[str, Text] = {
    "": Text("All kinds", "全部类型"),
    "train": Text("Training", "训练"),
    "report": Text("Check a dataset", "检查数据集"),
    "augment": Text("Paraphrase rows", "改写扩充"),
    "annotate": Text("Write questions", "生成问题"),
    "import": Text("Import a dataset", "导入数据集"),
    "mix": Text("Combine datasets", "合并数据集"),
    "merge": Text("Merge an adapter", "合并适配器"),
    "download": Text("Download a model", "下载模型"),
    "unpack": Text("Unpack a model", "解包模型"),
    "inspect": Text("Estimate memory", "估算内存"),
}
"""Kinds of tasks, as the filter offers them."""
BEGINS_ANEW = Text("Resume starts it from the beginning.", "“继续”会从头开始。")
RESUMES: dict[str, Text] = {
    "augment": Text(
        "The rows written so far are kept. Resume continues from there.", "已写好的行会保留，“继续”从此处接着写。"
    ),
    "annotate": Text(
        "The questions written so far are kept. Resume continues from there.",
        "已写好的问题会保留，“继续”从此处接着写。",
    ),
    "download": Text(
        "What was downloaded is kept. Resume continues from there.", "已下载的部分会保留，“继续”从此处接着下载。"
    ),
}
"""What Resume does; of the other kinds `BEGINS_ANEW`."""
AWAITED: dict[str, Text] = {
    "merge": Text("If “Set as backend” is waiting for it, that fails.", "如果“设为后端”正在等待它，则会失败。"),
    "download": Text("A chat that waits for this model fails.", "等待此模型的对话会失败。"),
    "unpack": Text("What waits for this model fails.", "等待此模型的操作会失败。"),
    "inspect": Text("The estimate that waits for it is not shown.", "等待它的估算结果不会显示。"),
    "import": Text("The request that waits for the dataset fails.", "等待此数据集的请求会失败。"),
    "mix": Text("The request that waits for the dataset fails.", "等待此数据集的请求会失败。"),
}
"""What else comes of stopping it."""
STOP = Text("Stop this task?", "确定停止此任务吗？")
DELETE = Text(
    "Delete this task with its log and what it has written so far? A dataset or a model that it made stays.",
    "确定删除此任务及其日志和未完成的内容吗？它已生成的数据集或模型会保留。",
)
MAKES_DATASET = {"import", "mix"}
"""Kinds whose subject is where a dataset comes from, or its name."""
IN_UNITS = {"report", "augment", "annotate"}
UNITS, DOWNLOADED = Text("Rows", "行数"), Text("Downloaded", "已下载")
BEGAN, TOOK, MADE = Text("Started", "开始"), Text("Took", "用时"), Text("Result", "结果")
NEXT = Text("What to do:", "下一步：")
ORDERED = Text("What was ordered", "任务内容")
COLUMNS = (Column(Text("Field", "字段")), Column(Text("Value", "值"), figures=True))
STOP_FIRST = Text("Stop it first to delete it.", "先停止才能删除。")
STOPPING = Text("It stops after the piece of work at hand.", "完成手头的工作后停止。")


def kind_of(task: Task) -> Text:
    """What a task's kind is called; a kind of a newer studio by its own name."""
    return KINDS.get(task.kind, Text(task.kind, task.kind))


def stop_question(task: Task) -> Text:
    """Asked before it is stopped: what becomes of it."""
    said = [each for each in (STOP, AWAITED.get(task.kind), RESUMES.get(task.kind, BEGINS_ANEW)) if each is not None]
    return Text(" ".join(each.en for each in said), "".join(each.zh for each in said))


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
