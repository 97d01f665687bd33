"""The main job from end to end without a browser: dataset, base answers, fine-tune, set as backend, tuned answers.

Starts a studio of its own on a free port, drives it through ``gradio_client`` as any script would, and ends the studio
and with it all that it started. Without options it learns the quick-start set and ends with a table: each test
question, none of which is trained on, with both answers, right or wrong. Exit status 0 when the tuned model answers at
least 60 % rightly and the base at most 10 %. With ``--docs`` it learns a few rows of the SAGE documentation instead
(``SAGE_STUDIO_DOCS_REPO`` says where that is), asks one of its questions before and after, and exits with 0 when the
tuned model answered otherwise than the base did.
"""

import argparse
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
from gradio_client import Client
from gradio_client.exceptions import AppError

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))  # as `python scripts/demo.py` leaves it out

from sage_studio.catalog import BUILT_IN  # noqa: E402
from sage_studio.data.grading import Question, Verdict, grade  # noqa: E402
from sage_studio.training.presets import load_presets  # noqa: E402

HOME = Path(os.environ.get("SAGE_STUDIO_HOME") or "~/.sage-demo").expanduser()
START_SECONDS = 120.0
ENGINE_SECONDS = 900.0
TRAIN_SECONDS = 1800.0
ANSWER_SECONDS = 300.0
AT_ONCE = 4
"""Questions asked side by side."""
LEAST_RIGHT, MOST_BASE_RIGHT = 0.6, 0.1
RUNNING = ("queued", "preparing", "training", "stopping")
DOCS_RECIPE = {
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
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--docs", action="store_true", help="learn rows of the SAGE documentation instead")
    parser.add_argument("--seed", type=int, default=42, help="of the training")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the studio too, as Ctrl-C does
    timings = Timings()
    with contextlib.ExitStack() as stack:
        client = stack.enter_context(studio(timings, {}))
        if not options.docs:
            return quick_start(client, options.seed, timings)
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
        return one_question(client, dataset, options.seed, timings)


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


def quick_start(client: Client, seed: int, timings: Timings) -> int:
    """Learn the quick-start set and print what the test questions are answered with before and after."""
    with timings.step("add the quick-start set") as notes:
        dataset = client.predict(api_name="/add_quickstart_dataset")
        questions = [Question(**each) for each in client.predict(api_name="/quickstart_test")]
        notes.append(f"{dataset['stats']['total_samples']} rows, {len(questions)} test questions that are not in them")
    with timings.step("start the engine") as notes:
        notes.append(within(ENGINE_SECONDS, client, BUILT_IN, api_name="/switch_model")["model_name"])
    with timings.step("ask the base model") as notes:
        before = ask_all(client, questions)
        notes.append(f"{right_ones(questions, before)} of {len(questions)} right")
    preset = next(each.values for each in load_presets() if each.id == "quickstart-cpu")
    task = fine_tune(client, timings, dataset, {**preset, "name": "quick-start", "seed": seed})
    with timings.step("ask the tuned model") as notes:
        after = ask_all(client, questions)
        notes.append(f"{right_ones(questions, after)} of {len(questions)} right")
    base, tuned = right_ones(questions, before), right_ones(questions, after)
    texts = ([each["response"] for each in answers] for answers in (before, after))
    print(f"\n{answers_table(questions, *texts, width=shutil.get_terminal_size((120, 40)).columns)}")
    print(f"{timings.table()}\n")
    print(f"None of the {len(questions)} questions was trained on. Right: base {base}, tuned {tuned}.")
    answered = {each["model"] for each in after} == {task["served_name"]}
    good = tuned >= LEAST_RIGHT * len(questions) and base <= MOST_BASE_RIGHT * len(questions)
    return 0 if answered and good else 1


def prepare(client: Client, timings: Timings) -> dict[str, Any]:
    """The SAGE documentation as a dataset."""
    with timings.step("prepare the documentation") as notes:
        dataset: dict[str, Any] = client.predict(api_name="/prepare_sage_docs")
        notes.append(f"{dataset['stats']['total_samples']} rows of {dataset['source']}")
    return dataset


def one_question(client: Client, dataset: dict[str, Any], seed: int, timings: Timings) -> int:
    """Ask, train, switch, ask again, and print what it took."""
    question = client.predict(dataset["id"], limit=1, api_name="/preview_dataset")["rows"][0]["instruction"]
    with timings.step("start the engine") as notes:
        notes.append(within(ENGINE_SECONDS, client, BUILT_IN, api_name="/switch_model")["model_name"])
    with timings.step("ask the base model") as notes:
        before = ask(client, question, 96)
        notes.append(f"{before['tokens_per_second'] or 0:.0f} tokens/s")
    task = fine_tune(client, timings, dataset, {**DOCS_RECIPE, "name": "demo", "seed": seed})
    with timings.step("ask the tuned model") as notes:
        after = ask(client, question, 96)
        notes.append(f"{after['tokens_per_second'] or 0:.0f} tokens/s")
    print(f"\nQuestion: {question}\n")
    for said, answer in (("Before", before), ("After", after)):
        print(f"{said} ({answer['model']}):\n  {answer['response'][:400]}\n")
    print(timings.table())
    return 0 if after["model"] == task["served_name"] and after["response"] != before["response"] else 1


def fine_tune(client: Client, timings: Timings, dataset: dict[str, Any], fields: dict[str, Any]) -> dict[str, Any]:
    """Train the built-in model and let the result answer. Returns the task; a failed one ends the demo."""
    with timings.step("fine-tune") as notes:
        given = {"model_name_or_path": BUILT_IN, "dataset_id": dataset["id"], **fields}
        task = follow(client, client.predict(**given, api_name="/start_finetune"))
        loss = f", loss {task['loss']:.2f}" if task["loss"] else ""
        notes.append(f"{task['status']}, {task['step']} steps{loss}")
    if task["status"] != "completed":
        log = client.predict(task["id"], api_name="/task_logs")
        sys.exit(f"The training is {task['status']}. {task['reason']} {task['hint']}\n{log}")
    with timings.step("set as backend") as notes:
        notes.append(within(ENGINE_SECONDS, client, task["id"], api_name="/use_as_backend")["model_name"])
    return task


def follow(client: Client, task: dict[str, Any]) -> dict[str, Any]:
    """Show a task's progress until it is over; one that takes too long is stopped."""
    shown, deadline, stopped = "", time.monotonic() + TRAIN_SECONDS, False
    while task["status"] in RUNNING:
        line = f"  {task['status']} {task['progress']:.0f} %  step {task['step'] or 0}/{task['total_steps'] or '?'}"
        if line != shown:
            print(line, flush=True)
            shown = line
        if time.monotonic() > deadline and not stopped:
            print(f"  stopped: it took more than {TRAIN_SECONDS:.0f} s", flush=True)
            client.predict(task["id"], api_name="/stop_task")
            stopped = True
        time.sleep(1)
        task = client.predict(task["id"], api_name="/get_task")
    return task


def ask_all(client: Client, questions: Sequence[Question]) -> list[dict[str, Any]]:
    """The answers of the current model, in the order of the questions."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(lambda question: ask(client, question.question, 40), questions))


def ask(client: Client, question: str, max_tokens: int) -> dict[str, Any]:
    """The whole answer, without chance."""
    return within(ANSWER_SECONDS, client, question, temperature=0.0, max_tokens=max_tokens, api_name="/chat")


def within(seconds: float, client: Client, *given: Any, **named: Any) -> dict[str, Any]:
    """What an endpoint answers. Raises `TimeoutError` when it takes longer."""
    answer: dict[str, Any] = client.submit(*given, **named).result(timeout=seconds)
    return answer


def right_ones(questions: Sequence[Question], answers: Sequence[dict[str, Any]]) -> int:
    """How many answers are right."""
    return sum(grade(question, each["response"]).right for question, each in zip(questions, answers, strict=True))


def answers_table(questions: Sequence[Question], before: Sequence[str], after: Sequence[str], width: int) -> str:
    """The questions with both answers, wrapped to columns within ``width`` characters, and the totals."""
    columns = [max(20, share) for share in _shares(width)]
    verdicts = [[grade(*pair) for pair in zip(questions, said, strict=True)] for said in (before, after)]
    lines = [_line(["Question", "Base", "Tuned"], columns), "─" * (sum(columns) + 6)]
    for question, base, tuned, was, now in zip(questions, before, after, *verdicts, strict=True):
        lines += [_line([question.question, _judged(base, was), _judged(tuned, now)], columns), ""]
    totals = [f"{sum(verdict.right for verdict in some)} of {len(questions)} right" for some in verdicts]
    return "\n".join([*lines[:-1], "─" * (sum(columns) + 6), _line(["", *totals], columns)])


def _shares(width: int) -> tuple[int, int, int]:
    room = min(width, 160) - 6
    return room * 3 // 10, room * 4 // 10, room * 3 // 10


def _judged(answer: str, verdict: Verdict) -> str:
    short = " ".join(answer.split())
    return f"{'✓' if verdict.right else '✗'} {short if len(short) <= 110 else short[:109] + '…'}"


def _line(cells: Sequence[str], columns: Sequence[int]) -> str:
    wrapped = [textwrap.wrap(cell, column) or [""] for cell, column in zip(cells, columns, strict=True)]
    height = max(map(len, wrapped))
    padded = [lines + [""] * (height - len(lines)) for lines in wrapped]
    rows = zip(*padded, strict=True)
    return "\n".join("   ".join(f"{cell:<{column}}" for cell, column in zip(row, columns, strict=True)) for row in rows)


if __name__ == "__main__":
    sys.exit(main())
