"""The parts of serving wired together for one home, taken over at the studio's start and closed at its end."""

import logging
import os
from collections.abc import Callable

from sage_studio.database import Database
from sage_studio.errors import Conflict
from sage_studio.hardware import Hardware
from sage_studio.serving.adapter_cache import AdapterCache
from sage_studio.serving.capacity import without_gpus
from sage_studio.serving.engine import ExternalEngine, external_record
from sage_studio.serving.engine_factory import EngineFactory, EngineSpec, choose_engine
from sage_studio.serving.engine_manager import EngineManager
from sage_studio.serving.gpu_sharing import GpuSharing
from sage_studio.serving.merge import Merger
from sage_studio.serving.registered_model import make_registered_model
from sage_studio.serving.router import ChatRouter
from sage_studio.serving.state import ServingState
from sage_studio.serving.switch import EngineWatchdog, Switcher, SwitchLock
from sage_studio.serving.types import Base
from sage_studio.settings import Settings

logger = logging.getLogger("sage_studio")

CLOSE_SECONDS = 20.0


class ServingComponents:
    """Everything that a configured registry works with.

    Args:
        choose: which engine to use and how to start it; None: what `choose_engine` finds.
        detect: what the machine has now.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        choose: Callable[[], EngineSpec] | None,
        detect: Callable[[], Hardware],
    ) -> None:
        self.settings = settings
        self.detect = detect
        self.state = ServingState(database)
        self.factory = EngineFactory(
            self.state,
            choose or (lambda: choose_engine(settings, self.engine_hardware)),
            self.engine_hardware,
            lambda: self.engines.gpu_memory_gb(),
        )
        self.engines = EngineManager(settings, self.state, self.factory, self.engine_hardware)
        folder, outputs = self.engines.folder, settings.outputs_dir
        self.merger = Merger(folder, outputs, 2 * settings.engine_start_seconds)
        self.adapters = AdapterCache(self.state, folder / "adapters", outputs, self.factory, self.merger)
        self.switcher = Switcher(self.state, self.engines, self.adapters)
        self.switch_lock = SwitchLock(folder / "switch.lock", 4 * settings.engine_start_seconds + 60)
        self.gpu_sharing = GpuSharing(settings, self.state, self.engines, self.adapters, self.switch_lock, detect)
        self.router = ChatRouter(
            self.state, self.engines, self.adapters, self.switcher, self.switch_lock, self.gpu_sharing
        )
        self.watchdog = EngineWatchdog(self.state, self.engines, self.switcher, self.switch_lock)

    def engine_hardware(self) -> Hardware:
        """What an engine may use now: the machine without the GPUs that trainings have."""
        return without_gpus(self.detect(), self.state.training_cards())

    def base_name(self) -> str | None:
        """The name of the base model of the current model, or else of the running engine."""
        name = self.state.current()
        current = self.state.model(name) if name is not None else None
        if current is not None:
            return current.name if current.kind in ("base", "external") else str(current.config["base_name"])
        engine = self.engines.recorded()
        return engine.record.base.name if engine is not None else None

    def adopt(self) -> None:
        """Take over the engine that an earlier studio left running, and start the watchdog."""
        with self.switch_lock.hold():
            self.engines.stop_others()  # a studio was killed in the middle of a switch
            engine = self.engines.recorded()
            if engine is not None and not (engine.alive() and self.engines.matches_settings(engine)):
                self.engines.stop()  # also ends what a killed engine left behind on the GPU
                engine = None
            self.state.set_keeper(os.getpid())
            if engine is not None:
                self.state.set_owner(engine.record, os.getpid())
                logger.info("Adopted the %s engine at %s", engine.record.kind, engine.record.url)
            self.state.clear_failure()
            if not self.settings.restore_backend:
                self.state.set_current(self.base_name())
            if self.settings.engine == "openai":
                self._register_external_models()
        self.watchdog.start()

    def close(self) -> None:
        """Stop the engine if this process started or adopted it, unless ``keep_engine``; also one that is starting."""
        self.watchdog.stop()
        if self.state.keeper() == os.getpid():
            self.state.set_keeper(None)
        if self.settings.keep_engine:
            return
        self.engines.closing.set()
        self.merger.close()
        self._stop_own_engines()  # whoever starts one now holds the lock, and releases it when the engine is gone
        try:
            with self.switch_lock.hold(seconds=CLOSE_SECONDS):
                self._stop_own_engines()
                self.engines.closing.clear()
                self.merger.open()
        except Conflict:
            logger.warning("A change of the model did not end; what it starts is stopped")

    def _stop_own_engines(self) -> None:
        engine = self.engines.recorded()
        if engine is not None and engine.record.owner_pid == os.getpid():
            self.engines.stop()
        self.engines.stop_others(owner=os.getpid())

    def _register_external_models(self) -> None:
        """Register what an external server serves; the first is current. No answer is not an error yet."""
        settings = self.settings
        probe = external_record(
            self.factory.configured().kind, Base("", ""), settings.engine_url, settings.engine_api_key
        )
        client = ExternalEngine(probe).client
        names = client.models(quick=True)
        client.close()
        for name in names:
            self.state.save_model(make_registered_model(name, name, {"kind": "external"}, settings.outputs_dir))
        if names:
            self.engines.start(Base(names[0], names[0]))
            if self.state.current() not in names:
                self.state.set_current(names[0])
