"""What the routes and the named endpoints show of models, the engine and answers: plain JSON shapes.

Knows the shapes and how to fill them. Knows nothing of routes, widgets or where the objects come from.
"""

from collections.abc import Sequence

from pydantic import BaseModel, Field

from sage_studio.downloads import Download
from sage_studio.evaluation.arena import Reply
from sage_studio.fetching import Transfer
from sage_studio.hub import HubModel
from sage_studio.serving.metrics import SAMPLE_FIELDS, Sample
from sage_studio.serving.types import EngineStatus, RegisteredModel
from sage_studio.text import Language, Text


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


class TransferView(BaseModel):
    """How far a download is."""

    model_name: str
    done_bytes: int
    total_bytes: int = Field(description="0 until the hub has told")
    bytes_per_second: float | None
    seconds_left: float | None

    @classmethod
    def of(cls, transfer: Transfer) -> "TransferView":
        """The view of a transfer."""
        return cls(
            model_name=transfer.name,
            done_bytes=transfer.done,
            total_bytes=transfer.total,
            bytes_per_second=transfer.per_second,
            seconds_left=transfer.seconds_left,
        )


class DownloadView(TransferView):
    """A download of a hub model: running, completed, stopped or failed."""

    state: str
    started_at: float = Field(description="Unix seconds")
    message: str
    hint: str

    @classmethod
    def showing(cls, download: Download, language: Language = "en") -> "DownloadView":
        """The view of a download."""
        return cls(
            **TransferView.of(download.transfer).model_dump(),
            state=str(download.state),
            started_at=download.started_at,
            message=download.message.in_(language),
            hint=download.hint.in_(language),
        )


class HubModelView(BaseModel):
    """A model that was found on the hub."""

    name: str
    parameters: int | None = Field(description="null where the hub does not know")
    gated: bool = Field(description="Its terms have to be accepted on the hub first")
    downloads: int = Field(description="In the last month")

    @classmethod
    def of(cls, model: HubModel) -> "HubModelView":
        """The view of a model."""
        return cls(name=model.name, parameters=model.parameters, gated=model.gated, downloads=model.downloads)


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
        kind = Text("the tuned model", "微调模型") if tuned else Text("the base model", "基座模型")
        said = Text(f"Switched to {kind.en}: {model.name}", f"已切换到{kind.zh}: {model.name}")
        return cls(message="✅ " + said.in_(language), model_name=model.name, model_path=model.path)


class ReplyView(BaseModel):
    """One model's answer in a comparison."""

    asked: str
    model: str = Field(description="The identity that the server returned; empty if it never answered")
    response: str
    done: bool
    usage: dict[str, int]
    tokens_per_second: float | None
    first_token_seconds: float | None
    seconds: float = Field(description="From the question to the end of the answer")
    error: dict[str, str] | None = Field(description="code, message and hint, where it could not answer")

    @classmethod
    def of(cls, reply: Reply, language: Language = "en") -> "ReplyView":
        """The view of a reply as it stands."""
        fault = reply.error
        return cls(
            asked=reply.asked,
            model=reply.model,
            response=reply.text,
            done=reply.done,
            usage={"prompt_tokens": reply.prompt_tokens, "completion_tokens": reply.completion_tokens},
            tokens_per_second=reply.tokens_per_second,
            first_token_seconds=reply.first_token_seconds,
            seconds=round(reply.seconds, 3),
            error=None
            if fault is None
            else {"code": fault.code, "message": fault.message.in_(language), "hint": fault.hint.in_(language)},
        )


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
