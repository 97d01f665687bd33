"""The care of datasets: the verbs of `Studio` that look into rows, change them and make new datasets of them.

Knows how a verb becomes a job, where a model's tokenizer is and who answers what a job asks. Knows nothing of widgets
or routes, nor of how anything is found or made in the rows.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from statistics import median
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sage_studio.catalog import ModelRef
from sage_studio.data.dataset import Dataset
from sage_studio.data.example import DataRow
from sage_studio.data.jobs import Job, Jobs, JobState, Running, Work
from sage_studio.data.making import annotated, augmented
from sage_studio.data.making.annotated import AnnotateOrder
from sage_studio.data.making.augmented import AugmentOrder
from sage_studio.data.making.combined import CombinedSource, Part, Portion
from sage_studio.data.making.edited import EditedSource, RowChange
from sage_studio.data.making.writing import MadeSource, read_made, write_all
from sage_studio.data.quality.findings import Finding, read_findings
from sage_studio.data.quality.inspection import INSPECTION, Inspection, Yardstick, inspect, read_inspection
from sage_studio.data.store import DatasetStore
from sage_studio.errors import InvalidDataset, InvalidInput
from sage_studio.files import safe_name
from sage_studio.tasks.store import TaskStore
from sage_studio.tasks.task import TaskStatus
from sage_studio.text import Text
from sage_studio.training.preview import Seen, lengths, seen
from sage_studio.training.progress import read_result
from sage_studio.training.tokenizing import ChatTokenizer, tokenizer_of

RUNS_ASKED = 5
"""The speed of a model is the median of its newest so many runs."""
Order = TypeVar("Order", bound=BaseModel)


class ReportOrder(BaseModel):
    """How to look at a dataset."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset_id: str
    model: str = Field("", description="Whose tokenizer counts; empty: the default model")
    max_length: int = Field(1024, ge=16, le=131072, description="Longest row in tokens, as in the recipe")
    against: str = Field("", description="Dataset to search for leaks, usually the one to validate with")


