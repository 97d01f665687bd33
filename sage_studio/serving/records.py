"""An engine as it is written down: what it was started with, where it listens, how it stands.

Knows shapes and the row they come from. Knows no process and no HTTP.
"""

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from sage_studio.text import Text

Phase = Literal["starting", "ready", "draining", "asleep", "incoming", "retiring"]
"""``incoming``: started beside the engine in use. ``retiring``: no longer in use, finishing its last answers."""
EngineKind = Literal["vllm", "transformers", "openai"]


@dataclass(frozen=True, slots=True)
class Base:
    """What an engine is started with.

    Attributes:
        location: folder or hub id.
        name: the name under which the engine serves it.
        trust_remote_code: decided by the catalogue or the operator when the model was resolved.
        rank: the largest LoRA rank that it has room for.
    """

    location: str
    name: str
    trust_remote_code: bool = False
    rank: int = 0


@dataclass(frozen=True, slots=True)
class EngineRecord:
    """An engine as it was recorded. Times are Unix seconds.

    Attributes:
        url: its OpenAI address, ending in ``/v1``.
        pid, create_time: identify its process (a pid alone may be reused); None for someone else's server.
        owner_pid: the process that stops it when it ends.
        restarts: how often it was started again after a crash.
        cards: indices of the GPUs that it uses; empty on a CPU, or for someone else's server.
        memory_share: share of each of them that it takes, 0 to 1; 0 where it takes what the model needs.
        form: in which form it holds the weights (see `sage_studio.serving.gpu.Form`).
    """

    id: int
    kind: EngineKind
    base: Base
    url: str
    key: str
    pid: int | None
    create_time: float | None
    owner_pid: int | None
    phase: Phase
    started_at: float
    ready_at: float | None
    restarts: int
    cards: tuple[int, ...] = ()
    memory_share: float = 0.0
    form: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no engine."""

    base: str
    message: Text
    log_path: Path | None


@dataclass(frozen=True, slots=True)
class Refusal:
    """A start of vLLM that failed, so that the transformers engine serves in its place.

    Attributes:
        base: the model that it was started with; empty where it would fail with any other, too.
        python: the Python that it was started with: another one is worth a try.
    """

    base: str
    python: str
    message: Text


def read_engine(row: sqlite3.Row) -> EngineRecord:
    """A row of the table ``engines``."""
    return EngineRecord(
        id=row["id"],
        kind=cast("EngineKind", row["kind"]),
        base=Base(row["base"], row["base_name"], bool(row["trust_remote_code"]), row["rank"]),
        url=row["url"],
        key=row["key"],
        pid=row["pid"],
        create_time=row["create_time"],
        owner_pid=row["owner_pid"],
        phase=cast("Phase", row["phase"]),
        started_at=row["started_at"],
        ready_at=row["ready_at"],
        restarts=row["restarts"],
        cards=tuple(int(index) for index in row["cards"].split(",") if index),
        memory_share=row["memory_share"],
        form=row["form"],
    )
