"""Background tasks: queued per resource, seen while they run, stopped, continued, and found again after the studio."""

import os
import sys
import threading

import pytest
from waiting import patient, wait_until

from sage_studio.data.jobs import JobState
from sage_studio.errors import Conflict, InvalidInput, InvalidName, NotFound, storage_full
from sage_studio.processes import start_detached
from sage_studio.tasks.background import CAPACITY, INTERRUPTED, WAITING, BackgroundTasks, Resource
from sage_studio.tasks.store import TaskStore
from sage_studio.tasks.task import TaskStatus
from sage_studio.text import verbatim

DOING = verbatim("working", "处理中")


@pytest.fixture
def studio(database, settings):
    """A studio's background tasks; called again, those of a studio that is started after it on the same home."""

    def studio() -> BackgroundTasks:
        store = TaskStore(database, settings.outputs_dir, settings.jobs_dir)
        return BackgroundTasks(store, settings.jobs_dir)

    return studio


@pytest.fixture
def jobs(studio) -> BackgroundTasks:
    return studio()


def start(jobs, kind, dataset_id, order, work, resource=Resource.CPU):
    jobs.register(kind, work, resource)
    return jobs.start(kind, dataset_id, order)


class Steps:
    """Work of ten steps, each of which waits until it is let go; it goes on behind what it has written."""

    def __init__(self) -> None:
        self.may, self.reached = threading.Semaphore(0), threading.Semaphore(0)

    def __call__(self, running):
        path = running.folder / "steps"
        done = len(path.read_text()) if path.exists() else 0
        while done < running.order["steps"]:
            self.reached.release()
            assert self.may.acquire(timeout=patient())
            done += 1
            path.write_text("x" * done)
            running.tell(done, running.order["steps"], DOING)
        return "made-v1"


def test_a_job_runs_and_says_what_came_of_it(jobs, studio):
    steps = Steps()
    job = start(jobs, "augment", "a-v1", {"steps": 2}, steps)
    assert (job.state, job.kind, job.dataset_id) == (JobState.RUNNING, "augment", "a-v1")
    steps.may.release(2)
    done = jobs.wait(job.id)
    assert (done.state, done.done, done.total, done.result) == (JobState.COMPLETED, 2, 2, "made-v1")
    assert studio().get(job.id) == done
    with pytest.raises(Conflict, match="completed"):
        jobs.resume(job.id)


def test_a_job_that_is_stopped_goes_on_where_it_was(jobs):
    steps = Steps()
    job = start(jobs, "augment", "a-v1", {"steps": 5}, steps)
    assert steps.reached.acquire(timeout=patient())
    jobs.stop(job.id)
    steps.may.release()
    stopped = jobs.wait(job.id)
    assert (stopped.state, stopped.done, stopped.total) == (JobState.STOPPED, 1, 5)
    steps.may.release(4)
    jobs.resume(job.id)
    assert jobs.wait(job.id).state is JobState.COMPLETED


def test_a_job_that_the_studio_left_behind_is_found_and_gone_on_with(jobs, studio):
    steps = Steps()
    job = start(jobs, "augment", "a-v1", {"steps": 3}, steps)
    assert steps.reached.acquire(timeout=patient())
    later = studio()  # the studio was killed: another one sees only what lies on the disk
    later.register("augment", lambda running: "made-later", Resource.CPU)
    later.recover()
    found = later.get(job.id)
    assert (found.state, found.message) == (JobState.STOPPED, INTERRUPTED)
    assert [each.id for each in later.list("a-v1")] == [job.id]
    assert later.list("b-v1") == []
    later.resume(job.id)
    assert later.wait(job.id).result == "made-later"
    steps.may.release(3)
    jobs.close()
    later.delete(job.id)
    with pytest.raises(NotFound):
        later.get(job.id)
    assert not (later._folder / job.id).exists()


def test_what_waited_when_the_studio_was_killed_runs_in_the_next_one(jobs, studio):
    steps = Steps()
    first = start(jobs, "augment", "a-v1", {"steps": 1}, steps, Resource.ENGINE)
    assert steps.reached.acquire(timeout=patient())
    second = start(jobs, "augment", "b-v1", {"steps": 1}, steps, Resource.ENGINE)
    later = studio()
    later.register("augment", lambda running: "made-later", Resource.ENGINE)
    later.recover()
    assert later.wait(second.id).result == "made-later"
    assert later.get(first.id).message == INTERRUPTED
    jobs._closing = True  # the first studio is gone
    steps.may.release()


