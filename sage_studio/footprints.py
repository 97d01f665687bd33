"""What a child process finds out once about a model in training, kept in a file: its sizes, and by `paces` its speed.

torch stays in the children (`sage_studio.training.footprint` finds the sizes); this process waits for them.
"""

import hashlib
import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel

from sage_studio.errors import HubUnavailable, InvalidModel, StudioError
from sage_studio.files import write_atomically
from sage_studio.settings import PROJECT
from sage_studio.text import Text
from sage_studio.training.environment import versions
from sage_studio.training.memory import Footprint, FootprintRequest

logger = logging.getLogger("sage_studio")

CHILD_SECONDS = 300.0
RETRY_SECONDS = 60.0
NO_HUB = re.compile(r"couldn.t connect|LocalEntryNotFound|Connection|offline|resolve|timed? ?out", re.I)
NAMES_ERROR = re.compile(r"[\w.]*(Error|Exception): ")
CHILD = "sage_studio.training.footprint"
Answer = TypeVar("Answer", bound=BaseModel)


class ChildAnswers(Generic[Answer]):
    """What was found out so far about requests, a file each; safe to use from many threads.

    Args:
        folder: of the files.
        answer: their model.
        prefix: with which their names begin.
    """

    def __init__(self, folder: Path, answer: type[Answer], prefix: str = "") -> None:
        self._folder, self._answer, self._prefix = folder, answer, prefix
        self._one_at_a_time = threading.Lock()

    def kept(self, request: FootprintRequest) -> Answer | None:
        """What is known already; None if nothing is."""
        try:
            return self._answer.model_validate_json(self._path(request).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None

    def find(self, request: FootprintRequest) -> Answer:
        """The answer; some seconds the first time. Raises `InvalidModel` with what the child said."""
        with self._one_at_a_time:
            found = self.kept(request)
            if found is None:
                found = self._ask(request)
                self._folder.mkdir(parents=True, exist_ok=True)
                write_atomically(self._path(request), found.model_dump_json())
        return found

    def _ask(self, request: FootprintRequest) -> Answer:
        raise NotImplementedError

    def _holds_for(self, request: FootprintRequest) -> str:
        """What the answer depends on besides the request and the versions of the libraries."""
        return ""

    def _path(self, request: FootprintRequest) -> Path:
        asked = request.model_dump_json() + json.dumps(versions()) + self._holds_for(request)
        return self._folder / f"{self._prefix}{hashlib.sha256(asked.encode()).hexdigest()[:24]}.json"


class FootprintBook(ChildAnswers[Footprint]):
    """All sizes found out so far."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, Footprint)
        self._lock = threading.Lock()
        self._under_way: set[str] = set()
        self._failed: dict[str, tuple[StudioError, float]] = {}

    def _ask(self, request: FootprintRequest) -> Footprint:
        return ask_child(request)

    def later(self, key: str, work: Callable[[], object]) -> None:
        """Do something in a thread, unless it is being done; for those who may not wait.

        Raises:
            StudioError: what it ended with less than a minute ago.
        """
        with self._lock:
            error, at = self._failed.get(key, (None, 0.0))
            if error is not None and time.monotonic() - at < RETRY_SECONDS:
                raise error
            if key in self._under_way:
                return
            self._under_way.add(key)
        threading.Thread(target=self._do, args=(key, work), name="footprint", daemon=True).start()

    def _do(self, key: str, work: Callable[[], object]) -> None:
        try:
            work()
        except StudioError as error:
            logger.warning("No memory estimate for %s: %s", key, error)
            self._failed[key] = error, time.monotonic()
        finally:
            self._under_way.discard(key)


def ask_child(request: FootprintRequest) -> Footprint:
    """Have a child process find out the sizes. Raises `InvalidModel`, or `HubUnavailable` for a model not yet here."""
    return Footprint.model_validate_json(
        answer_of(CHILD, request, {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"})
    )


def answer_of(
    child: str, request: FootprintRequest, variables: Mapping[str, str], seconds: float = CHILD_SECONDS
) -> str:
    """What a child process prints last about a model: a line of JSON.

    Args:
        child: a module that reads the request from its standard input.
        variables: of the environment, besides this process's own.
        seconds: how long it may take.

    Raises:
        InvalidModel: with what the child said.
        HubUnavailable: the model is not on this machine, and its hub does not answer.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-m", child],
            input=request.model_dump_json(),
            capture_output=True,
            text=True,
            check=False,
            cwd=PROJECT,
            env={**os.environ, **variables},
            timeout=seconds,
        )
    except subprocess.TimeoutExpired as error:
        raise _not_found_out(request, f"> {seconds:.0f} s") from error
    if done.returncode:
        raise _not_found_out(request, _complaint(done.stderr)[:300])
    return done.stdout.strip().rpartition("\n")[2]


def _complaint(stderr: str) -> str:
    """What a traceback ends with: the line that names the error; a message may have more lines after it."""
    lines = stderr.strip().splitlines() or [""]
    return next((line for line in reversed(lines) if NAMES_ERROR.match(line)), lines[-1])


def _not_found_out(request: FootprintRequest, said: str) -> StudioError:
    if not Path(request.location).is_absolute() and NO_HUB.search(said):
        return HubUnavailable(
            Text(
                f"{request.location} is not downloaded yet, and the hub does not answer: no estimate.",
                f"{request.location} 尚未下载，且模型站点没有响应：无法估算。",
            ),
            Text(
                "Check the network, set HF_ENDPOINT to a mirror, or choose a model that is on this machine.",
                "请检查网络，或将 HF_ENDPOINT 设为镜像，或选择本机已有的模型。",
            ),
        )
    return InvalidModel(
        Text(
            f"What {request.location} takes in training could not be found out: {said}",
            f"无法得知训练 {request.location} 所需的内存：{said}",
        ),
        Text("Check that it is a whole transformers model.", "请确认它是完整的 transformers 模型。"),
    )
