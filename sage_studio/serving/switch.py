"""Switching models: one change at a time on this machine, and all of it or nothing."""

import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from sage_studio.errors import Conflict, EngineUnavailable, NotFound, StudioError, naming_full_disk
from sage_studio.serving.adapter_cache import AdapterCache
from sage_studio.serving.engine import Engine, LocalEngine
from sage_studio.serving.engine_manager import EngineManager, can_hold
from sage_studio.serving.state import ServingState
from sage_studio.serving.types import Base, RegisteredModel
from sage_studio.text import Text

logger = logging.getLogger("sage_studio")


class SwitchLock:
    """One change at a time, across threads and processes."""

    def __init__(self, path: Path, seconds: float) -> None:
        self._path = path
        self._seconds = seconds
        self._thread = threading.Lock()

    @contextmanager
    def hold(self, seconds: float | None = None) -> Iterator[None]:
        """Hold the lock; wait for it at most ``seconds``, else as long as a switch may take.

        Raises:
            Conflict: another change does not end in time.
        """
        seconds = self._seconds if seconds is None else seconds
        if not self._thread.acquire(timeout=seconds):
            raise _busy()
        try:
            with naming_full_disk(self._path):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                lock = FileLock(self._path, timeout=seconds)
                lock.acquire()
            try:
                yield
            finally:
                lock.release()
        except Timeout as error:
            raise _busy() from error
        finally:
            self._thread.release()


class Switcher:
    """Switches the engine to a model. Every method expects the `SwitchLock` to be held."""

    def __init__(self, state: ServingState, engines: EngineManager, adapters: AdapterCache) -> None:
        self._state = state
        self._engines = engines
        self._adapters = adapters

    def switch_to(self, model: RegisteredModel, base: Base) -> None:
        """Have an engine hold the model and answer once with it, or leave what was there before.

        Raises:
            InvalidModel, EngineUnavailable: it cannot be served; the engine and adapters from before are back.
        """
        before = self._engines.running()
        if before is not None and can_hold(before, base):
            self._adapters.load(before, model)
        elif before is not None and self._engines.has_room_beside(base):
            self._change_beside(model, base, self._held(before))
        else:
            self._change_in_place(model, base, before, self._engines.serve)
        self._adapters.cleanup()

    def ensure_running(self, model: RegisteredModel) -> Engine:
        """Start the engine for a chat, or after a crash; not if it was left down for a reason.

        Raises:
            EngineUnavailable: it crashed twice, failed to start before, or does not start now.
        """
        recorded = self._engines.recorded()
        if recorded is None:
            failure = self._state.failure()
            if failure is not None:
                raise EngineUnavailable(
                    failure.message,
                    Text("Switch to a model to start the engine again."),
                )
            return self._engines.serve(self._adapters.check(model)[1])
        if recorded.alive():  # somebody began to start or to drain it, and is gone
            return self._engines.serve(recorded.record.base)
        return self.revive(recorded)

    def revive(self, crashed: Engine) -> Engine:
        """Start a crashed engine again, once, with the adapters that it held. Raises `EngineUnavailable`."""
        held = self._held(crashed)
        engine = self._engines.revive()
        self.reload(engine, held)
        return engine

    def restart(self, model: RegisteredModel, base: Base) -> None:
        """Start the engine anew for a model, of whichever kind serves it now; the adapters come along.

        Raises:
            InvalidModel, EngineUnavailable: it cannot be served; the engine from before is back.
        """
        before = self._engines.recorded()
        if before is not None:
            self._engines.drain(before)
        self._change_in_place(model, base, before, self._engines.start)

    def reload(self, engine: Engine, names: Sequence[str]) -> None:
        """Load adapters after a start; one that cannot be loaded any more is left out, with a line in the log."""
        for name in names:
            model = self._state.model(name)
            try:
                if model is not None:
                    self._adapters.load(engine, model)
            except (StudioError, NotFound) as error:
                logger.warning("%s could not be loaded again: %s", name, error)

    def _change_beside(self, model: RegisteredModel, base: Base, held: Sequence[str]) -> None:
        """Start the new engine while the old one answers; it takes over once it holds the model."""
        engine = self._engines.start_beside(base)
        try:
            self._keep(engine, held)
            self._adapters.load(engine, model)
        except BaseException:
            self._engines.discard(engine)
            raise
        self._engines.take_over(engine)

    def _change_in_place(
        self,
        model: RegisteredModel,
        base: Base,
        before: Engine | None,
        begin: Callable[[Base], Engine],
    ) -> None:
        """Stop the old engine first: there is no memory for two. ``begin`` gives the engine for a base."""
        held = self._held(before)
        try:
            engine = begin(base)
            self._keep(engine, held)
            self._adapters.load(engine, model)
        except StudioError as error:
            self._go_back(before, held, error)
            raise

    def _held(self, engine: Engine | None) -> list[str]:
        return sorted(self._state.adapters(engine.record)) if engine is not None else []

    def _keep(self, engine: Engine, held: Sequence[str]) -> None:
        """After a restart on the same base (for a larger rank), load again what was loaded before."""
        known = [self._state.model(name) for name in held]
        same = [model.name for model in known if model is not None and model.base == engine.record.base.location]
        self.reload(engine, [name for name in same if name not in self._state.adapters(engine.record)])

    def _go_back(self, before: Engine | None, held: Sequence[str], error: StudioError) -> None:
        """Start the engine from before again, if it had to go. Raises `EngineUnavailable` if even that fails."""
        if before is None or self._engines.running() is before:
            return
        logger.warning("%s Starting %s again.", error.message.en, before.record.base.name)
        try:
            self.reload(self._engines.start(before.record.base), held)
        except StudioError as second:
            name = before.record.base.name
            raise EngineUnavailable(
                Text(
                    "{message} The previous model {name} did not restart either: {second_message}",
                    message=error.message,
                    name=name,
                    second_message=second.message,
                ),
                second.hint,
            ) from error


