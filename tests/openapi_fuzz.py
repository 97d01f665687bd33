"""The OpenAPI document against a real studio, by schemathesis: ``make test-openapi`` runs this, ``make test`` does not.

Schemathesis wants packages of other versions than the studio's, so it gets an environment of its own, in
``OPENAPI_FUZZ`` if that names a folder, which is then kept and used again. The studio has an empty home with a few
things in it. Its engine is the fake one behind ``engine=openai``, its hub a server in this process, so that nothing
is downloaded and nothing heavy is started.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from pathlib import Path

import httpx
import hub_server
import pytest
from model_folder import write_model
from running_studio import RunningStudio
from waiting import TRAINING, wait_until

from sage_studio.settings import PROJECT

SCHEMATHESIS = "schemathesis==4.32.5"
CONFIG = Path(__file__).with_name("schemathesis.toml")
HOOKS = Path(__file__).with_name("schemathesis_hooks.py")
FAKE = Path(__file__).parent / "serving" / "fake_engine.py"
KEY = "key"
SMALL = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1, "vocab_size": 256}
"""A model whose weights do not fit: a task with it fails as soon as it loads them."""
ROWS = [{"instruction": f"What is {n} and one?", "output": f"It is {n + 1}."} for n in range(8)]


@pytest.fixture(scope="session")
def schemathesis() -> Iterator[Path]:
    """The command, in an environment that is made where there is none yet."""
    with tempfile.TemporaryDirectory(prefix="openapi-fuzz-") as temporary:
        folder = Path(os.environ.get("OPENAPI_FUZZ", temporary))
        command = folder / "bin" / "schemathesis"
        if not command.exists():
            venv.create(folder, with_pip=True)
            subprocess.run([folder / "bin" / "python", "-m", "pip", "install", "--quiet", SCHEMATHESIS], check=True)
        yield command


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[str]:
    """The address of an engine that answers with the question's own words."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-S", str(FAKE), "--model", "fake", "--served-model-name", "fake", "--port", str(port)]
    process = subprocess.Popen(
        [*command, "--journal", str(tmp_path / "journal.jsonl")], env={**os.environ, "VLLM_API_KEY": KEY}
    )
    yield f"http://127.0.0.1:{port}/v1"
    process.kill()
    process.wait()


@pytest.fixture
def studio(tmp_path: Path, engine: str) -> Iterator[RunningStudio]:
    """A studio with two datasets and a task that failed."""
    home, model = tmp_path / "home", write_model(tmp_path / "model", **SMALL)
    home.mkdir()
    with hub_server.serving() as hub:
        hub.add("tiny/model", model)
        outside = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hub"), "GIT_ALLOW_PROTOCOL": "file"}
        serving = {"SAGE_STUDIO_ENGINE": "openai", "SAGE_STUDIO_ENGINE_URL": engine, "SAGE_STUDIO_ENGINE_API_KEY": KEY}
        docs = {"SAGE_STUDIO_DOCS_REPO": str(PROJECT), "SAGE_STUDIO_DOCS_FOLDER": "docs"}
        never = {"SAGE_STUDIO_STOP_GRACE_SECONDS": "100000"}  # is a task killed that does not stop
        running = RunningStudio(home, **outside, **serving, **docs, **never).start()
        held = None
        try:
            held = fill(running, model)
            yield running
        finally:
            running.stop()  # first: the next in the queue would start in the place of the one that stands still
            if held is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(held, signal.SIGKILL)


def fill(studio: RunningStudio, model: Path) -> int:
    """Give a studio two datasets, a preset, a failed task, and one that stands still in the only place for trainings.

    Whatever is started afterwards waits in the queue. Returns the process id of the task that stands still.
    """
    studio.post("/api/datasets/quickstart")
    dataset = studio.post("/api/datasets", files={"file": ("rows.json", json.dumps(ROWS))})
    config = {"model_name_or_path": str(model), "dataset_id": dataset["id"], "max_length": 64}
    task = studio.post("/api/finetune/start", json={"type": "sft", "config": config})
    wait_until(lambda: studio.get(f"/api/finetune/tasks/{task['id']}")["status"] == "failed", TRAINING)
    studio.post("/api/finetune/templates", json={"title": "mine", "type": "sft", "config": {}})
    held = studio.post("/api/finetune/start", json={"type": "sft", "config": config})["id"]
    log = studio.home / "studio.log"
    started = re.compile(rf"Started task: {held} \(process (\d+)\)")
    process = int(wait_until(lambda: started.search(log.read_text(encoding="utf-8")))[1])
    os.kill(process, signal.SIGSTOP)
    return process


def test_the_document_is_true(studio: RunningStudio, schemathesis: Path, tmp_path: Path) -> None:
    document = tmp_path / "openapi.json"
    document.write_text(httpx.get(f"{studio.url}/openapi.json").text, encoding="utf-8")
    (failed,) = [each for each in studio.get("/api/finetune/tasks") if each["status"] == "failed"]
    command = [schemathesis, "--config-file", CONFIG, "run", document, "--url", studio.url]
    command += ["--generation-database", "none"]
    shutil.copy(HOOKS, tmp_path)  # it is looked for in the working folder, into which a cache is written
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, "FAILED_TASK": failed["id"]}, check=False)
    assert done.returncode == 0
