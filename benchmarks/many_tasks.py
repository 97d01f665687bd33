"""What a thousand tasks and fifty viewers cost.

    python -m benchmarks.many_tasks [seconds]

A home with 1,000 tasks, each with the progress of a run, is listed by the verb, by REST and as the page's table. Then a
trainer writes a step every 50 ms, 50 clients ask the studio's real server every two seconds for the task and for what
is new in its log, and the server's CPU time is taken.
"""

import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil

from sage_studio.settings import load_settings
from sage_studio.studio import Studio
from sage_studio.tasks.task import Task, TaskStatus
from sage_studio.training.progress import LOG, Event, Phase, ProgressWriter, TrainingJob
from sage_studio.training.recipes import SFTRecipe
from sage_studio.ui.tasks.tasks_table import tasks_table

PROJECT = Path(__file__).resolve().parent.parent
TASKS, VIEWERS, STEPS = 1000, 50, 200
EVERY_SECONDS = 2.0
STEP_SECONDS = 0.05
ROUNDS = 7
SERVER = (
    "import sys, uvicorn\nfrom fastapi import FastAPI\nfrom sage_studio.api.app import app_arguments\n"
    "from sage_studio.settings import load_settings\nfrom sage_studio.studio import Studio\n"
    "app = FastAPI(**app_arguments(Studio(load_settings(home=sys.argv[1])), None))\n"
    "uvicorn.run(app, host='127.0.0.1', port=int(sys.argv[2]), log_level='warning')\n"
)


def fill(studio: Studio) -> Task:
    """A thousand tasks; the newest is training."""
    recipe = SFTRecipe(model_name_or_path="m", dataset_id="d")
    event = Event(time=time.time(), phase=Phase.TRAINING, step=1, total_steps=STEPS, loss=2.0, learning_rate=1e-4)
    lines = "".join(
        event.model_copy(update={"step": step}).model_dump_json(exclude_none=True) + "\n" for step in range(STEPS)
    )
    for _ in range(TASKS):
        task = studio.tasks.store.create(
            recipe, TrainingJob(model_location="m", data_path="d"), dataset_id="d", dataset_name="D"
        )
        (task.folder / "progress.jsonl").write_text(lines)
        studio.tasks.store.transition(
            task.id, {TaskStatus.QUEUED}, TaskStatus.COMPLETED, started_at=1.0, finished_at=2.0
        )
    return studio.tasks.store.transition(task.id, {TaskStatus.COMPLETED}, TaskStatus.TRAINING, started_at=time.time())


def median_ms(what: Callable[[], object]) -> float:
    """Milliseconds, after one call that fills the caches."""
    what()
    took = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        what()
        took.append(1000 * (time.perf_counter() - began))
    return statistics.median(took)


def train(task: Task, until: threading.Event) -> None:
    """A step every now and then, as a trainer writes it."""
    progress, step = ProgressWriter(task.folder), STEPS
    while not until.wait(STEP_SECONDS):
        step += 1
        progress.write(step=step, total_steps=10**6, loss=2.0, learning_rate=1e-4, tokens_per_second=800.0)
        with (task.folder / LOG).open("a") as log:
            log.write(f"step {step} · loss 2.0\n")


def watch(address: str, task: Task, until: threading.Event, asked: list[int]) -> None:
    """One viewer."""
    offset = 0
    with httpx.Client(base_url=address, timeout=30) as client:
        while not until.wait(EVERY_SECONDS):
            client.get(f"/api/finetune/tasks/{task.id}").raise_for_status()
            page = client.get(f"/api/finetune/tasks/{task.id}/logs", params={"offset": offset}).json()
            offset = page["offset"]
            asked.append(1)


def main(seconds: float) -> None:
    """Print both figures."""
    with tempfile.TemporaryDirectory() as home:
        studio = Studio(load_settings(home=home))
        task = fill(studio)
        print(f"{TASKS} tasks listed: verb {median_ms(studio.tasks.list):.1f} ms", flush=True)
        print(f"  with progress                   {median_ms(studio.tasks.list_with_progress):.1f} ms")
        print(f"  as the page's table             {median_ms(lambda: tasks_table(studio, 'all', '', 'en')):.1f} ms")
        port = 18931
        server = subprocess.Popen([sys.executable, "-c", SERVER, home, str(port)], cwd=PROJECT)
        until, asked = threading.Event(), list[int]()
        try:
            address = f"http://127.0.0.1:{port}"
            wait_for(address)
            with httpx.Client(base_url=address, timeout=30) as client:
                print(
                    f"  by REST, over the network       {median_ms(lambda: client.get('/api/finetune/tasks')):.1f} ms"
                )
            threads = [threading.Thread(target=watch, args=(address, task, until, asked)) for _ in range(VIEWERS)]
            for thread in [*threads, threading.Thread(target=train, args=(task, until))]:
                thread.start()
            process = psutil.Process(server.pid)
            before, began = sum(process.cpu_times()[:2]), time.monotonic()
            time.sleep(seconds)
            share = (sum(process.cpu_times()[:2]) - before) / (time.monotonic() - began)
        finally:
            until.set()
            server.terminate()
        print(f"{VIEWERS} viewers, {len(asked)} looks in {seconds:.0f} s: {share:.1%} of one core")


def wait_for(address: str) -> None:
    """Until the server answers."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        try:
            httpx.get(f"{address}/api/health", timeout=5)
            return
        except httpx.TransportError:
            time.sleep(0.1)
    raise TimeoutError(address)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 20.0)
