"""What the routes and the named endpoints show of trainings besides the tasks themselves: plain JSON shapes.

Knows the shapes and how to fill them. Knows nothing of routes, widgets or where the objects come from.
"""

from typing import Any

from pydantic import BaseModel, Field

from sage_studio.services.estimates import Forecast
from sage_studio.serving.engine_factory import Servable
from sage_studio.tasks.compare import TaskComparison
from sage_studio.tasks.task import TaskProgress
from sage_studio.text import Language
from sage_studio.training.methods.kbalign.stage_files import StageFile


class ServableView(BaseModel):
    """Whether, and how, the result can be chatted with on this machine."""

    form: str = Field(description="bf16, fp8_per_tensor, 4bit, as_stored, cpu, external, embedder, unknown or none")
    engine: str = Field(description="vllm, transformers, openai; empty where none serves it")
    memory_gb: float = Field(description="GiB that it takes, as estimated")
    said: str

    @classmethod
    def of(cls, serving: Servable, language: Language = "en") -> "ServableView":
        """The view of it."""
        return cls(
            form=str(serving.form),
            engine=serving.engine,
            memory_gb=round(serving.memory_gb, 3),
            said=serving.said.in_(language),
        )


class ForecastView(BaseModel):
    """What a run would take; memory and disk in GiB."""

    fits: bool
    total_gb: float
    free_gb: float
    device: str
    components: dict[str, float]
    factor: float = Field(description="Measured over estimated peak of earlier runs of this model and method")
    measured_gb: float | None = Field(description="Peak of the newest such run")
    disk_gb: float
    disk_free_gb: float
    remedies: list[dict[str, Any]] = Field(description="label, the changes to the recipe, total_gb with them")
    remarks: list[str]
    seconds: float | None = Field(description="How long it would take, from start to finished model; null if unknown")
    seconds_low: float | None = Field(description="What it may really be, at least …")
    seconds_high: float | None = Field(description="… and at most")
    seconds_basis: str | None = Field(
        description="runs: corrected by earlier runs here; probe: a few steps measured here; rough: by the model's size"
    )
    seconds_unknown: str = Field(description="Why there is no time; empty if there is one")
    rows: int | None = Field(description="Rows that would be used")
    total_rows: int | None = Field(description="Rows that there are")
    seconds_all_rows: float | None = Field(description="What all rows would take, where max_samples leaves some out")
    serving: ServableView

    @classmethod
    def of(cls, forecast: Forecast, language: Language = "en") -> "ForecastView":
        """The view of a forecast."""
        time = forecast.duration
        parts = ("context", "weights", "adapter", "gradients", "optimizer", "activations")
        return cls(
            fits=forecast.fits,
            total_gb=_gib(forecast.memory.total),
            free_gb=_gib(forecast.free),
            device=forecast.device,
            components={name: _gib(getattr(forecast.memory, name)) for name in parts},
            factor=round(forecast.memory.factor, 3),
            measured_gb=None if forecast.measured is None else _gib(forecast.measured),
            disk_gb=_gib(forecast.disk),
            disk_free_gb=_gib(forecast.disk_free),
            remedies=[
                {"label": each.label.in_(language), "changes": each.changes, "total_gb": _gib(each.total)}
                for each in forecast.remedies
            ],
            remarks=[remark.in_(language) for remark in forecast.remarks],
            seconds=_rounded(time.seconds if time else None),
            seconds_low=_rounded(time.low if time else None),
            seconds_high=_rounded(time.high if time else None),
            seconds_basis=time.basis if time else None,
            seconds_unknown=forecast.untimed.in_(language),
            rows=time.rows if time else None,
            total_rows=time.total_rows if time else None,
            seconds_all_rows=_rounded(time.all_rows if time else None),
            serving=ServableView.of(forecast.serving, language),
        )


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)


def _gib(size: float) -> float:
    return round(size / 2**30, 3)


class ComparedTaskView(BaseModel):
    """One run of a comparison and its curves."""

    id: str
    name: str
    status: str
    model: str
    loss: float | None
    seconds: float
    peak_memory_gb: float | None
    steps: list[int]
    losses: list[float | None]
    learning_rates: list[float | None]


class TaskComparisonView(BaseModel):
    """Runs beside each other; ``settings`` holds only the fields that differ, one value a run in the runs' order."""

    tasks: list[ComparedTaskView]
    settings: dict[str, list[Any]]

    @classmethod
    def of(cls, compared: TaskComparison) -> "TaskComparisonView":
        """The view of a comparison."""
        runs = zip(compared.tasks, compared.progress, compared.curves, strict=True)
        return cls(
            tasks=[
                ComparedTaskView(
                    id=task.id,
                    name=task.name,
                    status=str(task.status),
                    model=task.model,
                    loss=last_loss(progress),
                    seconds=round(progress.seconds, 1),
                    peak_memory_gb=progress.result.peak_memory_gb if progress.result is not None else None,
                    steps=list(curve.steps),
                    losses=list(curve.loss),
                    learning_rates=list(curve.learning_rate),
                )
                for task, progress, curve in runs
            ],
            settings={name: list(values) for name, values in compared.settings.items()},
        )


def last_loss(progress: TaskProgress) -> float | None:
    """The run's mean loss once it is over, the newest one while it is not."""
    if progress.result is not None and progress.result.train_loss is not None:
        return progress.result.train_loss
    return progress.now.loss if progress.now is not None else None


class StageFileView(BaseModel):
    """A file that a stage of a task left."""

    name: str
    meaning: str
    rows: int
    size_bytes: int
    path: str

    @classmethod
    def of(cls, file: StageFile, language: Language = "en") -> "StageFileView":
        """The view of a stage's file."""
        meaning = file.meaning.in_(language)
        return cls(name=file.name, meaning=meaning, rows=file.rows, size_bytes=file.size_bytes, path=str(file.path))