def _busy() -> Conflict:
    return Conflict(
        Text("Another model switch is in progress."),
        Text("Wait until it has finished."),
    )


# Watchdog


ROUND_SECONDS = 5.0
MISSES = 3
"""So many looks in a row without an answer, each patient for `client.HEALTH_SECONDS`, and it counts as hung."""


class EngineWatchdog:
    """One thread of the studio that keeps the engine."""

    def __init__(
        self, state: ServingState, engines: EngineManager, switcher: Switcher, switch_lock: SwitchLock
    ) -> None:
        self._state = state
        self._engines = engines
        self._switcher = switcher
        self._switch_lock = switch_lock
        self._misses = 0
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to look, every `ROUND_SECONDS`."""
        if self._thread is None:
            self._over.clear()
            self._thread = threading.Thread(target=self._run, name="watch-engine", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Look no more. A look under way ends by itself."""
        self._over.set()
        self._thread = None

    def check(self) -> None:
        """Look once. Only an engine that is on record as ready is expected to answer.

        Raises:
            EngineUnavailable: it died or hung a second time; it is left down, and the status says why.
        """
        engine = self._engines.recorded()
        if engine is None or not isinstance(engine, LocalEngine) or engine.record.phase != "ready":
            self._misses = 0
            return
        if not engine.alive():
            self._revive(engine)
        elif engine.client.healthy():
            self._misses = 0
        else:
            self._miss(engine)

    def _run(self) -> None:
        while not self._over.wait(ROUND_SECONDS):
            try:
                self.check()
            except (StudioError, OSError, sqlite3.Error) as error:
                logger.error("Watching the engine: %s", error)
        self._state.close()

    def _miss(self, engine: LocalEngine) -> None:
        self._misses += 1
        if self._misses < MISSES:
            return
        logger.warning("The engine at %s does not answer any more; it is ended", engine.record.url)
        engine.kill()
        self._revive(engine)

    def _revive(self, engine: Engine) -> None:
        self._misses = 0
        with self._switch_lock.hold():
            now = self._engines.recorded()
            if now is not None and now.record.id == engine.record.id and not now.alive() and not self._over.is_set():
                self._switcher.revive(now)
