"""A studio behind its REST routes."""

import gc
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from fastapi.testclient import TestClient
from rest_app import LOGIN, app_of
from waiting import patient, wait_until

from sage_studio.serving.engine import LaunchSpec
from sage_studio.serving.engine_factory import EngineSpec
from sage_studio.settings import Settings
from sage_studio.studio import Studio

sys.path.insert(0, str(Path(__file__).parents[1] / "serving"))
from serving_files import FAKE, write_adapter


class FakeSpec(EngineSpec):
    """The fake engine, as if it were vLLM on a CPU."""

    kind = "vllm"
    max_rank = 64

    def __init__(self, journal: Path) -> None:
        self.journal = journal

    def launch(self, base, socket):
        command = [sys.executable, "-S", str(FAKE), "--model", base.location, "--served-model-name", base.name]
        command += ["--uds", str(socket), "--journal", str(self.journal), "--fail", "faulty"]
        return LaunchSpec(command, {})

    def rank_for(self, rank):
        return max(16, rank)


@pytest.fixture
def studio(settings: Settings) -> Iterator[Studio]:
    studio = Studio(settings)
    studio.start()
    yield studio
    studio.close()


@pytest.fixture
def client(studio: Studio) -> Iterator[TestClient]:
    with TestClient(app_of(studio), base_url="http://127.0.0.1") as client:
        yield client


@pytest.fixture
def answering(studio: Studio, tmp_path: Path) -> Studio:
    """The studio with a fake engine: ``small`` is its base and current, ``tuned`` and ``other`` are adapters on it.

    A base whose folder is called ``faulty`` does not start.
    """
    base = tmp_path / "bases" / "small"
    base.mkdir(parents=True)
    (base / "config.json").write_text("{}")

    studio.serving.registry.configure(studio.settings, studio.database, lambda: FakeSpec(tmp_path / "journal.jsonl"))
    studio.serving.registry.adopt()
    studio.serving.registry.register_model("small", str(base), {"kind": "base"})
    for name in ("tuned", "other"):
        folder = studio.settings.outputs_dir / name
        folder.mkdir(parents=True)
        write_adapter(folder, str(base))
        studio.serving.registry.register_model(name, str(folder))
    studio.serving.switch("small")
    return studio


@pytest.fixture
def asking(answering: Studio) -> Iterator[TestClient]:
    with TestClient(app_of(answering), base_url="http://127.0.0.1") as client:
        yield client


@pytest.fixture
def address(answering: Studio) -> Iterator[str]:
    """The studio behind a real server, with a login."""
    config = uvicorn.Config(app_of(answering, LOGIN), host="127.0.0.1", port=0, log_level="warning")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join(patient())


@pytest.fixture
def no_collector() -> Iterator[None]:
    """What ends, ends by itself, not because garbage happened to be collected."""
    gc.disable()
    yield
    gc.enable()
