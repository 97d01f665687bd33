"""Streaming response whose source is closed at once when the client leaves."""

from collections.abc import Generator

import anyio
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send


class EventStream(StreamingResponse):
    """Server-sent events from a generator, which is closed however the sending ends.

    Starlette leaves that to the collector: an engine would go on generating for somebody who is gone.
    """

    media_type = "text/event-stream"

    def __init__(self, events: Generator[str, None, None]) -> None:
        super().__init__(events)
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all of it, or as much as the client stays for."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            with anyio.CancelScope(shield=True):
                await run_in_threadpool(self._events.close)
