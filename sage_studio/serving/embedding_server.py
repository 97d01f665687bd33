"""The embedder as a process of its own: one model behind OpenAI's route for embeddings.

Run as ``python -m sage_studio.serving.embedding_server``; the key comes in ``EMBEDDER_KEY``. It ends by itself when
nobody asks for a while, or when the process that started it is gone. Knows HTTP; how an embedder is loaded and asked
stands in `sage_studio.training.embedder`. Knows nothing of the studio around it.
"""

import argparse
import base64
import json
import os
import secrets
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from sage_studio.errors import InvalidModel
from sage_studio.training import environment

KEY_VARIABLE = "EMBEDDER_KEY"
MOST_BYTES = 16 << 20
LOOK_SECONDS = 2.0
ROOM_BYTES = 3 << 30


class EmbeddingModel:
    """The model, one request at a time, and when it was last asked."""

    def __init__(self, model: Any, key: str) -> None:
        self.model, self.key = model, key
        self.last = time.monotonic()
        self._lock = threading.Lock()

    def vectors(self, texts: list[str], kind: str) -> Any:
        """Vectors of texts: float32, shape (texts, dimensions), each of length 1."""
        from sage_studio.training.embedder import embed_passages, embed_queries

        with self._lock:
            embed = embed_queries if kind == "query" else embed_passages
            found = embed(self.model, texts)
            self.last = time.monotonic()
            return found.astype("<f4")


def handler_for(asked: EmbeddingModel) -> type[BaseHTTPRequestHandler]:
    """The routes around a model."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(200 if self.path == "/health" else 404, {})

        def do_POST(self) -> None:
            if not secrets.compare_digest(self.headers.get("authorization", ""), f"Bearer {asked.key}"):
                self._answer(401, {"error": {"message": "Unauthorized"}})
                return
            length = int(self.headers.get("content-length", 0))
            if self.path != "/v1/embeddings" or not 0 < length <= MOST_BYTES:
                self._answer(404 if length <= MOST_BYTES else 413, {"error": {"message": "no such route, or too long"}})
                return
            body = json.loads(self.rfile.read(length))
            found = asked.vectors(body["input"], body.get("input_type", "passage"))
            rows = [{"index": n, "embedding": base64.b64encode(row.tobytes()).decode()} for n, row in enumerate(found)]
            self._answer(200, {"object": "list", "model": body.get("model", ""), "data": rows})

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: the log is for faults."""

        def _answer(self, status: int, content: dict[str, Any]) -> None:
            data = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    return Handler


def main() -> int:
    """Load the model named on the command line and serve it on loopback until nobody needs it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--idle-seconds", type=float, default=900.0)
    parser.add_argument("--trust-remote-code", action="store_true")
    given = parser.parse_args()
    parent = os.getppid()
    environment.prepare(given.model)
    from sage_studio.training.embedder import LONGEST, limit_length, load_embedder

    try:
        model = load_embedder(given.model, given.trust_remote_code, _device())
    except InvalidModel as error:
        print(f"InvalidModel: {error}", flush=True)
        return 1
    limit_length(model, LONGEST)
    asked = EmbeddingModel(model, os.environ.pop(KEY_VARIABLE, ""))
    server = ThreadingHTTPServer(("127.0.0.1", given.port), handler_for(asked))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    while os.getppid() == parent and time.monotonic() - asked.last < given.idle_seconds:
        time.sleep(LOOK_SECONDS)
    server.shutdown()
    return 0


def _device() -> str:
    """The card where it has room beside the engine, else the processor."""
    import torch

    return "cuda" if torch.cuda.is_available() and torch.cuda.mem_get_info()[0] > ROOM_BYTES else "cpu"


if __name__ == "__main__":
    raise SystemExit(main())
