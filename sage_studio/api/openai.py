"""OpenAI-compatible API: clients use the current model as they use any OpenAI server.

Which sampling options there are, and their bounds, is checked by the registry.
"""

import time
import uuid
from collections.abc import Generator, Iterator
from itertools import chain
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from sage_studio.api.errors import UnsupportedMediaType, error_responses, file_response, openai_error, request_language
from sage_studio.api.stream import EventStream
from sage_studio.api.strict_json import strict
from sage_studio.errors import Conflict, EngineUnavailable, InvalidInput, InvalidModel, NotFound, StudioError
from sage_studio.serving.types import ChatChunk, ChatMessage, RegisteredModel, check_sampling
from sage_studio.sse import DONE, sse_event
from sage_studio.studio import Studio
from sage_studio.text import Language, Text

SILENT = {"user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "verbosity"}
"""Fields that change no answer here, whatever they hold."""
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "logprobs": (False,),
    "logit_bias": ({},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "response_format": ({"type": "text"},),
}
"""Fields that ask for nothing special when they hold one of these."""
ANSWERS = file_response(EventStream.media_type) | error_responses(
    UnsupportedMediaType, NotFound, Conflict, EngineUnavailable, InvalidModel, openai=True
)


class ContentPart(BaseModel):
    """A piece of a message; only text is understood."""

    type: Literal["text"]
    text: str


class ChatCompletionMessage(BaseModel):
    """A turn."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[ContentPart]

    def plain(self) -> ChatMessage:
        """As the registry takes it."""
        content = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return ChatMessage(role="system" if self.role == "developer" else self.role, content=content)


class StreamOptions(BaseModel):
    """What a stream tells besides the words."""

    include_usage: bool = False


class ChatCompletionRequest(BaseModel):
    """A request for an answer. Fields that are not declared here are options of the registry, or refused by name."""

    model_config = ConfigDict(extra="allow")

    messages: list[ChatCompletionMessage] = Field(min_length=1)
    model: str | None = Field(None, description="A registered model; with any other name the current model answers")
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_completion_tokens: int | None = None

    def sampling(self) -> dict[str, Any]:
        """The sampling parameters; ``max_completion_tokens`` is the newer name of ``max_tokens``.

        Raises:
            InvalidInput: a value out of bounds, or a field that is none of them.
        """
        asked = {name: value for name, value in (self.model_extra or {}).items() if not _changes_nothing(name, value)}
        if self.max_completion_tokens is not None:
            asked["max_tokens"] = self.max_completion_tokens
        check_sampling(asked)
        return asked


class ModelCard(BaseModel):
    """A registered model."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(description="Unix seconds")
    owned_by: Literal["sage-studio"] = "sage-studio"
    root: str = Field(description="Its folder or its name on the hub")
    parent: str | None = Field(description="The base model of an adapter")

    @classmethod
    def of(cls, model: RegisteredModel) -> "ModelCard":
        """What is said of one model."""
        parent = model.config.get("base_name") if model.kind == "adapter" else None
        return cls(id=model.name, created=int(model.created_at), root=model.path, parent=parent)


class ModelList(BaseModel):
    """All models."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class Choice(BaseModel):
    """The answer; there is always one."""

    index: int
    message: dict[str, str]
    finish_reason: str
    logprobs: None


class ChatCompletion(BaseModel):
    """An answer as the OpenAI protocol has it."""

    id: str
    object: Literal["chat.completion"]
    created: int = Field(description="Unix seconds")
    model: str
    choices: list[Choice]
    usage: dict[str, int]


def routes(studio: Studio) -> APIRouter:
    """The routes under ``/v1``."""
    router = APIRouter(prefix="/v1", tags=["openai"])

    @router.get("/models", responses=error_responses(openai=True))
    def models() -> ModelList:
        """Every registered model, the current one first."""
        registered = sorted(studio.serving.models(), key=lambda model: not model.current)
        return ModelList(data=[ModelCard.of(model) for model in registered])

    @router.post("/chat/completions", response_model=ChatCompletion, responses=ANSWERS)
    def complete(
        request: Request, body: Annotated[ChatCompletionRequest, strict(ChatCompletionRequest)]
    ) -> dict[str, Any] | EventStream:
        """Answer as the OpenAI protocol has it: from the model named if it is registered, else from the current one."""
        known = any(model.name == body.model for model in studio.serving.models())
        messages = [message.plain() for message in body.messages]
        if not messages[-1]["content"].strip():
            raise InvalidInput(Text("The last message is empty."))
        chunks = studio.chat.answer(messages, model=body.model if known else None, **body.sampling())
        if not body.stream:
            return _whole(chunks)
        first = next(chunks)  # a fault before the first word is answered with its own status
        usage = body.stream_options is not None and body.stream_options.include_usage
        return EventStream(_events(first, chunks, usage, request_language(request)))

    return router


def _changes_nothing(name: str, value: Any) -> bool:
    return value is None or name in SILENT or value in NEUTRAL.get(name, ())


def _whole(chunks: Iterator[ChatChunk]) -> dict[str, Any]:
    pieces = list(chunks)
    last = pieces[-1]
    message = {"role": "assistant", "content": "".join(piece.text for piece in pieces)}
    choice = {"index": 0, "message": message, "finish_reason": last.finish_reason or "stop", "logprobs": None}
    return {**_head(last.model, "chat.completion"), "choices": [choice], "usage": _usage(last)}


def _events(
    first: ChatChunk, rest: Iterator[ChatChunk], with_usage: bool, language: Language
) -> Generator[str, None, None]:
    head = _head(first.model, "chat.completion.chunk")
    yield sse_event({**head, "choices": [_choice({"role": "assistant", "content": ""})]})
    try:
        for chunk in chain((first,), rest):
            if not chunk.done:
                yield sse_event({**head, "choices": [_choice({"content": chunk.text})]})
                continue
            yield sse_event({**head, "model": chunk.model, "choices": [_choice({}, chunk.finish_reason or "stop")]})
            if with_usage:
                yield sse_event({**head, "choices": [], "usage": _usage(chunk)})
    except StudioError as error:  # the status is sent already
        yield sse_event(openai_error(error, language))
    yield DONE


def _head(model: str, kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": model}


def _choice(delta: dict[str, str], reason: str | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}


def _usage(last: ChatChunk) -> dict[str, int]:
    return {
        "prompt_tokens": last.prompt_tokens,
        "completion_tokens": last.completion_tokens,
        "total_tokens": last.prompt_tokens + last.completion_tokens,
    }
