"""HTTP client of an engine: the OpenAI protocol and vLLM's routes."""

import json
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from sage_studio.errors import EngineUnavailable, InvalidInput, InvalidModel
from sage_studio.serving.metrics import parse_metrics
from sage_studio.serving.sockets import open_client, server_of
from sage_studio.serving.types import ChatChunk, ChatMessage, SamplingParams
from sage_studio.sse import sse_data
from sage_studio.text import Text

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 300.0
QUICK_SECONDS = 2.0
HEALTH_SECONDS = 10.0
SLEEP_SECONDS = 120.0
IDLE_SECONDS = 3.0
"""Shorter than the 5 s after which the servers close an idle connection, so that none is used while it is closed."""
LIMIT = re.compile(r"(?:context length (?:is )?\(?|maximum of )(\d+)")


class EngineDisconnected(EngineUnavailable):
    """The engine broke the connection, or took none.

    Attributes:
        answered: whether part of the answer had been passed on.
    """

    def __init__(self, message: Text, *, answered: bool) -> None:
        super().__init__(message, Text("Send the message again."))
        self.answered = answered


class EngineClient:
    """One engine's address and key, with a pool of connections that many threads share."""

    def __init__(self, url: str, key: str) -> None:
        timeout = httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS)
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=20, keepalive_expiry=IDLE_SECONDS)
        self._http = open_client(url, key, timeout=timeout, limits=limits)
        self._server = server_of(url)

    def models(self, quick: bool = False) -> list[str]:
        """The names it answers to; with ``quick``, none where it does not answer at once."""
        try:
            answer = self._http.get("/models", timeout=QUICK_SECONDS if quick else ANSWER_SECONDS)
            answer.raise_for_status()
            return [str(model["id"]) for model in answer.json()["data"]]
        except (httpx.HTTPError, RuntimeError, ValueError, KeyError, TypeError):  # RuntimeError: closed by a switch
            if quick:
                return []
            raise

    def load_adapter(self, name: str, path: Path) -> None:
        """Load a LoRA adapter.

        Raises:
            InvalidModel: the engine refuses it, with its reason.
            EngineGone: no answer.
        """
        with _translate_errors():
            answer = self._http.post("/load_lora_adapter", json={"lora_name": name, "lora_path": str(path)})
        if answer.is_error:
            words = _words(answer)
            raise InvalidModel(
                Text("The engine cannot load this adapter: {words}", words=words),
                Text("Train again, or choose another model."),
            )

    def unload_adapter(self, name: str) -> None:
        """Forget an adapter; one that is not there is forgotten already. Raises `EngineDisconnected`."""
        with _translate_errors():
            self._http.post("/unload_lora_adapter", json={"lora_name": name})

    def healthy(self) -> bool:
        """Whether it answers at all within `HEALTH_SECONDS`."""
        try:
            return not self._http.get(f"{self._server}/health", timeout=HEALTH_SECONDS).is_error
        except (httpx.HTTPError, RuntimeError):
            return False

    def sleep(self) -> None:
        """Have vLLM release its GPU memory and keep the weights in main memory. Raises `EngineUnavailable`."""
        self._order("/sleep?level=1")

    def wake_up(self) -> None:
        """End `sleep`. Raises `EngineUnavailable`."""
        self._order("/wake_up")

    def metrics(self) -> dict[str, float]:
        """The engine's metrics, summed over labels and without histogram buckets; empty where it tells none."""
        try:
            answer = self._http.get(f"{self._server}/metrics", timeout=QUICK_SECONDS)
            text = answer.raise_for_status().text
        except (httpx.HTTPError, RuntimeError):
            return {}
        return dict(parse_metrics(text, time.time()).values)

    def chat(self, model: str, messages: Sequence[ChatMessage], sampling: SamplingParams) -> Iterator[ChatChunk]:
        """Stream an answer. Closing the iterator ends the generation in the engine.

        Args:
            model: the engine's own name for it.
            messages: the conversation.
            sampling: how to draw.

        Yields:
            pieces of text, then one with ``done`` and the figures. ``model`` is what the server says.

        Raises:
            InvalidInput: the conversation is longer than the engine's context, or the engine refuses it.
            EngineGone: no connection, or it broke.
        """
        body = {
            "model": model,
            "messages": list(messages),
            "stream": True,
            "stream_options": {"include_usage": True},
            **sampling.model_dump(exclude_none=True),
        }
        answer = _StreamedAnswer(model)
        with (
            _translate_errors(answer),
            self._http.stream("POST", "/chat/completions", json=body) as response,
        ):
            if response.is_error:
                response.read()
                raise _refused(response)
            yield from answer.chunks(response.iter_lines())
        if not answer.finished:
            raise _gone(answered=True)
        yield answer.last()

    def complete(self, model: str, prompt: str) -> tuple[str, int]:
        """One token after a bare prompt, without a chat template: the cheapest answer there is.

        Returns:
            the model that the server names, and how many tokens it made.

        Raises:
            EngineUnavailable, InvalidInput: it refuses.
            EngineGone: no connection, or it broke.
        """
        body = {"model": model, "prompt": prompt, "max_tokens": 1, "temperature": 0}
        with _translate_errors():
            answer = self._http.post("/completions", json=body)
            if answer.is_error:
                raise _refused(answer)
            content = answer.json()
        return str(content.get("model", "")), int((content.get("usage") or {}).get("completion_tokens", 0))

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def _order(self, path: str) -> None:
        with _translate_errors():
            answer = self._http.post(f"{self._server}{path}", timeout=SLEEP_SECONDS)
        if answer.is_error:
            raise _refused(answer) if answer.status_code >= 500 else _not_known(path, answer)


