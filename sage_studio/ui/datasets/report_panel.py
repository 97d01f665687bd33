"""The Dataset tab's report: what became of the rows, and a quality check on demand."""

from typing import Any

import gradio as gr
from markupsafe import Markup

from sage_studio.data.jobs import Job, JobState
from sage_studio.data.quality import KINDS, QualityReport
from sage_studio.services.datasets import seconds_per_epoch
from sage_studio.text import Language, Text
from sage_studio.ui.components.events import follow, on
from sage_studio.ui.components.format import EMPTY, about, ago, bar, compact, count
from sage_studio.ui.components.html import html, notice, quiet, tiles
from sage_studio.ui.components.model_picker import reader
from sage_studio.ui.components.page_context import PageContext, dataset_or_newest
from sage_studio.ui.components.picker import Picker
from sage_studio.ui.components.plots import ROWS, TOKENS, histogram
from sage_studio.ui.components.table import Column, Row, table
from sage_studio.ui.datasets.dataset_report import report

CHECK, STOP = Text("Check all rows"), Text("Stop")
NOT_CHECKED = Text("Not checked yet: copies, leaks and real token lengths are found on demand.")
CHECKED = Text("Checked with the tokenizer of {}")
FOUND, COUNT, FIRST = Text("Found"), Text("Rows"), Text("First rows")
CLEAN = Text("Nothing found.")
PER_EPOCH, CUT = Text("Tokens per epoch"), Text("Longer than {}")
LONGEST, TIME = Text("Longest row, tokens"), Text("Time per epoch")
ABOUT = Text("about {}")
AS_CSV, AS_JSONL = Text("All rows as CSV"), Text("as JSONL")
NONE = Text("none")


