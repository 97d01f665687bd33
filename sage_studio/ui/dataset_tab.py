"""The Dataset tab: bring rows in, see what became of them, lead on to training.

Knows which verb each button says. Knows nothing of what a dataset looks like: that is
`dataset_report`'s.
"""

from pathlib import Path
from typing import Any

import gradio as gr

from sage_studio.text import Language, Text
from sage_studio.ui.dataset_report import UNFOLD_JS, datasets_table, preview_table, report
from sage_studio.ui.dialogs import Dialog
from sage_studio.ui.events import follow, on
from sage_studio.ui.frame import Frame
from sage_studio.ui.parts import html
from sage_studio.ui.plots import ROWS, TOKENS
from sage_studio.ui.table import PICK_JS, picked_key

PAGE_ROWS = 20
PROGRESS = gr.Progress()
"""Gradio gives a handler that has this default a tracker of its own at each call."""
UPLOAD = Text(
    "📁 Upload a local dataset (JSON/JSONL, Alpaca format)", "📁 上传本地数据集 (支持 JSON/JSONL (Alpaca 格式))"
)
DOCS = Text(
    "📚 Use the SAGE documentation (fetched from GitHub and made into training data)",
    "📚 使用 SAGE 官方文档 (自动从 GitHub 下载并准备训练数据)",
)
DELETE = Text("Delete", "删除")
DELETE_TITLE = Text("Delete dataset", "删除数据集")
DELETE_QUESTION = Text(
    "Delete this dataset? Its rows are gone for good; models already trained on it stay.",
    "确定删除此数据集吗？其中的数据将无法恢复；已用它训练的模型不受影响。",
)


