"""The engine over the life of a studio: taken over at its start, ended at its end.

Knows who ends an engine, and what a studio that was killed may have left behind. Knows nothing of chats.
"""

import logging
import os

from sage_studio.errors import Conflict
from sage_studio.serving.describe import describe_model
from sage_studio.serving.engine import ExternalEngine, external_record
from sage_studio.serving.house import House
from sage_studio.serving.records import Base

logger = logging.getLogger("sage_studio")

CLOSE_SECONDS = 20.0


def adopt(house: House) -> None:
    """Take over the engine that an earlier studio left running, and look after it from now on."""
    with house.turn.taken():
        house.life.stop_others()  # a studio was killed in the middle of a change
        engine = house.life.recorded()
        if engine is not None and not (engine.alive() and house.life.fits(engine)):
            house.life.stop()  # ends also what a killed engine left behind on the card
            engine = None
        house.state.set_keeper(os.getpid())
        if engine is not None:
            house.state.set_owner(engine.record, os.getpid())
            logger.info("Adopted the %s engine at %s", engine.record.kind, engine.record.url)
        house.state.clear_failure()
        if not house.settings.restore_backend:
            house.state.set_current(base_name(house))
        if house.settings.engine == "openai":
            _discover(house)
    house.watch.start()


def close(house: House) -> None:
    """End the engine if this process started or adopted it, unless ``keep_engine``; a start under way ends too."""
    house.watch.stop()
    if house.state.keeper() == os.getpid():
        house.state.set_keeper(None)
    if house.settings.keep_engine:
        return
    house.life.closing.set()
    house.merger.close()
    _end(house)  # whoever starts one now has the turn, and gives it up when the engine is gone
    try:
        with house.turn.taken(seconds=CLOSE_SECONDS):
            _end(house)
            house.life.closing.clear()
            house.merger.open()
    except Conflict:
        logger.warning("A change of the model did not end; what it starts is stopped")


def base_name(house: House) -> str | None:
    """The name of the base model that the current one, or else the running engine, stands on."""
    name = house.state.current()
    current = house.state.model(name) if name is not None else None
    if current is not None:
        stands_on_itself = current.kind in ("base", "external")
        return current.name if stands_on_itself else str(current.config["base_name"])
    engine = house.life.recorded()
    return engine.record.base.name if engine is not None else None


def _end(house: House) -> None:
    engine = house.life.recorded()
    if engine is not None and engine.record.owner_pid == os.getpid():
        house.life.stop()
    house.life.stop_others(owner=os.getpid())


def _discover(house: House) -> None:
    """Register what someone else's server serves; the first is current. No answer is no error yet."""
    settings = house.settings
    probe = external_record(house.chooser.configured().kind, Base("", ""), settings.engine_url, settings.engine_api_key)
    client = ExternalEngine(probe).client
    names = client.models(quick=True)
    client.close()
    for name in names:
        house.state.save_model(describe_model(name, name, {"kind": "external"}, settings.outputs_dir))
    if names:
        house.life.start(Base(names[0], names[0]))
        if house.state.current() not in names:
            house.state.set_current(names[0])
