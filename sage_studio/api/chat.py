"""The chat route: one answer, whole or streamed. Knows nothing of engines."""

import json
from collections.abc import Iterator
from itertools import chain
from typing import Literal

from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from sage_studio.serving.types import ChatChunk, ChatMessage
from sage_studio.studio import Studio


class Turn(BaseModel):
    """One earlier turn."""

    model_config = ConfigDict(extra="forbid")

    role: Literal["system", "user", "assistant"]
    content: str


class ChatRequest(BaseModel):
    """A message and what was said before it."""

    model_config = ConfigDict(extra="forbid")

    message: str = Field(min_length=1)
    history: list[Turn] = Field([], description="Earlier turns, oldest first")
    model: str | None = Field(None, description="A registered model; the current one when left out")
    stream: bool = False
    temperature: float = 0.7
    max_tokens: int = 512


class ChatResponse(BaseModel):
    """The answer, the model that gave it, and what it took."""

    response: str
    model: str
    usage: dict[str, int]
    tokens_per_second: float | None


def routes(studio: Studio) -> APIRouter:
    """The route ``/api/chat``."""
    router = APIRouter(prefix="/api", tags=["chat"])

    @router.post("/chat", response_model=ChatResponse)
    def chat(body: ChatRequest) -> ChatResponse | StreamingResponse:
        """Ask the current model. With ``stream``, the answer comes as server-sent events ``{text, model, done}``."""
        turns = [*body.history, Turn(role="user", content=body.message)]
        messages = [ChatMessage(role=turn.role, content=turn.content) for turn in turns]
        sampling = {"temperature": body.temperature, "max_tokens": body.max_tokens}
        chunks = studio.chat(messages, model=body.model, **sampling)
        if not body.stream:
            return whole(chunks)
        first = next(chunks)  # a fault before the first word is answered with its own status
        return StreamingResponse(_events(first, chunks), media_type="text/event-stream")

    return router


def whole(chunks: Iterator[ChatChunk]) -> ChatResponse:
    """Gather a streamed answer."""
    pieces = list(chunks)
    last = pieces[-1]
    return ChatResponse(
        response="".join(piece.text for piece in pieces),
        model=last.model,
        usage={"prompt_tokens": last.prompt_tokens, "completion_tokens": last.completion_tokens},
        tokens_per_second=last.tokens_per_second,
    )


def _events(first: ChatChunk, rest: Iterator[ChatChunk]) -> Iterator[str]:
    for chunk in chain((first,), rest):
        data = {"text": chunk.text, "model": chunk.model, "done": chunk.done}
        yield f"data: {json.dumps(data, ensure_ascii=False)}\n\n"
