"""Engines: a child process of this machine or an external server, behind one interface.

`LocalEngine` is vLLM or the transformers server; `ExternalEngine` is an OpenAI-compatible server that others run.
"""

import os
import secrets
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from sage_studio.child_environment import Needs, child_environment
from sage_studio.errors import EngineUnavailable
from sage_studio.models.model_folder import is_here
from sage_studio.processes import POLL_SECONDS, known_process, last_words, start_with_log
from sage_studio.serving.capacity import EnginePlan, WeightFormat
from sage_studio.serving.client import EngineClient
from sage_studio.serving.engine_server import KEY_VARIABLE
from sage_studio.serving.sockets import address_of, remove_socket, socket_of
from sage_studio.serving.types import Base, EngineKind, EngineRecord
from sage_studio.text import Text

STOP_SECONDS = 15.0
MEMORY_SIGNS = ("out of memory", "free memory on device", "memory utilization", "kv cache", "cache blocks", "killed")
MACHINE_SIGNS = (
    *("flashinfer", "nvcc", "c compiler", "python.h", "libcuda", "cuda driver", "no cuda gpus", "cuda unknown error"),
    *("no module named", "cannot import name", "cannot be run"),
)
EXTERNAL_SECONDS = 5.0
"""How long the last answer of an external server counts."""


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """A command line and what it needs in its environment.

    Attributes:
        plan: what it takes of the hardware; None where there is no plan.
    """

    command: list[str]
    env: dict[str, str]
    plan: EnginePlan | None = None


class Engine(Protocol):
    """A server of models that speaks the OpenAI protocol."""

    record: EngineRecord
    client: EngineClient

    def alive(self) -> bool:
        """Whether it can be expected to answer. Cheap: asked every second by every viewer."""
        ...

    def ready(self) -> bool:
        """Whether it answers now."""
        ...

    def stop(self) -> None:
        """End it and all that it started."""
        ...


class LocalEngine:
    """An engine that is a child process of some studio on this machine."""

    def __init__(self, record: EngineRecord, log: Path) -> None:
        if record.pid is None or record.create_time is None:
            raise ValueError("a local engine has a process")
        self.record = record
        self.log = log
        self.process = known_process(record.pid, record.create_time)
        self.client = EngineClient(record.url, record.key)

    def alive(self) -> bool:
        """Whether its process runs."""
        return self.process.is_alive()

    def ready(self) -> bool:
        """Whether it serves its base model now."""
        return self.record.base.name in self.client.models(quick=True)

    def stop(self) -> None:
        """End it, and whatever a dead one left behind."""
        self.client.close()
        self.process.stop(STOP_SECONDS)
        self._remove_socket()

    def kill(self) -> None:
        """End it without asking: a hung process does not listen."""
        self.client.close()
        self.process.stop(0.0)
        self.process.wait(STOP_SECONDS)
        self._remove_socket()

    def _remove_socket(self) -> None:
        path = socket_of(self.record.url)
        if path is not None:
            remove_socket(path)

    def wait_ready(self, seconds: float) -> None:
        """Wait until it answers.

        Raises:
            EngineUnavailable: it ended, or ``seconds`` passed; the message quotes its log. It is stopped before.
        """
        deadline = time.monotonic() + seconds
        while not self.ready():
            if not self.alive():
                self.stop()
                raise died(self.record, self.log)
            if time.monotonic() > deadline:
                self.stop()
                raise _too_slow(self.record, seconds, self.log)
            time.sleep(POLL_SECONDS)


class ExternalEngine:
    """An OpenAI-compatible server that others run: never started or stopped here, and it gets no adapters."""

    def __init__(self, record: EngineRecord) -> None:
        self.record = record
        self.client = EngineClient(record.url, record.key)
        self._looked_at = -EXTERNAL_SECONDS
        self._answered = False

    def alive(self) -> bool:
        """Whether it answered when last looked at, at most `EXTERNAL_SECONDS` ago."""
        if time.monotonic() - self._looked_at > EXTERNAL_SECONDS:
            self._answered = self.ready()
            self._looked_at = time.monotonic()
        return self._answered

    def ready(self) -> bool:
        """Whether it lists its models now."""
        return bool(self.client.models(quick=True))

    def stop(self) -> None:
        """Leave it running; only the connection ends."""
        self.client.close()


