"""What an engine's readings say about it: speed, load, latency, cache and card.

Pure arithmetic over readings. Knows vLLM's names for its figures. Knows nothing of where readings come from.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields

from sage_studio.hardware import Card
from sage_studio.performance.exposition import Reading, quantile, since

TOKENS = "vllm:generation_tokens_total"
RUNNING = "vllm:num_requests_running"
WAITING = "vllm:num_requests_waiting"
CACHE = "vllm:kv_cache_usage_perc"
FIRST_TOKEN = "vllm:time_to_first_token_seconds"
LATENCY = "vllm:e2e_request_latency_seconds"


@dataclass(frozen=True, slots=True)
class Sample:
    """The engine at one moment; None where nobody knows.

    Attributes:
        time: Unix seconds.
        tokens_per_second: of all answers together, since the sample before.
        requests_running, requests_waiting: now.
        first_token_seconds: the median of the answers that began in the window before.
        latency_p50, latency_p95: seconds from question to end, of the answers that ended in that window.
        kv_cache: share in use, 0 to 1.
        gpu_memory_gb, gpu_total_gb: of the first card.
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


FIGURES = tuple(field.name for field in fields(Sample) if field.name != "time")


def sample(new: Reading, last: Reading | None, first: Reading | None, cards: Sequence[Card] = ()) -> Sample:
    """The figures of a moment.

    Args:
        new: the reading now.
        last: the one before it, for speed; None if there was none.
        first: the oldest of the window that latencies are taken from; None if there was none.
        cards: the machine's.
    """
    card = cards[0] if cards else None
    return Sample(
        time=new.time,
        tokens_per_second=rate(new, last, TOKENS),
        requests_running=new.values.get(RUNNING),
        requests_waiting=new.values.get(WAITING),
        first_token_seconds=of_window(new, first, FIRST_TOKEN, 0.5),
        latency_p50=of_window(new, first, LATENCY, 0.5),
        latency_p95=of_window(new, first, LATENCY, 0.95),
        kv_cache=new.values.get(CACHE),
        gpu_memory_gb=card.used_gb if card is not None else None,
        gpu_total_gb=card.memory_gb if card is not None else None,
        gpu_percent=card.load_percent if card is not None else None,
    )


def rate(new: Reading, last: Reading | None, name: str) -> float | None:
    """How fast a counter grew, per second; None without two readings of one engine."""
    if last is None or new.time <= last.time or name not in new.values or name not in last.values:
        return None
    grown = new.values[name] - last.values[name]
    return grown / (new.time - last.time) if grown >= 0 else None


def of_window(new: Reading, first: Reading | None, name: str, share: float) -> float | None:
    """A quantile of what a histogram gained since ``first``; an engine without buckets tells only the mean."""
    buckets = new.buckets.get(name)
    if buckets is not None:
        return quantile(since(buckets, first.buckets.get(name, ()) if first is not None else ()), share)
    before = first.values if first is not None else {}
    count = new.values.get(f"{name}_count", 0.0) - before.get(f"{name}_count", 0.0)
    total = new.values.get(f"{name}_sum", 0.0) - before.get(f"{name}_sum", 0.0)
    return total / count if count > 0 and share == 0.5 else None


def thinned(samples: Iterable[Sample], seconds: float) -> list[Sample]:
    """One sample for each full span of so many seconds, its figures the means; the span under way is left out."""
    spans: dict[int, list[Sample]] = {}
    for one in samples:
        spans.setdefault(int(one.time // seconds), []).append(one)
    return [_mean(span, number * seconds) for number, span in list(spans.items())[:-1]]


def _mean(span: Sequence[Sample], time: float) -> Sample:
    rows = [asdict(one) for one in span]
    known = {name: [row[name] for row in rows if row[name] is not None] for name in FIGURES}
    return Sample(time, **{name: sum(values) / len(values) for name, values in known.items() if values})
