"""The nouns of serving, shared by the registry, the engines and whoever shows them.

Knows shapes only. Knows no process, no HTTP and no widget.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal, TypedDict

from sage_studio.fetching import Transfer
from sage_studio.text import NOTHING, Text

ModelKind = Literal["base", "adapter", "full", "external"]


class ChatMessage(TypedDict):
    """One turn, in OpenAI's shape."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class RegisteredModel:
    """A model that can answer.

    Attributes:
        name: what clients ask for.
        kind: base model, LoRA adapter, whole fine-tuned model, or one on someone else's server.
        path: its folder or hub id.
        base: for an adapter: the base it stands on (folder or hub id).
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
        form: in which form it holds the weights (see `sage_studio.serving.gpu.Form`); empty while down.
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
    download: Transfer | None = None


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