def test_tasks_queue_for_their_resource_in_order_and_others_go_on(jobs):
    steps, other = Steps(), Steps()
    tasks = [start(jobs, "augment", f"{name}-v1", {"steps": 1}, steps, Resource.ENGINE) for name in "abc"]
    assert steps.reached.acquire(timeout=patient())
    report = start(jobs, "report", "a-v1", {"steps": 1}, other, Resource.CPU)
    assert other.reached.acquire(timeout=patient())
    assert [jobs.get(task.id).doing == WAITING for task in tasks] == [False, True, True]
    assert [jobs.get(task.id).state for task in tasks] == [JobState.RUNNING] * 3
    assert CAPACITY[Resource.ENGINE] == 1
    stopped = jobs.stop(tasks[1].id)
    assert stopped.state is JobState.STOPPED, "it never ran"
    steps.may.release(2)
    other.may.release()
    assert {jobs.wait(each.id).state for each in (tasks[0], tasks[2], report)} == {JobState.COMPLETED}
    assert jobs.get(tasks[1].id).state is JobState.STOPPED


def test_trainings_and_other_tasks_do_not_see_each_other(jobs, create):
    training, job = create(), start(jobs, "report", "a-v1", {}, lambda running: "")
    jobs.wait(job.id)
    store = jobs._store
    assert [task.id for task in store.list()] == [training.id]
    assert [(task.id, task.kind, task.status) for task in store.background()] == [
        (job.id, "report", TaskStatus.COMPLETED)
    ]
    assert store.background()[0].folder == jobs._folder / job.id
    for find, other in ((store.get, job), (store.background_task, training)):
        with pytest.raises(NotFound):
            find(other.id)


def test_phases_are_written_into_the_log(jobs):
    def work(running):
        running.tell(0, 2, verbatim("reading", "读取"))
        running.tell(1, 2, verbatim("writing", "写入"))
        return ""

    job = jobs.wait(start(jobs, "report", "a-v1", {}, work).id)
    lines = (jobs._folder / job.id / "task.log").read_text().splitlines()
    assert [line.split(" ", 2)[2] for line in lines] == ["reading", "writing"]


def test_a_job_of_0_1_is_found(jobs):
    folder = jobs._folder / "augment-1700000000-ab12"
    folder.mkdir(parents=True)
    (folder / "order.json").write_text('{"dataset_id": "a-v1"}')
    (folder / "state.json").write_text(
        '{"id": "augment-1700000000-ab12", "kind": "augment", "dataset_id": "a-v1", "created_at": 1700000000.0,'
        ' "state": "completed", "done": 5, "total": 5, "doing": ["x", "y"], "message": ["", ""], "hint": ["", ""],'
        ' "result": "a-v2"}'
    )
    for _ in range(2):
        jobs.recover()
    (job,) = jobs.list()
    assert (job.id, job.state, job.done, job.result) == (folder.name, JobState.COMPLETED, 5, "a-v2")
    assert jobs.order(job.id) == {"dataset_id": "a-v1"}


def test_a_full_disk_at_the_end_is_told_as_such(jobs, monkeypatch):
    def fail(running):
        def full(*_, **__):
            raise storage_full(running.folder)

        monkeypatch.setattr(jobs._store, "transition", full)
        full()

    job = jobs.wait(start(jobs, "report", "a-v1", {}, fail).id)
    assert job.state is JobState.FAILED
    assert "No room left" in job.message.en


def test_closing_stops_what_runs(jobs):
    steps = Steps()
    job = start(jobs, "augment", "a-v1", {"steps": 9}, steps)
    assert steps.reached.acquire(timeout=patient())
    steps.may.release()
    jobs.close()
    assert jobs.get(job.id).state is JobState.STOPPED


def test_the_same_work_is_not_done_twice_at_once(jobs):
    steps = Steps()
    job = start(jobs, "report", "a-v1", {"steps": 1}, steps)
    assert steps.reached.acquire(timeout=patient())
    with pytest.raises(Conflict, match=job.id):
        start(jobs, "report", "a-v1", {"steps": 1}, steps)
    with pytest.raises(Conflict, match="running"):
        jobs.delete(job.id)
    with pytest.raises(Conflict, match="running"):
        jobs.resume(job.id)
    other = start(jobs, "report", "b-v1", {"steps": 1}, steps)
    steps.may.release(2)
    assert {jobs.wait(each.id).state for each in (job, other)} == {JobState.COMPLETED}


