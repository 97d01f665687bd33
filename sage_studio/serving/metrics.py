"""Engine metrics: parses ``/metrics``, derives throughput and latency.

A thread samples them while an engine is ready.
"""

import logging
import math
import re
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields

import httpx

from sage_studio.errors import StudioError
from sage_studio.hardware import Gpu
from sage_studio.serving.sockets import open_client, server_of

logger = logging.getLogger("sage_studio")

NUMBER = r"[+-]?(?:\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|Inf|NaN)"
LINE = re.compile(rf"^([a-zA-Z_:][\w:]*)(?:\{{(.*)\}})? ({NUMBER})(?: \d+)?$", re.MULTILINE)
BOUND = re.compile(r'\ble="([^"]+)"')

Buckets = tuple[tuple[float, float], ...]
"""``(upper bound, how many are at most that)`` pairs, the bounds rising, the last one infinite."""


@dataclass(frozen=True, slots=True)
class MetricsReading:
    """All figures at one moment, each summed over its labels.

    Attributes:
        time: Unix seconds.
        values: figure by name.
        buckets: histogram by name, without ``_bucket``.
    """

    time: float
    values: Mapping[str, float]
    buckets: Mapping[str, Buckets]


def parse_metrics(text: str, time: float) -> MetricsReading:
    """Read an exposition. A figure that is no number (``NaN``) is left out.

    Example:
        >>> parse_metrics('wait_bucket{le="1"} 2\\nwait_bucket{le="+Inf"} 3\\n', 0.0).buckets["wait"]
        ((1.0, 2.0), (inf, 3.0))
    """
    values: dict[str, float] = {}
    counts: dict[str, dict[float, float]] = {}
    for name, labels, figure in LINE.findall(text):
        value = float(figure)
        if math.isnan(value):
            continue
        bound = BOUND.search(labels) if name.endswith("_bucket") else None
        if bound is None:
            values[name] = values.get(name, 0.0) + value
        else:
            of_name = counts.setdefault(name.removesuffix("_bucket"), {})
            of_name[float(bound[1])] = of_name.get(float(bound[1]), 0.0) + value
    return MetricsReading(time, values, {name: tuple(sorted(of_name.items())) for name, of_name in counts.items()})


def histogram_delta(new: Buckets, old: Buckets) -> Buckets:
    """What was added to a histogram between two readings; all of it where the bounds changed or it began anew."""
    if [bound for bound, _ in new] != [bound for bound, _ in old] or new[-1][1] < old[-1][1]:
        return new
    return tuple((bound, count - before) for (bound, count), (_, before) in zip(new, old, strict=True))


def histogram_quantile(buckets: Sequence[tuple[float, float]], share: float) -> float | None:
    """The value below which ``share`` (0 to 1) of a histogram lies, as if each bucket were evenly filled.

    None for an empty histogram; the largest finite bound for what lies above it.

    Example:
        >>> histogram_quantile([(1.0, 5.0), (2.0, 10.0), (float("inf"), 10.0)], 0.75)
        1.5
    """
    total = buckets[-1][1] if buckets else 0.0
    if total <= 0:
        return None
    wanted, low, below = share * total, 0.0, 0.0
    for bound, count in buckets:
        if count >= wanted and count > below:
            return low if math.isinf(bound) else low + (bound - low) * (wanted - below) / (count - below)
        low, below = (low if math.isinf(bound) else bound), count
    return low


# Samples

TOKENS = "vllm:generation_tokens_total"
RUNNING = "vllm:num_requests_running"
WAITING = "vllm:num_requests_waiting"
CACHE = "vllm:kv_cache_usage_perc"
FIRST_TOKEN = "vllm:time_to_first_token_seconds"
LATENCY = "vllm:e2e_request_latency_seconds"


@dataclass(frozen=True, slots=True)
class Sample:
    """The engine at one moment; None where a value is not known.

    Attributes:
        time: Unix seconds.
        tokens_per_second: of all answers together, since the sample before.
        requests_running, requests_waiting: now.
        first_token_seconds: the median of the answers that began in the window before.
        latency_p50, latency_p95: seconds from question to end, of the answers that ended in that window.
        kv_cache: share in use, 0 to 1.
        gpu_memory_gb, gpu_total_gb: of the first GPU.
        gpu_percent: how busy it is.
    """

    time: float
    tokens_per_second: float | None = None
    requests_running: float | None = None
    requests_waiting: float | None = None
    first_token_seconds: float | None = None
    latency_p50: float | None = None
    latency_p95: float | None = None
    kv_cache: float | None = None
    gpu_memory_gb: float | None = None
    gpu_total_gb: float | None = None
    gpu_percent: float | None = None


SAMPLE_FIELDS = tuple(field.name for field in fields(Sample) if field.name != "time")


def make_sample(
    new: MetricsReading, last: MetricsReading | None, first: MetricsReading | None, gpus: Sequence[Gpu] = ()
) -> Sample:
    """The figures of a moment.

    Args:
        new: the reading now.
        last: the one before it, for speed; None if there was none.
        first: the oldest of the window that latencies are taken from; None if there was none.
        gpus: the machine's.
    """
    gpu = gpus[0] if gpus else None
    return Sample(
        time=new.time,
        tokens_per_second=counter_rate(new, last, TOKENS),
        requests_running=new.values.get(RUNNING),
        requests_waiting=new.values.get(WAITING),
        first_token_seconds=window_quantile(new, first, FIRST_TOKEN, 0.5),
        latency_p50=window_quantile(new, first, LATENCY, 0.5),
        latency_p95=window_quantile(new, first, LATENCY, 0.95),
        kv_cache=new.values.get(CACHE),
        gpu_memory_gb=gpu.used_gb if gpu is not None else None,
        gpu_total_gb=gpu.memory_gb if gpu is not None else None,
        gpu_percent=gpu.load_percent if gpu is not None else None,
    )


