"""The one engine of this machine: found, started, drained, revived once after a crash, stopped.

Knows the engine's record and its process. Knows nothing of which model is current. What changes the engine expects the
turn to be held (`sage_studio.serving.switching.Turn`).
"""

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import psutil

from sage_studio.errors import EngineUnavailable
from sage_studio.serving.choice import EngineChoice
from sage_studio.serving.engine import (
    Engine,
    LocalEngine,
    died,
    external_record,
    open_engine,
    spawn_engine,
)
from sage_studio.serving.records import Base, EngineRecord, Failure
from sage_studio.serving.state import ServingState
from sage_studio.settings import Settings
from sage_studio.text import Text

logger = logging.getLogger("sage_studio")

DRAIN_SECONDS = 30.0
STABLE_SECONDS = 600.0
"""An engine that ran so long after a restart has earned another one."""
RUNNING = ("vllm:num_requests_running", "vllm:num_requests_waiting")


class EngineLife:
    """Whatever engine ``studio.db`` names, from whichever process it was started."""

    def __init__(self, settings: Settings, state: ServingState, choose: Callable[[], EngineChoice]) -> None:
        self._settings = settings
        self._state = state
        self._choose = choose
        self._opened: Engine | None = None
        self._opening = threading.Lock()
        self.log = settings.root / "engine.log"
        self.folder = settings.root / "serving"

    def recorded(self) -> Engine | None:
        """The engine on record, alive or not."""
        record = self._state.engine()
        if record is None:
            return None
        with self._opening:
            if self._opened is None or self._opened.record.id != record.id:
                if self._opened is not None:
                    self._opened.client.close()
                self._opened = open_engine(record, self.log)
            self._opened.record = record
            return self._opened

    def running(self) -> Engine | None:
        """The engine, if it takes requests now."""
        engine = self.recorded()
        return engine if engine is not None and engine.record.phase == "ready" and engine.alive() else None

    def serve(self, base: Base) -> Engine:
        """An engine that serves ``base``: the one that runs, or a new one in its place.

        Raises:
            EngineUnavailable: it did not start; nothing runs then.
        """
        engine = self.recorded()
        if engine is not None and engine.alive() and _holds(engine, base):
            if engine.record.phase != "ready":  # its starter, or whoever was draining it, is gone
                self._await(engine)
            return engine
        if engine is not None:
            self._drain(engine)
        return self.start(base)

    def start(self, base: Base, restarts: int = 0) -> Engine:
        """Start an engine in place of any other.

        Raises:
            EngineUnavailable: naming the last words of its log.
        """
        choice = self._choose()
        self.stop()
        logger.info("Starting the %s engine with %s", choice.kind, base.location)
        if choice.kind == "openai":
            record = external_record("openai", base, self._settings.engine_url, self._settings.engine_api_key)
            self._state.add_engine(record)
        else:
            record = spawn_engine(choice.kind, base, choice.make, self.folder, self.log)
            self._record(replace(record, restarts=restarts, owner_pid=self._owner()))
        engine = self.recorded()
        if engine is None:
            raise EngineUnavailable(Text("The engine was stopped while it started.", "引擎在启动过程中被停止。"))
        self._await(engine)
        return engine

    def fits(self, engine: Engine) -> bool:
        """Whether an engine on record is of the kind, and at the address, that the settings now name."""
        try:
            kind = self._choose().kind
        except EngineUnavailable:
            return False
        return engine.record.kind == kind and (kind != "openai" or engine.record.url == self._settings.engine_url)

    def stop(self) -> None:
        """End the engine on record, and whatever a dead one left behind."""
        engine = self.recorded()
        if engine is not None:
            engine.stop()
            self._state.remove_engine(engine.record)

    def revive(self) -> Engine:
        """Start a crashed engine again, once; a second crash soon after leaves it down.

        Raises:
            EngineUnavailable: it crashed again, or does not start.
        """
        engine = self.recorded()
        if engine is None:
            raise EngineUnavailable(Text("No engine runs.", "没有正在运行的引擎。"))
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
                Text(f"{engine.record.url} does not answer.", f"{engine.record.url} 没有响应。"),
                Text("Check the server, its address and its key.", "请检查该服务器、地址与密钥。"),
            )
        return died(engine.record, self.log)

    def _record(self, record: EngineRecord) -> None:
        try:
            self._state.add_engine(record)
        except BaseException:
            LocalEngine(record, self.log).stop()  # what is not on record would never be found again
            raise

    def _owner(self) -> int:
        """Who stops the engine: the studio of this home while it runs, even if a script starts the engine."""
        keeper = self._state.keeper()
        return keeper if keeper is not None and psutil.pid_exists(keeper) else os.getpid()

    def _await(self, engine: Engine) -> None:
        try:
            if isinstance(engine, LocalEngine):
                engine.wait_ready(self._settings.engine_start_seconds)
            elif not engine.ready():
                raise self.crash(engine)
        except EngineUnavailable as error:
            self._state.remove_engine(engine.record, Failure(engine.record.base.name, error.message, self.log))
            raise
        self._state.set_phase(engine.record, "ready")
        self._state.set_owner(engine.record, self._owner())
        logger.info("The %s engine is ready at %s", engine.record.kind, engine.record.url)

    def _drain(self, engine: Engine) -> None:
        """Let answers under way finish; new ones wait for the engine that comes."""
        self._state.set_phase(engine.record, "draining")
        deadline = time.monotonic() + DRAIN_SECONDS
        while engine.alive() and time.monotonic() < deadline:
            figures = engine.metrics()
            if not sum(figures.get(name, 0.0) for name in RUNNING):
                return
            time.sleep(0.1)


def _holds(engine: Engine, base: Base) -> bool:
    record = engine.record
    same = record.base.location == base.location and record.base.rank >= base.rank
    return same or record.kind == "openai"  # what someone else's server holds shows when it is asked