def test_a_fault_is_kept_in_words(jobs):
    def fail(running):
        raise InvalidInput(verbatim("no", "不"), verbatim("do", "做"))

    job = jobs.wait(start(jobs, "report", "a-v1", {}, fail).id)
    assert (job.state, job.message, job.hint) == (JobState.FAILED, verbatim("no", "不"), verbatim("do", "做"))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_fault_without_a_name_ends_the_job_too(jobs):
    def fail(running):
        raise ZeroDivisionError

    job = jobs.wait(start(jobs, "report", "a-v1", {}, fail).id)
    wait_until(lambda: job.id not in {thread.name for thread in threading.enumerate()})
    assert job.state is JobState.FAILED
    assert "unexpected" in job.message.en


def test_names_that_lead_out_are_refused(jobs):
    with pytest.raises(InvalidName):
        jobs.get("../../etc")
    with pytest.raises(NotFound):
        jobs.get("augment-1-none")


def test_work_in_the_callers_thread_is_a_task_meanwhile(jobs):
    seen = []

    def work(running):
        (task,) = jobs._store.background()
        seen.append((task.kind, task.model, task.status, jobs.get(task.id).state, threading.current_thread()))
        return "made"

    jobs.register("unpack", work, Resource.CPU)
    assert jobs.run("unpack", {"model": "m"}) == "made"
    assert seen == [("unpack", "m", TaskStatus.RUNNING, JobState.RUNNING, threading.current_thread())]
    assert [(job.kind, job.state) for job in jobs.list()] == [("unpack", JobState.COMPLETED)]


def test_what_it_raises_is_raised_and_kept_and_it_can_be_resumed(jobs):
    broken = [InvalidInput(verbatim("no", "不"), verbatim("do", "做"))]

    def work(running):
        for error in broken:
            raise error
        return "made"

    jobs.register("unpack", work, Resource.CPU)
    with pytest.raises(InvalidInput, match="no"):
        jobs.run("unpack", {"model": "m"})
    (job,) = jobs.list()
    assert (job.state, job.message.en) == (JobState.FAILED, "no")
    broken.clear()
    jobs.resume(job.id)
    assert jobs.wait(job.id).result == "made"


def test_a_kind_that_forgets_leaves_nothing_of_what_completed(jobs):
    jobs.register("inspect", lambda running: "", Resource.CPU, forgets=True)
    jobs.run("inspect", {"model": "m"})
    assert jobs.list() == []
    assert list(jobs._folder.iterdir()) == []


def test_one_task_for_a_model_is_enough(jobs):
    steps = Steps()
    jobs.register("download", steps, Resource.NETWORK)
    first = jobs.ensure("download", {"model": "m", "steps": 1})
    assert steps.reached.acquire(timeout=patient())
    assert jobs.ensure("download", {"model": "m", "steps": 1}).id == first.id
    other = jobs.ensure("download", {"model": "n", "steps": 1})
    assert other.id != first.id
    steps.may.release(2)
    assert {jobs.wait(each.id).state for each in (first, other)} == {JobState.COMPLETED}


@pytest.mark.parametrize("orderly", [True, False])
def test_a_kind_that_restarts_runs_again_in_the_next_studio(jobs, studio, orderly):
    steps = Steps()
    jobs.register("download", steps, Resource.NETWORK, restarts=True)
    job = jobs.ensure("download", {"model": "m", "steps": 3})
    assert steps.reached.acquire(timeout=patient())
    if orderly:
        steps.may.release()
        jobs.close()
    later = studio()
    later.register("download", lambda running: "made-later", Resource.NETWORK, restarts=True)
    later.recover()
    assert later.wait(job.id).result == "made-later"
    jobs._closing = True
    steps.may.release(3)


def test_what_another_process_works_on_is_left_alone(jobs, studio, tmp_path):
    with (tmp_path / "log").open("ab") as log:
        other = start_detached([sys.executable, "-c", "import time; time.sleep(3600)"], os.environ, tmp_path, log)
    jobs.register("unpack", lambda running: "mine", Resource.CPU, restarts=True)
    number = jobs._store.next_number()
    jobs._store.add_background(number, f"unpack-{number}", "unpack", "", {"model": "m"}, 1.0)
    job = f"unpack-{number}"
    jobs._store.transition(job, {TaskStatus.QUEUED}, TaskStatus.RUNNING, pid=other.pid, process_started=other.started)
    jobs.recover()
    assert jobs.get(job).state is JobState.RUNNING
    assert jobs._store.background_task(job).pid == other.pid
    other.stop(patient())
    (jobs._folder / job).mkdir(parents=True, exist_ok=True)
    jobs.recover()
    assert jobs.wait(job).result == "mine"