class Curation:
    """The part of the house that cares for datasets."""

    datasets: DatasetStore
    tasks: TaskStore
    jobs: Jobs
    ask: Callable[[str, float, int], str]
    default_model: Callable[[], str]
    ensure_model: Callable[[str], ModelRef]
    get_dataset: Callable[[str], Dataset]
    add_dataset: Callable[..., Dataset]

    # Looking

    def inspect_dataset(self, dataset_id: str, **values: Any) -> Job:
        """Look closely at all rows, in the background: copies, leaks, lengths. Fields as of `ReportOrder`."""
        order = checked(ReportOrder, {**values, "dataset_id": dataset_id})
        self.get_dataset(order.dataset_id)
        if order.against:
            self.get_dataset(order.against)
        if order.model:
            self.ensure_model(order.model)
        return self._start("report", order)

    def inspection(self, dataset_id: str) -> Inspection | None:
        """What the last close look found; None before the first."""
        return read_inspection(self.datasets.folder(safe_name(dataset_id)))

    def is_checked(self, dataset_id: str) -> bool:
        """Whether it was looked at closely."""
        return (self.datasets.place(dataset_id) / INSPECTION).is_file()

    def findings(self, dataset_id: str, kind: str = "") -> Iterator[Finding]:
        """What is known of single rows: those left out and those that were found wanting, of one kind or of all."""
        return read_findings(self.datasets.folder(safe_name(dataset_id)), kind)

    def see_row(self, dataset_id: str, row: int, model: str = "", max_length: int = 1024) -> tuple[Seen, ...]:
        """A row, from 1, as a model would see it in a training.

        Raises:
            NotFound, InvalidInput: no such row.
            InvalidModel: its tokenizer cannot be read here.
        """
        dataset = self.get_dataset(dataset_id)
        if not 1 <= row <= dataset.stats.total_samples:
            raise InvalidInput(
                Text(f"{dataset.id} has no row {row}.", f"{dataset.id} 没有第 {row} 行。"),
                Text(f"Give 1 to {dataset.stats.total_samples}.", f"请填写 1 到 {dataset.stats.total_samples}。"),
            )
        return seen(next(self.datasets.rows(dataset.id, row - 1)), self._tokenizer_of(model), max_length)

    def tokens_per_second(self, model: str = "") -> float | None:
        """How fast this model was trained on this machine; None where it never was."""
        name, speeds = model or self.default_model(), list[float]()
        for task in self.tasks.list():
            if task.model == name and task.status is TaskStatus.COMPLETED and len(speeds) < RUNS_ASKED:
                result = read_result(task.folder)
                if result is not None and result.tokens_per_second:
                    speeds.append(result.tokens_per_second)
        return median(speeds) if speeds else None

    # Making

    def edit_dataset(self, dataset_id: str, changes: Sequence[Mapping[str, Any]]) -> Dataset:
        """A new version with rows changed or left out; the old one stays. Each change as of `RowChange`."""
        dataset = self.get_dataset(dataset_id)
        read = [checked(RowChange, change) for change in changes]
        return self.add_dataset(EditedSource(dataset, self.datasets.rows(dataset.id), read), dataset.name)

    def combine_datasets(
        self, portions: Iterable[Mapping[str, Any]], name: str = "combined", seed: int = 42, shuffle: bool = True
    ) -> Dataset:
        """Several datasets as one. Each portion as of `Portion`; every row of the result names where it came from."""
        parts = [
            Part(portion, self.get_dataset(portion.dataset_id), self.datasets.folder(safe_name(portion.dataset_id)))
            for portion in (checked(Portion, values) for values in portions)
        ]
        return self.add_dataset(CombinedSource(name or "combined", parts, seed, shuffle))

    def augment_dataset(self, **values: Any) -> Job:
        """Say rows in other words with the current chat model, in the background. Fields as of `AugmentOrder`."""
        order = checked(AugmentOrder, values)
        augmented.check_rows(self.get_dataset(order.dataset_id))
        return self._start("augment", order)

    def annotate_dataset(self, **values: Any) -> Job:
        """Write questions about texts with the current chat model, in the background. Fields as of `AnnotateOrder`."""
        order = checked(AnnotateOrder, values)
        annotated.check_rows(self.get_dataset(order.dataset_id))
        return self._start("annotate", order)

    # Jobs

    def list_jobs(self, dataset_id: str = "") -> list[Job]:
        """Work on datasets, the newest first; on one dataset or on all."""
        return self.jobs.list(dataset_id)

    def get_job(self, job_id: str) -> Job:
        """How such work stands. Raises `NotFound`."""
        return self.jobs.get(job_id)

    def stop_job(self, job_id: str) -> Job:
        """Stop it; what it has done stays, to go on from."""
        return self.jobs.stop(job_id)

    def resume_job(self, job_id: str) -> Job:
        """Go on with it. Raises `Conflict` where there is nothing to go on with."""
        return self.jobs.resume(job_id, self._works()[self.jobs.get(job_id).kind])

    def delete_job(self, job_id: str) -> None:
        """Forget it; a dataset that it made stays. Raises `Conflict` while it runs."""
        self.jobs.delete(job_id)

    def busy_with(self, dataset_id: str) -> list[str]:
        """Ids of the jobs that need a dataset now."""
        running = [job for job in self.jobs.list() if job.state is JobState.RUNNING]
        return [job.id for job in running if dataset_id in self.jobs.order(job.id).values()]

    def _start(self, kind: str, order: "ReportOrder | AugmentOrder | AnnotateOrder") -> Job:
        return self.jobs.start(kind, order.dataset_id, order.model_dump(mode="json"), self._works()[kind])

    def _works(self) -> dict[str, Work]:
        return {"report": self._report, "augment": self._augment, "annotate": self._annotate}

    def _report(self, running: Running) -> str:
        order = ReportOrder(**running.order)
        dataset = self.get_dataset(order.dataset_id)
        tokenizer = self._tokenizer_of(order.model)

        def measure(rows: Sequence[DataRow]) -> Iterator[tuple[int | None, bool]]:
            for row in rows:
                try:
                    yield from lengths([row], tokenizer, order.max_length)
                except InvalidDataset:  # the template refuses the row: a finding of its own
                    yield None, False

        def tell(share: float, doing: Text) -> None:
            running.tell(round(share * dataset.stats.total_samples), dataset.stats.total_samples, doing)

        inspect(
            self.datasets.folder(dataset.id),
            self.datasets.rows(dataset.id),
            dataset.stats.total_samples,
            Yardstick(order.model or self.default_model(), order.max_length, measure),
            (order.against, self.datasets.rows(order.against)) if order.against else None,
            tell,
        )
        return ""

    def _augment(self, running: Running) -> str:
        order = AugmentOrder(**running.order)
        dataset = self.get_dataset(order.dataset_id)
        make = augmented.augmenter(order, dataset, self.ask)
        write_all(running, self.datasets.rows(dataset.id), _first(order.max_rows, dataset), make, augmented.DOING)
        originals = self.datasets.rows(dataset.id) if order.keep_originals else None
        name = order.name or f"{dataset.name}-augmented"
        source = MadeSource("augmented", name, dataset, running.folder, originals, augmented.REASONS)
        return self.add_dataset(source, name).id

    def _annotate(self, running: Running) -> str:
        order = AnnotateOrder(**running.order)
        dataset = self.get_dataset(order.dataset_id)
        known = (row for _, made in read_made(running.folder) for row in made.rows)
        make = annotated.annotator(order, dataset, self.ask, known)
        write_all(running, self.datasets.rows(dataset.id), _first(order.max_rows, dataset), make, annotated.DOING)
        name = order.name or f"{dataset.name}-questions"
        source = MadeSource("annotated", name, dataset, running.folder, None, annotated.REASONS)
        return self.add_dataset(source, name).id

    def _tokenizer_of(self, model: str) -> ChatTokenizer:
        return tokenizer_of(self.ensure_model(model or self.default_model()))


def checked(order: type[Order], values: Mapping[str, Any]) -> Order:
    """The values as an order. Raises `InvalidInput` naming the first wrong one."""
    try:
        return order.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or order.__name__
        shown = f"{where} = {first.get('input')!r}: {first['msg']}"
        raise InvalidInput(
            Text(f"This cannot be done. {shown}", f"无法执行。{shown}"),
            Text(f"Fields: {', '.join(order.model_fields)}.", f"可用字段：{', '.join(order.model_fields)}。"),
        ) from error


def _first(most: int, dataset: Dataset) -> int:
    return min(most or dataset.stats.total_samples, dataset.stats.total_samples)
