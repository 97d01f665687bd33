"""What the scheduler does about a task whose model and rows are still to be made ready."""

import pytest
from waiting import wait_until

from sage_studio.tasks import scheduler
from sage_studio.tasks.task import TaskStatus
from sage_studio.training.failures import Action
from sage_studio.training.progress import Reason, read_job

QUEUED, PREPARING, TRAINING = TaskStatus.QUEUED, TaskStatus.PREPARING, TaskStatus.TRAINING
STOPPED, COMPLETED, FAILED = TaskStatus.STOPPED, TaskStatus.COMPLETED, TaskStatus.FAILED


def go(task):
    """On with its training, and with its preparation."""
    (task.folder / "come").touch()
    (task.folder / "go").touch()


def come(task):
    """On with its preparation alone."""
    (task.folder / "come").touch()


@pytest.fixture
def in_preparation(store):
    """Wait until a process prepares a task, and has said so."""

    def in_preparation(task):
        wait_until(lambda: store.get(task.id).in_preparation and (task.folder / "progress.jsonl").exists())
        return store.get(task.id)

    return in_preparation


def test_a_task_is_prepared_before_it_is_trained(run_scheduler, create, reaches, in_preparation, store):
    calls = []
    task = create("wait", prepare="wait")
    scheduler = run_scheduler(lambda _: calls.append("before"))
    preparing = in_preparation(task)
    progress = scheduler.progress(preparing)
    assert (progress.now.phase, progress.now.total, progress.now.unit) == ("checking_rows", 10, "rows")
    assert (preparing.started_at, store.training(), calls) == (None, [], [])
    go(task)
    done = reaches(task, COMPLETED)
    assert calls == ["before"]
    assert (done.dataset_id, done.dataset_name) == ("rows-v1", "rows")
    assert done.started_at is not None


def test_it_is_prepared_while_another_is_trained_and_keeps_its_place(
    run_scheduler, create, reaches, in_preparation, store
):
    first = create("wait")
    second, third = create("wait", prepare="wait"), create("wait", prepare="ready")
    run_scheduler(max_running=1)
    reaches(first, TRAINING)
    in_preparation(second)
    wait_until(lambda: read_job(third.folder).prepared and store.get(third.id).status is QUEUED)
    come(second)
    wait_until(lambda: store.get(second.id).status is QUEUED)
    assert [task.id for task in store.queue()] == [second.id, third.id]
    assert [task.id for task in store.training()] == [first.id]
    go(first)
    reaches(second, TRAINING)
    assert store.get(third.id).status is QUEUED


def test_one_that_is_ready_does_not_wait_for_one_that_is_not(run_scheduler, create, reaches, in_preparation):
    slow, quick = create("wait", prepare="wait"), create("complete")
    run_scheduler(max_running=1)
    in_preparation(slow)
    reaches(quick, COMPLETED)
    in_preparation(slow)


def test_only_so_many_are_prepared_at_the_same_time(run_scheduler, create, in_preparation, store):
    tasks = [create("wait", prepare="wait") for _ in range(scheduler.MOST_PREPARING + 1)]
    run_scheduler()
    for task in tasks[:-1]:
        in_preparation(task)
    assert store.get(tasks[-1].id).status is QUEUED
    go(tasks[0])
    in_preparation(tasks[-1])


def test_why_it_cannot_be_prepared_is_told_in_its_own_words_and_it_can_be_mended(run_scheduler, create, reaches, store):
    task = create(prepare="refuse")
    scheduler = run_scheduler()
    failed = reaches(task, FAILED)
    assert (failed.reason_class, failed.reason.zh, failed.started_at) == (Reason.DATA, "第 7 行异常。", None)
    assert failed.next_action is Action.OTHER_DATA
    (task.folder / "mended").touch()
    scheduler.resume(store.get(task.id))
    reaches(task, COMPLETED)


def test_it_can_be_stopped_and_goes_on(run_scheduler, create, reaches, in_preparation, store):
    task = create(prepare="wait")
    scheduler = run_scheduler()
    child = in_preparation(task)
    scheduler.stop(child)
    stopped = reaches(task, STOPPED)
    assert stopped.reason.en == "Stopped."
    go(task)
    scheduler.resume(stopped)
    reaches(task, COMPLETED)


def test_a_process_that_ends_without_a_word_is_told(run_scheduler, create, reaches):
    task = create(prepare="die")
    run_scheduler()
    failed = reaches(task, FAILED)
    assert failed.reason_class is Reason.KILLED
    assert failed.reason.en.startswith("The process that prepares the task ended")
    assert "the last thing it said" in failed.reason.en


def test_it_outlives_the_studio_and_is_found_again(run_scheduler, create, reaches, in_preparation):
    task = create(prepare="wait")
    run_scheduler().close()
    before = run_scheduler()
    child = in_preparation(task)
    before.close()
    run_scheduler()
    assert in_preparation(task).pid == child.pid
    go(task)
    reaches(task, COMPLETED)


def test_what_was_prepared_while_no_studio_ran_is_trained(run_scheduler, create, reaches, in_preparation):
    task = create(prepare="wait")
    before = run_scheduler()
    in_preparation(task)
    before.close()
    go(task)
    wait_until(lambda: read_job(task.folder).prepared)
    run_scheduler()
    reaches(task, COMPLETED)
