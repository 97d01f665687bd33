"""Engine manager: starts, drains, restarts and stops the engine of this machine.

The engine is whatever ``studio.db`` has on record, whichever process started it. While a switch is under way a second
one may start beside it. Methods that change the engine expect the `SwitchLock` to be held. While ``closing`` is set no
engine starts.
"""

import logging
import math
import os
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil

from sage_studio.errors import EngineUnavailable
from sage_studio.hardware import Hardware
from sage_studio.serving.capacity import (
    engine_memory_gb,
    fits_beside,
    main_memory_gb,
    query_gpu_processes,
    read_facts,
    without_engine,
)
from sage_studio.serving.engine import (
    Engine,
    LocalEngine,
    died,
    external_record,
    open_engine,
    spawn_engine,
)
from sage_studio.serving.engine_factory import EngineFactory, EngineSpec, engine_plan
from sage_studio.serving.metrics import RUNNING, WAITING
from sage_studio.serving.sockets import new_socket
from sage_studio.serving.state import ServingState
from sage_studio.serving.types import Base, EngineRecord, Failure
from sage_studio.settings import Settings
from sage_studio.text import Text

logger = logging.getLogger("sage_studio")

DRAIN_SECONDS = 30.0
RETIRE_SECONDS = 300.0
"""How long an engine that is no longer in use may go on with its last answers."""
FREE_SECONDS = 30.0
"""How long a GPU may take to give back what a stopped engine held."""
RETURNED_GB = 0.5
"""So much less than before may be free then: others use the GPU too."""
REFUSED_LOG = "engine-refused.log"
"""The log of the last vLLM that did not start."""
POLL_SECONDS = 0.1
STABLE_SECONDS = 600.0
"""An engine that ran so long after a restart has earned another one."""


class _Stopped(EngineUnavailable):
    """The engine was stopped while it was starting: not a failure."""

    def __init__(self) -> None:
        super().__init__(Text("The engine was stopped while it was starting."))


