"""A store, a scheduler over the fake trainer, and the certainty that no child outlives its test."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from waiting import wait_until

from sage_studio.database import Database
from sage_studio.settings import Settings
from sage_studio.tasks.launcher import ProcessLauncher
from sage_studio.tasks.scheduler import TaskScheduler
from sage_studio.tasks.store import TaskStore
from sage_studio.tasks.task import Task, TaskStatus
from sage_studio.training.progress import TrainingJob
from sage_studio.training.recipes import SFTRecipe

FAKE = (sys.executable, str(Path(__file__).with_name("fake_trainer.py")))
FAKE_PREPARER = (sys.executable, str(Path(__file__).with_name("fake_preparer.py")))


@pytest.fixture
def store(database: Database, settings: Settings) -> TaskStore:
    return TaskStore(database, settings.outputs_dir)


@pytest.fixture
def create(store: TaskStore) -> Callable[..., Task]:
    """Make a task; ``act`` is what the fake trainer is to do, ``prepare`` what is done before."""

    def create(act: str = "complete", prepare: str = "", **recipe: object) -> Task:
        values = {"model_name_or_path": "tiny", "dataset_id": "docs-1", **recipe}
        return store.create(
            SFTRecipe.model_validate(values),
            TrainingJob(model_location="/models/tiny", data_path=act, prepared=not prepare, source=prepare),
            dataset_id="docs-1",
            dataset_name="Docs",
        )

    return create


@pytest.fixture
def run_scheduler(
    store: TaskStore, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., TaskScheduler]]:
    """Start a scheduler over the fake trainer, with quick rounds; closed at the end of the test."""
    monkeypatch.setattr("sage_studio.tasks.scheduler.ROUND_SECONDS", 0.02)
    made: list[TaskScheduler] = []

    def run_scheduler(*hooks: Callable[..., Any], **changes: object) -> TaskScheduler:
        own = settings.model_copy(update=changes)
        preparer = ProcessLauncher(FAKE_PREPARER)
        scheduler = TaskScheduler(store, ProcessLauncher(FAKE), own, *hooks, preparer=preparer)
        made.append(scheduler)
        scheduler.start()
        return scheduler

    yield run_scheduler
    for scheduler in made:
        scheduler.close()


@pytest.fixture
def reaches(store: TaskStore) -> Callable[[Task, TaskStatus], Task]:
    """Wait until a task has a status, and return it as it is then."""

    def reaches(task: Task, status: TaskStatus) -> Task:
        wait_until(lambda: store.get(task.id).status is status)
        return store.get(task.id)

    return reaches


@pytest.fixture(autouse=True)
def _no_child_survives(settings: Settings) -> Iterator[None]:
    yield
    home = str(settings.root.parent)
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and any(part.startswith(home) for part in process.cmdline()):
                leads = os.getpgid(process.pid) == process.pid
                (os.killpg if leads else os.kill)(process.pid, signal.SIGKILL)
        except (psutil.Error, ProcessLookupError):
            continue
