"""A task folder as the studio writes it, and two ways to run it: in this process (fast) and as the real child."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from waiting import TRAINING, wait_until

from sage_studio.settings import PROJECT
from sage_studio.training.progress import Result, TrainingJob, read_events, read_result

COLOURS = ("red", "green", "blue", "amber", "black", "white", "pink", "grey")
TINY = {
    "per_device_train_batch_size": 2,
    "learning_rate": 5e-3,
    "max_length": 96,
    "num_train_epochs": 1,
    "lora_r": 8,
    "lora_dropout": 0.0,
}


def row(question: str, answer: str) -> dict[str, Any]:
    return {
        "prompt": [{"role": "user", "content": question}],
        "completion": [{"role": "assistant", "content": answer}],
        "origin": {"file": "test.jsonl"},
    }


ROWS = [row(f"What colour is thing {number}?", f"It is {colour}.") for number, colour in enumerate(COLOURS)]


@dataclass(frozen=True)
class TaskFolder:
    """A task folder and what happened in it."""

    path: Path

    def run(self, expect: int = 0) -> Result:
        """Follow the recipe in this process."""
        from sage_studio.training.run import StopRequest
        from sage_studio.training.runner import follow

        assert follow(self.path, StopRequest()) == expect, self.result()
        return self.result()

    def spawn(self, prefix: Sequence[str] = ()) -> "subprocess.Popen[bytes]":
        """Start the real child, its output in train.log."""
        command = [*prefix, sys.executable, "-m", "sage_studio.training", str(self.path)]
        with (self.path / "train.log").open("ab") as log:
            return subprocess.Popen(
                command, cwd=PROJECT, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"}
            )

    def result(self) -> Result:
        result = read_result(self.path)
        assert result is not None
        return result

    def wait_for(self, what: Callable[["TaskFolder"], bool]) -> None:
        """Wait until a condition holds; fails with the log after a deadline."""
        try:
            wait_until(lambda: what(self), TRAINING)
        except AssertionError as error:
            error.add_note((self.path / "train.log").read_text())
            raise

    @property
    def steps(self) -> int:
        return max((event.step or 0 for event in read_events(self.path)[0]), default=0)

    @property
    def losses(self) -> list[float]:
        return [event.loss for event in read_events(self.path)[0] if event.loss is not None]


@pytest.fixture
def new_task(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., TaskFolder]:
    """Make a task folder: rows, recipe fields that differ from `TINY`, and what to say in the job.

    The model is the tiny one unless the job names another.
    """
    import torch

    from sage_studio.training import environment

    torch.set_num_threads(1)  # for so small a model a second thread only waits, all the more on a busy machine
    monkeypatch.setattr(environment, "prepare", lambda _: None)  # it sets variables of this whole process

    def make(
        rows: list[dict[str, Any]] | None = None, job: dict[str, Any] | None = None, name: str = "task", **recipe: Any
    ) -> TaskFolder:
        folder = tmp_path / name
        folder.mkdir()
        data = tmp_path / f"{name}.jsonl"
        data.write_text("".join(json.dumps(each) + "\n" for each in (ROWS if rows is None else rows)))
        orders = {"data_path": str(data), **(job or {})}
        if "model_location" not in orders:
            orders["model_location"] = str(request.getfixturevalue("tiny_model"))
        (folder / "job.json").write_text(TrainingJob(**orders).model_dump_json())
        fields = {"model_name_or_path": "tiny", "dataset_id": "rows", **TINY, **recipe}
        (folder / "recipe.yaml").write_text(yaml.safe_dump(fields))
        return TaskFolder(folder)

    return make
