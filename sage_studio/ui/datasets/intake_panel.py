"""The Dataset tab's imports: a file, a repository's documents, a dataset of the hub."""

from pathlib import Path
from typing import Any

import gradio as gr

from sage_studio.data.dataset import OnProgress
from sage_studio.data.readers.file_type import SUFFIXES
from sage_studio.data.sources.documents import DocumentRows
from sage_studio.errors import UnknownColumns
from sage_studio.text import Language, Text
from sage_studio.ui.components.events import on
from sage_studio.ui.components.page_context import PageContext
from sage_studio.ui.datasets.mapping_panel import MappingPanel

REPOSITORY = Text("🗂 Documents of a Git repository")
HUB = Text("🤗 A dataset of the hub, by its id")
WAYS = [(REPOSITORY, "repository"), (HUB, "hub")]
FILE = Text("Rows or documents")
KINDS = Text("Rows: JSON, JSONL, CSV, Parquet (also .gz). Documents: Markdown, HTML, TXT, PDF, DOCX, zip")
DOCUMENTS_BECOME = Text("Documents become")
QUESTIONS, PASSAGES = Text("questions and answers"), Text("passages, without questions")
PROGRESS = gr.Progress()


class IntakePanel:
    """The inputs of each way; one of them is shown at a time."""

    def __init__(self, context: PageContext) -> None:
        self.context, self.studio, self.words = context, context.studio, context.words
        with gr.Column(visible=False) as self.upload_box:
            self.upload = self.words(
                gr.File, label=FILE, file_types=list(SUFFIXES), height=120, elem_id="dataset-upload"
            )
            self.words(gr.Markdown, value=KINDS, elem_classes="quiet")
            self.upload_rows = self._rows("upload-rows")
            self.mapping = MappingPanel(context)
        with gr.Column(visible=False) as self.repository_box:
            self._repository()
        with gr.Column(visible=False) as self.hub_box:
            self._hub()

    @property
    def boxes(self) -> list[gr.Column]:
        """In the order of `shown`."""
        return [self.upload_box, self.repository_box, self.hub_box]

    def wire(self, progress: gr.HTML) -> None:
        """Hang the handlers on; what goes on is shown at ``progress``."""
        bar: dict[str, Any] = {"show_progress": "minimal", "show_progress_on": progress}
        out = [self.context.dataset, progress]
        given = [self.upload, self.upload_rows]
        on(self.upload.upload, self.add_file, given, [*out, *self.mapping.asked], **bar)
        self.mapping.wire(self.add_mapped, out, bar)
        repository = [self.address, self.branch, self.folder, self.repository_rows]
        on(self.fetch_repository.click, self.add_repository, repository, out, **bar)
        hub = [self.repo, self.config, self.split, self.max_rows]
        on(self.fetch_hub.click, self.add_hub, hub, out, **bar)

    def _rows(self, elem_id: str) -> Any:
        choices = [(QUESTIONS, "questions"), (PASSAGES, "passages")]
        return self.words(gr.Radio, label=DOCUMENTS_BECOME, choices=choices, value="questions", elem_id=elem_id)

    def _text(self, label: Text, elem_id: str, placeholder: str = "") -> Any:
        return self.words(gr.Textbox, value="", label=label, placeholder=placeholder, max_lines=1, elem_id=elem_id)

    def _repository(self) -> None:
        self.address = self._text(Text("Address"), "repository-address", "https://…/docs.git")
        with gr.Row():
            self.branch = self._text(Text("Branch or tag"), "repository-branch", "HEAD")
            self.folder = self._text(Text("Folder"), "repository-folder", "docs")
        self.repository_rows = self._rows("repository-rows")
        self.fetch_repository = self._button("repository-fetch")

    def _hub(self) -> None:
        self.repo = self._text(Text("Id (owner/name)"), "hub-repo", "tatsu-lab/alpaca")
        with gr.Row():
            self.config = self._text(Text("Configuration"), "hub-config", "default")
            self.split = self._text(Text("Split"), "hub-split", "train")
            self.max_rows = self.words(
                gr.Number,
                label=Text("Most rows (0: all)"),
                value=0,
                minimum=0,
                elem_id="hub-rows",
            )
        self.fetch_hub = self._button("hub-fetch")

    def _button(self, elem_id: str) -> Any:
        return self.words(gr.Button, value=Text("Fetch"), variant="primary", elem_id=elem_id)

    # Handlers

    def add_file(
        self, language: Language, path: str, rows: DocumentRows, progress: gr.Progress = PROGRESS
    ) -> tuple[Any, ...]:
        """Keep an uploaded file, or ask which of its columns is which."""
        try:
            dataset = self.studio.datasets.upload(Path(path), on_progress=_told(progress, language), rows=rows)
        except UnknownColumns:
            return gr.skip(), "", *self.mapping.ask(language, path)
        return dataset.id, "", *self.mapping.done()

    def add_mapped(self, _: Language, path: str, known: str, *columns: str) -> tuple[Any, ...]:
        """Keep the file with the columns that a person named."""
        dataset = self.studio.datasets.upload(Path(path), mapping=self.mapping.chosen(known, columns))
        return dataset.id, "", *self.mapping.done()

    def add_repository(
        self,
        language: Language,
        address: str,
        branch: str,
        folder: str,
        rows: DocumentRows,
        progress: gr.Progress = PROGRESS,
    ) -> tuple[str, str]:
        """Fetch a repository's documents."""
        return self.studio.datasets.add_repository(
            address, branch, folder, rows=rows, on_progress=_told(progress, language)
        ).id, ""

    def add_hub(
        self, language: Language, repo: str, config: str, split: str, rows: float, progress: gr.Progress = PROGRESS
    ) -> tuple[str, str]:
        """Fetch a dataset of the hub."""
        return self.studio.datasets.add_from_hub(
            repo, config, split, int(rows or 0), on_progress=_told(progress, language)
        ).id, ""


def shown(source: str) -> list[Any]:
    """Which of the boxes is seen."""
    return [gr.update(visible=source == each) for each in ("upload", "repository", "hub")]


def _told(progress: gr.Progress, language: Language) -> OnProgress:
    return lambda share, doing: progress(share, doing.in_(language))
