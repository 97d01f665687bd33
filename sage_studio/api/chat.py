"""Chat routes: one model's answer or several side by side, whole or streamed."""

from collections.abc import Generator, Iterator
from itertools import chain
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from sage_studio.api.errors import UnsupportedMediaType, error_responses, file_response, own_error, request_language
from sage_studio.api.stream import EventStream
from sage_studio.api.strict_json import strict
from sage_studio.errors import (
    Conflict,
    EmbedderUnavailable,
    EngineUnavailable,
    HubUnavailable,
    InvalidDataset,
    InvalidModel,
    NotFound,
    StudioError,
)
from sage_studio.evaluation.arena import AnswerChunk
from sage_studio.fields import Temperature, TokenCount, Words
from sage_studio.operations.chat import ReplyView
from sage_studio.operations.rag import SourceView
from sage_studio.serving.types import ChatChunk, ChatMessage
from sage_studio.sse import sse_event
from sage_studio.studio import Studio
from sage_studio.text import Language

UNANSWERED = (NotFound, Conflict, EngineUnavailable, EmbedderUnavailable, HubUnavailable, InvalidDataset, InvalidModel)
ANSWERS = file_response(EventStream.media_type) | error_responses(UnsupportedMediaType, *UNANSWERED)


class HistoryMessage(BaseModel):
    """One earlier turn."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["system", "user", "assistant"]
    content: str


class ChatInput(BaseModel):
    """A message and what was said before it."""

    model_config = ConfigDict(extra="forbid")

    message: Words = Field(min_length=1)
    history: list[HistoryMessage] = Field([], description="Earlier turns, oldest first")
    stream: bool = False
    temperature: Temperature = 0.7
    max_tokens: TokenCount = 512

    def messages(self) -> list[ChatMessage]:
        """The whole conversation."""
        turns = [*self.history, HistoryMessage(role="user", content=self.message)]
        return [ChatMessage(role=turn.role, content=turn.content) for turn in turns]

    def sampling(self) -> dict[str, float]:
        """How the answer is drawn."""
        return {"temperature": self.temperature, "max_tokens": self.max_tokens}


class ChatRequest(ChatInput):
    """A question to one model."""

    model: str | None = Field(None, description="A registered model; the current one when left out")
    documents: bool | str = Field(False, description="Answer from documents: true, or the id of a dataset")
    expand: bool = Field(False, description="With documents: look up twice, the second time with a first answer too")


class CompareRequest(ChatInput):
    """A question to several models."""

    models: list[str] = Field(
        description="Two to four registered models",
        examples=[["base", "tuned"]],
        json_schema_extra={"minItems": 2, "maxItems": 4},
    )


class CompareResponse(BaseModel):
    """One answer for each model, in the order in which they were named."""

    answers: list[ReplyView]


class ChatResponse(BaseModel):
    """The answer, the model that gave it, and what it took."""

    response: str
    model: str
    usage: dict[str, int]
    tokens_per_second: float | None
    sources: list[SourceView] = Field(description="What it was drawn from, where it was to answer from documents")
    look_ups: int = Field(description="How often passages were looked up for it")


def routes(studio: Studio) -> APIRouter:
    """The routes ``/api/chat`` and ``/api/compare``."""
    router = APIRouter(prefix="/api", tags=["chat"])
    _add_comparing(router, studio)

    @router.post("/chat", response_model=ChatResponse, responses=ANSWERS)
    def chat(request: Request, body: Annotated[ChatRequest, strict(ChatRequest)]) -> ChatResponse | EventStream:
        """Ask the current model. With ``stream``, the answer comes as server-sent events ``{text, model, done}``.

        With ``documents`` it answers from passages of a dataset and names them as ``sources``, in the last event.
        With ``expand`` too a first answer is written and looked up with; while it is, events without text come.
        If the engine breaks off, the last event holds ``error`` with code, message and hint.
        """
        chunks = studio.chat.answer(body.messages(), body.model, body.documents, body.expand, **body.sampling())
        if not body.stream:
            return whole(chunks)
        first = next(chunks)  # a fault before the first word is answered with its own status
        return EventStream(_events(first, chunks, request_language(request)))

    return router


def _add_comparing(router: APIRouter, studio: Studio) -> None:
    @router.post("/compare", response_model=CompareResponse, responses=ANSWERS)
    def compare(
        request: Request, body: Annotated[CompareRequest, strict(CompareRequest)]
    ) -> CompareResponse | EventStream:
        """Ask two to four models the same. One that cannot answer says why in its ``error``; the others go on.

        With ``stream``, server-sent events ``{column, text, …the answer's figures}`` come as the models speak.
        """
        chunks = studio.chat.compare(body.messages(), body.models, **body.sampling())
        language = request_language(request)
        if body.stream:
            return EventStream(_columns(chunks, language))
        replies = {chunk.column: chunk.reply for chunk in chunks}
        return CompareResponse(answers=[ReplyView.of(replies[column], language) for column in sorted(replies)])


def whole(chunks: Iterator[ChatChunk]) -> ChatResponse:
    """Gather a streamed answer."""
    answer = list(chunks)
    last = answer[-1]
    return ChatResponse(
        response="".join(chunk.text for chunk in answer),
        model=last.model,
        usage={"prompt_tokens": last.prompt_tokens, "completion_tokens": last.completion_tokens},
        tokens_per_second=last.tokens_per_second,
        sources=[SourceView.of(source) for source in last.sources],
        look_ups=last.look_ups,
    )


def _events(first: ChatChunk, rest: Iterator[ChatChunk], language: Language) -> Generator[str, None, None]:
    try:
        for chunk in chain((first,), rest):
            message: dict[str, Any] = {"text": chunk.text, "model": chunk.model, "done": chunk.done}
            if chunk.sources:
                message["sources"] = [SourceView.of(source).model_dump() for source in chunk.sources]
                message["look_ups"] = chunk.look_ups
            yield sse_event(message)
    except StudioError as error:  # the status is sent already
        yield sse_event({"text": "", "model": first.model, "done": False, "error": own_error(error, language)})


def _columns(chunks: Iterator[AnswerChunk], language: Language) -> Generator[str, None, None]:
    for chunk in chunks:
        view = ReplyView.of(chunk.reply, language).model_dump(exclude={"response"})
        yield sse_event({"column": chunk.column, "text": chunk.text, **view})