class DatasetTab:
    """Source and list on the left, report and rows on the right."""

    def __init__(self, frame: Frame) -> None:
        self.frame, self.studio, self.words = frame, frame.studio, frame.words
        self.delete_dialog = Dialog("dialog-delete-dataset", DELETE_TITLE, DELETE_QUESTION, DELETE, danger=True)
        self.offset = gr.State(0)
        with gr.Row(elem_classes="split"):
            with gr.Column(scale=4, min_width=320):
                self._source()
                self._list()
            with gr.Column(scale=8, min_width=320):
                self._report()
                self._preview()
        self._wire()

    def _source(self) -> None:
        words, settings = self.words, self.studio.settings
        self.source = words(
            gr.Radio,
            label=Text("Where the data comes from", "数据来源"),
            choices=[(UPLOAD, "upload"), (DOCS, "docs")],
            value="docs",
            elem_id="dataset-source",
            elem_classes="stacked",
        )
        with gr.Column(visible=False) as self.upload_box:
            self.upload = words(
                gr.File,
                label=Text("JSON or JSONL file", "JSON 或 JSONL 文件"),
                file_types=[".json", ".jsonl"],
                height=120,
                elem_id="dataset-upload",
            )
        with gr.Column() as self.docs_box:
            with words(gr.Accordion, label=Text("Where the documentation is", "文档的位置"), open=False):
                gr.Markdown(f"`{settings.docs_repo}` · `{settings.docs_branch or 'HEAD'}` · `{settings.docs_folder}/`")
            with gr.Row():
                self.prepare = words(
                    gr.Button, value=Text("Prepare", "准备"), variant="primary", elem_id="docs-prepare"
                )
                self.refresh = words(gr.Button, value=Text("Fetch again", "重新下载"), elem_id="docs-refresh")
        self.progress = html("dataset-progress", elem_classes="progress-host")

    def _list(self) -> None:
        self.list = html("dataset-list", PICK_JS)

    def _report(self) -> None:
        self.report = html("dataset-report")
        self.histogram = self.words(
            gr.BarPlot,
            label=Text("Rows by length in tokens", "各 token 长度的行数"),
            x=TOKENS,
            y=ROWS,
            x_title=" ",
            y_title=" ",
            height=190,
            elem_id="dataset-histogram",
            visible=False,
        )
        with gr.Row(visible=False, elem_classes="actions") as self.actions:
            self.train = self.words(
                gr.Button, value=Text("Train with it →", "用它训练 →"), variant="primary", elem_id="dataset-train"
            )
            self.delete = self.words(gr.Button, value=DELETE, elem_id="dataset-delete", elem_classes="quiet-button")

    def _preview(self) -> None:
        words = self.words
        with gr.Row(visible=False, elem_classes="toolbar") as self.toolbar:
            self.search = words(
                gr.Textbox,
                value="",
                label=Text("Search the rows", "搜索数据"),
                placeholder=Text("a word or a path", "关键词或路径"),
                max_lines=1,
                elem_id="dataset-search",
                scale=3,
                min_width=160,
            )
            self.back = words(
                gr.Button, value=Text("‹ Back", "‹ 上一页"), elem_id="dataset-prev", scale=0, min_width=90
            )
            self.next = words(
                gr.Button, value=Text("Next ›", "下一页 ›"), elem_id="dataset-next", scale=0, min_width=90
            )
        self.rows = html("dataset-preview", UNFOLD_JS)

    def _wire(self) -> None:
        chosen, offset = self.frame.dataset, self.offset
        on(self.source.change, show_source, self.source, [self.upload_box, self.docs_box], queue=False)
        shown = {"show_progress": "minimal", "show_progress_on": self.progress, "outputs": [chosen, self.progress]}
        on(self.upload.upload, self.add_file, self.upload, **shown)
        on(self.prepare.click, self.prepare_docs, **shown)
        on(self.refresh.click, self.refresh_docs, **shown)
        on(self.list.select, pick, None, [chosen, offset])
        on(self.delete.click, self.ask_delete, chosen, self.delete_dialog.html)
        self.delete_dialog.confirmed(self.delete_dataset, self.frame.revision, [chosen, self.frame.revision])
        on(self.search.input, first_page, None, offset)
        on(self.back.click, self.page_back, offset, offset)
        on(self.next.click, self.page_on, offset, offset)
        follow([*self.frame.ticks, chosen.change], self.show_list, [chosen], [self.list])
        follow(
            [self.frame.page.load, chosen.change, self.frame.revision.change],
            self.show_report,
            [chosen],
            [self.report, self.histogram, self.actions, self.toolbar],
        )
        follow(
            [self.frame.page.load, chosen.change, offset.change, self.search.input],
            self.show_rows,
            [chosen, offset, self.search],
            [self.rows],
        )

    # Handlers

    def add_file(self, language: Language, path: str, progress: gr.Progress = PROGRESS) -> tuple[str, str]:
        """Keep an uploaded file."""
        dataset = self.studio.upload_dataset(
            Path(path), on_progress=lambda share, doing: progress(share, doing.in_(language))
        )
        return dataset.id, ""

    def prepare_docs(self, language: Language, progress: gr.Progress = PROGRESS) -> tuple[str, str]:
        """The documentation, from the cached copy if there is one."""
        return self._docs(language, progress, force_refresh=False)

    def refresh_docs(self, language: Language, progress: gr.Progress = PROGRESS) -> tuple[str, str]:
        """The documentation, fetched again."""
        return self._docs(language, progress, force_refresh=True)

    def ask_delete(self, language: Language, dataset_id: str) -> str:
        """Open the dialog."""
        return self.delete_dialog.ask(language, dataset_id, self.studio.get_dataset(dataset_id).name)

    def delete_dataset(self, _: Language, revision: int, event: gr.EventData) -> tuple[str, int]:
        """Delete after a yes."""
        self.studio.delete_dataset(picked_key(event))
        return "", revision + 1

    def use(self, _: Language, chosen: str) -> tuple[str, Any]:
        """Go on to train with the dataset that is shown."""
        return self._or_newest(chosen), gr.update(selected="train")

    def show_list(self, language: Language, chosen: str) -> tuple[Any]:
        """All datasets; without a choice the newest is marked."""
        datasets = self.studio.list_datasets()
        return (datasets_table(datasets, self._or_newest(chosen), language),)

    def show_report(self, language: Language, chosen: str) -> tuple[Any, ...]:
        """What became of the rows."""
        return report([item for item in self.studio.list_datasets() if item.id == self._or_newest(chosen)], language)

    def show_rows(self, language: Language, chosen: str, offset: int, search: str) -> tuple[Any]:
        """Some of its rows."""
        dataset_id = self._or_newest(chosen)
        if not dataset_id:
            return ("",)
        page = self.studio.preview_dataset(dataset_id, offset=offset, limit=PAGE_ROWS, search=search)
        return (preview_table(page, language),)

    def page_back(self, _: Language, offset: int) -> int:
        """The rows before."""
        return max(offset - PAGE_ROWS, 0)

    def page_on(self, _: Language, offset: int) -> int:
        """The rows after."""
        return offset + PAGE_ROWS

    def _docs(self, language: Language, progress: gr.Progress, *, force_refresh: bool) -> tuple[str, str]:
        dataset = self.studio.prepare_sage_docs(
            force_refresh=force_refresh, on_progress=lambda share, doing: progress(share, doing.in_(language))
        )
        return dataset.id, ""

    def _or_newest(self, chosen: str) -> str:
        datasets = self.studio.list_datasets()
        return next((item.id for item in datasets if item.id == chosen), datasets[0].id if datasets else "")


def show_source(_: Language, source: str) -> tuple[Any, Any]:
    """The inputs of one source."""
    return gr.update(visible=source == "upload"), gr.update(visible=source == "docs")


def pick(_: Language, event: gr.EventData) -> tuple[str, int]:
    """Look at another dataset, from its first row."""
    return picked_key(event), 0


def first_page(_: Language) -> int:
    """A new search begins at the top."""
    return 0
