"""Shares GPUs between serving and training: the engine sleeps during a training.

It stops where it cannot sleep, and comes back afterwards.
"""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence

from sage_studio.errors import Conflict, EngineUnavailable, StudioError
from sage_studio.hardware import Hardware
from sage_studio.serving.adapter_cache import AdapterCache
from sage_studio.serving.capacity import (
    ASLEEP_GB,
    GpuRelease,
    LoraSlots,
    before_training,
    pinnable_memory_gb,
    read_facts,
    sleep_memory_gb,
)
from sage_studio.serving.engine import Engine
from sage_studio.serving.engine_manager import EngineManager
from sage_studio.serving.state import ServingState
from sage_studio.serving.switch import SwitchLock
from sage_studio.serving.vllm import sleep_enabled
from sage_studio.settings import Settings
from sage_studio.text import Text

logger = logging.getLogger("sage_studio")

WAIT_SECONDS = 3600.0
"""The longest that a chat waits for a training, with ``chat_while_training: wait``."""
POLL_SECONDS = 0.2
PAUSED = Text("A training is using the GPU. Chat resumes when it ends.")
INSTEAD = Text(
    "Wait, stop the training, or set SAGE_STUDIO_CHAT_WHILE_TRAINING=wait so that messages wait by themselves."
)


class GpuSharing:
    """Releases the engine's GPUs before a training and restores the engine after it."""

    def __init__(
        self,
        settings: Settings,
        state: ServingState,
        engines: EngineManager,
        adapters: AdapterCache,
        switch_lock: SwitchLock,
        detect: Callable[[], Hardware],
    ) -> None:
        self._settings = settings
        self._state = state
        self._engines = engines
        self._adapters = adapters
        self._switch_lock = switch_lock
        self._detect = detect

    def before_training(self, gpus: Sequence[int] | None = None) -> None:
        """Free a training's GPUs, if the engine holds one of them; answers under way may finish first.

        Args:
            gpus: indices of the GPUs that the training uses; None: unknown, so all of them.

        Raises:
            Conflict: the model is being switched; ask again when that is over.
        """
        if not self._detect().has_gpu:
            return
        self._state.add_training_gpus(gpus)
        if self._state.paused() is not None or self._decide(gpus) is GpuRelease.NOTHING:
            return
        with self._switch_lock.hold(seconds=0):
            how, engine = self._decide(gpus), self._engines.recorded()
            if engine is None or how is GpuRelease.NOTHING:
                return
            self._state.set_paused(how)
            self._engines.drain(engine)
            if how is GpuRelease.STOP or not self._sleep(engine):
                self._state.set_paused(GpuRelease.STOP)
                self._engines.stop()
            logger.info("The engine yields the card to a training (%s)", self._state.paused())

    def after_training(self) -> None:
        """Bring the engine back, with the model that was current.

        Raises:
            EngineUnavailable, InvalidModel: it does not start; the status says why.
        """
        self._state.clear_training_gpus()
        if self._state.paused() is None:
            return
        with self._switch_lock.hold():
            how, engine = self._state.paused(), self._engines.recorded()
            try:
                if how == GpuRelease.STOP or engine is None or not self._wake(engine):
                    self._start()
            finally:
                self._state.set_paused(None)
            logger.info("The engine is back from the training")

    def wait_until_free(self) -> None:
        """Let a chat pass unless trainings have all GPUs; else wait or refuse, as the operator chose.

        Raises:
            Conflict: refused, or waited too long.
        """
        deadline = time.monotonic() + WAIT_SECONDS
        while self._blocked():
            if self._settings.chat_while_training == "refuse" or time.monotonic() > deadline:
                raise Conflict(PAUSED, INSTEAD)
            time.sleep(POLL_SECONDS)

    def refuse(self) -> None:
        """Raise `Conflict` while trainings have all GPUs: a switch is not worth waiting for."""
        if self._blocked():
            raise Conflict(PAUSED, Text("Switch when it is over, or stop it."))

    def released_to_training(self, held: Mapping[int, float]) -> dict[int, float]:
        """What a training gets of what the engine holds (GiB, by index of the GPU), if it releases all of them."""
        if not held:
            return {}
        how = self._decide(tuple(held))
        kept = {GpuRelease.NOTHING: math.inf, GpuRelease.SLEEP: ASLEEP_GB, GpuRelease.STOP: 0.0}[how]
        return {index: max(0.0, gb - kept) for index, gb in held.items()}

    def _blocked(self) -> bool:
        """Whether the engine has released its GPUs, or would have none to start on."""
        if self._state.paused() is not None:
            return True
        taken = self._state.training_gpus()
        if taken == () or self._settings.engine == "openai":
            return False
        engine = self._engines.recorded()
        if engine is not None and engine.alive():
            return False
        gpus = self._detect().gpus
        return bool(gpus) and (taken is None or all(gpu.index in taken for gpu in gpus))

    def _decide(self, gpus: Sequence[int] | None) -> GpuRelease:
        engine, hardware = self._engines.recorded(), self._detect()
        if engine is None or not engine.alive():
            return GpuRelease.NOTHING
        record = engine.record
        slots = LoraSlots(self._settings.max_loras, record.base.rank)
        kept = sleep_memory_gb(record, hardware, read_facts(record.base.location), slots)
        sleeps = sleep_enabled(self._settings)
        return before_training(hardware, record, sleeps, kept, gpus, pinnable_memory_gb(hardware))

    def _sleep(self, engine: Engine) -> bool:
        try:
            engine.client.sleep()
        except EngineUnavailable as error:
            logger.warning("The engine does not sleep, so it is stopped: %s", error)
            return False
        self._state.set_phase(engine.record, "asleep")
        return True

    def _wake(self, engine: Engine) -> bool:
        try:
            engine.client.wake_up()
        except EngineUnavailable as error:
            logger.warning("The engine does not wake up, so it is started anew: %s", error)
            return False
        self._state.set_phase(engine.record, "ready")
        return True

    def _start(self) -> None:
        name = self._state.current()
        model = self._state.model(name) if name is not None else None
        self._engines.stop()
        if model is None:
            return
        try:
            model, base = self._adapters.check(model)
            self._adapters.load(self._engines.start(base), model)
        except StudioError as error:
            logger.error("The engine did not come back after the training: %s", error)
            raise
