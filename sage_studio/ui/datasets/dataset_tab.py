"""The Dataset tab: add rows, see what became of them, go on to training."""

from typing import Any

import gradio as gr

from sage_studio.text import Language, Text
from sage_studio.ui.components.dialogs import Dialog
from sage_studio.ui.components.events import follow, on
from sage_studio.ui.components.html import html
from sage_studio.ui.components.page_context import PageContext, dataset_or_newest
from sage_studio.ui.components.table import PICK_JS, picked_key
from sage_studio.ui.datasets.augment_panel import AugmentPanel
from sage_studio.ui.datasets.combine_panel import CombinePanel
from sage_studio.ui.datasets.dataset_report import datasets_table
from sage_studio.ui.datasets.intake_panel import WAYS, IntakePanel, shown
from sage_studio.ui.datasets.preview_panel import PreviewPanel
from sage_studio.ui.datasets.report_panel import ReportPanel

PROGRESS = gr.Progress()
"""Gradio gives a handler that has this default a tracker of its own at each call."""
UPLOAD = Text("📁 Upload a local dataset (JSON/JSONL, Alpaca format)")
DOCS = Text("📚 Use the SAGE documentation (fetched from GitHub and made into training data)")
QUICKSTART = Text("✨ Quick start: questions about SAGE")
QUICKSTART_NOTE = Text(
    "Comes with the studio. With the preset “Quick start”, the built-in model learns it in minutes on any CPU; the "
    "test questions of `make demo` are not in it."
)
DELETE = Text("Delete")
DELETE_TITLE = Text("Delete dataset")
DELETE_QUESTION = Text(
    "Delete this dataset? Its rows are gone for good, and a stopped run on it cannot go on; models already trained on "
    "it stay."
)


