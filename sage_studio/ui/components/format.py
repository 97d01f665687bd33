"""Figures, times and ids formatted for people, in both languages.

What is returned as `Markup` is safe HTML.
"""

import time
from datetime import datetime

from markupsafe import Markup

from sage_studio.text import Language, Text

EMPTY = "–"
MINUTE, HOUR, DAY = 60, 3600, 86400
UNITS = (
    (DAY, Text("{} d")),
    (HOUR, Text("{} h")),
    (MINUTE, Text("{} min")),
    (1, Text("{} s")),
)
JUST_NOW = Text("just now")
AGO = Text("{} ago")
COPY = Text("Copy")
COPY_ICON = Markup(
    '<svg viewBox="0 0 16 16" fill="none" stroke="currentColor" stroke-width="1.5" aria-hidden="true">'
    '<rect x="5.5" y="5.5" width="8" height="8" rx="1"/><path d="M10.5 3v-.5h-8v8H3"/></svg>'
)


def count(value: int) -> str:
    """5412 -> 5,412."""
    return f"{value:,}"


def compact(value: float) -> str:
    """1234567 -> 1.2 M; below ten thousand as it is."""
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= limit:
            return f"{value / (1e3 if unit == 'k' else limit):.1f} {unit}"
    return count(round(value))


def size(size_bytes: int) -> str:
    """269000000 -> 269 MB; nothing known -> a dash."""
    if not size_bytes:
        return EMPTY
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size_bytes >= limit:
            value = size_bytes / limit
            return f"{value:.1f} {unit}" if value < 100 else f"{value:.0f} {unit}"
    return f"{size_bytes} B"


def number(value: float | None, digits: int = 3) -> str:
    """A measured figure with so many decimals; a dash for none."""
    return EMPTY if value is None else f"{value:.{digits}f}"


def rate(value: float | None) -> str:
    """A learning rate: 5e-05 -> 5.0e-5."""
    if value is None:
        return EMPTY
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"


def duration(seconds: float | None, language: Language) -> str:
    """The two largest units: 3725 -> 1 h 2 min."""
    if seconds is None:
        return EMPTY
    left, parts = max(round(seconds), 0), list[str]()
    for length, unit in UNITS:
        if left >= length or (length == 1 and not parts):
            parts.append(unit.in_(language).format(left // length))
        left %= length
    return " ".join(parts[:2])


def about(seconds: float, language: Language) -> str:
    """A duration that nobody knows exactly, in one unit: 137 -> 2 min, 40000 -> 11 h."""
    for length, unit in (*UNITS[:2], (MINUTE, UNITS[2][1])):
        if seconds >= (1.5 if length != MINUTE else 1.0) * length:
            value = seconds / length
            step = 0.5 if value < 5 and length != MINUTE else 1 if value < 20 else 5
            return unit.in_(language).format(f"{round(value / step) * step:g}")
    return UNITS[3][1].in_(language).format(max(10, round(seconds / 10) * 10))


def ago(timestamp: float | None, language: Language, now: float | None = None) -> Markup:
    """How long ago, in one unit, with the exact time on hover."""
    if timestamp is None:
        return Markup(EMPTY)
    passed = max((time.time() if now is None else now) - timestamp, 0)
    length, unit = next(((length, unit) for length, unit in UNITS[:3] if passed >= length), (0, JUST_NOW))
    message = (
        AGO.in_(language).format(unit.in_(language).format(int(passed // length))) if length else unit.in_(language)
    )
    exact = datetime.fromtimestamp(timestamp).isoformat(sep=" ", timespec="seconds")
    return Markup('<time datetime="{0}" title="{0}">{1}</time>').format(exact, message)


def short(identifier: str, length: int = 24) -> str:
    """A long id with its middle left out."""
    if len(identifier) <= length:
        return identifier
    tail = length // 2 - 1
    return f"{identifier[: length - tail - 1]}…{identifier[-tail:]}"


def copyable(identifier: str, language: Language) -> Markup:
    """An id, shortened, with a button that copies the whole of it."""
    return Markup(
        '<span class="id"><code title="{0}">{1}</code>'
        '<button type="button" class="copy" data-copy="{0}" aria-label="{2} {0}">{3}</button></span>'
    ).format(identifier, short(identifier), COPY.in_(language), COPY_ICON)


def bar(percent: float, label: str, kind: str = "") -> Markup:
    """A progress bar; ``kind`` is ``running``, ``done``, ``failed`` or nothing."""
    return Markup(
        '<div class="bar {2}" role="progressbar" aria-label="{1}" aria-valuemin="0" aria-valuemax="100" '
        'aria-valuenow="{0:.0f}"><i style="width:{0:.1f}%"></i></div>'
    ).format(min(max(percent, 0.0), 100.0), label, kind)


def joined(*parts: str) -> Markup:
    """The parts that are not empty, separated by dots."""
    return Markup('<span class="dot"> · </span>').join(part for part in parts if part)
