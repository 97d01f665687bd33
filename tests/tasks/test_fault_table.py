"""The fault table: what may happen to a training, how the task ends, and that continuing it loses nothing.

Each row is a real training of a tiny model, in processes as the studio starts them. Every fault strikes behind step 7
of 12, with a checkpoint at step 5. Whatever struck, the continued run ends at step 12, and every step's loss is within
1 % of that of a run that nothing happened to. Finer cases of the same faults, with a trainer that trains nothing, stand
in test_scheduler.py.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from paused_trainer import PAUSE
from waiting import TRAINING, patient, wait_until

from sage_studio.data.rows import Example, Message, Origin
from sage_studio.database import Database
from sage_studio.errors import NotFound
from sage_studio.processes import ChildProcess
from sage_studio.settings import PROJECT, load_settings
from sage_studio.tasks.launcher import ProcessLauncher
from sage_studio.tasks.log import read_log
from sage_studio.tasks.scheduler import TaskScheduler
from sage_studio.tasks.store import TaskStore
from sage_studio.tasks.task import Task, TaskStatus
from sage_studio.training.progress import Reason, TrainingJob
from sage_studio.training.recipes import SFTRecipe

STEPS = 12
SCRIPT = Path(__file__).with_name("paused_trainer.py")
COLD = (sys.executable, str(SCRIPT))

pytestmark = pytest.mark.training


class ForkLauncher:
    """Starts real trainings by forking a process that has imported the libraries already."""

    def __init__(self) -> None:
        environment = {**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"}
        self._server = subprocess.Popen(
            [sys.executable, str(SCRIPT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.pids: list[int] = []

    def launch(self, folder: Path) -> ChildProcess:
        self._server.stdin.write(f"{folder}\n")
        self._server.stdin.flush()
        self.pids.append(int(self._server.stdout.readline()))
        process = psutil.Process(self.pids[-1])
        return ChildProcess(process.pid, process.create_time(), process)

    def close(self) -> None:
        self._server.stdin.close()
        self._server.stdout.close()
        self._server.wait(patient(TRAINING))
        for pid in filter(psutil.pid_exists, self.pids):
            os.killpg(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def launcher():
    launcher = ForkLauncher()
    yield launcher
    launcher.close()


@pytest.fixture(scope="module")
def orders(tiny_model, tmp_path_factory):
    """What every run of the table is told."""
    data = tmp_path_factory.mktemp("rows") / "data.jsonl"
    rows = [
        Example((Message("user", f"What is {number}?"),), f"It is the number {number}.", Origin("test", row=number))
        for number in range(2 * STEPS)
    ]
    data.write_text("".join(json.dumps(row.to_json()) + "\n" for row in rows))
    recipe = SFTRecipe(
        model_name_or_path=str(tiny_model),
        dataset_id="d",
        num_train_epochs=1,
        per_device_train_batch_size=2,
        learning_rate=5e-3,
        max_length=64,
        save_steps=5,
        lora_r=4,
    )
    return recipe, TrainingJob(model_location=str(tiny_model), data_path=str(data))


@dataclass
class House:
    """A home with one task in it, and the studio that runs it."""

    store: TaskStore
    scheduler: TaskScheduler
    launcher: ForkLauncher
    task: Task

    @property
    def now(self) -> Task:
        return self.store.get(self.task.id)

    def paused(self) -> Task:
        """Wait until the training has done `PAUSE` steps."""
        wait_until(lambda: (self.task.folder / "paused").exists() or self.now.status.is_over, TRAINING)
        return self.reaches(TaskStatus.TRAINING)

    def reaches(self, status: TaskStatus) -> Task:
        wait_until(lambda: self.now.status in (status, TaskStatus.COMPLETED, TaskStatus.FAILED), TRAINING)
        assert self.now.status is status, (self.now.reason.en, read_log(self.task.folder).lines)
        return self.now

    def go(self) -> None:
        (self.task.folder / "go").touch()

    def losses(self) -> dict[int, float]:
        curve = self.scheduler.curve(self.task, 1000)
        return dict(zip(curve.steps, curve.loss, strict=True))

    def restart(self) -> None:
        """Another studio on the same home."""
        self.scheduler.close()
        self.scheduler = TaskScheduler(self.store, self.launcher, self.scheduler._settings)
        self.scheduler.start()


@pytest.fixture
def house(store, settings, orders, launcher, monkeypatch):
    """A training that has come to step 7."""
    monkeypatch.setattr("sage_studio.tasks.scheduler.ROUND_SECONDS", 0.02)
    task = store.create(*orders, dataset_id="d", dataset_name="D")
    house = House(store, TaskScheduler(store, launcher, settings), launcher, task)
    house.scheduler.start()
    yield house
    house.scheduler.close()


@pytest.fixture(scope="module")
def undisturbed(orders, launcher, tmp_path_factory):
    """Losses by step of a run that nothing happens to."""
    settings = load_settings(home=tmp_path_factory.mktemp("undisturbed"))
    store = TaskStore(Database(settings.database_path), settings.outputs_dir)
    house = House(
        store,
        TaskScheduler(store, launcher, settings),
        launcher,
        store.create(*orders, dataset_id="d", dataset_name="D"),
    )
    house.go()
    house.scheduler.start()
    house.reaches(TaskStatus.COMPLETED)
    house.scheduler.close()
    return house.losses()


def kill_the_trainer(house):
    os.killpg(house.now.pid, signal.SIGKILL)


def ask_the_trainer_to_end(house):
    os.kill(house.now.pid, signal.SIGTERM)


def kill_the_trainer_and_the_studio(house):
    house.scheduler.close()
    kill_the_trainer(house)
    house.restart()


def reboot(house):
    """No process has the recorded pid any more but a stranger that began earlier, or later."""
    house.scheduler.close()
    kill_the_trainer(house)
    stranger = psutil.Process()
    house.store.transition(
        house.task.id,
        {TaskStatus.TRAINING},
        TaskStatus.TRAINING,
        pid=stranger.pid,
        process_started=stranger.create_time() - 1000,
    )
    house.restart()


def take_the_folder_away(house):
    """And put it back once the task has failed."""
    pid, away = house.now.pid, house.task.folder.with_name("away")
    house.task.folder.rename(away)
    wait_until(lambda: house.now.status.is_over, TRAINING)
    with pytest.raises(NotFound, match="gone"):
        house.scheduler.resume(house.now)
    wait_until(lambda: not psutil.pid_exists(pid), TRAINING)
    away.rename(house.task.folder)


def set_the_clock_back_and_kill(house):
    """The trainer goes on an hour earlier and is then killed."""
    now = time.time
    time.time = lambda: now() - 3600
    try:
        kill_the_trainer(house)
        wait_until(lambda: house.now.status.is_over, TRAINING)
    finally:
        time.time = now


FAILED, STOPPED, COMPLETED = TaskStatus.FAILED, TaskStatus.STOPPED, TaskStatus.COMPLETED


@pytest.mark.parametrize(
    ("fault", "ends", "reason", "said"),
    [
        (kill_the_trainer, FAILED, Reason.KILLED, "ended without a result"),
        (ask_the_trainer_to_end, STOPPED, None, f"Stopped at step {PAUSE} of {STEPS}"),
        (kill_the_trainer_and_the_studio, FAILED, Reason.KILLED, "ended without a result"),
        (reboot, FAILED, Reason.KILLED, "ended without a result"),
        (take_the_folder_away, FAILED, Reason.DISK, "folder is gone"),
        (set_the_clock_back_and_kill, FAILED, Reason.KILLED, "ended without a result"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_fault_ends_the_task_with_its_reason_and_continuing_loses_nothing(
    house, undisturbed, fault, ends, reason, said
):
    house.paused()
    fault(house)
    ended = house.reaches(ends)
    assert (ended.reason_class, ended.hint.en != "") == (reason, True)
    assert said in ended.reason.en
    house.go()
    house.scheduler.resume(ended)
    check_completed(house, undisturbed)


def test_a_full_disk(store, settings, orders, launcher, undisturbed, monkeypatch):
    """The outputs lie on a file system too small for the second checkpoint; there is room when it continues."""
    settings.outputs_dir.mkdir(parents=True)
    small = ["mount", "-t", "tmpfs", "-o", "size=900k", "none", str(settings.outputs_dir)]
    if shutil.which("mount") is None or subprocess.run(small, capture_output=True).returncode:
        pytest.skip("may not mount a file system here")
    monkeypatch.setattr("sage_studio.tasks.scheduler.ROUND_SECONDS", 0.02)
    recipe, job = orders
    try:
        task = store.create(recipe, job, dataset_id="d", dataset_name="D")
        house = House(store, TaskScheduler(store, launcher, settings), launcher, task)
        house.go()
        house.scheduler.start()
        failed = house.reaches(TaskStatus.FAILED)
        assert failed.reason_class is Reason.DISK
        assert "full" in failed.reason.en
        subprocess.run(["mount", "-o", "remount,size=50m", str(settings.outputs_dir)], check=True)
        house.scheduler.resume(failed)
        check_completed(house, undisturbed)
    finally:
        house.scheduler.close()
        subprocess.run(["umount", "-l", str(settings.outputs_dir)], check=True)


def test_the_studio_is_killed_and_the_training_goes_on(store, settings, orders, undisturbed, launcher):
    """Nothing to continue: the next studio adopts the training."""
    recipe, job = orders
    task = store.create(recipe, job, dataset_id="d", dataset_name="D")
    script = (
        "import sys, threading\nfrom sage_studio.settings import load_settings\n"
        "from sage_studio.database import Database\nfrom sage_studio.tasks.launcher import ProcessLauncher\n"
        "from sage_studio.tasks.store import TaskStore\nfrom sage_studio.tasks.scheduler import TaskScheduler\n"
        "settings = load_settings(home=sys.argv[1])\n"
        "store = TaskStore(Database(settings.database_path), settings.outputs_dir)\n"
        "TaskScheduler(store, ProcessLauncher(sys.argv[2:]), settings).start()\nthreading.Event().wait(3600)\n"
    )
    studio = subprocess.Popen(
        [sys.executable, "-c", script, str(settings.home), *COLD],
        env={**os.environ, "PYTHONPATH": str(PROJECT), "OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    house = House(store, TaskScheduler(store, ProcessLauncher(COLD), settings), launcher, task)
    try:
        house.paused()
        os.killpg(studio.pid, signal.SIGKILL)
        studio.wait()
        pid = house.now.pid
        assert psutil.Process(pid).is_running()
        house.scheduler.start()
        house.go()
        check_completed(house, undisturbed)
        assert house.now.pid == pid
    finally:
        house.scheduler.close()
        studio.kill()
        studio.wait()


def test_a_clock_set_back_under_a_training_that_goes_on(house, undisturbed):
    house.paused()
    (house.task.folder / "clock").touch()
    house.go()
    check_completed(house, undisturbed)
    assert house.scheduler.progress(house.now).seconds >= 0


def test_two_studios_on_one_home(settings):
    """The second refuses and changes nothing."""
    from sage_studio.studio import Studio

    first = Studio(settings)
    first.start()
    try:
        second = subprocess.run(
            [
                sys.executable,
                "-c",
                "import app; from sage_studio.settings import load_settings\n"
                "from sage_studio.studio import Studio\nStudio(load_settings()).start()",
            ],
            cwd=PROJECT,
            env={**os.environ, "SAGE_STUDIO_HOME": str(settings.home)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert second.returncode != 0
        assert "Another studio already works in" in second.stderr
    finally:
        first.close()


def check_completed(house, undisturbed):
    done = house.reaches(TaskStatus.COMPLETED)
    result = house.scheduler.progress(done).result
    assert (done.reason.en, result.steps, result.total_steps) == ("", STEPS, STEPS)
    losses = house.losses()
    assert list(losses) == list(range(1, STEPS + 1))
    assert losses == pytest.approx(undisturbed, rel=0.01)
