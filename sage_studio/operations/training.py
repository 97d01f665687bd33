"""Operations on trainings: estimate, start, retry, reproduce."""

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, create_model

from sage_studio.errors import (
    Conflict,
    HubUnavailable,
    InvalidDataset,
    InvalidModel,
    InvalidName,
    InvalidRecipe,
    NotFound,
    StorageFull,
)
from sage_studio.fields import Id
from sage_studio.operations.operation import SCRIPTS, Noun
from sage_studio.operations.tasks import TaskView, shown
from sage_studio.services.estimates import Estimate
from sage_studio.serving.engine_factory import Servable
from sage_studio.studio import Studio
from sage_studio.text import Language
from sage_studio.training.methods.kbalign.stage_files import StageFile
from sage_studio.training.recipes import RECIPES
from sage_studio.training.recipes.base import OTHER_NAMES

training = Noun("training")
REFUSALS = (InvalidRecipe, InvalidModel, InvalidDataset, InvalidName, NotFound, HubUnavailable, StorageFull)


class ServableView(BaseModel):
    """Whether, and how, the result can be chatted with on this machine."""

    form: str = Field(description="bf16, fp8_per_tensor, 4bit, as_stored, cpu, external, embedder, unknown or none")
    engine: str = Field(description="vllm, transformers, openai; empty where none serves it")
    memory_gb: float = Field(description="GiB that it takes, as estimated")
    message: str

    @classmethod
    def of(cls, serving: Servable, language: Language = "en") -> "ServableView":
        """The view of it."""
        return cls(
            form=str(serving.form),
            engine=serving.engine,
            memory_gb=round(serving.memory_gb, 3),
            message=serving.message.in_(language),
        )


class EstimateView(BaseModel):
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
    def of(cls, estimate: Estimate, language: Language = "en") -> "EstimateView":
        """The view of a estimate."""
        time = estimate.duration
        parts = ("context", "weights", "adapter", "gradients", "optimizer", "activations")
        return cls(
            fits=estimate.fits,
            total_gb=_gib(estimate.memory.total),
            free_gb=_gib(estimate.free),
            device=estimate.device,
            components={name: _gib(getattr(estimate.memory, name)) for name in parts},
            factor=round(estimate.memory.factor, 3),
            measured_gb=None if estimate.measured is None else _gib(estimate.measured),
            disk_gb=_gib(estimate.disk),
            disk_free_gb=_gib(estimate.disk_free),
            remedies=[
                {"label": each.label.in_(language), "changes": each.changes, "total_gb": _gib(each.total)}
                for each in estimate.remedies
            ],
            remarks=[remark.in_(language) for remark in estimate.remarks],
            seconds=_rounded(time.seconds if time else None),
            seconds_low=_rounded(time.low if time else None),
            seconds_high=_rounded(time.high if time else None),
            seconds_basis=time.basis if time else None,
            seconds_unknown=estimate.untimed.in_(language),
            rows=time.rows if time else None,
            total_rows=time.total_rows if time else None,
            seconds_all_rows=_rounded(time.all_rows if time else None),
            serving=ServableView.of(estimate.serving, language),
        )


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)


def _gib(size: float) -> float:
    return round(size / 2**30, 3)


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


class StartRequest(BaseModel):
    """What to train. ``config`` holds the recipe's fields; unknown ones are refused by name."""

    model_config = ConfigDict(extra="forbid")

    type: str = Field("sft", description=f"Training method: {', '.join(RECIPES)}")
    config: dict[str, Any] = Field(
        examples=[{"model_name_or_path": "SmolLM2-135M-Instruct", "dataset_id": "sage-docs-v1", "num_train_epochs": 1}]
    )

    def fields(self) -> dict[str, Any]:
        """The recipe's fields; a method that was not named may stand in the ``config_file``."""
        return {**self.model_dump(include={"type"}, exclude_unset=True), **self.config}


def _recipe_fields() -> type[BaseModel]:
    """A model with the fields of all recipes, their other names too; None is "the default"."""
    fields = {name: info for recipe in RECIPES.values() for name, info in recipe.model_fields.items()}
    fields |= {name: fields[field] for name, field in OTHER_NAMES.items() if name not in fields}
    ordered = sorted(fields.items(), key=lambda field: not field[1].is_required())
    known: dict[str, Any] = {name: (Any, _common_default(name)) for name, _ in ordered}
    return create_model("RecipeFields", __config__=ConfigDict(extra="forbid", protected_namespaces=()), **known)


def _common_default(name: str) -> Any:
    """The default that all methods give a field; None where they differ, where one has no such field or none at all."""
    infos = [recipe.model_fields.get(name) for recipe in RECIPES.values()]
    defaults = [None if info is None or info.is_required() else info.default for info in infos]
    return defaults[0] if all(default == defaults[0] for default in defaults) else None


if TYPE_CHECKING:

    class RecipeFields(BaseModel):
        """The fields of all recipes."""
else:
    RecipeFields = _recipe_fields()


def _given(recipe: RecipeFields) -> dict[str, Any]:
    values = {name: getattr(recipe, name) for name in recipe.model_fields_set}
    return {name: value for name, value in values.items() if value is not None}


@training.post("/api/finetune/estimate", "estimate", raises=REFUSALS, interfaces=("rest",))
def estimate_by_rest(studio: Studio, language: Language, request: StartRequest) -> EstimateView:
    """What a training would take, and what would make it fit; some seconds the first time for a model."""
    return EstimateView.of(studio.estimates.estimate(request.fields()), language)


@training.post("/api/finetune/estimate", "estimate", interfaces=SCRIPTS)
def estimate_memory(studio: Studio, language: Language, recipe: RecipeFields) -> EstimateView:
    """What a training would take, without starting it; the parameters are the recipe's fields."""
    return EstimateView.of(studio.estimates.estimate(_given(recipe)), language)


@training.post("/api/finetune/start", "start", status=201, raises=REFUSALS, interfaces=("rest",))
def start_by_rest(studio: Studio, language: Language, request: StartRequest) -> TaskView:
    """Queue a training."""
    return shown(studio, studio.training.start(request.fields()).id, language)


@training.post("/api/finetune/start", "start", status=201, interfaces=SCRIPTS)
def start_finetune(studio: Studio, language: Language, recipe: RecipeFields) -> TaskView:
    """Queue a training; the parameters are the recipe's fields."""
    return shown(studio, studio.training.start(_given(recipe)).id, language)


@training.post("/api/finetune/tasks/{task_id}/retry", "retry", raises=(*REFUSALS, Conflict))
def retry_task(studio: Studio, language: Language, task_id: Id) -> TaskView:
    """Do what is to be done next about a stopped or failed task: resume, halve the batch, lower the learning rate."""
    return shown(studio, studio.training.retry(task_id).id, language)


@training.post("/api/finetune/tasks/{task_id}/reproduce", "reproduce", status=201, raises=(*REFUSALS, Conflict))
def reproduce_task(studio: Studio, language: Language, task_id: Id) -> TaskView:
    """Queue a completed task's run again: the same rows, base model, settings and seed."""
    return shown(studio, studio.training.reproduce(task_id).id, language)


@training.get("/api/finetune/tasks/{task_id}/files", "files", raises=(NotFound, InvalidName))
def list_stage_files(studio: Studio, language: Language, task_id: Id) -> list[StageFileView]:
    """What the stages of a KBAlign task have left: JSON lines to open and edit."""
    return [StageFileView.of(file, language) for file in studio.training.stage_files(task_id)]