class ReportPanel:
    """Figures, histogram, and the close look."""

    def __init__(self, context: PageContext) -> None:
        self.context, self.studio, self.words = context, context.studio, context.words
        self.figures = html("dataset-report")
        self.histogram = self.words(
            gr.BarPlot,
            label=Text("Rows by length in tokens"),
            x=TOKENS,
            y=ROWS,
            x_title=" ",
            y_title=" ",
            x_label_angle=-45,
            height=200,
            elem_id="dataset-histogram",
            visible=False,
        )
        self._order()
        self.state = html("dataset-check-state")
        self.findings = html("dataset-findings")
        self._wire()

    def _order(self) -> None:
        words = self.words
        with gr.Row(visible=False, elem_classes="toolbar") as self.order:
            self.model, self.max_length = reader(self.words, self.studio, "check", Text("Tokenizer of"))
            self.against = words(
                Picker,
                label=Text("Leaks into"),
                choices=[(NONE, "")],
                value="",
                scale=3,
                min_width=180,
                elem_id="check-against",
            )
            self.check = words(gr.Button, value=CHECK, scale=0, min_width=150, elem_id="dataset-check")
            self.stop = words(gr.Button, value=STOP, scale=0, min_width=80, elem_id="check-stop", visible=False)

    def _wire(self) -> None:
        context, chosen = self.context, self.context.dataset
        renew = [context.page.load, chosen.change, context.revision.change]
        on(
            self.check.click,
            self.begin,
            [chosen, self.model, self.max_length, self.against, context.revision],
            context.revision,
            fills="dataset-check-state",
            reveals="dataset-check-state",
        )
        on(self.stop.click, self.halt, chosen, None)
        on(renew, self.renew_others, chosen, self.against, queue=False)
        follow(
            [*context.ticks, chosen.change],
            self.show,
            [chosen],
            [self.figures, self.histogram, self.order, self.state, self.findings, self.stop],
        )

    # Handlers

    def begin(self, _: Language, chosen: str, model: str, max_length: float, against: str, revision: int) -> int:
        """Look closely at all rows."""
        dataset_id = dataset_or_newest(self.studio, chosen)
        self.studio.datasets.inspect(dataset_id, model=model or "", max_length=max_length, against=against or "")
        return revision + 1

    def halt(self, _: Language, chosen: str) -> None:
        """Stop the close look."""
        for job in self._running(dataset_or_newest(self.studio, chosen)):
            self.studio.datasets.stop_job(job.id)

    def renew_others(self, language: Language, chosen: str) -> Any:
        """The datasets to search for leaks."""
        dataset_id = dataset_or_newest(self.studio, chosen)
        others = [(f"{item.name} v{item.version}", item.id) for item in self.studio.datasets.list()]
        return gr.update(
            choices=[(NONE.in_(language), ""), *(other for other in others if other[1] != dataset_id)], value=""
        )

    def show(self, language: Language, chosen: str) -> tuple[Any, ...]:
        """The report as it stands."""
        dataset_id = dataset_or_newest(self.studio, chosen)
        datasets = [item for item in self.studio.datasets.list() if item.id == dataset_id]
        figures, bins = report(datasets, language)
        if not datasets:
            return figures, bins, gr.update(visible=False), "", "", gr.update(visible=False)
        found, running = self.studio.datasets.inspection(dataset_id), self._running(dataset_id)
        last = [job for job in self.studio.datasets.list_jobs(dataset_id) if job.kind == "report"][:1]
        if found is not None and found.histogram:
            bins = {**histogram(found.histogram), "visible": True}
        state = self._state(found, last, language)
        below = _links(dataset_id, language)
        if found is not None:
            below = findings_view(found, self._epoch(dataset_id, found), language) + below
        return figures, bins, gr.update(visible=True), state, below, gr.update(visible=bool(running))

    def _state(self, found: QualityReport | None, last: list[Job], language: Language) -> Markup:
        if last and last[0].state is JobState.RUNNING:
            job = last[0]
            share = 100 * job.done / max(job.total, 1)
            return Markup('<p class="doing">{}</p>').format(job.doing.in_(language)) + bar(
                share, CHECK.in_(language), "running"
            )
        if last and last[0].message:
            return notice("failed", last[0].message.in_(language), last[0].hint.in_(language))
        if found is None:
            return quiet(NOT_CHECKED.in_(language))
        return quiet(CHECKED.in_(language).format(found.model) + " · ") + ago(found.made_at, language)

    def _epoch(self, dataset_id: str, found: QualityReport) -> float | None:
        """Seconds of an epoch: by the speed of earlier runs, else as the Train tab guesses it."""
        seconds = seconds_per_epoch(found, self.studio.training.tokens_per_second(found.model))
        return (
            self.studio.estimates.epoch_seconds(dataset_id, found.model, found.max_length)
            if seconds is None
            else seconds
        )

    def _running(self, dataset_id: str) -> list[Job]:
        jobs = self.studio.datasets.list_jobs(dataset_id)
        return [job for job in jobs if job.kind == "report" and job.state is JobState.RUNNING]


def findings_view(found: QualityReport, seconds: float | None, language: Language) -> Markup:
    """Figures by the real tokenizer, and what was found how often; ``seconds`` are an epoch's."""
    time = EMPTY if seconds is None else ABOUT.in_(language).format(about(seconds, language))
    shown = Markup()
    if found.tokens_per_epoch is not None:
        shown = tiles(
            [
                (PER_EPOCH.in_(language), compact(found.tokens_per_epoch)),
                (LONGEST.in_(language), count(found.longest or 0)),
                (CUT.in_(language).format(found.max_length), f"{100 * (found.share_cut or 0):.1f} %"),
                (TIME.in_(language), time),
            ],
            css="wide",
        )
    rows = [
        Row((message.in_(language), count(found.counts[kind]), ", ".join(map(str, found.first.get(kind, ())))))
        for kind, message in KINDS.items()
        if kind in found.counts
    ]
    if not rows:
        return shown + quiet(CLEAN.in_(language))
    columns = [Column(FOUND), Column(COUNT, figures=True), Column(FIRST)]
    return shown + table(columns, rows, language, FOUND)


def _links(dataset_id: str, language: Language) -> Markup:
    return Markup(
        '<p class="links"><a href="api/datasets/{0}/findings?format=csv" download>{1}</a> · '
        '<a href="api/datasets/{0}/findings?format=jsonl" download>{2}</a></p>'
    ).format(dataset_id, AS_CSV.in_(language), AS_JSONL.in_(language))
