"""What the quick start teaches: ``python -m benchmarks.quickstart [--seeds 3] [--first 1] [--answers FILE]``.

For each seed the built-in model learns the quick-start set with the preset ``quickstart-cpu``, through the verbs of the
studio, and is asked the test questions, which are in no row, by the chat engine with temperature 0. Prints how many
answers are right, of the base and of each tuned model, how long the training took from its start to its end, and the
CPU time of it (two cores have 120 s of it a minute; that figure does not depend on what else the machine does). Exit
status 1 when a seed answers less than 60 % rightly, or the base more than 10 %.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil

from sage_studio.catalog import BUILT_IN
from sage_studio.data.grading import Question, grade
from sage_studio.settings import load_settings
from sage_studio.studio import Studio
from sage_studio.tasks.task import TaskStatus

PRESET = "quickstart-cpu"
LEAST_RIGHT, MOST_BASE_RIGHT = 0.6, 0.1
AT_ONCE, MAX_TOKENS = 4, 40


def main() -> int:
    """Train, ask and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--answers", type=Path, help="write every answer and its verdict here, as JSON lines")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        studio = Studio(load_settings(home=Path(home)))
        studio.start()
        try:
            return measure(studio, range(options.first, options.first + options.seeds), options.answers)
        finally:
            studio.close()


def measure(studio: Studio, seeds: Sequence[int], written: Path | None) -> int:
    """The table of seeds. Returns the exit status."""
    dataset, questions = studio.datasets.add_quickstart(), studio.datasets.quickstart_test()
    fields = next(preset.values for preset in studio.presets.all() if preset.id == PRESET)
    studio.serving.switch(BUILT_IN)
    base = ask_all(studio, questions, "base", written)
    print(f"{dataset.stats.total_samples} rows, {len(questions)} test questions, base right on {base}", flush=True)
    print("seed   base   tuned   wall s   CPU s", flush=True)
    good = base <= MOST_BASE_RIGHT * len(questions)
    for seed in seeds:
        task_id, wall, cpu = train(studio, {**fields, "dataset_id": dataset.id, "seed": seed})
        studio.serving.use_task(task_id)
        tuned = ask_all(studio, questions, f"seed {seed}", written)
        print(f"{seed:4}  {base:5}  {tuned:6}  {wall:7.0f}  {cpu:6.0f}", flush=True)
        good = good and tuned >= LEAST_RIGHT * len(questions)
    return 0 if good else 1


def train(studio: Studio, fields: dict[str, Any]) -> tuple[str, float, float]:
    """Train to the end. Returns the task, its seconds and its seconds of CPU time."""
    begun, cpu = time.monotonic(), 0.0
    task = studio.training.start({"model_name_or_path": BUILT_IN, **fields})
    while not task.status.is_over:
        cpu = max(cpu, trainer_cpu(task.id))
        time.sleep(0.5)
        task = studio.tasks.get(task.id)
    if task.status is not TaskStatus.COMPLETED:
        sys.exit(f"{task.id} is {task.status}: {task.reason.en}")
    return task.id, time.monotonic() - begun, cpu


def trainer_cpu(task_id: str) -> float:
    """CPU seconds of the process that trains a task, so far."""
    for process in psutil.Process().children(recursive=True):
        try:
            if any(task_id in word for word in process.cmdline()):
                times = process.cpu_times()
                return float(times.user + times.system)
        except psutil.NoSuchProcess:
            continue
    return 0.0


def ask_all(studio: Studio, questions: Sequence[Question], who: str, written: Path | None) -> int:
    """How many answers of the current model are right."""

    def ask(question: Question) -> str:
        message = [{"role": "user", "content": question.question}]
        chunks = studio.chat.answer(message, temperature=0.0, max_tokens=MAX_TOKENS)  # type: ignore[arg-type]
        return "".join(chunk.text for chunk in chunks)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = list(pool.map(ask, questions))
    verdicts = [grade(*pair) for pair in zip(questions, answers, strict=True)]
    if written is not None:
        with written.open("a", encoding="utf-8") as file:
            for question, answer, verdict in zip(questions, answers, verdicts, strict=True):
                line = {"who": who, "question": question.question, "answer": answer}
                file.write(json.dumps({**line, "right": verdict.right, "why": verdict.why.en}) + "\n")
    return sum(verdict.right for verdict in verdicts)


if __name__ == "__main__":
    sys.exit(main())
