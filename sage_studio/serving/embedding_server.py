"""The embedder's process: one model behind OpenAI's route for embeddings.

Run as ``python -m sage_studio.serving.embedding_server``; the key comes in ``EMBEDDER_KEY``. It ends by itself when
it is idle for a while, or when the process that started it is gone.
"""

import argparse
import base64
import os
import signal
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from sage_studio.errors import InvalidModel
from sage_studio.serving.engine_server import KeyOnEveryPath, bind, unbind
from sage_studio.training import environment

KEY_VARIABLE = "EMBEDDER_KEY"
MAX_BODY_BYTES = 16 << 20
POLL_SECONDS = 2.0
FREE_GPU_BYTES = 3 << 30
"""Of GPU memory, that must be free for the embedder to go there: the engine may be on the same GPU."""


class EmbeddingRequest(BaseModel):
    """OpenAI's request, with NVIDIA's and Cohere's ``input_type``."""

    input: list[str]
    input_type: Literal["query", "passage"] = "passage"
    model: str = ""


class EmbeddingModel:
    """A ``SentenceTransformer`` that answers one request at a time.

    Attributes:
        last_used: when it last answered, by `time.monotonic`.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._lock = threading.Lock()
        self.last_used = time.monotonic()

    def embed(self, texts: list[str], kind: Literal["query", "passage"]) -> Any:
        """Vectors of texts: float32, shape (texts, dimensions), each of length 1."""
        from sage_studio.training.embedding_model import embed_passages, embed_queries

        with self._lock:
            vectors = (embed_queries if kind == "query" else embed_passages)(self._model, texts)
            self.last_used = time.monotonic()
            return vectors.astype("<f4")


def build_app(model: EmbeddingModel, key: str) -> FastAPI:
    """The routes around a model."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    @app.middleware("http")
    async def check(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        if request.method == "POST" and not 0 < int(request.headers.get("content-length", 0)) <= MAX_BODY_BYTES:
            return _error(413, f"The body must have a content-length of at most {MAX_BODY_BYTES} bytes.")
        return await call_next(request)

    app.add_middleware(KeyOnEveryPath, key=key)  # added last, so asked first

    @app.get("/health")
    async def health() -> Response:
        return Response()

    @app.post("/v1/embeddings")
    def embeddings(request: EmbeddingRequest) -> dict[str, Any]:
        vectors = model.embed(request.input, request.input_type)
        rows = [{"index": n, "embedding": base64.b64encode(row.tobytes()).decode()} for n, row in enumerate(vectors)]
        return {"object": "list", "model": request.model, "data": rows}

    return app


def main() -> int:
    """Load the model named on the command line and serve it on a socket until it is idle for too long."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--uds", required=True, help="path of the socket")
    parser.add_argument("--idle-seconds", type=float, default=900.0)
    parser.add_argument("--trust-remote-code", action="store_true")
    given = parser.parse_args()
    environment.prepare(given.model)
    from sage_studio.training.embedding_model import LONGEST, limit_length, load_embedder

    try:
        loaded = load_embedder(given.model, given.trust_remote_code, _device())
    except InvalidModel as error:
        print(f"InvalidModel: {error}", flush=True)
        return 1
    limit_length(loaded, LONGEST)
    model = EmbeddingModel(loaded)
    app = build_app(model, os.environ.pop(KEY_VARIABLE, ""))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    threading.Thread(
        target=_stop_when_unused, args=(server, model, os.getppid(), given.idle_seconds), daemon=True
    ).start()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # uvicorn raises it anew at its end, which would kill us
    try:
        server.run([bind(given.uds)])
    finally:
        unbind(given.uds)  # the studio that would remove it may be gone
    return 0


def _stop_when_unused(server: uvicorn.Server, model: EmbeddingModel, parent: int, idle_seconds: float) -> None:
    while os.getppid() == parent and time.monotonic() - model.last_used < idle_seconds:
        time.sleep(POLL_SECONDS)
    server.should_exit = True


def _error(status: int, message: str) -> Response:
    return JSONResponse({"error": {"message": message}}, status_code=status)


def _device() -> str:
    """The GPU if it has enough free memory beside the engine, else the CPU."""
    import torch

    return "cuda" if torch.cuda.is_available() and torch.cuda.mem_get_info()[0] > FREE_GPU_BYTES else "cpu"


if __name__ == "__main__":
    raise SystemExit(main())
