"""The Dataset tab's augmentation: rephrased rows, generated questions, and their jobs."""

from typing import Any

import gradio as gr
from markupsafe import Markup

from sage_studio.data.jobs import Job, JobState
from sage_studio.text import Language, Text
from sage_studio.ui.components.events import follow, on
from sage_studio.ui.components.format import about, ago, bar, count, short
from sage_studio.ui.components.html import FIRST_DATASET, Lead, empty, html, quiet
from sage_studio.ui.components.page_context import PageContext, dataset_or_newest
from sage_studio.ui.components.table import PICK_JS, Column, Row, picked_key, table

WAYS = [
    (Text("Say it in other words"), "paraphrase"),
    (Text("Translate there and back"), "back_translation"),
    (Text("Write questions about each section"), "annotate"),
]
PARTS = [
    (Text("the question"), "question"),
    (Text("the answer"), "answer"),
    (Text("both"), "both"),
]
STATES = {
    JobState.RUNNING: Text("● running"),
    JobState.STOPPED: Text("stopped"),
    JobState.COMPLETED: Text("✅ done"),
    JobState.FAILED: Text("failed"),
}
LOOKS = {
    JobState.RUNNING: "running",
    JobState.COMPLETED: "done",
    JobState.FAILED: "failed",
    JobState.STOPPED: "waiting",
}
KIND_NAMES = {
    "augment": Text("in other words"),
    "annotate": Text("questions"),
    "report": Text("check"),
}
EXPLAINED = Text(
    "The model that answers the chat writes the rows; what is a copy, too far off, of another length or language, or "
    "has no evidence in the text is left out with its reason. Every row names the row it was made of."
)
JOBS, NO_JOB = Text("Work on datasets"), Text("No work yet")
START_ONE = Text("What the model writes, and how far it is, is listed here.")
CHOOSE = Lead(Text("Choose what to write"), "augment-way")
NO_DATASET = Text("Nothing to add to yet")
WHAT = Text("Here a model writes more rows from a dataset: questions in other words, or questions about each section.")
SAMPLE_ROWS = 20
"""A first try: somebody reads what was made before hours are spent on all rows."""
CALLS_A_ROW = {"paraphrase": 1, "back_translation": 2, "annotate": 1}
"""Questions to the model for each row and copy; those of a section are asked for all at once."""
ANSWER_TOKENS = {"paraphrase": 60, "back_translation": 60, "annotate": 250}
PRICE = Text("{} of {} rows · {} calls to the chat model")
PRICE_TIME = Text("about {} at {} tokens/s")
NO_SPEED = Text("the time shows once the engine has answered")
SAMPLE_FIRST = Text("Look at this sample first; then set Rows to 0 for all.")
JOB, WORK, STATE = Text("Job"), Text("Work"), Text("State")
DONE, MADE, BEGUN = Text("Rows", context="column"), Text("Made", context="column"), Text("Started")


