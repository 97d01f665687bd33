"""The engine in one glance, from what is on record: no request is sent.

Knows how records become an `EngineStatus`. Changes nothing.
"""

import time

from sage_studio.errors import StudioError
from sage_studio.serving.choice import EngineChooser
from sage_studio.serving.engine import Engine
from sage_studio.serving.life import EngineLife
from sage_studio.serving.records import EngineRecord
from sage_studio.serving.sharing import PAUSED
from sage_studio.serving.state import ServingState
from sage_studio.serving.types import EngineState, EngineStatus
from sage_studio.text import NOTHING, Text


def describe_engine(
    life: EngineLife,
    state: ServingState,
    chooser: EngineChooser,
    switching_to: str,
    doing: Text,
    tokens_per_second: float | None,
) -> EngineStatus:
    """What the engine is doing.

    Args:
        switching_to: the model that this process switches to; empty if it does not.
        doing: what that switch is doing, if it takes long.
        tokens_per_second: of the last answer.
    """
    engine = life.recorded()
    current = state.current() or ""
    if state.paused() is not None:
        return EngineStatus(EngineState.ASLEEP, _kind(chooser), current=current, message=PAUSED, log_path=life.log)
    if engine is None and doing:
        return EngineStatus(EngineState.SWITCHING, _kind(chooser), current=current, message=doing, log_path=life.log)
    if engine is None:
        failure = state.failure()
        if failure is not None:
            return EngineStatus(
                EngineState.FAILED,
                _kind(chooser),
                failure.base,
                current,
                message=failure.message,
                log_path=life.log,
                vllm_refused=state.is_refused(),
            )
        kind, refused = _kind(chooser), state.is_refused()
        return EngineStatus(EngineState.DOWN, kind, current=current, log_path=life.log, vllm_refused=refused)
    record = engine.record
    phase, message = _phase(engine, life, switching_to)
    incoming = life.incoming()
    began = incoming or record
    instead = _instead(chooser, record)
    starting = phase is EngineState.STARTING or (incoming is not None and phase is EngineState.SWITCHING)
    return EngineStatus(
        state=phase,
        engine=record.kind,
        base=record.base.name,
        current=current,
        url=record.url,
        seconds=max(0.0, time.time() - began.started_at) if starting else 0.0,
        expected_seconds=state.expected_seconds(began.kind, began.base.location),
        tokens_per_second=tokens_per_second,
        message=message or doing or instead,
        form=record.form,
        vllm_refused=bool(instead) and state.is_refused(record.base.location),
        log_path=life.log if record.pid is not None else None,
    )


def _phase(engine: Engine, life: EngineLife, switching_to: str) -> tuple[EngineState, Text]:
    if not engine.alive():
        return EngineState.FAILED, life.crash(engine).message
    if engine.record.phase == "starting":
        return EngineState.STARTING, NOTHING
    if engine.record.phase == "draining" or switching_to:
        return EngineState.SWITCHING, NOTHING
    return EngineState.READY, NOTHING


def _instead(chooser: EngineChooser, record: EngineRecord) -> Text:
    try:
        return chooser.why_not(record.kind, record.base.location)
    except StudioError:
        return NOTHING


def _kind(chooser: EngineChooser) -> str:
    try:
        return chooser.configured().kind
    except StudioError:
        return ""
