"""The Tasks tab: every task in a live table, and what can be done with the selected one."""

from collections.abc import Callable
from typing import Any

import gradio as gr
from markupsafe import Markup

from sage_studio.data.jobs import Job
from sage_studio.serving.types import RegisteredModel
from sage_studio.tasks.task import Task, TaskStatus
from sage_studio.text import Language, Text
from sage_studio.training.recipes import RECIPES
from sage_studio.ui.components.dialogs import Dialog
from sage_studio.ui.components.events import follow, on
from sage_studio.ui.components.html import html, notice, strong
from sage_studio.ui.components.page_context import PageContext, go_to
from sage_studio.ui.components.table import PICK_JS, picked_key
from sage_studio.ui.tasks import other_work
from sage_studio.ui.tasks.run_view import LOG_LINES, RunView
from sage_studio.ui.tasks.runs_panel import RunsPanel
from sage_studio.ui.tasks.task_actions import TaskActions
from sage_studio.ui.tasks.tasks_table import FILTERS, download_link, files_table, settings_table, tasks_table

BACKEND = Text("Set as backend")
BACKEND_TITLE = Text("Set as chat backend")
BACKEND_QUESTION = Text("Make this tuned model the studio's chat backend? The chat will use this model from now on.")
RETRIEVER = Text("Set as retriever")
RETRIEVER_TITLE = Text("Set as retriever")
RETRIEVER_QUESTION = Text("Let this embedder find the passages that chats with documents answer from?")
FINDS = Text("✅ Retriever: {}")
TURN_ON = Text("Its index is being made. Turn on “Answer from documents” in the chat.")
STOP, DELETE, RESUME = Text("Stop"), Text("Delete"), Text("Resume")
STOP_TITLE, DELETE_TITLE = Text("Stop the task"), Text("Delete the task")
STOP_QUESTION = Text("Stop this training? It writes a checkpoint first and can be resumed from there.")
DELETE_QUESTION = Text(
    "Delete this task with its model, checkpoints and log? This cannot be undone; download the model first to keep it."
)
SWITCHING = Text("Loading {} …")
SWITCHED = Text("✅ Switched to the tuned model: {}")
TRY_IT = Text("Try it in the chat.")


