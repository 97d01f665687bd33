"""Progress in words: ``reading rows 3,000 of 6,119``, ``downloading 1.2 of 3.1 GB``."""

import time

from sage_studio.fetching import Transfer
from sage_studio.serving.types import EngineState
from sage_studio.text import Language, Text
from sage_studio.training.progress import Event, Phase
from sage_studio.ui.components.format import count, duration, size
from sage_studio.ui.components.labels import ENGINE_STATE, PHASE

OF = Text("{} of {}")
LEFT = Text("{} left")
PER_SECOND = Text("{}/s")
SINCE = Text("{} so far")
UNCOUNTED = (Phase.UNPACKING, Phase.READING_FILE, Phase.HASHING)
"""May take a while, and nobody knows how far they are: say at least that time passes."""
SHOWN_AFTER_SECONDS = 3


def doing(now: Event, language: Language) -> str:
    """The phase, with how far it is and how long it will still take, where that is known."""
    message = PHASE[now.phase].in_(language)
    if now.done is not None and now.total and now.unit is not None:
        return counted(message, now.done, now.total, now.unit, now.per_second, now.eta_seconds, language)
    passed = time.time() - now.time
    waited = now.phase in UNCOUNTED and passed >= SHOWN_AFTER_SECONDS
    since = SINCE.in_(language).format(duration(passed, language)) if waited else ""
    return " · ".join(part for part in (message, now.detail or "", since) if part)


def transfer_line(transfer: Transfer, language: Language) -> str:
    """``downloading 1.2 GB of 3.1 GB · 24 MB/s · 1 min 20 s left``."""
    message = ENGINE_STATE[EngineState.DOWNLOADING].in_(language)
    if not transfer.total:
        return message
    rate, left = transfer.per_second, transfer.seconds_left
    return counted(message, transfer.done, transfer.total, "bytes", rate, left, language)


def counted(
    message: str, done: int, total: int, unit: str, per_second: float | None, left: float | None, language: Language
) -> str:
    """``said`` with ``done`` of ``total``; of bytes also the rate.

    Args:
        left: seconds; None or 0 where that is not known or nothing is left.
    """
    if unit == "bytes":
        parts = [f"{message} {OF.in_(language).format(size(done), size(total))}"]
        if per_second:
            parts.append(PER_SECOND.in_(language).format(size(round(per_second))))
    else:
        parts = [f"{message} {OF.in_(language).format(count(done), count(total))}"]
    if left and left >= 1:
        parts.append(LEFT.in_(language).format(duration(left, language)))
    return " · ".join(parts)
