"""Datasets: bring rows in, look into them, change them and make new datasets of them."""

import builtins
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sage_studio.data.column_mapping import ColumnMapping, ColumnMappingStore, guess_mapping
from sage_studio.data.dataset import Dataset, DatasetSource, OnProgress, ignore_progress
from sage_studio.data.documents.git import CREDENTIALS, RepositoryDocuments
from sage_studio.data.grading import Question
from sage_studio.data.jobs import Job, JobState, Running
from sage_studio.data.quality import (
    INSPECTION,
    Finding,
    QualityReport,
    TokenMeasure,
    check_quality,
    read_findings,
    read_quality_report,
)
from sage_studio.data.readers.content import FileContent
from sage_studio.data.rows import DataRow
from sage_studio.data.sources.documents import DocumentRows, DocumentSource
from sage_studio.data.sources.hub import HubSource, check_repo
from sage_studio.data.sources.local import (
    FileInspection,
    KnowledgeSource,
    check_file,
    file_columns,
    inspect_file,
    source_of_file,
    subject_of,
)
from sage_studio.data.sources.quickstart import QuickstartSource, quickstart_questions
from sage_studio.data.sources.sage_docs import SAGEDocsProcessor
from sage_studio.data.store import DatasetStore, Preview
from sage_studio.data.synthesis import annotate, augment
from sage_studio.data.synthesis.annotate import AnnotateOrder
from sage_studio.data.synthesis.augment import AugmentOrder
from sage_studio.data.synthesis.generated import GeneratedSource, generate_rows, read_generated
from sage_studio.data.synthesis.mix import EditedSource, MixedSource, MixturePart, MixtureWeight, RowChange, check_parts
from sage_studio.errors import Conflict, InvalidDataset, InvalidInput
from sage_studio.fields import Id, OptionalId
from sage_studio.files import safe_name
from sage_studio.models.chat_template import ChatTokenizer, tokenizer_of
from sage_studio.paths import LocalPaths
from sage_studio.services.models import ModelService
from sage_studio.services.serving import ServingService
from sage_studio.settings import Settings
from sage_studio.tasks.background import BackgroundTasks, Resource, TaskContext
from sage_studio.tasks.store import TaskStore
from sage_studio.text import Text
from sage_studio.training.preview import RowPreview, lengths, preview_row
from sage_studio.validation_errors import first_error

FETCHED = 0.7
"""Share of a progress bar that fetching takes; the rest is counting and keeping the rows."""
Order = TypeVar("Order", bound=BaseModel)


