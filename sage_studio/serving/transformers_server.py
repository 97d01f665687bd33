"""The fallback engine: one base model and its LoRA adapters behind vLLM's routes.

For machines without vLLM.

Run as ``python -m sage_studio.serving.transformers_server``; the key comes in ``VLLM_API_KEY``. It answers one chat at
a time.
"""

import argparse
import asyncio
import os
import secrets
import threading
import time
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse
from peft import PeftModel
from pydantic import BaseModel, Field
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    StoppingCriteriaList,
    TextIteratorStreamer,
)

from sage_studio.serving.engine_server import KEY_VARIABLE, KeyOnEveryPath, bind
from sage_studio.sse import DONE, sse_event

# Protocol


class CompletionRequest(BaseModel):
    """The part of OpenAI's request that this server honours; the rest is ignored."""

    model: str
    messages: list[dict[str, Any]] = Field(min_length=1)
    stream: bool = False
    temperature: float = Field(0.7, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int | None = Field(None, ge=1)
    seed: int | None = None
    stop: str | list[str] | None = None


class AdapterRequest(BaseModel):
    """Which adapter; the path is needed to load one."""

    lora_name: str = Field(min_length=1)
    lora_path: str = ""


class ServerMetrics:
    """What ``/metrics`` tells, under vLLM's names."""

    def __init__(self) -> None:
        self.values = dict.fromkeys(
            (
                "vllm:num_requests_running",
                "vllm:prompt_tokens_total",
                "vllm:generation_tokens_total",
                "vllm:time_to_first_token_seconds_sum",
                "vllm:time_to_first_token_seconds_count",
                "vllm:e2e_request_latency_seconds_sum",
                "vllm:e2e_request_latency_seconds_count",
            ),
            0.0,
        )
        self._lock = threading.Lock()

    def add(self, **changes: float) -> None:
        """Add to figures, named without ``vllm:``."""
        with self._lock:
            for name, change in changes.items():
                self.values[f"vllm:{name}"] += change

    def text(self) -> str:
        """Prometheus text."""
        return "".join(f"{name} {value}\n" for name, value in self.values.items())


async def stop_at(texts: AsyncIterator[str], stops: Sequence[str]) -> AsyncIterator[str]:
    """Pass text on up to the first of ``stops``, holding back what may be the beginning of one."""
    held = ""
    async for text in texts:
        held += text
        found = [place for place in (held.find(stop) for stop in stops) if place >= 0]
        if found:
            yield held[: min(found)]
            return
        keep = max((n for stop in stops for n in range(len(stop)) if held.endswith(stop[:n])), default=0)
        if len(held) > keep:
            yield held[: len(held) - keep]
            held = held[len(held) - keep :]
    if held:
        yield held


# The model


class Cancelled:
    """A stopping criterion that ends a generation when its event is set."""

    def __init__(self) -> None:
        self.event = threading.Event()

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        """One flag per row."""
        return torch.full((input_ids.shape[0],), self.event.is_set(), device=input_ids.device)


class ModelServer:
    """The base model with its adapters. One generation or one change at a time."""

    def __init__(self, location: str, name: str, context: int, trust_remote_code: bool, four_bit: bool = False) -> None:
        self.name = name
        self.context = context
        self.tokenizer = AutoTokenizer.from_pretrained(location, trust_remote_code=trust_remote_code)
        self._model: Any = load_base(location, trust_remote_code, four_bit)
        self._model.eval()
        self._inner: dict[str, str] = {}
        self._count = 0
        self._lock = threading.Lock()

    def names(self) -> list[str]:
        """What can be asked for, the base first."""
        return [self.name, *self._inner]

    def load(self, name: str, path: str) -> None:
        """Load an adapter. Raises what peft raises: `ValueError`, `OSError`, `RuntimeError`, `KeyError`."""
        with self._lock:
            self._count += 1
            inner = f"adapter{self._count}"  # torch allows no dot in a module's name
            if isinstance(self._model, PeftModel):
                self._model.load_adapter(path, adapter_name=inner)
            else:
                self._model = PeftModel.from_pretrained(self._model, path, adapter_name=inner)
            self._model.eval()
            self._inner[name] = inner

    def unload(self, name: str) -> None:
        """Forget an adapter. Raises `KeyError`."""
        with self._lock:
            inner = self._inner.pop(name)
            if self._inner:
                self._model.delete_adapter(inner)
            else:
                self._model = self._model.unload()

    def prompt(self, messages: list[dict[str, Any]]) -> torch.Tensor:
        """A conversation as token ids, shape (1, tokens)."""
        encoded = self.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        return encoded["input_ids"]

    def generate(self, request: CompletionRequest, prompt: torch.Tensor, streamer: Any, cancelled: Cancelled) -> int:
        """Answer into a streamer; the number of new tokens. Ends the streamer whatever happens."""
        try:
            with self._lock, torch.inference_mode(), self._speaking_as(request.model):
                if request.seed is not None:
                    torch.manual_seed(request.seed)
                ids = prompt.to(self._model.device)
                remaining = self.context - ids.shape[1]
                output = self._model.generate(
                    input_ids=ids,
                    attention_mask=torch.ones_like(ids),
                    max_new_tokens=min(request.max_tokens or remaining, remaining),
                    streamer=streamer,
                    stopping_criteria=StoppingCriteriaList([cancelled]),
                    pad_token_id=self.tokenizer.pad_token_id or self.tokenizer.eos_token_id,
                    **_drawing(request),
                )
                return int(output.shape[1] - ids.shape[1])
        finally:
            streamer.end()

    def _speaking_as(self, name: str) -> AbstractContextManager[Any]:
        if name in self._inner:
            self._model.set_adapter(self._inner[name])
            return nullcontext()
        disabled: AbstractContextManager[Any] = (
            self._model.disable_adapter() if isinstance(self._model, PeftModel) else nullcontext()
        )
        return disabled


def load_base(location: str, trust_remote_code: bool, four_bit: bool) -> Any:
    """The base model on the GPU, or the CPU without one; quantized if it is stored so.

    Args:
        four_bit: load it in 4 bits (NF4, as QLoRA trains), whatever it is stored in.
    """
    device, dtype = ("cuda:0", half_type()) if torch.cuda.is_available() else ("cpu", torch.float32)
    options: dict[str, Any] = {"dtype": dtype, "trust_remote_code": trust_remote_code, "device_map": {"": device}}
    if four_bit:
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    return AutoModelForCausalLM.from_pretrained(location, **options)


def half_type() -> torch.dtype:
    """The 16-bit type that this GPU computes in by itself: bf16 from Ampere on, fp16 before."""
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


class Generation:
    """One generation under way, piece by piece."""

    def __init__(
        self, server: ModelServer, metrics: ServerMetrics, request: CompletionRequest, prompt: torch.Tensor
    ) -> None:
        self.id = f"chatcmpl-{secrets.token_hex(8)}"
        self.request = request
        self.prompt_tokens = int(prompt.shape[1])
        remaining = server.context - self.prompt_tokens
        self.limit = min(request.max_tokens or remaining, remaining)
        self.tokens = 0
        self._metrics = metrics
        self._cancelled = Cancelled()
        self._streamer = TextIteratorStreamer(server.tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._work: Future[int] = POOL.submit(server.generate, request, prompt, self._streamer, self._cancelled)

    async def pieces(self) -> AsyncIterator[str]:
        """The text; leaving early, as when the client went away, ends the generation."""
        started, first = time.monotonic(), True
        self._metrics.add(num_requests_running=1, prompt_tokens_total=self.prompt_tokens)
        try:
            async for text in stop_at(self._texts(), self._stops()):
                if first:
                    seconds = time.monotonic() - started
                    self._metrics.add(time_to_first_token_seconds_sum=seconds, time_to_first_token_seconds_count=1)
                    first = False
                yield text
        finally:
            self._cancelled.event.set()
            seconds = time.monotonic() - started
            self._metrics.add(
                num_requests_running=-1, e2e_request_latency_seconds_sum=seconds, e2e_request_latency_seconds_count=1
            )
        self.tokens = await asyncio.wrap_future(self._work)
        self._metrics.add(generation_tokens_total=self.tokens)

    @property
    def finish_reason(self) -> str:
        """OpenAI's word for how it ended."""
        return "length" if self.tokens >= self.limit else "stop"

    @property
    def usage(self) -> dict[str, int]:
        """Token counts."""
        total = self.prompt_tokens + self.tokens
        return {"prompt_tokens": self.prompt_tokens, "completion_tokens": self.tokens, "total_tokens": total}

    async def _texts(self) -> AsyncIterator[str]:
        while (text := await asyncio.to_thread(next, self._streamer, None)) is not None:
            yield text

    def _stops(self) -> list[str]:
        stop = self.request.stop or []
        return [stop] if isinstance(stop, str) else stop


POOL = ThreadPoolExecutor(max_workers=64, thread_name_prefix="generate")


def build_app(server: ModelServer, key: str) -> FastAPI:
    """The server's routes around a model."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    metrics = ServerMetrics()

    app.add_middleware(KeyOnEveryPath, key=key)

    @app.get("/health")
    async def health() -> Response:
        return Response()

    @app.get("/metrics")
    async def read_metrics() -> Response:
        return PlainTextResponse(metrics.text())

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [{"id": name, "object": "model"} for name in server.names()]}

    _add_adapter_routes(app, server)

    @app.post("/v1/chat/completions")
    async def chat(request: CompletionRequest) -> Response:
        generation = _start_generation(server, metrics, request)
        if request.stream:
            return StreamingResponse(_events(generation), media_type="text/event-stream")
        text = "".join([piece async for piece in generation.pieces()])
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": generation.finish_reason}
        return JSONResponse(
            {"id": generation.id, "model": request.model, "choices": [choice], "usage": generation.usage}
        )

    @app.exception_handler(HTTPException)
    async def refused(_: Request, error: HTTPException) -> Response:
        return _error(error.status_code, str(error.detail))

    return app


def _add_adapter_routes(app: FastAPI, server: ModelServer) -> None:
    @app.post("/v1/load_lora_adapter")
    def load(request: AdapterRequest) -> Response:
        if request.lora_name in server.names():
            return _error(400, f"The name {request.lora_name!r} is taken.")
        try:
            server.load(request.lora_name, request.lora_path)
        except (ValueError, OSError, RuntimeError, KeyError, TypeError) as error:
            return _error(400, f"{type(error).__name__}: {error}")
        return PlainTextResponse(f"loaded {request.lora_name}")

    @app.post("/v1/unload_lora_adapter")
    def unload(request: AdapterRequest) -> Response:
        try:
            server.unload(request.lora_name)
        except KeyError:
            return _error(404, f"There is no adapter {request.lora_name!r}.")
        return PlainTextResponse(f"unloaded {request.lora_name}")


def main() -> None:
    """Load the model named on the command line and serve it on a socket."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--served-model-name", required=True)
    parser.add_argument("--uds", required=True, help="path of the socket")
    parser.add_argument("--max-model-len", type=int, default=2048)
    parser.add_argument("--trust-remote-code", action="store_true")
    parser.add_argument("--load-in-4bit", action="store_true")
    given = parser.parse_args()
    server = ModelServer(
        given.model, given.served_model_name, given.max_model_len, given.trust_remote_code, given.load_in_4bit
    )
    app = build_app(server, os.environ.pop(KEY_VARIABLE, ""))
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5)
    uvicorn.Server(config).run([bind(given.uds)])


