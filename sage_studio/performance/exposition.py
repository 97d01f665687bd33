"""Reading what an engine's ``/metrics`` says: plain figures, and histograms with their buckets.

Knows Prometheus's text format as far as vLLM writes it. Knows nothing of what the figures mean, nor of HTTP.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

NUMBER = r"[+-]?(?:\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|Inf|NaN)"
LINE = re.compile(rf"^([a-zA-Z_:][\w:]*)(?:\{{(.*)\}})? ({NUMBER})(?: \d+)?$", re.MULTILINE)
BOUND = re.compile(r'\ble="([^"]+)"')

Buckets = tuple[tuple[float, float], ...]
"""``(upper bound, how many are at most that)`` pairs, the bounds rising, the last one infinite."""


@dataclass(frozen=True, slots=True)
class Reading:
    """All figures at one moment, each summed over its labels.

    Attributes:
        time: Unix seconds.
        values: figure by name.
        buckets: histogram by name, without ``_bucket``.
    """

    time: float
    values: Mapping[str, float]
    buckets: Mapping[str, Buckets]


def read(text: str, time: float) -> Reading:
    """Read an exposition. A figure that is no number (``NaN``) is left out.

    Example:
        >>> read('wait_bucket{le="1"} 2\\nwait_bucket{le="+Inf"} 3\\n', 0.0).buckets["wait"]
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
    return Reading(time, values, {name: tuple(sorted(of_name.items())) for name, of_name in counts.items()})


def since(new: Buckets, old: Buckets) -> Buckets:
    """What was added to a histogram between two readings; all of it where the bounds changed or it began anew."""
    if [bound for bound, _ in new] != [bound for bound, _ in old] or new[-1][1] < old[-1][1]:
        return new
    return tuple((bound, count - before) for (bound, count), (_, before) in zip(new, old, strict=True))


def quantile(buckets: Sequence[tuple[float, float]], share: float) -> float | None:
    """The value below which ``share`` (0 to 1) of a histogram lies, as if each bucket were evenly filled.

    None for an empty histogram; the largest finite bound for what lies above it.

    Example:
        >>> quantile([(1.0, 5.0), (2.0, 10.0), (float("inf"), 10.0)], 0.75)
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
