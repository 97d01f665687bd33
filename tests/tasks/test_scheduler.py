"""The life of tasks: the queue, the watch, stopping, continuing, and every way a run can end."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from waiting import patient, wait_until

from sage_studio.errors import Conflict, NotFound
from sage_studio.processes import ChildProcess
from sage_studio.tasks.launcher import ProcessLauncher
from sage_studio.tasks.scheduler import TaskScheduler
from sage_studio.tasks.task import TaskStatus
from sage_studio.text import NOTHING, verbatim
from sage_studio.training.progress import Reason, read_job

QUEUED, PREPARING, TRAINING = TaskStatus.QUEUED, TaskStatus.PREPARING, TaskStatus.TRAINING
STOPPING, STOPPED, COMPLETED, FAILED = (
    TaskStatus.STOPPING, TaskStatus.STOPPED, TaskStatus.COMPLETED, TaskStatus.FAILED
)  # fmt: skip


def is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def go(task):
    (task.folder / "go").touch()


# The way of a task


def test_a_task_runs_to_its_end(run_scheduler, create, reaches, caplog):
    caplog.set_level(logging.INFO, logger="sage_studio")
    task = create("wait")
    scheduler = run_scheduler()
    running = reaches(task, TRAINING)
    assert psutil.Process(running.pid).create_time() == pytest.approx(running.process_started, abs=0.1)
    progress = scheduler.progress(running)
    assert (progress.now.step, progress.now.total_steps, progress.queue_place) == (1, 3, None)
    assert progress.percent == pytest.approx(100 / 3)
    assert progress.result is None
    go(task)
    done = reaches(task, COMPLETED)
    progress = scheduler.progress(done)
    assert (progress.percent, progress.result.status, progress.result.steps) == (100.0, "completed", 3)
    assert 0 < progress.seconds == done.finished_at - done.started_at
    assert scheduler.curve(done, 10).loss == (2.0, 1.0, 0.0)
    assert (done.reason, done.reason_class) == (NOTHING, None)
    wait_until(lambda: not psutil.pid_exists(done.pid))
    wait_until(lambda: f"Task completed: {task.id}" in caplog.text)
    lines = [record.getMessage() for record in caplog.records if task.id in record.getMessage()]
    assert [line.split(":")[0] for line in lines] == ["Queued task", "Started task", "Training task", "Task completed"]


def test_queued_tasks_start_in_order_as_there_is_room(run_scheduler, store, create, reaches):
    tasks = [create("wait") for _ in range(4)]
    scheduler = run_scheduler(max_running=2)
    reaches(tasks[0], TRAINING)
    reaches(tasks[1], TRAINING)
    assert [task.status for task in store.queue()] == [QUEUED, QUEUED]
    assert [scheduler.progress(task).queue_place for task in store.queue()] == [1, 2]
    go(tasks[1])
    reaches(tasks[1], COMPLETED)
    reaches(tasks[2], TRAINING)
    assert store.get(tasks[3].id).status is QUEUED
    assert len(store.running()) == 2


def test_a_failure_of_its_own_is_told_in_its_own_words(run_scheduler, create, reaches):
    run_scheduler()
    failed = reaches(create("fail"), FAILED)
    assert (failed.reason_class, failed.reason.zh, failed.hint.en) == (Reason.MEMORY, "太大。", "Smaller.")


def test_a_trainer_that_does_not_leave_after_its_result_is_killed(run_scheduler, create, reaches, monkeypatch):
    monkeypatch.setattr("sage_studio.tasks.scheduler.LINGER_SECONDS", 0.2)
    run_scheduler()
    done = reaches(create("linger"), COMPLETED)
    assert is_gone(done.pid)


def test_what_a_trainer_leaves_behind_is_killed(run_scheduler, create, reaches):
    run_scheduler()
    done = reaches(create("orphan"), COMPLETED)
    grandchild = int((done.folder / "grandchild").read_text())
    wait_until(lambda: is_gone(grandchild))


# Ends without a result


def test_a_trainer_killed_from_outside(run_scheduler, create, reaches):
    run_scheduler()
    task = reaches(create("wait"), TRAINING)
    os.kill(task.pid, signal.SIGKILL)
    failed = reaches(task, FAILED)
    assert failed.reason_class is Reason.KILLED
    assert "SIGKILL" in failed.reason.en
    assert f"pid {task.pid}" in failed.reason.en, "the last log line"
    assert "SIGKILL" in failed.reason.zh
    assert "memory" in failed.hint.en
    assert not psutil.pid_exists(task.pid), "it was not reaped"


def test_a_trainer_that_leaves_without_a_word(run_scheduler, create, reaches):
    run_scheduler()
    failed = reaches(create("die"), FAILED)
    assert failed.reason_class is Reason.KILLED
    assert failed.reason.en.endswith("the last log line was: the last thing it said")
    assert "SIG" not in failed.reason.en
    assert failed.hint.en.startswith("See the log.")


def test_a_result_that_cannot_be_read(run_scheduler, create, reaches):
    run_scheduler()
    task = reaches(create("wait"), TRAINING)
    (task.folder / "result.json").write_text('{"status": "unheard of"}')
    os.kill(task.pid, signal.SIGKILL)
    failed = reaches(task, FAILED)
    assert failed.reason_class is Reason.BUG
    assert "unheard of" in failed.reason.en


def test_a_child_that_ends_between_two_looks_has_not_crashed(store, settings, create, monkeypatch):
    """It ends, with a result, right after it was seen alive, and right before: both must read as completed."""
    scheduler = TaskScheduler(store, ProcessLauncher(), settings)
    task = create()
    store.transition(task.id, {QUEUED}, TRAINING, pid=1, process_started=1.0)
    child = object.__new__(ChildProcess)
    object.__setattr__(child, "pid", 1)
    object.__setattr__(child, "started", 1.0)
    answers = iter([True, False])

    def looked(_):
        (task.folder / "result.json").write_text('{"status": "completed"}')  # it ends at the moment of the look
        return next(answers)

    monkeypatch.setattr(ChildProcess, "is_alive", looked)
    monkeypatch.setattr(ChildProcess, "kill_group", lambda _: None)
    scheduler._children[task.id] = child
    scheduler._round()
    assert store.get(task.id).status is TRAINING
    scheduler._round()
    assert store.get(task.id).status is COMPLETED


def test_a_folder_removed_under_a_running_task_ends_it_and_no_other(run_scheduler, create, reaches):
    run_scheduler(max_running=2)
    first, second = create("wait"), create("wait")
    first, second = reaches(first, TRAINING), reaches(second, TRAINING)
    first.folder.rename(first.folder.with_name("away"))
    failed = reaches(first, FAILED)
    assert failed.reason_class is Reason.DISK
    assert str(first.folder) in failed.reason.en
    assert is_gone(first.pid)
    go(second)
    reaches(second, COMPLETED)


def test_a_folder_removed_from_a_queued_task_fails_it_and_the_next_one_starts(run_scheduler, create, reaches):
    first, second = create(), create()
    shutil.rmtree(first.folder)
    run_scheduler()
    assert reaches(first, FAILED).reason_class is Reason.DISK
    reaches(second, COMPLETED)


def test_a_child_that_cannot_be_started(store, settings, create, reaches):
    task = create()
    scheduler = TaskScheduler(store, ProcessLauncher(["/no/such/program"]), settings)
    scheduler.start()
    failed = reaches(task, FAILED)
    scheduler.close()
    assert "/no/such/program" in failed.reason.en


# Stopping


def test_stop_of_a_queued_task(run_scheduler, create, reaches, store):
    scheduler = run_scheduler()
    first, second = create("wait"), create("wait")
    scheduler.wake()
    reaches(first, TRAINING)
    stopped = scheduler.stop(second)
    assert stopped.status is STOPPED
    assert stopped.pid is None
    assert "before it started" in stopped.reason.en
    go(first)
    reaches(first, COMPLETED)
    assert store.get(second.id).status is STOPPED


def test_stop_of_a_running_task(run_scheduler, create, reaches):
    scheduler = run_scheduler()
    task = reaches(create("wait"), TRAINING)
    before = time.time()
    stopping = scheduler.stop(task)
    assert stopping.status is STOPPING
    assert before <= stopping.stop_requested_at <= time.time()
    stopped = reaches(task, STOPPED)
    assert scheduler.progress(stopped).result.steps == 1


def test_a_run_that_completes_after_the_request_is_completed(run_scheduler, create, reaches, store):
    scheduler = run_scheduler()
    task = create("finish")
    scheduler.wake()
    wait_until((task.folder / "ready").exists)
    scheduler.stop(store.get(task.id))
    reaches(task, COMPLETED)


def test_stop_twice_is_stop_once(run_scheduler, create, reaches):
    scheduler = run_scheduler()
    task = reaches(create("deaf"), TRAINING)
    first = scheduler.stop(task)
    assert scheduler.stop(task) == first
    assert scheduler.stop(first) == first


def test_a_deaf_trainer_and_its_grandchild_are_killed_after_the_grace(run_scheduler, create, reaches):
    scheduler = run_scheduler(stop_grace_seconds=0.3)
    task = reaches(create("deaf"), TRAINING)
    grandchild = int((task.folder / "grandchild").read_text())
    began = time.monotonic()
    scheduler.stop(task)
    stopped = reaches(task, STOPPED)
    assert time.monotonic() - began >= 0.3
    assert "without a last checkpoint" in stopped.reason.en
    wait_until(lambda: is_gone(task.pid) and is_gone(grandchild))


def test_the_grace_goes_on_through_a_restart(run_scheduler, create, reaches, store):
    first = run_scheduler(stop_grace_seconds=3600)
    task = reaches(create("deaf"), TRAINING)
    first.stop(task)
    first.close()
    store.transition(task.id, {STOPPING}, STOPPING, stop_requested_at=time.time() - 7200)
    run_scheduler(stop_grace_seconds=3600)
    reaches(task, STOPPED)
    assert is_gone(task.pid)


def test_a_clock_set_back_does_not_prolong_the_grace(run_scheduler, create, reaches, store):
    first = run_scheduler(stop_grace_seconds=3600)
    task = reaches(create("deaf"), TRAINING)
    first.stop(task)
    first.close()
    store.transition(task.id, {STOPPING}, STOPPING, stop_requested_at=time.time() + 7200)
    run_scheduler(stop_grace_seconds=0.2)
    reaches(task, STOPPED)


def test_stop_of_a_task_that_is_over(run_scheduler, create, reaches):
    scheduler = run_scheduler()
    done = reaches(create(), COMPLETED)
    with pytest.raises(Conflict, match="completed"):
        scheduler.stop(done)


def test_stop_of_a_task_that_crashed_unseen_says_that_it_crashed(store, settings, create):
    scheduler = TaskScheduler(store, ProcessLauncher(), settings)  # not started: it has not looked
    task = create()
    running = store.transition(task.id, {QUEUED}, TRAINING, pid=2**22 + 1, process_started=1.0)
    with pytest.raises(Conflict, match="failed"):
        scheduler.stop(running)
    assert store.get(task.id).reason_class is Reason.KILLED


# Continuing


def test_a_stopped_task_continues(run_scheduler, create, reaches):
    scheduler = run_scheduler()
    task = reaches(create("wait"), TRAINING)
    scheduler.stop(task)
    stopped = reaches(task, STOPPED)
    queued = scheduler.resume(stopped)
    assert (queued.status, queued.pid, queued.finished_at, queued.stop_requested_at) == (QUEUED, None, None, None)
    assert queued.reason == NOTHING
    done = reaches(task, COMPLETED)
    assert read_job(task.folder).resume is True
    assert json.loads((task.folder / "result.1.json").read_text())["status"] == "stopped"
    assert (task.folder / "train.log").read_text().count("pid ") == 2
    assert scheduler.curve(done, 10).steps == (1, 2, 3)
    assert done.started_at > stopped.started_at


def test_a_failed_task_continues_again_and_again(run_scheduler, create, reaches):
    scheduler = run_scheduler()
    task = create("fail")
    for number in (1, 2):
        failed = reaches(task, FAILED)
        scheduler.resume(failed)
        wait_until((task.folder / f"result.{number}.json").exists)
    reaches(task, FAILED)


def test_a_task_that_is_resumed_is_preparing_until_it_trains_again(run_scheduler, create, reaches, store, settings):
    scheduler = run_scheduler()
    task = reaches(create("wait"), TRAINING)
    scheduler.stop(task)
    reaches(task, STOPPED)
    scheduler.close()
    scheduler.resume(task)
    mute = TaskScheduler(store, ProcessLauncher([sys.executable, "-c", "import time; time.sleep(3600)"]), settings)
    mute._round()
    mute._round()
    assert store.get(task.id).status is PREPARING


@pytest.mark.parametrize("status", [QUEUED, PREPARING, TRAINING, STOPPING, COMPLETED])
def test_only_stopped_and_failed_tasks_continue(store, settings, create, status):
    scheduler = TaskScheduler(store, ProcessLauncher(), settings)
    task = create()
    if status is not QUEUED:
        task = store.transition(task.id, {QUEUED}, status)
    with pytest.raises(Conflict, match=str(status)):
        scheduler.resume(task)
    assert read_job(task.folder).resume is False


def test_a_task_without_folder_or_orders_does_not_continue(store, settings, create):
    scheduler = TaskScheduler(store, ProcessLauncher(), settings)
    task = scheduler.stop(create())
    (task.folder / "job.json").write_text("{")
    with pytest.raises(Conflict, match=r"job\.json"):
        scheduler.resume(task)
    shutil.rmtree(task.folder)
    with pytest.raises(NotFound, match="gone"):
        scheduler.resume(task)
    assert store.get(task.id).status is STOPPED


# Restarts


@pytest.fixture
def studio(settings):
    """A studio in a process of its own; killed at the latest when the test ends."""
    started = []

    def studio(act):
        script = Path(__file__).with_name("studio_process.py")
        root = Path(__file__).parents[2]
        popen = subprocess.Popen(
            [sys.executable, str(script), str(settings.home), act],
            env={**os.environ, "PYTHONPATH": str(root)},
            start_new_session=True,
        )
        started.append(popen)
        return popen

    yield studio
    for popen in started:
        popen.kill()
        popen.wait()


def only_task(store):
    wait_until(lambda: store.list() and store.list()[0].status is TRAINING)
    return store.list()[0]


def test_the_studio_is_killed_and_the_training_goes_on(studio, run_scheduler, store, reaches):
    process = studio("wait")
    task = only_task(store)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert psutil.Process(task.pid).is_running()
    scheduler = run_scheduler()
    assert store.get(task.id).status is TRAINING
    assert scheduler.progress(task).now.step == 1
    go(task)
    done = reaches(task, COMPLETED)
    assert done.pid == task.pid


def test_the_training_completes_while_no_studio_runs(studio, run_scheduler, store, reaches):
    process = studio("wait")
    task = only_task(store)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    go(task)
    wait_until(lambda: is_gone(task.pid))
    run_scheduler()
    reaches(task, COMPLETED)


def test_studio_and_training_are_both_killed(studio, run_scheduler, store, reaches):
    process = studio("wait")
    task = only_task(store)
    os.killpg(process.pid, signal.SIGKILL)
    os.kill(task.pid, signal.SIGKILL)
    process.wait()
    scheduler = run_scheduler()
    failed = reaches(task, FAILED)
    assert failed.reason_class is Reason.KILLED
    scheduler.resume(failed)
    go(task)
    reaches(task, COMPLETED)


def test_an_adopted_training_can_be_stopped(studio, run_scheduler, store, reaches):
    process = studio("wait")
    task = only_task(store)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    scheduler = run_scheduler()
    scheduler.stop(task)
    reaches(task, STOPPED)


def test_after_a_reboot_a_process_with_the_same_pid_is_not_the_trainer(run_scheduler, store, create, reaches):
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"], start_new_session=True)
    try:
        task, stopping = create(), create()
        started = psutil.Process(stranger.pid).create_time() - 1000
        store.transition(task.id, {QUEUED}, TRAINING, pid=stranger.pid, process_started=started)
        store.transition(
            stopping.id, {QUEUED}, STOPPING, pid=stranger.pid, process_started=started, stop_requested_at=1.0
        )
        run_scheduler(stop_grace_seconds=0.01)
        assert reaches(task, FAILED).reason_class is Reason.KILLED
        reaches(stopping, STOPPED)
        assert stranger.poll() is None, "a stranger was signalled"
    finally:
        stranger.kill()
        stranger.wait()


def test_a_studio_killed_before_it_started_the_child_queues_it_again(run_scheduler, store, create, reaches):
    task = create()
    store.transition(task.id, {QUEUED}, PREPARING, started_at=1.0)
    run_scheduler()
    reaches(task, COMPLETED)


def test_a_studio_killed_before_it_recorded_the_child_finds_it(run_scheduler, store, create, reaches, settings):
    scheduler = run_scheduler()
    task = reaches(create("wait"), TRAINING)
    scheduler.close()
    store.transition(task.id, {TRAINING}, PREPARING, pid=None, process_started=None)
    run_scheduler()
    assert reaches(task, TRAINING).pid == task.pid
    wait_until(lambda: store.get(task.id).pid == task.pid)
    assert (task.folder / "train.log").read_text().count("pid ") == 1, "it was started twice"


# The scheduler itself


def test_close_leaves_the_children_and_ends_the_thread(run_scheduler, create, reaches):
    scheduler = run_scheduler()
    task = reaches(create("wait"), TRAINING)
    scheduler.close()
    assert "task-scheduler" not in {thread.name for thread in threading.enumerate()}
    assert not is_gone(task.pid)
    scheduler.close()


def test_a_database_error_does_not_end_the_scheduler(run_scheduler, create, reaches, store, monkeypatch, caplog):
    import sqlite3

    running, broken = store.running, threading.Event()

    def failing():
        broken.set()
        raise sqlite3.OperationalError("disk I/O error")

    scheduler = run_scheduler()
    with monkeypatch.context() as patch:
        patch.setattr(store, "running", failing)
        scheduler.wake()
        assert broken.wait(patient())
    assert store.running == running
    reaches(create(), COMPLETED)
    assert "disk I/O error" in caplog.text


def test_a_full_disk_at_the_start_of_a_child_fails_the_task_by_name(store, settings, create, reaches):
    import errno

    class Full:
        def launch(self, folder):
            from sage_studio.errors import naming_full_disk

            with naming_full_disk(folder):
                raise OSError(errno.ENOSPC, "No space left on device")

    task = create()
    scheduler = TaskScheduler(store, Full(), settings)
    scheduler._round()
    failed = store.get(task.id)
    assert (failed.status, failed.reason_class) == (FAILED, Reason.DISK)
    assert "No room left" in failed.reason.en
    assert "SAGE_STUDIO_HOME" in failed.hint.en


@pytest.mark.parametrize(("step", "total", "percent"), [(0, 0, 0.0), (5, 0, 0.0), (5, 10, 50.0), (12, 10, 100.0)])
def test_percent_is_within_bounds(store, settings, create, step, total, percent):
    task = create()
    event = {"time": 1.0, "phase": "training", "step": step, "total_steps": total}
    (task.folder / "progress.jsonl").write_text(json.dumps(event) + "\n")
    assert TaskScheduler(store, ProcessLauncher(), settings).progress(task).percent == percent


def test_somebody_makes_room_before_a_child_starts_and_is_told_when_it_ended(store, run_scheduler, create):
    order: list[str] = []

    def before_start(_: object) -> None:
        order.append("before")
        if len(order) < 3:
            raise Conflict(verbatim("not yet", "稍候"))

    task = create()
    run_scheduler(before_start, lambda: order.append("after"))
    wait_until(lambda: "after" in order)
    assert order == ["before", "before", "before", "after"], "refused, it waits in the queue"
    assert store.get(task.id).status is TaskStatus.COMPLETED
