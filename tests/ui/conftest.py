"""The page over a studio in memory, served once per test run, and a browser to look at it."""

import asyncio
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

_opened: list[asyncio.AbstractEventLoop] = []
_new_event_loop = asyncio.new_event_loop


def _remembered_loop() -> asyncio.AbstractEventLoop:
    """Gradio opens an event loop for every page that is built and never closes it; here somebody does."""
    _opened.append(_new_event_loop())
    return _opened[-1]


asyncio.new_event_loop = _remembered_loop


@pytest.fixture(scope="session", autouse=True)
def _loops_are_closed() -> Iterator[None]:
    yield
    for loop in _opened:
        if not loop.is_running():
            loop.close()


@pytest.fixture(scope="session")
def fake(tmp_path_factory: pytest.TempPathFactory):
    """A studio in memory whose engine is ready."""
    from fake_studio import FakeStudio

    from sage_studio.settings import load_settings

    studio = FakeStudio(load_settings(home=tmp_path_factory.mktemp("ui-home")), start_seconds=0.1)
    studio.serving.start_engine()
    return studio


@pytest.fixture(scope="session")
def page(fake):
    """The page, built and not served."""
    from sage_studio.ui.page import build_page

    return build_page(fake)


@pytest.fixture(scope="session")
def address(page) -> Iterator[str]:
    """Where the page is served."""
    from sage_studio.ui.page import page_arguments

    with socket.socket() as free:  # gradio looks for one too, but leaves a socket behind for each that is taken
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    page.api_open = False
    _, url, _ = page.launch(
        server_name="127.0.0.1",
        server_port=port,
        prevent_thread_lock=True,
        quiet=True,
        run_history=False,
        ssr_mode=False,
        **page_arguments(),
    )
    yield url
    page.close(verbose=False)