def counter_rate(new: MetricsReading, last: MetricsReading | None, name: str) -> float | None:
    """How fast a counter grew, per second; None without two readings of one engine."""
    if last is None or new.time <= last.time or name not in new.values or name not in last.values:
        return None
    grown = new.values[name] - last.values[name]
    return grown / (new.time - last.time) if grown >= 0 else None


def window_quantile(new: MetricsReading, first: MetricsReading | None, name: str, share: float) -> float | None:
    """A quantile of what a histogram gained since ``first``; an engine without buckets tells only the mean."""
    buckets = new.buckets.get(name)
    if buckets is not None:
        return histogram_quantile(
            histogram_delta(buckets, first.buckets.get(name, ()) if first is not None else ()), share
        )
    earlier = first.values if first is not None else {}
    count = new.values.get(f"{name}_count", 0.0) - earlier.get(f"{name}_count", 0.0)
    total = new.values.get(f"{name}_sum", 0.0) - earlier.get(f"{name}_sum", 0.0)
    return total / count if count > 0 and share == 0.5 else None


def downsample(samples: Iterable[Sample], seconds: float) -> list[Sample]:
    """One sample for each full span of so many seconds, its figures the means; the span under way is left out."""
    spans: dict[int, list[Sample]] = {}
    for one in samples:
        spans.setdefault(int(one.time // seconds), []).append(one)
    return [_mean(span, number * seconds) for number, span in list(spans.items())[:-1]]


def _mean(span: Sequence[Sample], time: float) -> Sample:
    rows = [asdict(one) for one in span]
    known = {name: [row[name] for row in rows if row[name] is not None] for name in SAMPLE_FIELDS}
    return Sample(time, **{name: sum(values) / len(values) for name, values in known.items() if values})


# The sampler

SAMPLE_SECONDS = 2.0
KEEP_SECONDS = 600.0
WINDOW_SECONDS = 60.0
"""Latencies are taken from the answers of this long; shorter, and most samples would have none."""
GPUS_SECONDS = 6.0
"""``nvidia-smi`` costs more than all the rest."""
ANSWER_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class MetricsEndpoint:
    """The address of an engine that tells its figures, and the key it asks for."""

    url: str
    key: str = ""


class MetricsSampler:
    """Samples while an engine is ready, and keeps the last ten minutes.

    Args:
        address: where to look; None while no engine is ready. Called before each sample, so it must be cheap.
        gpus: the machine's GPUs now.
    """

    def __init__(
        self,
        address: Callable[[], MetricsEndpoint | None],
        gpus: Callable[[], tuple[Gpu, ...]],
        seconds: float = SAMPLE_SECONDS,
    ) -> None:
        self._address, self._gpus, self._seconds = address, gpus, seconds
        self._samples: deque[Sample] = deque(maxlen=round(KEEP_SECONDS / SAMPLE_SECONDS))
        self._readings: deque[MetricsReading] = deque(maxlen=round(WINDOW_SECONDS / SAMPLE_SECONDS) + 1)
        self._at: MetricsEndpoint | None = None
        self._gpus_seen: tuple[Gpu, ...] = ()
        self._gpus_due = 0.0
        self._over = threading.Event()
        self._http: httpx.Client | None = None
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
        self._leave()

    def samples(self) -> list[Sample]:
        """What was seen, oldest first; a copy."""
        return list(self._samples)

    def take_sample(self) -> None:
        """One look, if an engine is ready and tells something."""
        address = self._address()
        if address != self._at:
            self._at = address
            self._readings.clear()
            self._leave()
        if address is None:
            return
        text = self._ask(address)
        if not text:
            return
        reading = parse_metrics(text, time.time())
        last = self._readings[-1] if self._readings else None
        first = self._readings[0] if self._readings else None
        self._readings.append(reading)
        self._samples.append(make_sample(reading, last, first, self._see_gpus()))

    def _run(self) -> None:
        while not self._over.wait(self._seconds):
            try:
                self.take_sample()
            except (StudioError, OSError, sqlite3.Error, httpx.HTTPError) as error:
                logger.warning("No metrics now: %s", error)

    def _ask(self, address: MetricsEndpoint) -> str:
        """What it tells; nothing from an engine that is busy, leaving or has no figures."""
        self._http = self._http or open_client(address.url, address.key, timeout=ANSWER_SECONDS)
        try:
            answer = self._http.get(f"{server_of(address.url)}/metrics")
        except httpx.TransportError:
            return ""
        return answer.text if answer.is_success else ""

    def _leave(self) -> None:
        if self._http is not None:
            self._http.close()
            self._http = None

    def _see_gpus(self) -> tuple[Gpu, ...]:
        if time.monotonic() >= self._gpus_due:
            self._gpus_due = time.monotonic() + GPUS_SECONDS
            self._gpus_seen = self._gpus()
        return self._gpus_seen
