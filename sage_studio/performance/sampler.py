"""The one who looks at the engine's figures, a few times a minute, for everybody who wants to see them.

One thread per studio, however many pages watch; it asks nothing while no engine is ready. Knows when to look and how
long to remember. Knows nothing of registries, pages or what the figures mean.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import httpx

from sage_studio.hardware import Card
from sage_studio.performance.exposition import Reading, read
from sage_studio.performance.figures import Sample, sample

SAMPLE_SECONDS = 2.0
KEEP_SECONDS = 600.0
WINDOW_SECONDS = 60.0
"""Latencies are taken from the answers of this long; shorter, and most samples would have none."""
CARDS_SECONDS = 6.0
"""``nvidia-smi`` costs more than all the rest."""
ANSWER_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Address:
    """Where an engine tells its figures, and the key it may ask for."""

    url: str
    key: str = ""


class Sampler:
    """Samples while an engine is ready, and keeps the last ten minutes.

    Args:
        address: where to look; None while no engine is ready. Asked at every turn, so it must be cheap.
        cards: the machine's cards now.
    """

    def __init__(
        self,
        address: Callable[[], Address | None],
        cards: Callable[[], tuple[Card, ...]],
        seconds: float = SAMPLE_SECONDS,
    ) -> None:
        self._address, self._cards, self._seconds = address, cards, seconds
        self._samples: deque[Sample] = deque(maxlen=round(KEEP_SECONDS / SAMPLE_SECONDS))
        self._readings: deque[Reading] = deque(maxlen=round(WINDOW_SECONDS / SAMPLE_SECONDS) + 1)
        self._at: Address | None = None
        self._cards_seen: tuple[Card, ...] = ()
        self._cards_due = 0.0
        self._over = threading.Event()
        self._http = httpx.Client(timeout=ANSWER_SECONDS, trust_env=False)
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to look."""
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Look no more."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(2 * ANSWER_SECONDS)
        self._http.close()

    def samples(self) -> list[Sample]:
        """What was seen, oldest first; a copy."""
        return list(self._samples)

    def look(self) -> None:
        """One look, if an engine is ready and tells something."""
        address = self._address()
        if address != self._at:
            self._at = address
            self._readings.clear()
        if address is None:
            return
        text = self._ask(address)
        if not text:
            return
        reading = read(text, time.time())
        last = self._readings[-1] if self._readings else None
        first = self._readings[0] if self._readings else None
        self._readings.append(reading)
        self._samples.append(sample(reading, last, first, self._see_cards()))

    def _run(self) -> None:
        while not self._over.wait(self._seconds):
            self.look()

    def _ask(self, address: Address) -> str:
        """What it tells; nothing from an engine that is busy, leaving or has no figures."""
        headers = {"Authorization": f"Bearer {address.key}"} if address.key else {}
        try:
            answer = self._http.get(address.url, headers=headers)
        except httpx.TransportError:
            return ""
        return answer.text if answer.is_success else ""

    def _see_cards(self) -> tuple[Card, ...]:
        if time.monotonic() >= self._cards_due:
            self._cards_due = time.monotonic() + CARDS_SECONDS
            self._cards_seen = self._cards()
        return self._cards_seen
