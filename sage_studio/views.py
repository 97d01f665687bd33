"""What the REST routes and the named client endpoints show of datasets and tasks: plain JSON shapes.

Knows the shapes and how to fill them. Knows nothing of routes, widgets or where the objects come from.
"""

from typing import Any

from pydantic import BaseModel, Field

from sage_studio.data.dataset import Dataset, FormatCount
from sage_studio.data.rows import DataRow
from sage_studio.tasks.task import Task, TaskProgress
from sage_studio.text import Language
from sage_studio.training.recipes import methods_for


class DatasetStatsView(BaseModel):
    """The figures of a dataset. Characters are of prompts and answers together."""

    total_samples: int
    total_chars: int
    avg_chars_per_sample: float
    estimated_tokens: int
    tokens_are_exact: bool
    longest_chars: int
    languages: dict[str, int]
    languages_are_exact: bool = Field(description="Otherwise those of a sample, as of more than 20,000 rows")
    duplicates: int
    dropped: int


class FormatView(BaseModel):
    """A format that was found in a file."""

    name: str
    keys: list[str] = Field(description="The keys by which it was told")
    rows: int
    unread: list[str] = Field(description="Columns of which nothing is made")

    @classmethod
    def of(cls, found: FormatCount) -> "FormatView":
        """The view of a format."""
        return cls(name=found.name, keys=list(found.keys), rows=found.rows, unread=list(found.unread))


class DatasetView(BaseModel):
    """A dataset that is ready to train on."""

    id: str
    name: str
    version: int
    kind: str
    source: str
    commit: str | None
    sha256: str = Field(description="Of data.jsonl; empty while that of a large upload is computed")
    size_bytes: int
    created_at: float = Field(description="Unix seconds")
    row_kind: str = Field(description="What can be learned from its rows")
    methods: list[str] = Field(description="The training methods that learn from such rows")
    container: str = Field(description="What the rows were read from: JSON, CSV, PDF, …")
    formats: list[FormatView]
    stats: DatasetStatsView

    @classmethod
    def of(cls, dataset: Dataset) -> "DatasetView":
        """The view of a dataset."""
        stats = dataset.stats
        return cls(
            id=dataset.id,
            name=dataset.name,
            version=dataset.version,
            kind=dataset.kind,
            source=dataset.source,
            commit=dataset.commit,
            sha256=dataset.sha256,
            size_bytes=dataset.size_bytes,
            created_at=dataset.created_at,
            row_kind=dataset.row_kind,
            methods=methods_for(dataset.row_kind),
            container=dataset.container,
            formats=[FormatView.of(each) for each in dataset.formats],
            stats=DatasetStatsView(
                total_samples=stats.total_samples,
                total_chars=stats.total_chars,
                avg_chars_per_sample=round(stats.avg_chars_per_sample, 1),
                estimated_tokens=stats.estimated_tokens,
                tokens_are_exact=stats.tokens_are_exact,
                longest_chars=stats.longest_chars,
                languages=stats.languages,
                languages_are_exact=stats.languages_are_exact,
                duplicates=stats.duplicates,
                dropped=sum(dropped.count for dropped in stats.dropped),
            ),
        )


class RowView(BaseModel):
    """One row: what is asked, what is to be answered, and where it came from."""

    row: int = Field(description="Its number in the dataset, from 1")
    instruction: str
    output: str
    origin: dict[str, Any]

    @classmethod
    def of(cls, row: DataRow, number: int) -> "RowView":
        """The view of a row."""
        return cls(row=number, instruction=row.asked, output=row.answer, origin=row.origin.to_json())


class TaskView(BaseModel):
    """A run of a recipe and where it stands."""

    id: str
    type: str
    name: str
    status: str
    model: str
    dataset_id: str
    dataset_name: str
    created_at: float = Field(description="Unix seconds")
    started_at: float | None
    finished_at: float | None
    reason_class: str | None
    reason: str
    hint: str
    next_action: str | None = Field(description="What to do about it; POST …/retry does what the studio can by itself")
    served_name: str
    output_dir: str
    progress: float = Field(description="0 to 100")
    phase: str | None
    step: int | None
    total_steps: int | None
    epoch: float | None
    total_epochs: float | None
    loss: float | None
    learning_rate: float | None
    tokens_per_second: float | None
    eta_seconds: float | None
    queue_place: int | None
    seconds: float
    peak_memory_gb: float | None = Field(description="GiB; known when the run is over")
    estimated_memory_gb: float | None = Field(description="GiB, as estimated before; null where nobody knew")
    config: dict[str, Any]

    @classmethod
    def of(cls, task: Task, progress: TaskProgress, language: Language = "en") -> "TaskView":
        """The view of a task."""
        now, result = progress.now, progress.result
        return cls(
            id=task.id,
            type=task.type,
            name=task.name,
            status=str(task.status),
            model=task.model,
            dataset_id=task.dataset_id,
            dataset_name=task.dataset_name,
            created_at=task.created_at,
            started_at=task.started_at,
            finished_at=task.finished_at,
            reason_class=str(task.reason_class) if task.reason_class is not None else None,
            reason=task.reason.in_(language),
            hint=task.hint.in_(language),
            next_action=str(task.next_action) if task.next_action is not None else None,
            served_name=task.served_name,
            output_dir=str(task.folder),
            progress=round(progress.percent, 1),
            phase=str(now.phase) if now is not None else None,
            step=now.step if now is not None else None,
            total_steps=now.total_steps if now is not None else None,
            epoch=now.epoch if now is not None else None,
            total_epochs=now.total_epochs if now is not None else None,
            loss=now.loss if now is not None else None,
            learning_rate=now.learning_rate if now is not None else None,
            tokens_per_second=now.tokens_per_second if now is not None else None,
            eta_seconds=now.eta_seconds if now is not None else None,
            queue_place=progress.queue_place,
            seconds=round(progress.seconds, 1),
            peak_memory_gb=result.peak_memory_gb if result is not None else None,
            estimated_memory_gb=result.estimated_memory_gb if result is not None else None,
            config=task.recipe,
        )
