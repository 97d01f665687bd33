"""Looks after the engine while the studio runs: a dead one is started again once, a hung one is ended first.

Knows when an engine counts as hung. Knows nothing of models and nothing of who asked for what.
"""

import logging
import sqlite3
import threading

from sage_studio.errors import StudioError
from sage_studio.serving.engine import Engine, LocalEngine
from sage_studio.serving.life import EngineLife
from sage_studio.serving.state import ServingState
from sage_studio.serving.switching import Switcher, Turn

logger = logging.getLogger("sage_studio")

ROUND_SECONDS = 5.0
MISSES = 3
"""So many looks in a row without an answer, each patient for `client.HEALTH_SECONDS`, and it counts as hung."""


class Watch:
    """One thread of the studio that keeps the engine."""

    def __init__(self, state: ServingState, life: EngineLife, switcher: Switcher, turn: Turn) -> None:
        self._state = state
        self._life = life
        self._switcher = switcher
        self._turn = turn
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

    def look(self) -> None:
        """Look once. Only an engine that is on record as ready is expected to answer.

        Raises:
            EngineUnavailable: it died or hung a second time; it is left down, and the status says why.
        """
        engine = self._life.recorded()
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
                self.look()
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
        with self._turn.taken():
            now = self._life.recorded()
            if now is not None and now.record.id == engine.record.id and not now.alive() and not self._over.is_set():
                self._switcher.revive(now)
