"""The Models tab: registered models, the current one, the engine and its performance."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from markupsafe import Markup

from sage_studio.doctor import CheckResult
from sage_studio.files import read_from
from sage_studio.serving.capacity import WeightFormat
from sage_studio.serving.types import EngineState, EngineStatus, RegisteredModel
from sage_studio.text import NOTHING, Language, Text
from sage_studio.ui.components.dialogs import Dialog
from sage_studio.ui.components.events import follow, on
from sage_studio.ui.components.format import EMPTY, ago, copyable, joined, short, size
from sage_studio.ui.components.html import LOG_JS, Lead, empty, html, log, notice, strong, tiles
from sage_studio.ui.components.labels import ENGINE_COLOUR, ENGINE_STATE, MODEL_KIND
from sage_studio.ui.components.page_context import PageContext, go_to
from sage_studio.ui.components.table import PICK_JS, Column, Row, picked_key, table
from sage_studio.ui.models.downloads_panel import DownloadsPanel
from sage_studio.ui.models.performance_view import PerformanceView
from sage_studio.ui.status_bar import engine_state

USE = Text("Use this model")
USE_TITLE = Text("Switch the chat's model")
USE_QUESTION = Text(
    "The chat uses this model from the next message on; answers under way finish on the model they began with."
)
UNLOADED = Text("{} is out of the engine's memory; it is loaded again when it is next asked.")
DELETE, DELETE_TITLE = Text("Delete"), Text("Delete the model")
DELETE_QUESTION = Text(
    "It is taken off the list. A tuned model's files stay with its task; only a copy merged for serving is deleted."
)
DELETED = Text("{} was taken off the list.")
LOADING = Text("Loading {} …")
SWITCHED = Text("✅ Switched to: {}")
TRY_IT = Text("Try it in the chat.")
MODELS = Text("Models")
COLUMNS = (
    Column(Text("Name")),
    Column(Text("Kind")),
    Column(Text("Base"), css="desktop"),
    Column(Text("Size"), figures=True, css="desktop"),
    Column(Text("Task"), css="desktop"),
    Column(Text("Loaded"), css="desktop"),
    Column(Text("Current")),
    Column(Text("Last used"), figures=True, css="desktop"),
)
NONE_YET = Text("No model has been loaded yet")
LOAD_ONE = Text("Start the engine to talk to the base model, or set a completed task as backend on the Tasks tab.")
START = Lead(Text("Start the engine"), "engine-start", press=True)
RETRY = Text("Try vLLM again")
RETRIED = Text("vLLM answers again.")
RETRIED_IN_VAIN = Text("vLLM did not start.")
FORM: dict[str, Text] = {
    WeightFormat.BF16: Text("16 bits"),
    WeightFormat.FP8: Text("8 bits (fp8)"),
    WeightFormat.FOUR_BIT: Text("4 bits"),
    WeightFormat.STORED: Text("quantized as stored", context="dtype"),
    WeightFormat.CPU: Text("on the CPU"),
}
ENGINE, STATE = Text("Engine"), Text("State")
BASE, ANSWERS, ADDRESS = Text("Base"), Text("Answers", context="model"), Text("Address")
LOG_BYTES = 20_000
MACHINE = Text("This machine")
LEVELS = {"ok": "done", "note": "idle", "problem": "failed", "blocking": "failed"}


class ModelsTab:
    """Models on top, the engine below."""

    def __init__(self, context: PageContext) -> None:
        self.context, self.studio, self.words = context, context.studio, context.words
        self.dialog = Dialog("dialog-use-model", USE_TITLE, USE_QUESTION, USE)
        self.delete_dialog = Dialog("dialog-delete-model", DELETE_TITLE, DELETE_QUESTION, DELETE, danger=True)
        self.picked = gr.State("")
        self.table = html("models-table", PICK_JS)
        with gr.Row(elem_classes="actions"):
            self.use = self.words(gr.Button, value=USE, variant="primary", elem_id="model-use", interactive=False)
            self.unload = self.words(gr.Button, value=Text("Unload"), elem_id="model-unload", interactive=False)
            self.start = self.words(gr.Button, value=Text("Start the engine"), elem_id="engine-start")
            self.retry = self.words(gr.Button, value=RETRY, elem_id="retry-vllm", visible=False)
            self.chat = self.words(gr.Button, value=Text("Go to the chat →"), elem_id="models-chat")
            self.delete = self.words(
                gr.Button, value=DELETE, elem_id="model-delete", elem_classes="quiet-button", interactive=False
            )
        self.notice = html("models-notice")
        DownloadsPanel(self.context)
        self.performance = PerformanceView(self.studio, self.words)
        self.engine = html("engine-state")
        self.log = html("engine-log", LOG_JS)
        with self.words(gr.Accordion, label=MACHINE, open=False, elem_id="machine") as self.machine:
            self.findings = html("machine-findings")
        self._wire()

    def _wire(self) -> None:
        context, outputs = self.context, [self.notice, self.context.revision]
        on(self.table.select, pick, None, self.picked)
        follow(
            [*context.ticks, self.picked.change],
            self.show_models,
            [self.picked],
            [self.table, self.use, self.unload, self.delete],
        )
        follow([*context.ticks], self.show_engine, [], [self.engine, self.log, self.start, self.retry])
        follow([*context.ticks], self.performance.render, [], self.performance.outputs)
        on(self.use.click, self.ask_use, self.picked, self.dialog.html, queue=False)
        used = self.dialog.confirmed(self.use_model, context.revision, outputs, fills="models-notice")
        on(used.failure, no_notice, None, self.notice, queue=False)
        on(self.unload.click, self.unload_model, [context.revision, self.picked], outputs, reveals="models-notice")
        on(self.delete.click, self.ask_delete, self.picked, self.delete_dialog.html, queue=False)
        self.delete_dialog.confirmed(self.delete_model, context.revision, outputs, reveals="models-notice")
        on(
            self.start.click,
            self.start_engine,
            context.revision,
            context.revision,
            fills="engine-state",
            reveals="engine-state",
        )
        on(self.retry.click, self.retry_vllm, context.revision, outputs, reveals="models-notice")
        on(self.chat.click, go_to("chat"), None, context.tabs, queue=False)
        on(self.machine.expand, self.show_machine, None, self.findings, show_progress="minimal")

    # Handlers

    def ask_use(self, language: Language, name: str) -> str:
        """Open the dialog."""
        return self.dialog.ask(language, name, name)

    def use_model(self, language: Language, revision: int, event: gr.EventData) -> Any:
        """Let it answer, after a yes; said at once, for loading it may take a minute."""
        name = picked_key(event)
        yield notice("waiting", LOADING.in_(language).format(name)), gr.skip()
        model = self.studio.serving.switch(name)
        yield switched(model, language), revision + 1

    def unload_model(self, language: Language, revision: int, name: str) -> tuple[Markup, int]:
        """Make room in the engine."""
        self.studio.serving.unload(name)
        return notice("done", UNLOADED.in_(language).format(name)), revision + 1

    def ask_delete(self, language: Language, name: str) -> str:
        """Open the dialog."""
        return self.delete_dialog.ask(language, name, name)

    def delete_model(self, language: Language, revision: int, event: gr.EventData) -> tuple[Markup, int]:
        """Take it off the list, after a yes."""
        name = picked_key(event)
        self.studio.serving.forget(name)
        return notice("done", DELETED.in_(language).format(name)), revision + 1

    def start_engine(self, _: Language, revision: int) -> int:
        """Start it in the background; its state is followed like everything else."""
        self.studio.serving.start_engine()
        return revision + 1

    def retry_vllm(self, language: Language, revision: int) -> tuple[Markup, int]:
        """Start vLLM again where the transformers engine serves in its place."""
        status = self.studio.serving.retry_vllm()
        if status.vllm_refused:
            return notice("failed", strong(RETRIED_IN_VAIN.in_(language)), status.message.in_(language)), revision + 1
        return notice("done", strong(RETRIED.in_(language))), revision + 1

    def show_models(self, language: Language, picked: str) -> tuple[Any, ...]:
        """Every model, and what can be done with the picked one."""
        models = self.studio.serving.models()
        return (models_table(models, picked, language), *offered([one for one in models if one.name == picked]))

    def show_engine(self, language: Language) -> tuple[Any, ...]:
        """The engine, the end of its log, and whether it can be started."""
        status = self.studio.serving.status()
        idle = status.state in (EngineState.DOWN, EngineState.FAILED)
        lines = last_lines(status.log_path) if status.log_path is not None else []
        shown = log(lines, language) if lines else Markup()
        start, retry = gr.update(interactive=idle), gr.update(visible=status.vllm_refused)
        return engine_panel(status, language), shown, start, retry

    def show_machine(self, language: Language) -> Markup:
        """What this machine can and cannot do."""
        return machine_panel(self.studio.doctor(), language)


def machine_panel(findings: Sequence[CheckResult], language: Language) -> Markup:
    """Each finding with its consequence and remedy."""
    return Markup().join(
        notice(
            LEVELS[finding.level],
            strong(finding.found.in_(language)),
            finding.consequence.in_(language),
            finding.remedy.in_(language),
        )
        for finding in findings
    )


def pick(_: Language, event: gr.EventData) -> str:
    """Pick another model."""
    return picked_key(event)


def no_notice(_: Language) -> str:
    """Nothing to announce: the toast said why."""
    return ""


def offered(picked: Sequence[RegisteredModel]) -> list[Any]:
    """Whether the picked model, if there is one, can be used, unloaded and deleted."""
    can = [
        bool(picked),
        any(model.loaded and not model.current and model.kind == "adapter" for model in picked),
        any(not model.current for model in picked),
    ]
    return [gr.update(interactive=possible) for possible in can]


def models_table(models: Sequence[RegisteredModel], picked: str, language: Language) -> Markup:
    """Every model that can answer."""
    if not models:
        return empty(NONE_YET.in_(language), LOAD_ONE.in_(language), START, language)
    return table(COLUMNS, [_row(model, language) for model in models], language, MODELS, picked)


def engine_panel(status: EngineStatus, language: Language) -> Markup:
    """The engine's state in figures, and why it failed."""
    shown = tiles(
        [
            (ENGINE.in_(language), joined(status.engine, FORM.get(status.form, NOTHING).in_(language))),
            (STATE.in_(language), engine_state(status, language)),
            (BASE.in_(language), short(status.base, 44) or EMPTY),
            (ANSWERS.in_(language), short(status.current, 44) or EMPTY),
            (ADDRESS.in_(language), status.url or EMPTY),
        ],
        css="wide",
    )
    heading = Markup("<h2 class=minor>{}</h2>").format(ENGINE.in_(language))
    if not status.message:
        return heading + shown
    why = notice(
        ENGINE_COLOUR[status.state], strong(ENGINE_STATE[status.state].in_(language)), status.message.in_(language)
    )
    return heading + shown + why


def switched(model: RegisteredModel, language: Language) -> Markup:
    """Said once it answers."""
    return notice("done", strong(SWITCHED.in_(language).format(model.name)), TRY_IT.in_(language))


def last_lines(path: Path) -> list[str]:
    """The end of the engine's log."""
    start = max(path.stat().st_size - LOG_BYTES, 0) if path.is_file() else 0
    lines, _ = read_from(path, start)
    return [line.decode(errors="replace") for line in lines[1 if start else 0 :]]


def _row(model: RegisteredModel, language: Language) -> Row:
    lamp = Markup('<i class="lamp done"></i>{}').format(Text("yes").in_(language))
    return Row(
        (
            copyable(model.name, language),
            MODEL_KIND[model.kind].in_(language),
            Markup('<span title="{}">{}</span>').format(model.base, short(model.base.rsplit("/", 1)[-1], 28) or EMPTY),
            size(model.size_bytes),
            model.config.get("task_id") or EMPTY,
            lamp if model.loaded else EMPTY,
            lamp if model.current else EMPTY,
            ago(model.last_used_at, language),
        ),
        key=model.name,
    )
