"""What guards an engine's server: its key on every path, and a socket that no other user reaches.

Run as a script it is vLLM's server behind that guard, on a GPU; on a CPU `vllm_cpu.py` calls `main`. vLLM by itself
asks for its key below ``/v1`` and the like only, and opens the routes for sleep only together with all of its developer
mode, which runs any method of the engine for whoever asks.

Imports nothing of the studio: it may run in an environment that has only vLLM.
"""

import contextlib
import functools
import os
import secrets
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

KEY_VARIABLE = "VLLM_API_KEY"

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


class KeyOnEveryPath:
    """ASGI middleware that answers nothing, known path or not, without ``Authorization: Bearer KEY``."""

    def __init__(self, app: App, key: str) -> None:
        if not key:
            raise ValueError("an engine's server needs a key")
        self._app, self._expected = app, f"Bearer {key}".encode()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 401; a web socket is closed."""
        if scope["type"] == "lifespan" or self._has_key(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        else:
            body = b'{"error": {"message": "Unauthorized", "code": 401}}'
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": 401, "headers": headers})
            await send({"type": "http.response.body", "body": body})

    def _has_key(self, scope: Message) -> bool:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        return len(given) == 1 and secrets.compare_digest(given[0], self._expected)


def bind(path: str) -> socket.socket:
    """A socket at a path, for its user alone; uvicorn's own would be open to all who reach the folder."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o077)
    try:
        listener.bind(path)
    finally:
        os.umask(before)
    return listener


def unbind(path: str) -> None:
    """Remove a socket and its folder, unless something else is in there."""
    with contextlib.suppress(OSError):
        os.unlink(path)
        os.rmdir(os.path.dirname(path))


def guarded(build_app: Callable[..., Any], key: str) -> Callable[..., Any]:
    """vLLM's ``build_app``, which then also demands the key everywhere and has the routes for sleep where they work."""

    @functools.wraps(build_app)
    def build(args: Any, *arguments: Any, **options: Any) -> Any:
        app = build_app(args, *arguments, **options)
        if getattr(args, "enable_sleep_mode", False):
            from vllm.entrypoints.serve.dev.sleep.api_router import attach_router

            attach_router(app)
        # Not by ``add_middleware``: vLLM has built the stack by now.
        app.middleware_stack = KeyOnEveryPath(app.middleware_stack or app.build_middleware_stack(), key)
        return app

    return build


def main() -> None:
    """vLLM's server, as its command line says, on a socket of its user alone."""
    os.umask(0o077)  # also for the sockets between vLLM's own processes
    from vllm.entrypoints.launchers.api_server import entry

    entry.build_app = guarded(entry.build_app, os.environ[KEY_VARIABLE])
    entry.main()


if __name__ == "__main__":
    main()