def open_engine(record: EngineRecord, log: Path) -> Engine:
    """The engine behind a record."""
    return ExternalEngine(record) if record.pid is None else LocalEngine(record, log)


def spawn_engine(
    kind: EngineKind, base: Base, socket: Path, launch: LaunchSpec, folder: Path, log: Path
) -> EngineRecord:
    """Start a child for a base model. It is not ready yet, and its record has no id yet.

    Args:
        socket: where it answers; of `new_socket`.

    Raises:
        EngineUnavailable: the command cannot be run.
    """
    key, started = secrets.token_urlsafe(24), time.time()
    try:
        needs = Needs.LIBRARIES if is_here(base.location) else Needs.HUB
        environment = child_environment(needs, {**launch.env, KEY_VARIABLE: key})
        process = start_with_log(launch.command, environment, folder, log)
    except (FileNotFoundError, PermissionError) as error:
        remove_socket(socket)
        raise EngineUnavailable(
            Text("{command} cannot be run: {error}", command=launch.command[0], error=error),
            Text("Correct SAGE_STUDIO_VLLM_PYTHON."),
        ) from error
    record = external_record(kind, base, address_of(socket), key)
    return replace(
        record,
        pid=process.pid,
        create_time=process.started,
        started_at=started,
        ready_at=None,
        phase="starting",
        gpus=launch.plan.indices if launch.plan is not None else (),
        memory_share=(launch.plan.memory_share or 0.0) if launch.plan is not None else 0.0,
        form=str(launch.plan.form) if launch.plan is not None else "",
    )


def external_record(kind: EngineKind, base: Base, url: str, key: str) -> EngineRecord:
    """A record of a server that needs no start."""
    now = time.time()
    return EngineRecord(
        id=0,
        kind=kind,
        base=base,
        url=url,
        key=key,
        pid=None,
        create_time=None,
        owner_pid=os.getpid(),
        phase="ready",
        started_at=now,
        ready_at=now,
        restarts=0,
        form=str(WeightFormat.EXTERNAL),
    )


def fallback_command(base: Base, socket: Path, plan: EnginePlan) -> list[str]:
    """The command line of the studio's own small server, for machines and models without vLLM."""
    command = [sys.executable, "-m", "sage_studio.serving.transformers_server", "--model", base.location]
    command += ["--served-model-name", base.name, "--uds", str(socket), "--max-model-len", str(plan.context)]
    command += ["--load-in-4bit"] if plan.form is WeightFormat.FOUR_BIT else []
    return [*command, "--trust-remote-code"] if base.trust_remote_code else command


def died(record: EngineRecord, log: Path) -> EngineUnavailable:
    """The error for an engine whose process is gone."""
    words = last_words(log)
    return EngineUnavailable(
        Text(
            "The {kind} engine with {name} exited unexpectedly: {words}",
            kind=record.kind,
            name=record.base.name,
            words=words,
        ),
        _remedy(words, log),
    )


def _too_slow(record: EngineRecord, seconds: float, log: Path) -> EngineUnavailable:
    return EngineUnavailable(
        Text(
            "The {kind} engine with {name} was not ready after {seconds:.0f} s: {log}",
            kind=record.kind,
            name=record.base.name,
            seconds=seconds,
            log=last_words(log),
        ),
        Text("Raise SAGE_STUDIO_ENGINE_START_SECONDS, or read {log}.", log=log),
    )


def is_about_machine(words: str) -> bool:
    """Whether the last words of an engine tell of this machine's software: no other model would start either."""
    low = words.lower()
    return any(sign in low for sign in MACHINE_SIGNS)


def _remedy(words: str, log: Path) -> Text:
    low = words.lower()
    if any(sign in low for sign in MEMORY_SIGNS):
        return Text(
            "Not enough memory: stop other programs or trainings, choose a smaller model, or lower "
            "SAGE_STUDIO_GPU_MEMORY_UTILIZATION. Log: {log}",
            log=log,
        )
    return Text("Read {log}, then try again.", log=log)