def _start_generation(server: ModelServer, metrics: ServerMetrics, request: CompletionRequest) -> Generation:
    if request.model not in server.names():
        raise HTTPException(404, f"The model {request.model!r} does not exist.")
    prompt = server.prompt(request.messages)
    if prompt.shape[1] >= server.context:
        raise HTTPException(
            400, f"The maximum context length is {server.context} tokens; the prompt has {prompt.shape[1]}."
        )
    return Generation(server, metrics, request, prompt)


async def _events(generation: Generation) -> AsyncIterator[str]:
    """An answer as server-sent events, the usage in the last."""
    try:
        async for text in generation.pieces():
            yield _event(generation, {"content": text})
    except RuntimeError as error:  # torch's only kind, out of memory included
        yield sse_event({"error": {"message": str(error)}})
        return
    yield _event(generation, {}, generation.finish_reason)
    yield sse_event({"id": generation.id, "model": generation.request.model, "choices": [], "usage": generation.usage})
    yield DONE


def _event(generation: Generation, delta: dict[str, str], reason: str | None = None) -> str:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return sse_event({"id": generation.id, "model": generation.request.model, "choices": [choice]})


def _error(status: int, message: str) -> Response:
    return JSONResponse({"error": {"message": message, "code": status}}, status_code=status)


def _drawing(request: CompletionRequest) -> dict[str, Any]:
    if request.temperature == 0:
        return {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    return {"do_sample": True, "temperature": request.temperature, "top_p": request.top_p, "top_k": 0}


if __name__ == "__main__":
    main()