class TasksTab:
    """Table on top, the picked task below."""

    def __init__(self, context: PageContext) -> None:
        self.context, self.studio, self.words = context, context.studio, context.words
        self.backend_dialog = Dialog("dialog-backend", BACKEND_TITLE, BACKEND_QUESTION, BACKEND)
        self.retriever_dialog = Dialog("dialog-retriever", RETRIEVER_TITLE, RETRIEVER_QUESTION, RETRIEVER)
        self.stop_dialog = Dialog("dialog-stop", STOP_TITLE, STOP_QUESTION, STOP, danger=True)
        self.delete_dialog = Dialog("dialog-delete", DELETE_TITLE, DELETE_QUESTION, DELETE, danger=True)
        self.filter = self.words(
            gr.Radio,
            label=Text("Show"),
            choices=[(text, key) for key, (text, _) in FILTERS.items()],
            value="all",
            elem_id="tasks-filter",
            elem_classes="inline",
        )
        self.kind = self.words(
            gr.Dropdown,
            label=Text("Kind"),
            choices=[(text, key) for key, text in other_work.KINDS.items()],
            value="",
            elem_id="tasks-kind",
            elem_classes="inline",
        )
        self.table = html("tasks-table", PICK_JS)
        with gr.Column(visible=False, elem_id="task-detail") as self.detail:
            self._actions()
            self.run = RunView(self.studio, self.words, "task")
            self.files = html("task-files")
            with self.words(
                gr.Accordion, label=Text("Settings", context="training"), open=False, elem_id="task-settings"
            ):
                self.settings = html("task-settings-table")
        RunsPanel(self.context)
        self._wire()
        self.next_steps.wire()

    def _actions(self) -> None:
        words = self.words
        with gr.Row(elem_classes="actions"):
            self.backend = words(gr.Button, value=BACKEND, variant="primary", elem_id="task-backend")
            self.retriever = words(gr.Button, value=RETRIEVER, variant="primary", elem_id="task-retriever")
            self.resume = words(gr.Button, value=RESUME, elem_id="task-resume")
            self.stop = words(gr.Button, value=STOP, elem_id="task-stop")
            self.next_steps = TaskActions(self.context)
            self.download = html("task-download")
            self.delete = words(gr.Button, value=DELETE, elem_id="task-delete", elem_classes="quiet-button")
            self.why_kept = html("task-delete-why")
            self.buttons = [self.backend, self.retriever, self.resume, self.stop]
        with gr.Row(visible=False, elem_classes="notice-row") as self.notice_row:
            self.notice = html("backend-notice")
            self.chat = words(gr.Button, value=Text("Go to the chat →"), elem_id="task-chat", scale=0, min_width=150)

    def _wire(self) -> None:
        context, task, delete = self.context, self.context.task, (self.delete, self.why_kept)
        on(self.table.select, pick, None, [task, self.notice_row], fills="task-detail")
        follow(
            [*context.ticks, task.change, self.filter.change, self.kind.change],
            self.show_table,
            [self.filter, task, self.kind],
            [self.table],
        )
        follow(
            [*context.ticks, task.change],
            self.show_task,
            [task],
            [self.detail, *self.buttons, *delete, self.download, self.files, self.settings, *self.run.outputs],
        )
        asked = (
            (self.backend, self.backend_dialog),
            (self.retriever, self.retriever_dialog),
            (self.stop, self.stop_dialog),
            (self.delete, self.delete_dialog),
        )
        for button, dialog in asked:
            on(button.click, self.asking(dialog), task, dialog.html, queue=False)
        set_backend = self.backend_dialog.confirmed(
            self.set_backend,
            context.revision,
            [self.notice_row, self.notice, context.revision],
            fills="backend-notice",
        )
        set_retriever = self.retriever_dialog.confirmed(
            self.set_retriever,
            context.revision,
            [self.notice_row, self.notice, context.revision],
            fills="backend-notice",
        )
        for attempt in (set_backend, set_retriever):
            on(attempt.failure, no_notice, None, self.notice_row, queue=False)
        self.stop_dialog.confirmed(self.stop_task, context.revision, context.revision)
        self.delete_dialog.confirmed(self.delete_task, context.revision, [task, context.revision])
        on(self.resume.click, self.resume_task, [task, context.revision], context.revision)
        on(self.chat.click, go_to("chat"), None, context.tabs, queue=False)

    def asking(self, dialog: Dialog) -> Callable[[Language, str], str]:
        """A handler that opens a dialog about the picked task."""

        def ask(language: Language, task_id: str) -> str:
            other = next((task for task, _ in self.studio.tasks.others() if task.id == task_id), None)
            if other is None:
                return dialog.ask(language, task_id, task_id)
            question = other_work.stop_question(other) if dialog is self.stop_dialog else other_work.DELETE
            name = f"{other_work.kind_of(other).in_(language)} · {task_id}"
            return dialog.ask(language, task_id, name, question)

        return ask

    # Handlers

    def set_backend(self, language: Language, revision: int, event: gr.EventData) -> Any:
        """Make the task's model the chat's, after a yes."""
        task = self.studio.tasks.get(picked_key(event))
        yield gr.update(visible=True), loading(task, language), gr.skip()
        model = self.studio.serving.use_task(task.id)
        yield gr.update(visible=True), switched(model, language), revision + 1

    def set_retriever(self, language: Language, revision: int, event: gr.EventData) -> tuple[Any, Markup, int]:
        """Let the task's embedder look things up, after a yes."""
        status = self.studio.rag.use(picked_key(event))
        message = strong(FINDS.in_(language).format(status.choice.model))
        return gr.update(visible=True), notice("done", message, TURN_ON.in_(language)), revision + 1

    def stop_task(self, _: Language, revision: int, event: gr.EventData) -> int:
        """Stop it, after a yes."""
        self.studio.tasks.stop(picked_key(event))
        return revision + 1

    def delete_task(self, _: Language, revision: int, event: gr.EventData) -> tuple[str, int]:
        """Delete it, after a yes."""
        self.studio.tasks.delete(picked_key(event))
        return "", revision + 1

    def resume_task(self, _: Language, task_id: str, revision: int) -> int:
        """Go on from the newest checkpoint, or with what other work has done."""
        self.studio.tasks.resume(task_id)
        return revision + 1

    def show_table(self, language: Language, chosen_filter: str, picked: str, kind: str) -> tuple[Markup]:
        """All tasks of a kind that the filter lets through."""
        return (tasks_table(self.studio, chosen_filter, picked, language, kind),)

    def show_task(self, language: Language, picked: str) -> tuple[Any, ...]:
        """The picked task and what its state offers."""
        tasks = [task for task in self.studio.tasks.list() if task.id == picked]
        others = [other for other in self.studio.tasks.others() if other[0].id == picked]
        if others:
            return self.show_other(language, *others[0])
        if not tasks:
            return (gr.update(visible=False), *(gr.skip() for _ in range(9 + len(self.run.outputs))))
        task = tasks[0]
        return (
            gr.update(visible=True),
            *offered(task),
            *other_work.delete_button(task.status.is_over or task.status is TaskStatus.QUEUED, language),
            download_link(task, language),
            files_table(task, self.studio.training.stage_files(task.id), language),
            settings_table(task, language),
            *self.run.render(language, task),
        )

    def show_other(self, language: Language, task: Task, job: Job) -> tuple[Any, ...]:
        """The picked task that is no training: its log, what was ordered, and whether it can be stopped or resumed."""
        hidden = gr.update(visible=False)
        lines = self.studio.tasks.logs(task.id, limit=LOG_LINES).lines
        return (
            gr.update(visible=True),
            hidden,
            hidden,
            *other_work.buttons(task.status),
            *other_work.delete_button(task.status.is_over, language),
            Markup(),
            Markup(),
            other_work.order_table(task, language),
            *self.run.render_log(other_work.head(task, job, language), lines, language),
        )


def pick(_: Language, event: gr.EventData) -> tuple[str, Any]:
    """Look at another task."""
    return picked_key(event), gr.update(visible=False)


def no_notice(_: Language) -> Any:
    """Nothing to announce: the toast said why."""
    return gr.update(visible=False)


def offered(task: Task) -> tuple[Any, Any, Any, Any]:
    """Which of set-as-backend, set-as-retriever, resume and stop a task's state and method offer."""
    completed, trained = task.status is TaskStatus.COMPLETED, RECIPES[task.type].model_task
    resume, stop = other_work.buttons(task.status)
    return (
        gr.update(visible=completed and trained == "generative"),
        gr.update(visible=completed and trained == "embedding"),
        resume,
        stop,
    )


def loading(task: Task, language: Language) -> Markup:
    """Said while the model is being loaded; the status bar shows how far the engine is."""
    return notice("waiting", SWITCHING.in_(language).format(task.served_name))


def switched(model: RegisteredModel, language: Language) -> Markup:
    """Said once it answers."""
    return notice("done", strong(SWITCHED.in_(language).format(model.name)), TRY_IT.in_(language))