class ReportOrder(BaseModel):
    """How to look at a dataset."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset_id: Id
    model: str = Field("", description="Whose tokenizer counts; empty: the default model")
    max_length: int = Field(1024, ge=16, le=131072, description="Longest row in tokens, as in the recipe")
    against: OptionalId = Field("", description="Dataset to search for leaks, usually the one to validate with")


class DatasetService:
    """Datasets: add, list, check, edit, combine and enlarge."""

    def __init__(
        self,
        settings: Settings,
        store: DatasetStore,
        docs: SAGEDocsProcessor,
        mappings: ColumnMappingStore,
        jobs: BackgroundTasks,
        tasks: TaskStore,
        models: ModelService,
        serving: ServingService,
        paths: LocalPaths,
    ) -> None:
        self._settings = settings
        self.store = store
        self._docs = docs
        self._mappings = mappings
        self._jobs = jobs
        self._tasks = tasks
        self._models = models
        self._serving = serving
        self._paths = paths
        jobs.register("report", self._report, Resource.CPU)
        jobs.register("augment", self._augment, Resource.ENGINE)
        jobs.register("annotate", self._annotate, Resource.ENGINE)
        jobs.register("import", self._import, Resource.NETWORK, restarts=True)
        jobs.register("mix", self._mix, Resource.CPU, restarts=True)

    # Add

    def upload(
        self,
        path: Path,
        name: str = "",
        on_progress: OnProgress = ignore_progress,
        mapping: ColumnMapping | None = None,
        rows: DocumentRows = "questions",
    ) -> Dataset:
        """Check a file of rows or of documents and keep it as a dataset.

        Args:
            path: JSON, JSONL, CSV or Parquet (also .gz), or Markdown, HTML, TXT, PDF, DOCX or a zip of them.
            name: what to call it; the file's name unless given.
            on_progress: told the rows done.
            mapping: which column is which key; remembered for files with the same columns.
            rows: what documents become.

        Raises:
            UnknownColumns: a row has the keys of no format; `inspect_file` says which there are.
            InvalidDataset: naming the row.
        """
        source = source_of_file(path, self._most, mapping, rows)
        dataset = self.add(source, name, on_progress)
        if mapping is not None:
            self._mappings.remember(file_columns(FileContent(path, self._most)), mapping)
        return dataset

    def inspect_file(self, path: Path) -> FileInspection:
        """What a file holds, all of it read and nothing kept. Raises `InvalidDataset` for one of no known type."""
        check_file(path, self._most)
        found = inspect_file(FileContent(path, self._most))
        return replace(
            found,
            remembered=self._mappings.recall(found.columns) if found.columns or found.needs_mapping else None,
            guess=guess_mapping(found.columns) if found.needs_mapping else None,
        )

    def prepare_sage_docs(self, force_refresh: bool = False, on_progress: OnProgress = ignore_progress) -> Dataset:
        """Fetch the SAGE documentation and make it a dataset. Cached until ``force_refresh``.

        Raises:
            DocsUnavailable: it cannot be fetched; a cached copy, if any, is untouched and named in the hint.
        """
        order = {"source": "SAGE docs", "from": "docs", "force_refresh": force_refresh}
        return self.get(self._jobs.run("import", order, on_progress))

    def add_repository(
        self,
        address: str,
        branch: str = "",
        folder: str = "",
        name: str = "",
        rows: DocumentRows = "questions",
        on_progress: OnProgress = ignore_progress,
    ) -> Dataset:
        """Fetch the documents of a Git repository's folder and make them a dataset.

        Args:
            address: anything git takes, a local folder included.
            branch: a branch or a tag; empty for the default.
            folder: inside the repository; empty for all of it.
            name: what to call it; the repository's name unless given.
            rows: a question for each section, or passages without questions.
            on_progress: told the share fetched.

        Raises:
            InvalidInput, DocsUnavailable, InvalidDataset.
        """
        self._paths.check_address(address)
        RepositoryDocuments(address, branch, folder, self._settings.uploads_dir).check()
        if CREDENTIALS.search(address):  # a password is written nowhere, so there is no task that could be resumed
            return self._add_repository(address, branch, folder, name, rows, on_progress)
        order = {
            "from": "repository",
            "address": address,
            "branch": branch,
            "folder": folder,
            "name": name,
            "rows": rows,
        }
        return self.get(self._jobs.run("import", {"source": address, **order}, on_progress))

    def add_from_hub(
        self,
        repo: str,
        config: str = "",
        split: str = "",
        max_rows: int = 0,
        name: str = "",
        mapping: ColumnMapping | None = None,
        on_progress: OnProgress = ignore_progress,
    ) -> Dataset:
        """Fetch a dataset from the hub and keep it. Only data files are read; loading scripts are never run.

        Args:
            repo: ``owner/name``, at ``HF_ENDPOINT``.
            config: one of its configurations; empty for ``default`` or the only one.
            split: empty for ``train`` or the only one.
            max_rows: most rows to take; 0 for all.
            name: what to call it; the dataset's name unless given.
            mapping: which column is which key.
            on_progress: told the share of the file that is being fetched.

        Raises:
            HubUnavailable, NotFound, InvalidInput, InvalidDataset.
        """
        if mapping is not None:
            mapping.check()
        check_repo(repo.strip())
        read = mapping.model_dump(mode="json") if mapping is not None else None
        order = {"from": "hub", "config": config, "split": split, "max_rows": max_rows, "name": name, "mapping": read}
        return self.get(self._jobs.run("import", {"source": repo.strip(), **order}, on_progress))

    def add_quickstart(self, on_progress: OnProgress = ignore_progress) -> Dataset:
        """Keep the questions about SAGE that come with the studio as a dataset; its test questions are not in it."""
        return self.add(QuickstartSource(), on_progress=on_progress)

    def quickstart_test(self) -> tuple[Question, ...]:
        """The test questions of the quick-start set, with what makes an answer right; never trained on."""
        return quickstart_questions()

    def add_knowledge(self, path: Path, on_progress: OnProgress = ignore_progress) -> Dataset:
        """Keep the texts of a file or folder on this machine as a dataset of passages. Raises `InvalidDataset`."""
        source = KnowledgeSource(path, max_bytes=self._settings.max_upload_mb << 20)
        return self.add(source, on_progress=on_progress)

    def add(self, source: DatasetSource, name: str = "", on_progress: OnProgress = ignore_progress) -> Dataset:
        """Keep the rows of any source. The same rows under the same name are the same dataset, not a new version."""
        return self.store.add(source, name=name, tokenizer=self._tokenizer(), on_progress=on_progress)

    # List, read, delete

    def list(self) -> list[Dataset]:
        """All datasets, newest first."""
        return self.store.list()

    def get(self, dataset_id: str) -> Dataset:
        """One dataset. Raises `NotFound`."""
        return self.store.get(safe_name(dataset_id))

    def preview(self, dataset_id: str, offset: int = 0, limit: int = 20, search: str = "") -> Preview:
        """Some rows of a dataset, and how many match."""
        return self.store.preview(safe_name(dataset_id), offset=offset, limit=limit, search=search)

    def delete(self, dataset_id: str) -> None:
        """Delete a dataset. Raises `Conflict` while a task that is not over, or a job, needs it."""
        users = [task.id for task in self._tasks.list() if task.dataset_id == dataset_id and not task.status.is_over]
        users += self.busy_with(dataset_id)
        if users:
            raise Conflict(
                Text("{dataset_id} is in use by {users}.", dataset_id=dataset_id, users=", ".join(users)),
                Text("Stop the task first, or wait for its end."),
            )
        self.store.delete(safe_name(dataset_id))

    # Check rows

    def inspect(self, dataset_id: str, **values: Any) -> Job:
        """Look closely at all rows, in the background: copies, leaks, lengths. Fields as of `ReportOrder`."""
        order = checked(ReportOrder, {**values, "dataset_id": dataset_id})
        self.get(order.dataset_id)
        if order.against:
            self.get(order.against)
        if order.model:
            self._models.ensure(order.model)
        return self._start("report", order)

    def inspection(self, dataset_id: str) -> QualityReport | None:
        """What the last close look found; None before the first."""
        return read_quality_report(self.store.folder(safe_name(dataset_id)))

    def is_inspected(self, dataset_id: str) -> bool:
        """Whether it was looked at closely."""
        return (self.store.place(dataset_id) / INSPECTION).is_file()

    def findings(self, dataset_id: str, kind: str = "") -> Iterator[Finding]:
        """What is known of single rows: those left out and those that were found wanting, of one kind or of all."""
        return read_findings(self.store.folder(safe_name(dataset_id)), kind)

    def tokenized_row(
        self, dataset_id: str, row: int, model: str = "", max_length: int = 1024
    ) -> tuple[RowPreview, ...]:
        """A row, from 1, as a model would see it in a training.

        Raises:
            NotFound, InvalidInput: no such row.
            InvalidModel: its tokenizer cannot be read here.
        """
        dataset = self.get(dataset_id)
        if not 1 <= row <= dataset.stats.total_samples:
            raise InvalidInput(
                Text("{id} has no row {row}.", id=dataset.id, row=row),
                Text("Give 1 to {total_samples}.", total_samples=dataset.stats.total_samples),
            )
        return preview_row(next(self.store.rows(dataset.id, row - 1)), self._tokenizer_of(model), max_length)

    # Make new datasets

    def edit(self, dataset_id: str, changes: Sequence[Mapping[str, Any]]) -> Dataset:
        """A new version with rows changed or left out; the old one stays. Each change as of `RowChange`."""
        dataset = self.get(dataset_id)
        read = [checked(RowChange, change) for change in changes]
        return self.add(EditedSource(dataset, self.store.rows(dataset.id), read), dataset.name)

    def combine(
        self, portions: Iterable[Mapping[str, Any]], name: str = "combined", seed: int = 42, shuffle: bool = True
    ) -> Dataset:
        """Several datasets as one; every row names the row it came from. Fields of a portion as of `MixtureWeight`."""
        weights = [checked(MixtureWeight, values) for values in portions]
        check_parts(self._parts(weights))
        read = [weight.model_dump(mode="json") for weight in weights]
        order = {"source": name or "combined", "portions": read, "seed": seed, "shuffle": shuffle}
        return self.get(self._jobs.run("mix", order))

    def augment(self, **values: Any) -> Job:
        """Say rows in other words with the current chat model, in the background. Fields as of `AugmentOrder`."""
        order = checked(AugmentOrder, values)
        augment.check_rows(self.get(order.dataset_id))
        return self._start("augment", order)

    def annotate(self, **values: Any) -> Job:
        """Write questions about texts with the current chat model, in the background. Fields as of `AnnotateOrder`."""
        order = checked(AnnotateOrder, values)
        annotate.check_rows(self.get(order.dataset_id))
        return self._start("annotate", order)

    # Jobs

    def list_jobs(self, dataset_id: str = "") -> builtins.list[Job]:
        """Work on datasets, the newest first; on one dataset or on all."""
        return [job for job in self._jobs.list(dataset_id) if job.dataset_id]

    def get_job(self, job_id: str) -> Job:
        """How such work stands. Raises `NotFound`."""
        return self._jobs.get(job_id)

    def stop_job(self, job_id: str) -> Job:
        """Stop it; what it has done stays, to go on from."""
        return self._jobs.stop(job_id)

    def resume_job(self, job_id: str) -> Job:
        """Go on with it. Raises `Conflict` where there is nothing to go on with."""
        return self._jobs.resume(job_id)

    def delete_job(self, job_id: str) -> None:
        """Forget it; a dataset that it made stays. Raises `Conflict` while it runs."""
        self._jobs.delete(job_id)

    def busy_with(self, dataset_id: str) -> builtins.list[str]:
        """Ids of the jobs that need a dataset now."""
        running = [job for job in self._jobs.list() if job.state is JobState.RUNNING]
        return [job.id for job in running if dataset_id in _datasets_of(self._jobs.order(job.id))]

    # Inside

    def _start(self, kind: str, order: "ReportOrder | AugmentOrder | AnnotateOrder") -> Job:
        return self._jobs.start(kind, order.dataset_id, order.model_dump(mode="json"))

    def _report(self, running: Running) -> str:
        order = ReportOrder(**running.order)
        dataset = self.get(order.dataset_id)
        tokenizer = self._tokenizer_of(order.model)

        def measure(rows: Sequence[DataRow]) -> Iterator[tuple[int | None, bool]]:
            for row in rows:
                try:
                    yield from lengths([row], tokenizer, order.max_length)
                except InvalidDataset:  # the template refuses the row: a finding of its own
                    yield None, False

        def tell(share: float, doing: Text) -> None:
            running.tell(round(share * dataset.stats.total_samples), dataset.stats.total_samples, doing)

        check_quality(
            self.store.folder(dataset.id),
            self.store.rows(dataset.id),
            dataset.stats.total_samples,
            TokenMeasure(order.model or self._models.default(), order.max_length, measure),
            (order.against, self.store.rows(order.against)) if order.against else None,
            tell,
        )
        return ""

    def _augment(self, running: Running) -> str:
        order = AugmentOrder(**running.order)
        dataset = self.get(order.dataset_id)
        make = augment.augmenter(order, dataset, self._serving.ask)
        generate_rows(running, self.store.rows(dataset.id), _first(order.max_rows, dataset), make, augment.DOING)
        originals = self.store.rows(dataset.id) if order.keep_originals else None
        name = order.name or f"{dataset.name}-augmented"
        source = GeneratedSource("augmented", name, dataset, running.folder, originals, augment.REASONS)
        return self.add(source, name).id

    def _annotate(self, running: Running) -> str:
        order = AnnotateOrder(**running.order)
        dataset = self.get(order.dataset_id)
        known = (row for _, made in read_generated(running.folder) for row in made.rows)
        make = annotate.annotator(order, dataset, self._serving.ask, known)
        generate_rows(running, self.store.rows(dataset.id), _first(order.max_rows, dataset), make, annotate.DOING)
        name = order.name or f"{dataset.name}-questions"
        source = GeneratedSource("annotated", name, dataset, running.folder, None, annotate.REASONS)
        return self.add(source, name).id

    def _import(self, task: TaskContext) -> str:
        """Fetch what a task of the kind ``import`` names and make it a dataset; after a break from the beginning."""
        order = task.order

        def tell(share: float, doing: Text) -> None:
            task.tell(round(100 * share), 100, doing)

        if order["from"] == "docs":
            self._docs.prepare_training_data(
                order["force_refresh"], on_progress=lambda share, doing: tell(FETCHED * share, doing)
            )
            return self.add(
                self._docs, on_progress=lambda share, doing: tell(FETCHED + (1 - FETCHED) * share, doing)
            ).id
        if order["from"] == "repository":
            given = {name: order[name] for name in ("address", "branch", "folder", "name", "rows")}
            return self._add_repository(**given, on_progress=tell).id
        mapping = ColumnMapping(**order["mapping"]) if order["mapping"] is not None else None
        chosen = order["source"], order["config"], order["split"], order["max_rows"]
        source = HubSource(*chosen, self._most, self._settings.uploads_dir, mapping, tell)
        return self.add(source, order["name"]).id

    def _add_repository(
        self, address: str, branch: str, folder: str, name: str, rows: DocumentRows, on_progress: OnProgress
    ) -> Dataset:
        self._paths.check_address(address)  # a task of before the studio was shared is looked at too
        documents = RepositoryDocuments(
            address, branch, folder, self._settings.uploads_dir, on_progress, shared=self._paths.is_shared
        )
        source = DocumentSource(
            documents.files,
            documents.name,
            documents.address,
            rows,
            about=subject_of(documents.name),
            commit=lambda: documents.commit,
        )
        return self.add(source, name)

    def _mix(self, task: TaskContext) -> str:
        order = task.order
        parts = self._parts([MixtureWeight(**values) for values in order["portions"]])
        source = MixedSource(str(order["source"]), parts, order["seed"], order["shuffle"])
        return self.add(source, on_progress=lambda share, doing: task.tell(round(100 * share), 100, doing)).id

    def _parts(self, weights: Sequence[MixtureWeight]) -> builtins.list[MixturePart]:
        return [
            MixturePart(each, self.get(each.dataset_id), self.store.folder(safe_name(each.dataset_id)))
            for each in weights
        ]

    def _tokenizer_of(self, model: str) -> ChatTokenizer:
        return tokenizer_of(self._models.ensure(model or self._models.default()))

    def _tokenizer(self) -> Path | None:
        """The default model's ``tokenizer.json``, if it is on this machine already."""
        path = self._settings.models_dir / self._models.default() / "tokenizer.json"
        return path if path.is_file() else None

    @property
    def _most(self) -> int:
        return self._settings.max_upload_mb << 20


def checked(order: type[Order], values: Mapping[str, Any]) -> Order:
    """The values as an order. Raises `InvalidInput` naming the first wrong one."""
    try:
        return order.model_validate(values)
    except ValidationError as error:
        message = first_error(error.errors()).sentence
        raise InvalidInput(
            Text("This cannot be done. {message}.", message=message),
            Text("Fields: {model_fields}.", model_fields=", ".join(order.model_fields)),
        ) from error


def _datasets_of(order: Mapping[str, Any]) -> set[str]:
    """Everything that an order names, in which the datasets that it needs are."""
    named = {each for each in order.values() if isinstance(each, str)}
    return named | {str(portion["dataset_id"]) for portion in order.get("portions", ())}


def _first(most: int, dataset: Dataset) -> int:
    return min(most or dataset.stats.total_samples, dataset.stats.total_samples)


def seconds_per_epoch(inspection: QualityReport, tokens_per_second: float | None) -> float | None:
    """How long an epoch would take; None where the tokens or the speed are not known."""
    if inspection.tokens_per_epoch is None or not tokens_per_second:
        return None
    return round(inspection.tokens_per_epoch / tokens_per_second, 1)
