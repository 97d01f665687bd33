"""Operations on the models that answer: which one, the engine and its metrics."""

from collections.abc import Sequence

from pydantic import BaseModel, Field

from sage_studio.errors import (
    Conflict,
    EngineUnavailable,
    HubUnavailable,
    InvalidModel,
    InvalidName,
    NotFound,
    StorageFull,
)
from sage_studio.fields import Id
from sage_studio.operations.models import TransferView
from sage_studio.operations.operation import SCRIPTS, Acknowledged, Noun
from sage_studio.serving.metrics import SAMPLE_FIELDS, Sample
from sage_studio.serving.types import EngineStatus, RegisteredModel
from sage_studio.studio import Studio
from sage_studio.text import Language, Text

serving = Noun("serving")
NOT_SERVED = (NotFound, InvalidName, InvalidModel, Conflict, EngineUnavailable, HubUnavailable, StorageFull)


class ModelView(BaseModel):
    """A model that can answer."""

    name: str
    kind: str
    path: str
    base: str
    size_bytes: int
    loaded: bool
    current: bool
    last_used_at: float | None = Field(description="Unix seconds")
    task_id: str | None

    @classmethod
    def of(cls, model: RegisteredModel) -> "ModelView":
        """The view of a registered model."""
        return cls(
            name=model.name,
            kind=model.kind,
            path=model.path,
            base=model.base,
            size_bytes=model.size_bytes,
            loaded=model.loaded,
            current=model.current,
            last_used_at=model.last_used_at,
            task_id=model.config.get("task_id"),
        )


class EngineView(BaseModel):
    """The inference engine."""

    state: str
    engine: str
    base: str
    current: str
    tokens_per_second: float | None
    message: str
    form: str = Field("", description="How it holds the weights: bf16, fp8_per_tensor, 4bit, as_stored, cpu; or empty")
    vllm_refused: bool = Field(False, description="vLLM did not start: POST /api/models/retry-vllm tries it again")
    download: TransferView | None = Field(description="Of the model that is fetched for it")

    @classmethod
    def of(cls, status: EngineStatus, language: Language = "en") -> "EngineView":
        """The view of the engine's status."""
        return cls(
            state=str(status.state),
            engine=status.engine,
            base=status.base,
            current=status.current,
            tokens_per_second=status.tokens_per_second,
            message=status.message.in_(language),
            form=status.form,
            vllm_refused=status.vllm_refused,
            download=TransferView.of(status.download) if status.download is not None else None,
        )


class BackendView(BaseModel):
    """The answer to "use as backend" and to a switch."""

    status: str = "success"
    message: str
    model_name: str
    model_path: str

    @classmethod
    def of(cls, model: RegisteredModel, language: Language = "en") -> "BackendView":
        """The view of the model that is current now."""
        tuned = bool(model.config.get("task_id"))
        kind = Text("the tuned model") if tuned else Text("the base model")
        message = Text("Switched to {kind}: {name}", kind=kind, name=model.name)
        return cls(message="✅ " + message.in_(language), model_name=model.name, model_path=model.path)


class MetricsView(BaseModel):
    """How the engine did in the last ten minutes; a figure that nobody knows is null.

    Units: seconds, GiB, tokens per second, percent for ``gpu_percent``, a share of 1 for ``kv_cache``.
    """

    newest: dict[str, float | None] | None = Field(description="The last sample; null before the first")
    series: dict[str, list[float | None]] = Field(description="time (Unix seconds) and each figure, oldest first")

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> "MetricsView":
        """The view of some samples."""
        series = {name: [getattr(one, name) for one in samples] for name in ("time", *SAMPLE_FIELDS)}
        return cls(newest={name: values[-1] for name, values in series.items()} if samples else None, series=series)


class MetricsResponse(MetricsView):
    """The figures, and the engine that they are of."""

    engine: EngineView


class ModelsResponse(BaseModel):
    """Models that can answer, those the catalogue offers to train, and the engine."""

    current: str | None
    models: list[ModelView]
    catalogue: list[str]
    engine: EngineView


class ModelForgotten(Acknowledged):
    """Which model is no longer registered."""

    model_name: str


@serving.get("/api/models", "models", interfaces=("rest",))
def list_models_by_rest(studio: Studio, language: Language) -> ModelsResponse:
    """All models and the one that answers now."""
    registered = studio.serving.models()
    return ModelsResponse(
        current=next((model.name for model in registered if model.current), None),
        models=[ModelView.of(model) for model in registered],
        catalogue=[entry.id for task in ("generative", "embedding") for entry in studio.models.choices(task)],
        engine=EngineView.of(studio.serving.status(), language),
    )


@serving.get("/api/models", "models", interfaces=SCRIPTS)
def list_models(studio: Studio) -> list[ModelView]:
    """Models that can answer."""
    return [ModelView.of(model) for model in studio.serving.models()]


@serving.post("/api/finetune/use-as-backend", "use-task", raises=NOT_SERVED)
def use_as_backend(studio: Studio, language: Language, task_id: Id) -> BackendView:
    """Serve a completed task's model from the next message on."""
    return BackendView.of(studio.serving.use_task(task_id), language)


@serving.post("/api/models/switch", "switch", raises=NOT_SERVED)
def switch_model(studio: Studio, language: Language, model_name: str) -> BackendView:
    """Serve a model; the id of a base model goes back to it."""
    return BackendView.of(studio.serving.switch(model_name), language)


@serving.post("/api/models/unload", "unload", raises=(NotFound, Conflict))
def unload_model(studio: Studio, model_name: str) -> ModelView:
    """Unload a tuned model from the engine; it stays registered and is loaded again when it is next asked."""
    return ModelView.of(studio.serving.unload(model_name))


@serving.post("/api/models/retry-vllm", "retry-vllm", raises=(Conflict, InvalidModel, EngineUnavailable))
def retry_vllm(studio: Studio, language: Language) -> EngineView:
    """Try vLLM again after it failed to start and another engine took its place."""
    return EngineView.of(studio.serving.retry_vllm(), language)


@serving.delete("/api/models/{name:path}", "forget", raises=(NotFound, Conflict))
def forget_model(studio: Studio, name: str) -> ModelForgotten:
    """Unregister a model; its files stay. The current one cannot be unregistered."""
    studio.serving.forget(name)
    return ModelForgotten(model_name=name)


@serving.get("/api/metrics", "metrics")
def get_metrics(studio: Studio, language: Language) -> MetricsResponse:
    """Speed, load, latency, cache and GPU: the newest sample and the last ten minutes."""
    view = MetricsView.of(studio.serving.metrics())
    engine = EngineView.of(studio.serving.status(), language)
    return MetricsResponse(newest=view.newest, series=view.series, engine=engine)