class EngineManager:
    """Whatever engine ``studio.db`` names, from whichever process it was started."""

    def __init__(
        self,
        settings: Settings,
        state: ServingState,
        factory: EngineFactory,
        detect: Callable[[], Hardware],
    ) -> None:
        self._settings = settings
        self._state = state
        self._factory = factory
        self._detect = detect
        self._opened: Engine | None = None
        self._past: list[Engine] = []
        self._opening = threading.Lock()
        self.closing = threading.Event()
        self.log = settings.root / "engine.log"
        self.folder = settings.root / "serving"

    def recorded(self) -> Engine | None:
        """The engine in use as it is on record, alive or not."""
        record = self._state.engine()
        if record is None:
            return None
        with self._opening:
            if self._opened is None or self._opened.record.id != record.id:
                self._set_aside()
                self._opened = open_engine(record, self.log)
            self._opened.record = record
            return self._opened

    def running(self) -> Engine | None:
        """The engine, if it takes requests now."""
        engine = self.recorded()
        return engine if engine is not None and engine.record.phase == "ready" and engine.alive() else None

    def incoming(self) -> EngineRecord | None:
        """The engine that starts beside the one in use, if any."""
        return next((record for record in self._state.others() if record.phase == "incoming"), None)

    def serve(self, base: Base) -> Engine:
        """An engine that serves ``base``: the one that runs, or a new one in its place.

        Raises:
            EngineUnavailable: it did not start; nothing runs then.
        """
        engine = self.recorded()
        if engine is not None and engine.alive() and can_hold(engine, base):
            if engine.record.phase != "ready":  # its starter, or whoever was draining it, is gone
                self._wait_ready(engine)
            return engine
        if engine is not None:
            self.drain(engine)
        return self.start(base)

    def start(self, base: Base, restarts: int = 0) -> Engine:
        """Start an engine in place of any other, once the memory is free; if vLLM does not start, the transformers
        engine, unless the operator insists on vLLM.

        Raises:
            EngineUnavailable: naming the last words of its log.
        """
        self._stop_and_wait()
        spec = self._factory.for_base(base.location)
        if spec.fallback is None:
            return self._start(spec, base, restarts)
        try:
            return self._start(spec, base, restarts)
        except _Stopped:
            raise
        except EngineUnavailable as error:
            self._refuse(base, error)
            return self._fallback(spec.fallback, base, error)

    def has_room_beside(self, base: Base) -> bool:
        """Whether there is memory for an engine with ``base`` beside the one that runs."""
        kind = self._factory.for_base(base.location).kind
        if kind == "openai" or self._state.others():
            return False
        hardware = self._detect()
        beside = engine_plan(self._settings, kind, hardware, base)
        alone = engine_plan(self._settings, kind, without_engine(hardware, self.gpu_memory_gb()), base)
        return fits_beside(main_memory_gb(kind, read_facts(base.location), beside), beside, alone, hardware)

    def start_beside(self, base: Base) -> LocalEngine:
        """Start an engine while the one in use goes on. It takes no chats before `take_over`.

        Raises:
            EngineUnavailable: it did not start; the one in use is untouched.
        """
        spec = self._factory.for_base(base.location)
        try:
            return self._start_beside(spec, base)
        except EngineUnavailable as error:
            if spec.fallback is None or self.closing.is_set():
                raise
            self._refuse(base, error)
            return self._start_beside(spec.fallback, base)

    def _start_beside(self, spec: EngineSpec, base: Base) -> LocalEngine:
        record = self._spawn(spec, base, 0, self.log.with_name("engine-next.log"), beside=True)
        engine = LocalEngine(record, self.log.with_name("engine-next.log"))
        try:
            engine.wait_ready(self._settings.engine_start_seconds)
        except EngineUnavailable:
            self._state.remove_engine(record)
            raise
        return engine

    def take_over(self, engine: LocalEngine) -> None:
        """Promote an incoming engine. The one before it finishes its answers, then stops."""
        before = self.recorded()
        self._state.take_over(engine.record)
        for older, newer in ((self.log, self.log.with_name("engine.log.1")), (engine.log, self.log)):
            if older.exists():
                older.replace(newer)
        engine.log = self.log
        with self._opening:
            self._set_aside()
            self._opened = engine
        logger.info("The %s engine at %s takes over", engine.record.kind, engine.record.url)
        if before is not None:
            threading.Thread(target=self._retire, args=(before,), name="retire-engine", daemon=True).start()

    def discard(self, engine: Engine) -> None:
        """Stop an engine that never came into use, or no longer is."""
        engine.stop()
        self._state.remove_engine(engine.record)

    def matches_settings(self, engine: Engine) -> bool:
        """Whether an engine on record is of the kind, and at the address, that the settings now name."""
        try:
            kinds = self._factory.kinds()
        except EngineUnavailable:
            return False
        kind = engine.record.kind
        return kind in kinds and (kind != "openai" or engine.record.url == self._settings.engine_url)

    def gpu_memory_gb(self) -> dict[int, float]:
        """What the engine in use holds of each GPU now, in GiB by index; empty without one."""
        engine = self.recorded()
        if not isinstance(engine, LocalEngine) or not engine.record.gpus or not engine.alive():
            return {}
        return engine_memory_gb(
            engine.record, self._detect(), query_gpu_processes(), {member.pid for member in engine.process.members()}
        )

    def stop(self) -> bool:
        """End the engine on record, and whatever a dead one left behind; whether there was one."""
        engine = self.recorded()
        if engine is not None:
            self.discard(engine)
        return engine is not None

    def stop_others(self, owner: int | None = None) -> None:
        """Stop incoming and retiring engines (of an owner)."""
        for record in self._state.others():
            if owner in (None, record.owner_pid):
                self.discard(LocalEngine(record, self.log))

    def revive(self) -> Engine:
        """Start a crashed engine again, once; a second crash soon after leaves it down.

        Raises:
            EngineUnavailable: it crashed again, or does not start.
        """
        engine = self.recorded()
        if engine is None:
            raise EngineUnavailable(Text("No engine is running."))
        error = self.crash(engine)
        ready_at = engine.record.ready_at
        stable = ready_at is not None and time.time() - ready_at > STABLE_SECONDS
        restarts = 0 if stable else engine.record.restarts
        engine.stop()
        if restarts >= 1 or engine.record.pid is None:
            self._state.remove_engine(engine.record, Failure(engine.record.base.name, error.message, self.log))
            raise error
        logger.warning("%s Starting it again.", error.message.en)
        return self.start(engine.record.base, restarts + 1)

    def crash(self, engine: Engine) -> EngineUnavailable:
        """Why an engine on record does not answer."""
        if engine.record.pid is None:
            return EngineUnavailable(
                Text("{url} does not answer.", url=engine.record.url),
                Text("Check the server, its address and its key."),
            )
        return died(engine.record, self.log)

    def drain(self, engine: Engine) -> None:
        """Let answers under way finish; new ones wait for the engine that comes."""
        self._state.set_phase(engine.record, "draining")
        _wait_for_answers(engine, DRAIN_SECONDS)

    def _set_aside(self) -> None:
        """Answers under way may still come through the connections of the engine before: they close with it."""
        if self._opened is not None:
            self._past.append(self._opened)
        for engine in [past for past in self._past if past.record.pid is None or not past.alive()]:
            self._past.remove(engine)
            engine.client.close()

    def _start(self, spec: EngineSpec, base: Base, restarts: int = 0) -> Engine:
        if spec.kind == "openai":
            record = external_record("openai", base, self._settings.engine_url, self._settings.engine_api_key)
            self._state.add_engine(record)
        else:
            self._spawn(spec, base, restarts, self.log)
        engine = self.recorded()
        if engine is None:
            raise _Stopped
        self._wait_ready(engine)
        return engine

    def _fallback(self, fallback: EngineSpec, base: Base, error: EngineUnavailable) -> Engine:
        """Start the engine that serves in vLLM's place. Raises `EngineUnavailable` with both reasons."""
        try:
            return self._start(fallback, base)
        except EngineUnavailable as second:
            both = Text("{message} {second_message}", message=error.message, second_message=second.message)
            failure = self._state.failure()
            if failure is not None:
                self._state.set_failure(replace(failure, message=both))
            raise EngineUnavailable(both, second.hint) from error

    def _refuse(self, base: Base, error: EngineUnavailable) -> None:
        """Note that vLLM did not start; not if somebody stopped it meanwhile: then that goes on. Raises ``error``."""
        if self.closing.is_set():
            raise error
        self._factory.refuse(base, error)
        if self.log.exists():  # the other engine's log takes its place
            shutil.copyfile(self.log, self.log.with_name(REFUSED_LOG))

    def _stop_and_wait(self) -> None:
        """End the engine on record. A GPU gives memory back some time after its process ended; if it never does, the
        next engine takes less, or says so.
        """
        held = self.gpu_memory_gb()
        wanted = {gpu.index: gpu.free_gb + held[gpu.index] for gpu in self._detect().gpus if gpu.index in held}
        if not self.stop():
            return
        deadline = time.monotonic() + FREE_SECONDS
        while time.monotonic() < deadline:
            free = {gpu.index: gpu.free_gb for gpu in self._detect().gpus}
            if all(free.get(index, math.inf) >= gb - RETURNED_GB for index, gb in wanted.items()):
                return
            time.sleep(POLL_SECONDS)

    def _spawn(self, spec: EngineSpec, base: Base, restarts: int, log: Path, beside: bool = False) -> EngineRecord:
        logger.info("Starting the %s engine with %s", spec.kind, base.location)
        socket = new_socket()
        record = spawn_engine(spec.kind, base, socket, spec.launch(base, socket), self.folder, log)
        record = replace(record, restarts=restarts, owner_pid=self._owner())
        try:
            record = self._state.add_engine(replace(record, phase="incoming") if beside else record)
        except BaseException:
            LocalEngine(record, log).stop()  # what is not on record would never be found again
            raise
        if self.closing.is_set():  # `close` looked before this one was on record
            self.discard(LocalEngine(record, log))
            raise EngineUnavailable(Text("The studio is closing."))
        return record

    def _retire(self, engine: Engine) -> None:
        _wait_for_answers(engine, RETIRE_SECONDS)
        self.discard(engine)
        self._state.close()

    def _owner(self) -> int:
        """Who stops the engine: the studio of this home while it runs, even if a script starts the engine."""
        keeper = self._state.keeper()
        return keeper if keeper is not None and psutil.pid_exists(keeper) else os.getpid()

    def _wait_ready(self, engine: Engine) -> None:
        try:
            if isinstance(engine, LocalEngine):
                engine.wait_ready(self._settings.engine_start_seconds)
            elif not engine.ready():
                raise self.crash(engine)
        except EngineUnavailable as error:
            now = self._state.engine()
            if now is None or now.id != engine.record.id:
                raise _Stopped from error
            self._state.remove_engine(engine.record, Failure(engine.record.base.name, error.message, self.log))
            raise
        self._state.set_phase(engine.record, "ready")
        self._state.set_owner(engine.record, self._owner())
        logger.info("The %s engine is ready at %s", engine.record.kind, engine.record.url)


def can_hold(engine: Engine, base: Base) -> bool:
    """Whether an engine was started with this base, and LoRA slots of at least this rank."""
    record = engine.record
    same = record.base.location == base.location and record.base.rank >= base.rank
    return same or record.kind == "openai"  # what an external server has shows when it is asked


def _wait_for_answers(engine: Engine, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while engine.alive() and time.monotonic() < deadline:
        figures = engine.client.metrics()
        if not sum(figures.get(name, 0.0) for name in (RUNNING, WAITING)):
            return
        time.sleep(POLL_SECONDS)