class AugmentPanel:
    """What to write, and the jobs."""

    def __init__(self, context: PageContext) -> None:
        self.context, self.studio, self.words = context, context.studio, context.words
        self.note = html("augment-note")
        with gr.Column(visible=False) as self.box:
            self._order()
        self.job = gr.State("")
        self.jobs = html("dataset-jobs", PICK_JS)
        with gr.Row(visible=False, elem_classes="actions") as self.actions:
            words = self.words
            self.stop = words(gr.Button, value=Text("Stop"), elem_id="job-stop")
            self.resume = words(gr.Button, value=Text("Go on"), elem_id="job-resume")
            self.look = words(gr.Button, value=Text("Look at what it made →"), elem_id="job-look")
            self.delete = words(gr.Button, value=Text("Remove"), elem_id="job-delete", elem_classes="quiet-button")
        self._wire()

    def _order(self) -> None:
        words = self.words
        self.way = words(
            gr.Radio,
            label=Text("What to write"),
            choices=list(WAYS),
            value="paraphrase",
            elem_id="augment-way",
            elem_classes="stacked",
        )
        with gr.Row(elem_classes="toolbar"):
            self._amounts()
            self.name = words(
                gr.Textbox,
                label=Text("Name (may stay empty)"),
                value="",
                max_lines=1,
                scale=2,
                min_width=150,
                elem_id="augment-name",
            )
            self.start = words(
                gr.Button,
                value=Text("Start"),
                variant="primary",
                scale=0,
                min_width=90,
                elem_id="augment-start",
            )
        self.price = html("augment-price")

    def _amounts(self) -> None:
        words = self.words
        self.part = words(
            gr.Dropdown,
            label=Text("Of each row"),
            choices=list(PARTS),
            value="question",
            scale=2,
            min_width=130,
            elem_id="augment-part",
        )
        self.copies = words(
            gr.Number,
            label=Text("Per row"),
            value=1,
            precision=0,
            minimum=1,
            scale=1,
            min_width=90,
            elem_id="augment-copies",
        )
        self.most = words(
            gr.Number,
            label=Text("Rows (0 = all)"),
            value=SAMPLE_ROWS,
            precision=0,
            minimum=0,
            scale=1,
            min_width=110,
            elem_id="augment-rows",
        )

    def _wire(self) -> None:
        context, chosen = self.context, self.context.dataset
        on(self.way.change, show_part, self.way, [self.part, self.copies], queue=False)
        on(
            self.start.click,
            self.begin,
            [chosen, self.way, self.part, self.copies, self.most, self.name],
            self.job,
            fills="dataset-jobs",
            reveals="dataset-jobs",
        )
        on(self.jobs.select, pick, None, self.job)
        on(self.stop.click, self.halt, self.job, None)
        on(self.resume.click, self.go_on, [self.job, context.revision], context.revision)
        on(self.look.click, self.made, [self.job, chosen], chosen)
        on(self.delete.click, self.forget, [self.job, context.revision], [self.job, context.revision])
        asked: list[Any] = [self.way, self.part, self.copies, self.most]
        follow(
            [*context.ticks, chosen.change, *(each.change for each in asked)],
            self.show_price,
            [chosen, *asked],
            [self.price],
        )
        follow(
            [*context.ticks, self.job.change],
            self.show,
            [self.job],
            [self.note, self.box, self.jobs, self.actions, self.stop, self.resume, self.look, self.delete],
        )

    # Handlers

    def begin(self, _: Language, chosen: str, way: str, part: str, copies: float, most: float, name: str) -> str:
        """Start a job."""
        common = {"dataset_id": dataset_or_newest(self.studio, chosen), "max_rows": most or 0, "name": name.strip()}
        if way == "annotate":
            return self.studio.datasets.annotate(pairs=copies, **common).id
        return self.studio.datasets.augment(ways=[way], part=part, copies=copies, **common).id

    def show_price(
        self, language: Language, chosen: str, way: str, part: str, copies: float | None, most: float | None
    ) -> tuple[Markup]:
        """What Start would spend: calls to the model and, where its speed is known, time."""
        dataset_id = dataset_or_newest(self.studio, chosen)
        if not dataset_id:
            return (Markup(),)
        stats, speed = self.studio.datasets.get(dataset_id).stats, self.studio.serving.status().tokens_per_second
        rows = min(int(most or 0) or stats.total_samples, stats.total_samples)
        per_row = CALLS_A_ROW[way] * (1 if way == "annotate" else int(copies or 1) * (2 if part == "both" else 1))
        message = PRICE.in_(language).format(count(rows), count(stats.total_samples), count(rows * per_row))
        if speed:
            taken = about(rows * per_row * ANSWER_TOKENS[way] / speed, language)
            message += " · " + PRICE_TIME.in_(language).format(taken, f"{speed:.0f}")
        else:
            message += " · " + NO_SPEED.in_(language)
        more = quiet(" " + SAMPLE_FIRST.in_(language)) if rows < stats.total_samples else Markup()
        return (Markup('<p class="takes">{}{}</p>').format(message, more),)

    def halt(self, _: Language, job_id: str) -> None:
        """Stop the job that is shown."""
        self.studio.datasets.stop_job(self._shown(job_id)[0].id)

    def go_on(self, _: Language, job_id: str, revision: int) -> int:
        """Go on with the job that is shown."""
        self.studio.datasets.resume_job(self._shown(job_id)[0].id)
        return revision + 1

    def made(self, _: Language, job_id: str, chosen: str) -> str:
        """Look at the dataset that the job made."""
        return self._shown(job_id)[0].result or chosen

    def forget(self, _: Language, job_id: str, revision: int) -> tuple[str, int]:
        """Take the job off the list."""
        self.studio.datasets.delete_job(self._shown(job_id)[0].id)
        return "", revision + 1

    def show(self, language: Language, job_id: str) -> tuple[Any, ...]:
        """All jobs, and what can be done with the one that is shown."""
        jobs, shown = self.studio.datasets.list_jobs(), self._shown(job_id)
        state = shown[0].state if shown else None
        if not jobs and not self.studio.datasets.list():
            nothing = empty(NO_DATASET.in_(language), WHAT.in_(language), FIRST_DATASET, language)
            return (nothing, gr.update(visible=False), "", *(gr.update(visible=False) for _ in range(5)))
        return (
            quiet(EXPLAINED.in_(language)),
            gr.update(visible=True),
            jobs_table(jobs, shown[0].id if shown else "", language),
            gr.update(visible=bool(shown)),
            gr.update(visible=state is JobState.RUNNING),
            gr.update(visible=state in (JobState.STOPPED, JobState.FAILED)),
            gr.update(visible=bool(shown and shown[0].result)),
            gr.update(visible=state is not JobState.RUNNING),
        )

    def _shown(self, job_id: str) -> list[Job]:
        jobs = self.studio.datasets.list_jobs()
        return [job for job in jobs if job.id == job_id] or jobs[:1]


