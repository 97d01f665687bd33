"""Data types shared by the registry, the engines and the pages that show them."""

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sage_studio.errors import InvalidInput
from sage_studio.text import NOTHING, Text
from sage_studio.validation_errors import first_error

if TYPE_CHECKING:
    from sage_studio.fetching import Transfer

ModelKind = Literal["base", "adapter", "full", "external"]


class ChatMessage(TypedDict):
    """One message of a conversation, as in the OpenAI API."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """A model that can answer.

    Attributes:
        name: what clients ask for.
        kind: base model, LoRA adapter, whole fine-tuned model, or one on an external server.
        path: its folder or hub id.
        base: for an adapter: its base model (folder or hub id).
        config: what `register_model` was given besides, e.g. ``trust_remote_code``, ``task_id``.
        size_bytes: on disk; 0 where that is not here.
        loaded: whether the engine holds it now.
        current: whether it answers when no model is named.
    """

    name: str
    kind: ModelKind
    path: str
    base: str
    created_at: float
    config: dict[str, Any] = field(default_factory=dict)
    size_bytes: int = 0
    last_used_at: float | None = None
    loaded: bool = False
    current: bool = False


class EngineState(StrEnum):
    """What the engine is doing."""

    DOWN = "down"
    DOWNLOADING = "downloading"
    STARTING = "starting"
    READY = "ready"
    SWITCHING = "switching"
    FAILED = "failed"
    ASLEEP = "asleep"


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """The engine, for the status bar.

    Attributes:
        engine: ``vllm``, ``transformers`` or ``openai``.
        base: the model it was started with; empty while down.
        current: the model that answers.
        seconds: how long it has been starting.
        expected_seconds: how long the last start with this base took; None if there was none.
        tokens_per_second: of the last answer.
        message: why it failed, why it sleeps, what a switch is doing, or why another engine than the chosen one serves.
        form: in which form it holds the weights (see `sage_studio.serving.capacity.WeightFormat`); empty while down.
        vllm_refused: whether vLLM did not start, so that another engine serves: `retry_vllm` tries it again.
        download: how far the model is that is fetched for it, while it is DOWNLOADING.
    """

    state: EngineState
    engine: str
    base: str = ""
    current: str = ""
    url: str = ""
    seconds: float = 0.0
    expected_seconds: float | None = None
    tokens_per_second: float | None = None
    message: Text = NOTHING
    log_path: Path | None = None
    form: str = ""
    vllm_refused: bool = False
    download: "Transfer | None" = None


@dataclass(frozen=True, slots=True)
class Source:
    """A passage that an answer was drawn from.

    Attributes:
        heading: the headings above it, joined by ``›``.
        score: cosine of question and passage, from -1 to 1.
    """

    text: str
    file: str
    heading: str
    score: float


@dataclass(frozen=True, slots=True)
class ChatChunk:
    """A piece of an answer. The last one has ``done`` and the figures.

    Attributes:
        text: new characters.
        model: the identity that the server returned.
        tokens_per_second: of the whole answer, from its first token.
        first_token_seconds: from asking to the first token.
        sources: what it was drawn from, where it was to answer from documents.
        look_ups: how often passages were looked up for it: twice where a first answer was looked up with too.
    """

    text: str
    model: str
    done: bool = False
    finish_reason: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    tokens_per_second: float | None = None
    first_token_seconds: float | None = None
    sources: tuple[Source, ...] = ()
    look_ups: int = 0


# Engines on record

Phase = Literal["starting", "ready", "draining", "asleep", "incoming", "retiring"]
"""``incoming``: started beside the engine in use. ``retiring``: no longer in use, finishing its last answers."""
EngineKind = Literal["vllm", "transformers", "openai"]


@dataclass(frozen=True, slots=True)
class Base:
    """What an engine is started with.

    Attributes:
        location: folder or hub id.
        name: the name under which the engine serves it.
        trust_remote_code: decided by the catalogue or the operator when the model was resolved.
        rank: the largest LoRA rank that it can load.
    """

    location: str
    name: str
    trust_remote_code: bool = False
    rank: int = 0


@dataclass(frozen=True, slots=True)
class EngineRecord:
    """An engine as it was recorded. Times are Unix seconds.

    Attributes:
        url: its OpenAI address, ending in ``/v1``.
        pid, create_time: identify its process (a pid alone may be reused); None for an external server.
        owner_pid: the process that stops it when it ends.
        restarts: how often it was started again after a crash.
        gpus: indices of the GPUs that it uses; empty on a CPU, or for an external server.
        memory_share: share of each of them that it takes, 0 to 1; 0 where it takes what the model needs.
        form: in which form it holds the weights (see `sage_studio.serving.capacity.WeightFormat`).
    """

    id: int
    kind: EngineKind
    base: Base
    url: str
    key: str
    pid: int | None
    create_time: float | None
    owner_pid: int | None
    phase: Phase
    started_at: float
    ready_at: float | None
    restarts: int
    gpus: tuple[int, ...] = ()
    memory_share: float = 0.0
    form: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no engine."""

    base: str
    message: Text
    log_path: Path | None


@dataclass(frozen=True, slots=True)
class Refusal:
    """A start of vLLM that failed, so that the transformers engine serves in its place.

    Attributes:
        base: the model that it was started with; empty where it would fail with any other, too.
        python: the Python that it was started with: another one is worth a try.
    """

    base: str
    python: str
    message: Text


def read_engine(row: sqlite3.Row) -> EngineRecord:
    """A row of the table ``engines``."""
    return EngineRecord(
        id=row["id"],
        kind=cast("EngineKind", row["kind"]),
        base=Base(row["base"], row["base_name"], bool(row["trust_remote_code"]), row["rank"]),
        url=row["url"],
        key=row["key"],
        pid=row["pid"],
        create_time=row["create_time"],
        owner_pid=row["owner_pid"],
        phase=cast("Phase", row["phase"]),
        started_at=row["started_at"],
        ready_at=row["ready_at"],
        restarts=row["restarts"],
        gpus=tuple(int(index) for index in row["cards"].split(",") if index),
        memory_share=row["memory_share"],
        form=row["form"],
    )


# Sampling parameters


class SamplingParams(BaseModel):
    """The options of ``generate`` and ``stream``.

    Attributes:
        temperature: 0 always takes the likeliest token; higher is more varied.
        top_p: draw only from the likeliest tokens that make up this share.
        max_tokens: longest answer, in tokens; the engine shortens it to what its context leaves.
        seed: the same seed draws the same answer where the engine can.
        stop: texts that end the answer.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    temperature: float = Field(0.7, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int = Field(1024, ge=1)
    seed: int | None = None
    stop: str | list[str] | None = None


def check_sampling(options: Mapping[str, Any]) -> SamplingParams:
    """Check a caller's options; one that is None takes its default.

    Raises:
        InvalidInput: naming the option, its value, the rule and the remedy.
    """
    try:
        return SamplingParams.model_validate({name: value for name, value in options.items() if value is not None})
    except ValidationError as error:
        found = first_error(error.errors())
        message = replace(found, path=found.path[:1]).sentence  # behind the option: which member of a union was tried
        known = ", ".join(SamplingParams.model_fields)
        raise InvalidInput(Text("{message}.", message=message), Text("Options: {known}.", known=known)) from error
