"""The embedder's process as the studio sees it: started when somebody asks, started again once if it dies.

Knows its command line, its life and its one route. Knows nothing of indexes, datasets or tasks; never imports torch.
"""

import base64
import secrets
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
from numpy.typing import NDArray

from sage_studio.errors import EmbedderUnavailable
from sage_studio.serving.embedding_server import KEY_VARIABLE
from sage_studio.serving.process import POLL_SECONDS, ProcessId, free_port, is_alive, last_words, spawn, stop
from sage_studio.settings import PROJECT, Settings
from sage_studio.text import Text

Vectors = NDArray[np.float32]
"""Shape (texts, dimensions); each row has length 1, so that a product of two is their cosine."""

BATCH = 64
ANSWER_SECONDS = 300.0
STOP_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class EmbedderModel:
    """What is loaded: a folder or hub id, and whether code that comes with it may run."""

    location: str
    trust_remote_code: bool = False


@dataclass(frozen=True, slots=True)
class _Child:
    model: EmbedderModel
    process: ProcessId
    http: httpx.Client


class Embedder:
    """At most one embedder at a time; safe to use from many threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._log = settings.root / "embedder.log"
        self._lock = threading.Lock()
        self._child: _Child | None = None

    def embed(self, model: EmbedderModel, texts: Sequence[str], query: bool = False) -> Vectors:
        """Vectors of a few texts.

        Raises:
            EmbedderUnavailable: it does not start, or it went away twice; the message quotes its log.
        """
        child = self._ready(model)
        try:
            return self._ask(child, texts, query)
        except httpx.TransportError:
            self._forget(child)
        try:
            return self._ask(self._ready(model), texts, query)
        except httpx.TransportError as error:
            raise self._gone(model) from error

    @property
    def process(self) -> ProcessId | None:
        """Its process while it runs."""
        child = self._child
        return child.process if child is not None and is_alive(child.process) else None

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._end()

    def _ready(self, model: EmbedderModel) -> _Child:
        with self._lock:
            child = self._child
            if child is not None and child.model == model and is_alive(child.process):
                return child
            self._end()
            self._child = self._start(model)
            return self._child

    def _start(self, model: EmbedderModel) -> _Child:
        port, key = free_port(), secrets.token_urlsafe(24)
        command = [sys.executable, "-m", "sage_studio.serving.embedding_server", "--model", model.location]
        command += ["--port", str(port), *(["--trust-remote-code"] if model.trust_remote_code else [])]
        quiet = {"OMP_WAIT_POLICY": "PASSIVE", KEY_VARIABLE: key, "PYTHONPATH": str(PROJECT)}
        process = spawn(command, quiet, self._settings.root, self._log)
        http = httpx.Client(
            base_url=f"http://127.0.0.1:{port}",
            headers={"Authorization": f"Bearer {key}"},
            timeout=ANSWER_SECONDS,
            trust_env=False,
        )
        child = _Child(model, process, http)
        self._wait(child)
        return child

    def _wait(self, child: _Child) -> None:
        deadline = time.monotonic() + self._settings.engine_start_seconds
        while True:
            try:
                if child.http.get("/health").is_success:
                    return
            except httpx.TransportError:
                pass
            if not is_alive(child.process) or time.monotonic() > deadline:
                child.http.close()
                stop(child.process, STOP_SECONDS)
                raise self._gone(child.model)
            time.sleep(POLL_SECONDS)

    def _ask(self, child: _Child, texts: Sequence[str], query: bool) -> Vectors:
        body = {"model": child.model.location, "input": list(texts), "input_type": "query" if query else "passage"}
        try:
            answer = child.http.post("/v1/embeddings", json=body)
        except RuntimeError as error:  # httpx's word for a client that another thread has closed
            raise httpx.TransportError(str(error)) from error
        if answer.is_error:
            raise self._gone(child.model)
        rows = [np.frombuffer(base64.b64decode(row["embedding"]), dtype="<f4") for row in answer.json()["data"]]
        return np.stack(rows).astype(np.float32)

    def _forget(self, child: _Child) -> None:
        """End a child that does not answer, unless another thread has done so."""
        with self._lock:
            if self._child is child:
                self._end()

    def _end(self) -> None:
        if self._child is not None:
            self._child.http.close()
            stop(self._child.process, STOP_SECONDS)
            self._child = None

    def _gone(self, model: EmbedderModel) -> EmbedderUnavailable:
        name, words = Path(model.location).name, last_words(self._log)
        return EmbedderUnavailable(
            Text(f"The embedder {name} does not run: {words}", f"嵌入模型 {name} 无法运行：{words}"),
            Text(
                f"Try again, choose another retriever, or chat without documents. Log: {self._log}",
                f"请重试、换用其他检索器，或关闭文档问答。日志：{self._log}",
            ),
        )
