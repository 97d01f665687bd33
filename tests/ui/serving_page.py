"""Serves a page over any studio for as long as a test needs it."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def served(studio: Any) -> Iterator[str]:
    """The address of a page over a studio, on a free port."""
    from sage_studio.ui.page import build_page, page_arguments

    page = build_page(studio)
    with socket.socket() as free:  # gradio looks for one too, but leaves a socket behind for each that is taken
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    page.api_open = False
    options: dict[str, Any] = {"prevent_thread_lock": True, "quiet": True, "run_history": False, "ssr_mode": False}
    _, url, _ = page.launch(server_name="127.0.0.1", server_port=port, **options, **page_arguments())
    try:
        yield url
    finally:
        page.close(verbose=False)
