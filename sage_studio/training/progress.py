"""Files of a task folder: ``job.json``, ``progress.jsonl``, ``result.json`` last of all.

Both the training child, which writes them, and the web process, which reads them, import this; it imports no torch.
"""

import contextlib
import json
import time
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from sage_studio import files
from sage_studio.files import write_atomically
from sage_studio.text import NOTHING, Text, verbatim

PROGRESS = "progress.jsonl"
RESULT = "result.json"
RECIPE = "recipe.yaml"
LOG = "train.log"
JOB = "job.json"


class Phase(StrEnum):
    """What the child is doing."""

    DOWNLOADING = "downloading"
    UNPACKING = "unpacking"
    READING_FILE = "reading_file"
    CHECKING_ROWS = "checking_rows"
    HASHING = "hashing"
    STARTING = "starting"
    LOADING_MODEL = "loading_model"
    READING_DATA = "reading_data"
    SHORT_DEPENDENCY = "short_dependency"
    GENERAL_QUESTIONS = "general_questions"
    LONG_DEPENDENCY = "long_dependency"
    MIXING = "mixing"
    VERIFYING = "verifying"
    TRAINING = "training"
    SAVING = "saving"
    CHECKING = "checking"


class Reason(StrEnum):
    """Why a run did not complete."""

    DATA = "data"
    MEMORY = "memory"
    DISK = "disk"
    NETWORK = "network"
    GPU = "gpu"
    KILLED = "killed"
    MODEL = "model"
    SETTINGS = "settings"
    UNHEALTHY = "unhealthy"
    BUG = "bug"


class TrainingJob(BaseModel):
    """What the child is told besides the recipe: the web process has resolved every name to a place.

    Attributes:
        model_location: local folder or hub id.
        adapter_location: folder of the adapter to go on from; empty for a new one.
        data_path: ``data.jsonl`` in the studio's own row shape (`to_json` of `sage_studio.data.rows`).
        resume: continue from the newest checkpoint in the folder.
        docs_commit: of the documentation that the rows were made of; empty for other sources.
        gpus: physical numbers of the GPUs of this run, separated by commas, written when it starts; those that a
            person pinned it to stand in the recipe. Empty on a machine without a GPU.
        smaller_batches: how often it was started again with half the batch, for want of memory.
        reproduces: id of the task whose run it is to repeat; empty unless it is.
        estimated_gb: memory it would take, as estimated before, in GiB; None where that was not known yet.
        prepared: the model and the dataset are on this machine and were checked. Until then `sage_studio.preparing` has
            work to do, and fills in what it finds.
        source: a file or folder of this machine that is first to be kept as the dataset; empty where there is one.
        dataset_name: of the dataset that was made of ``source``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model_location: str
    trust_remote_code: bool = False
    adapter_location: str = ""
    data_path: str
    dataset_id: str = ""
    dataset_sha256: str = ""
    docs_commit: str = ""
    gpus: str = ""
    resume: bool = False
    smaller_batches: int = 0
    reproduces: str = ""
    estimated_gb: float | None = None
    prepared: bool = True
    source: str = ""
    dataset_name: str = ""


class Event(BaseModel):
    """One line of ``progress.jsonl``. Only what changed is given; times are Unix seconds.

    Attributes:
        done, total: of what a stage that takes no steps counts.
        unit: what ``done`` and ``total`` count, where that is more than a number.
        per_second: ``unit`` a second.
        figures: what a method measures besides, by the names in its recipe's ``plots``.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    time: float
    phase: Phase
    step: int | None = None
    total_steps: int | None = None
    epoch: float | None = None
    total_epochs: float | None = None
    loss: float | None = None
    learning_rate: float | None = None
    grad_norm: float | None = None
    tokens_per_second: float | None = None
    eta_seconds: float | None = None
    memory_gb: float | None = None
    memory_total_gb: float | None = None
    figures: dict[str, float] | None = None
    done: int | None = None
    total: int | None = None
    unit: Literal["rows", "bytes"] | None = None
    per_second: float | None = None
    detail: str | None = None


class Result(BaseModel):
    """``result.json``: how the run ended. Its presence alone means that it ended by itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    status: Literal["completed", "stopped", "failed"]
    reason: Reason | None = None
    message: tuple[str, str] = ("", "")
    hint: tuple[str, str] = ("", "")
    action: str | None = None
    steps: int = 0
    total_steps: int = 0
    epochs: float = 0.0
    train_loss: float | None = None
    seconds: float = 0.0
    rows: int = 0
    tokens: int = 0
    tokens_per_second: float | None = None
    peak_memory_gb: float | None = None
    estimated_memory_gb: float | None = None
    model_kind: Literal["adapter", "full"] | None = None
    base_model: str = ""
    versions: dict[str, str] = {}
    details: dict[str, Any] = {}

    @property
    def message_text(self) -> Text:
        """The sentence for a person."""
        return verbatim(*self.message)

    @property
    def hint_text(self) -> Text:
        """What to do about it."""
        return verbatim(*self.hint)


class ProgressWriter:
    """Appends events to ``progress.jsonl``, each written whole."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / PROGRESS
        self._phase = Phase.STARTING

    def phase(self, phase: Phase, detail: str | None = None) -> None:
        """Say that another kind of work begins."""
        self._phase = phase
        self.write(detail=detail)

    def write(self, **fields: Any) -> None:
        """Append one event of the present phase."""
        event = Event(time=time.time(), phase=self._phase, **fields)
        files.append(self._path, [event.model_dump_json(exclude_none=True)])


def read_events(folder: Path, offset: int = 0) -> tuple[list[Event], int]:
    """Events from a byte offset on, and the next offset."""
    lines, offset = files.read_from(folder / PROGRESS, offset)
    return [Event.model_validate_json(line) for line in lines], offset


def numbered_events(folder: Path, offset: int = 0) -> list[tuple[int, Event]]:
    """Events from a byte offset on, each with the offset behind it: the id to resume a stream from.

    What is no event is passed over: half a line of a trainer that was killed, or of an offset within one.
    """
    while True:
        lines, end = files.read_from(folder / PROGRESS, offset)
        events, behind = [], end
        for line in reversed(lines):
            with contextlib.suppress(ValidationError):
                events.append((behind, Event.model_validate_json(line)))
            behind -= len(line) + 1
        if events or end == offset:
            return events[::-1]
        offset = end


def write_result(folder: Path, result: Result) -> None:
    """Write ``result.json`` whole, by atomic rename: the last act of a run."""
    write_atomically(folder / RESULT, result.model_dump_json(indent=2))


def read_result(folder: Path) -> Result | None:
    """How the run ended, or None while it has not."""
    try:
        return Result.model_validate_json((folder / RESULT).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def result_for(error_message: Text, hint: Text = NOTHING, *, reason: Reason, **fields: Any) -> Result:
    """A failed result with its sentence and remedy."""
    return Result(status="failed", reason=reason, message=error_message.pair(), hint=hint.pair(), **fields)


def write_job(folder: Path, job: TrainingJob) -> None:
    """Write the orders whole, by atomic rename. Raises `StorageFull`."""
    write_atomically(folder / JOB, job.model_dump_json(indent=2))


def read_job(folder: Path) -> TrainingJob:
    """The child's orders."""
    return TrainingJob.model_validate(json.loads((folder / JOB).read_text(encoding="utf-8")))
