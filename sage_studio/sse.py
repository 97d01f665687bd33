"""Server-sent events: written by the API and the fallback engine, read by the engine's client."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

DONE = "data: [DONE]\n\n"
"""The last event of an OpenAI stream."""


def sse_event(data: dict[str, Any] | str, *, event: str = "", id: str | int = "") -> str:  # its own word
    r"""One event as text.

    Args:
        data: sent as it is, on one line, if it is text; else as JSON.
        event: name of the event; without it clients call it ``message``.
        id: what a client sends back as ``Last-Event-ID`` when it connects again.

    Example:
        >>> sse_event({"text": "hi"}, event="progress", id=7)
        'id: 7\nevent: progress\ndata: {"text": "hi"}\n\n'
    """
    content = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
    head = (f"id: {id}\n" if id != "" else "") + (f"event: {event}\n" if event else "")
    return f"{head}data: {content}\n\n"


def sse_data(lines: Iterable[str]) -> Iterator[str]:
    """The ``data`` of each event in the lines of a stream."""
    for line in lines:
        if line.startswith("data:"):
            yield line.removeprefix("data:").strip()