def test_who_waits_for_a_queued_task_gets_its_result_or_its_error(jobs):
    steps = Steps()
    jobs.register("merge", steps, Resource.MEMORY)
    answers = []

    def wait(model):
        try:
            answers.append(jobs.finish("merge", {"model": model, "steps": 1}))
        except (Conflict, InvalidInput) as error:
            answers.append(error)

    first = threading.Thread(target=wait, args=("m",))
    first.start()
    assert steps.reached.acquire(timeout=patient())
    second = threading.Thread(target=wait, args=("n",))
    second.start()
    waiting = wait_until(lambda: next((job for job in jobs.list() if job.doing == WAITING), None))
    jobs.stop(waiting.id)
    second.join(patient())
    steps.may.release()
    first.join(patient())
    assert answers[1] == "made-v1"
    assert f"{waiting.id} was stopped" in answers[0].message.en

    def fail(running):
        raise InvalidInput(verbatim("no", "不"), verbatim("do", "做"))

    jobs.register("merge", fail, Resource.MEMORY)
    with pytest.raises(InvalidInput, match="no"):
        jobs.finish("merge", {"model": "m"})


def test_who_does_a_task_that_is_stopped_is_told(jobs):
    def work(running):
        jobs.stop(running.job.id)
        running.tell(1, 2, DOING)

    jobs.register("import", work, Resource.NETWORK)
    with pytest.raises(Conflict, match="was stopped"):
        jobs.run("import", {"source": "lab/qa"})
    assert [(job.state, jobs.task(job.id).model) for job in jobs.list()] == [(JobState.STOPPED, "lab/qa")]


def test_only_the_thread_that_works_is_broken_off(jobs):
    def work(running):
        jobs.stop(running.job.id)
        other = threading.Thread(target=running.tell, args=(1, 2, DOING))  # as git's reader does
        other.start()
        other.join()
        told.append(running.job.done)
        running.tell(2, 2, DOING)

    told = []
    assert jobs.wait(start(jobs, "report", "a-v1", {}, work).id).state is JobState.STOPPED
    assert told == [1]


def test_a_command_leaves_its_tasks_to_the_studio(jobs, studio, database, settings):
    command = BackgroundTasks(
        TaskStore(database, settings.outputs_dir, settings.jobs_dir), settings.jobs_dir, queues_only=True
    )
    steps = Steps()
    for each in (jobs, command):
        each.register("report", steps, Resource.CPU)
    jobs.watch()
    job = command.start("report", "a-v1", {"steps": 2})
    assert job.doing == WAITING
    assert steps.reached.acquire(timeout=patient()), "the studio found it in the table"
    jobs._store.transition(job.id, {TaskStatus.RUNNING}, TaskStatus.STOPPING)  # as a command in its own process does
    wait_until(lambda: jobs._running[job.id][0].stop.is_set())
    assert jobs.task(job.id).status is TaskStatus.STOPPING
    steps.may.release()
    wait_until(lambda: jobs.get(job.id).state is JobState.STOPPED)
    command.resume(job.id)
    steps.may.release()
    wait_until(lambda: jobs.get(job.id).state is JobState.COMPLETED)
    jobs.close()


def test_what_a_command_that_died_left_behind_is_found_while_the_studio_runs(jobs):
    jobs.register("mix", lambda running: "made", Resource.CPU, restarts=True)
    number = jobs._store.next_number()
    job = f"mix-{number}"
    (jobs._folder / job).mkdir(parents=True)
    jobs._store.add_background(number, job, "mix", "", {"source": "m"}, 1.0)
    jobs._store.transition(job, {TaskStatus.QUEUED}, TaskStatus.RUNNING, pid=2**22 + 1, process_started=1.0)
    jobs.watch()
    assert wait_until(lambda: jobs.get(job).result) == "made"
    jobs.close()


def test_why_a_task_failed_stands_in_its_log(jobs):
    def fail(running):
        raise InvalidInput(verbatim("no", "不"), verbatim("do", "做"))

    job = jobs.wait(start(jobs, "report", "a-v1", {}, fail).id)
    assert (jobs._folder / job.id / "task.log").read_text().rstrip().endswith("no do")