def jobs_table(jobs: list[Job], picked: str, language: Language) -> Markup:
    """All jobs, the picked one marked."""
    heading = Markup("<h2 class=minor>{}</h2>").format(JOBS.in_(language))
    if not jobs:
        return heading + empty(NO_JOB.in_(language), START_ONE.in_(language), CHOOSE, language)
    columns = [
        Column(JOB),
        Column(WORK),
        Column(STATE),
        Column(DONE, figures=True),
        Column(MADE),
        Column(BEGUN, figures=True),
    ]
    rows = [
        Row(
            (
                short(job.dataset_id),
                KIND_NAMES[job.kind].in_(language),
                _state(job, language),
                f"{count(job.done)} / {count(job.total)}",
                job.result,
                ago(job.created_at, language),
            ),
            key=job.id,
        )
        for job in jobs
    ]
    return heading + table(columns, rows, language, JOBS, picked)


def show_part(_: Language, way: str) -> tuple[Any, Any]:
    """Questions about sections have no part of a row to rewrite; three a section is what is usual."""
    asks = way == "annotate"
    return gr.update(visible=not asks), gr.update(value=3 if asks else 1)


def pick(_: Language, event: gr.EventData) -> str:
    """Look at another job."""
    return picked_key(event)


def _state(job: Job, language: Language) -> Markup:
    chip = Markup('<span class="chip {}">{}</span>').format(LOOKS[job.state], STATES[job.state].in_(language))
    if job.state is JobState.RUNNING and job.total:
        return chip + bar(100 * job.done / job.total, job.doing.in_(language), "running")
    message = " ".join(part for part in (job.message.in_(language), job.hint.in_(language)) if part)
    return chip + Markup('<div class="quiet">{}</div>').format(message) if message else chip