class DatasetTab:
    """Source and list on the left, what there is to see and to do on the right."""

    def __init__(self, context: PageContext) -> None:
        self.context, self.studio, self.words = context, context.studio, context.words
        self.delete_dialog = Dialog("dialog-delete-dataset", DELETE_TITLE, DELETE_QUESTION, DELETE, danger=True)
        with gr.Row(elem_classes="split"):
            with gr.Column(scale=4, min_width=320):
                self._source()
                self._list()
            with gr.Column(scale=8, min_width=320):
                self._about()
        self._wire()

    def _source(self) -> None:
        words, settings = self.words, self.studio.settings
        self.source = words(
            gr.Radio,
            label=Text("Where the data comes from"),
            choices=[(UPLOAD, "upload"), (DOCS, "docs"), (QUICKSTART, "quickstart"), *WAYS],
            value="quickstart",
            elem_id="dataset-source",
            elem_classes="stacked",
        )
        self.intake = IntakePanel(self.context)
        with gr.Column() as self.quickstart_box:
            words(gr.Markdown, value=QUICKSTART_NOTE, elem_classes="quiet")
            self.add_quickstart = words(gr.Button, value=Text("Add"), variant="primary", elem_id="quickstart-add")
        with gr.Column(visible=False) as self.docs_box:
            with words(gr.Accordion, label=Text("Where the documentation is"), open=False):
                gr.Markdown(f"`{settings.docs_repo}` · `{settings.docs_branch or 'HEAD'}` · `{settings.docs_folder}/`")
            with gr.Row():
                self.prepare = words(gr.Button, value=Text("Prepare"), variant="primary", elem_id="docs-prepare")
                self.refresh = words(gr.Button, value=Text("Fetch again"), elem_id="docs-refresh")
        self.progress = html("dataset-progress", elem_classes="progress-host")

    def _list(self) -> None:
        self.list = html("dataset-list", PICK_JS)

    def _about(self) -> None:
        """What there is to see and to do with the dataset that is chosen."""
        words = self.words
        with gr.Row(visible=False, elem_classes="actions") as self.actions:
            self.train = words(gr.Button, value=Text("Train with it →"), variant="primary", elem_id="dataset-train")
            self.delete = words(gr.Button, value=DELETE, elem_id="dataset-delete", elem_classes="quiet-button")
        with gr.Tabs(selected="report", elem_id="dataset-tabs"):
            with words(gr.Tab, label=Text("Report"), id="report", elem_id="dataset-tab-report"):
                ReportPanel(self.context)
            with words(gr.Tab, label=Text("Preview"), id="preview", elem_id="dataset-tab-preview"):
                PreviewPanel(self.context)
            with words(gr.Tab, label=Text("Combine"), id="combine", elem_id="dataset-tab-combine"):
                CombinePanel(self.context)
            with words(gr.Tab, label=Text("Augment"), id="augment", elem_id="dataset-tab-augment"):
                AugmentPanel(self.context)

    def _wire(self) -> None:
        chosen = self.context.dataset
        boxes = [self.docs_box, self.quickstart_box, *self.intake.boxes]
        on(self.source.change, show_source, self.source, boxes, queue=False)
        bar: dict[str, Any] = {
            "show_progress": "minimal",
            "show_progress_on": self.progress,
            "outputs": [chosen, self.progress],
        }
        self.intake.wire(self.progress)
        on(self.add_quickstart.click, self.add_quickstart_set, **bar)
        on(self.prepare.click, self.prepare_docs, **bar)
        on(self.refresh.click, self.refresh_docs, **bar)
        on(self.list.select, pick, None, chosen, fills="dataset-report")
        on(self.delete.click, self.ask_delete, chosen, self.delete_dialog.html, queue=False)
        self.delete_dialog.confirmed(self.delete_dataset, self.context.revision, [chosen, self.context.revision])
        follow([*self.context.ticks, chosen.change], self.show_list, [chosen], [self.list])
        follow([*self.context.ticks, chosen.change], self.show_actions, [], [self.actions])

    # Handlers

    def add_quickstart_set(self, _: Language) -> tuple[str, str]:
        """The questions that come with the studio."""
        return self.studio.datasets.add_quickstart().id, ""

    def prepare_docs(self, language: Language, progress: gr.Progress = PROGRESS) -> tuple[str, str]:
        """The documentation, from the cached copy if there is one."""
        return self._docs(language, progress, force_refresh=False)

    def refresh_docs(self, language: Language, progress: gr.Progress = PROGRESS) -> tuple[str, str]:
        """The documentation, fetched again."""
        return self._docs(language, progress, force_refresh=True)

    def ask_delete(self, language: Language, dataset_id: str) -> str:
        """Open the dialog."""
        return self.delete_dialog.ask(language, dataset_id, self.studio.datasets.get(dataset_id).name)

    def delete_dataset(self, _: Language, revision: int, event: gr.EventData) -> tuple[str, int]:
        """Delete after a yes."""
        self.studio.datasets.delete(picked_key(event))
        return "", revision + 1

    def use(self, _: Language, chosen: str) -> tuple[str, Any]:
        """Go on to train with the dataset that is shown."""
        return dataset_or_newest(self.studio, chosen), gr.update(selected="train")

    def show_list(self, language: Language, chosen: str) -> tuple[Any]:
        """All datasets; without a choice the newest is marked."""
        datasets = self.studio.datasets.list()
        checked = {item.id for item in datasets if self.studio.datasets.is_inspected(item.id)}
        return (datasets_table(datasets, dataset_or_newest(self.studio, chosen), language, checked),)

    def show_actions(self, _: Language) -> tuple[Any]:
        """Whether there is a dataset to do anything with."""
        return (gr.update(visible=bool(self.studio.datasets.list())),)

    def _docs(self, language: Language, progress: gr.Progress, *, force_refresh: bool) -> tuple[str, str]:
        dataset = self.studio.datasets.prepare_sage_docs(
            force_refresh=force_refresh, on_progress=lambda share, doing: progress(share, doing.in_(language))
        )
        return dataset.id, ""


def show_source(_: Language, source: str) -> list[Any]:
    """The inputs of one source."""
    return [*(gr.update(visible=source == each) for each in ("docs", "quickstart")), *shown(source)]


def pick(_: Language, event: gr.EventData) -> str:
    """Look at another dataset."""
    return picked_key(event)
