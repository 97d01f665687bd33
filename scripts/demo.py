"""The main job from end to end without a browser: docs -> fine-tune -> set as backend -> the same question again.

Starts a studio of its own on a free port, drives it through ``gradio_client`` as any script would, prints a table of
what it took, and ends the studio. Exit status 0 only when the tuned model answered, and not what the base model did.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
from gradio_client import Client
from gradio_client.exceptions import AppError

PROJECT = Path(__file__).resolve().parent.parent
HOME = Path(os.environ.get("SAGE_STUDIO_HOME") or "~/.sage-demo").expanduser()
START_SECONDS = 120.0
RECIPE = {
    "model_name_or_path": "SmolLM2-135M-Instruct",
    "name": "demo",
    "max_samples": 24,
    "num_train_epochs": 4,
    "per_device_train_batch_size": 4,
    "learning_rate": 5e-4,
    "max_length": 256,
}


class Timings:
    """What each step took, in seconds."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, float, str]] = []

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[list[str]]:
        """Time a step; what is appended to the yielded list stands beside its time."""
        print(f"… {name}", flush=True)
        notes: list[str] = []
        begun = time.monotonic()
        yield notes
        self.rows.append((name, time.monotonic() - begun, " ".join(notes)))

    def table(self) -> str:
        """The steps, aligned."""
        width = max(len(name) for name, _, _ in self.rows)
        return "\n".join(f"  {name:<{width}}  {seconds:8.1f} s  {note}" for name, seconds, note in self.rows)


def main() -> int:
    """Run the demo. Returns the exit status."""
    timings = Timings()
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(studio(timings, {}))
        try:
            dataset = prepare(client, timings)
        except AppError as error:
            print(
                f"The SAGE documentation cannot be had: {error}\nUsing the studio's own docs/ in its place.", flush=True
            )
            stack.close()
            own_docs = {"SAGE_STUDIO_DOCS_REPO": str(PROJECT), "SAGE_STUDIO_DOCS_FOLDER": "docs"}
            client = stack.enter_context(studio(timings, own_docs))
            dataset = prepare(client, timings)
        return fine_tune_and_ask(client, dataset, timings)


@contextlib.contextmanager
def studio(timings: Timings, settings: dict[str, str]) -> Iterator[Client]:
    """A studio on a free port, ended by its own process id."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mine = {"SAGE_STUDIO_HOME": str(HOME), "SAGE_STUDIO_HOST": "127.0.0.1", "SAGE_STUDIO_PORT": str(port)}
    environment = {**os.environ, **mine, "SAGE_STUDIO_SHARE": "", "SAGE_STUDIO_AUTH": "", **settings}
    process = subprocess.Popen([sys.executable, "app.py"], cwd=PROJECT, env=environment)
    try:
        with timings.step("start the studio"):
            wait_for(f"http://127.0.0.1:{port}/api/health", process)
        yield Client(f"http://127.0.0.1:{port}", verbose=False)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    """Return once the studio answers; end the demo if it ends or takes too long."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(url).is_success:
                return
        time.sleep(0.2)
    sys.exit(f"The studio did not start; see {HOME / 'studio.log'}")


def prepare(client: Client, timings: Timings) -> dict[str, Any]:
    """The SAGE documentation as a dataset."""
    with timings.step("prepare the documentation") as notes:
        dataset: dict[str, Any] = client.predict(api_name="/prepare_sage_docs")
        notes.append(f"{dataset['stats']['total_samples']} rows of {dataset['source']}")
    return dataset


def fine_tune_and_ask(client: Client, dataset: dict[str, Any], timings: Timings) -> int:
    """Ask, train, switch, ask again, and print what it took."""
    question = client.predict(dataset["id"], limit=1, api_name="/preview_dataset")["rows"][0]["instruction"]
    with timings.step("start the engine, ask the base model") as notes:
        before = ask(client, question)
        notes.append(speed(before))
    with timings.step("fine-tune") as notes:
        task = follow(client, client.predict(dataset_id=dataset["id"], **RECIPE, api_name="/start_finetune"))
        notes.append(
            f"{task['status']}, {task['step']} steps, loss {task['loss']:.2f}" if task["loss"] else task["status"]
        )
    if task["status"] != "completed":
        print(f"{task['reason']} {task['hint']}\n{client.predict(task['id'], api_name='/task_logs')}")
        return 1
    with timings.step("set as backend") as notes:
        notes.append(client.predict(task["id"], api_name="/use_as_backend")["model_name"])
    with timings.step("ask the tuned model") as notes:
        after = ask(client, question)
        notes.append(speed(after))
    print(f"\nQuestion: {question}\n")
    for said, answer in (("Before", before), ("After", after)):
        print(f"{said} ({answer['model']}):\n  {answer['response'][:400]}\n")
    print(timings.table())
    return 0 if after["model"] == task["served_name"] and after["response"] != before["response"] else 1


def ask(client: Client, question: str) -> dict[str, Any]:
    """The whole answer, without chance."""
    answer: dict[str, Any] = client.predict(question, temperature=0.0, max_tokens=96, api_name="/chat")
    return answer


def speed(answer: dict[str, Any]) -> str:
    """Tokens per second of an answer."""
    return f"{answer['model']}, {answer['tokens_per_second'] or 0:.0f} tokens/s"


def follow(client: Client, task: dict[str, Any]) -> dict[str, Any]:
    """Show a task's progress until it is over."""
    shown = ""
    while task["status"] in ("queued", "preparing", "training", "stopping"):
        line = f"  {task['status']} {task['progress']:.0f} %  step {task['step'] or 0}/{task['total_steps'] or '?'}"
        if line != shown:
            print(line, flush=True)
            shown = line
        time.sleep(1)
        task = client.predict(task["id"], api_name="/get_task")
    return task


if __name__ == "__main__":
    sys.exit(main())