class _StreamedAnswer:
    """An answer as it comes in, and its figures."""

    def __init__(self, model: str) -> None:
        self.model = model
        self.finished = False
        self.reason = ""
        self.pieces = 0
        self.usage: dict[str, int] = {}
        self.asked = time.monotonic()
        self.first: float | None = None
        self.newest = self.asked

    def chunks(self, lines: Iterator[str]) -> Iterator[ChatChunk]:
        """The pieces of text in a stream of server-sent events."""
        for data in sse_data(lines):
            if data == "[DONE]":
                self.finished = True
                return
            text = self._read(json.loads(data))
            if text:
                yield ChatChunk(text, self.model)

    def last(self) -> ChatChunk:
        """The closing piece."""
        tokens = self.usage.get("completion_tokens", self.pieces)
        first = self.first if self.first is not None else self.newest
        seconds = self.newest - first
        return ChatChunk(
            text="",
            model=self.model,
            done=True,
            finish_reason=self.reason,
            prompt_tokens=self.usage.get("prompt_tokens", 0),
            completion_tokens=tokens,
            tokens_per_second=(tokens - 1) / seconds if tokens > 1 and seconds > 0 else None,
            first_token_seconds=first - self.asked,
        )

    def _read(self, event: dict[str, Any]) -> str:
        if "error" in event:
            words = str(event["error"].get("message", event["error"])) if isinstance(event["error"], dict) else ""
            raise EngineUnavailable(
                Text("The engine aborted the answer: {words}", words=words),
                Text("Send it again."),
            )
        self.model = event.get("model") or self.model
        self.usage = event.get("usage") or self.usage
        text = ""
        for choice in event.get("choices", [])[:1]:
            self.reason = choice.get("finish_reason") or self.reason
            delta = choice.get("delta") or {}
            text = delta.get("content") or ""
        if text:
            self.pieces += 1
            self.newest = time.monotonic()
            self.first = self.first or self.newest
        return text


@contextmanager
def _translate_errors(answer: _StreamedAnswer | None = None) -> Iterator[None]:
    try:
        yield
    except (httpx.TransportError, httpx.StreamError, json.JSONDecodeError) as error:
        raise _gone(answered=answer is not None and answer.pieces > 0) from error
    except RuntimeError as error:  # httpx's word for a client closed by a switch in another thread
        if "closed" not in str(error):
            raise
        raise _gone(answered=answer is not None and answer.pieces > 0) from error


def _gone(answered: bool) -> EngineDisconnected:
    if answered:
        return EngineDisconnected(
            Text("The connection to the engine was lost in the middle of the answer."),
            answered=True,
        )
    return EngineDisconnected(Text("The engine does not answer."), answered=False)


def _refused(response: httpx.Response) -> EngineUnavailable | InvalidInput:
    words = _words(response)
    if response.status_code >= 500 or response.status_code in (401, 403, 404):
        return EngineUnavailable(
            Text("The engine answered {status_code}: {words}", status_code=response.status_code, words=words),
            Text("Switch to the model again, or read engine.log."),
        )
    limit = LIMIT.search(words)
    if limit is not None:
        return InvalidInput(
            Text(
                "The conversation and its answer exceed the engine's context length of {limit} tokens.", limit=limit[1]
            ),
            Text("Shorten it, or start a new conversation."),
        )
    return InvalidInput(Text("The engine rejected the request: {words}", words=words))


def _not_known(path: str, answer: httpx.Response) -> EngineUnavailable:
    return EngineUnavailable(
        Text("The engine has no route {path}: {status_code}.", path=path, status_code=answer.status_code)
    )


def _words(response: httpx.Response) -> str:
    try:
        content = response.json()
    except ValueError:
        return response.text[:300]
    error = content.get("error", content) if isinstance(content, dict) else content
    message = error.get("message", error) if isinstance(error, dict) else error
    return str(message)[:300]
