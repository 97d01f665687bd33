"""Long work on a dataset: seen from outside while it runs, stopped, gone on with, and found again after the studio."""

import threading

import pytest
from waiting import patient

from sage_studio.data.jobs import INTERRUPTED, Jobs, JobState
from sage_studio.errors import Conflict, InvalidInput, InvalidName, NotFound
from sage_studio.text import Text

DOING = Text("working", "处理中")


@pytest.fixture
def jobs(tmp_path) -> Jobs:
    return Jobs(tmp_path / "jobs")


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


def test_a_job_runs_and_says_what_came_of_it(jobs):
    steps = Steps()
    job = jobs.start("augment", "a-v1", {"steps": 2}, steps)
    assert (job.state, job.kind, job.dataset_id) == (JobState.RUNNING, "augment", "a-v1")
    steps.may.release(2)
    done = jobs.wait(job.id)
    assert (done.state, done.done, done.total, done.result) == (JobState.COMPLETED, 2, 2, "made-v1")
    assert Jobs(jobs._folder).get(job.id) == done
    with pytest.raises(Conflict, match="completed"):
        jobs.resume(job.id, steps)


def test_a_job_that_is_stopped_goes_on_where_it_was(jobs):
    steps = Steps()
    job = jobs.start("augment", "a-v1", {"steps": 5}, steps)
    assert steps.reached.acquire(timeout=patient())
    jobs.stop(job.id)
    steps.may.release()
    stopped = jobs.wait(job.id)
    assert (stopped.state, stopped.done, stopped.total) == (JobState.STOPPED, 1, 5)
    steps.may.release(4)
    jobs.resume(job.id, steps)
    assert jobs.wait(job.id).state is JobState.COMPLETED


def test_a_job_that_the_studio_left_behind_is_found_and_gone_on_with(jobs):
    steps = Steps()
    job = jobs.start("augment", "a-v1", {"steps": 3}, steps)
    assert steps.reached.acquire(timeout=patient())
    later = Jobs(jobs._folder)  # the studio was killed: another one sees only what lies on the disk
    found = later.get(job.id)
    assert (found.state, found.message) == (JobState.STOPPED, INTERRUPTED)
    assert [each.id for each in later.list("a-v1")] == [job.id]
    assert later.list("b-v1") == []
    steps.may.release(3)
    jobs.close()
    later.delete(job.id)
    with pytest.raises(NotFound):
        later.get(job.id)


def test_closing_stops_what_runs(jobs):
    steps = Steps()
    job = jobs.start("augment", "a-v1", {"steps": 9}, steps)
    assert steps.reached.acquire(timeout=patient())
    steps.may.release()
    jobs.close()
    assert jobs.get(job.id).state is JobState.STOPPED


def test_the_same_work_is_not_done_twice_at_once(jobs):
    steps = Steps()
    job = jobs.start("report", "a-v1", {"steps": 1}, steps)
    assert steps.reached.acquire(timeout=patient())
    with pytest.raises(Conflict, match=job.id):
        jobs.start("report", "a-v1", {"steps": 1}, steps)
    with pytest.raises(Conflict, match="running"):
        jobs.delete(job.id)
    with pytest.raises(Conflict, match="running"):
        jobs.resume(job.id, steps)
    other = jobs.start("report", "b-v1", {"steps": 1}, steps)
    steps.may.release(2)
    assert {jobs.wait(each.id).state for each in (job, other)} == {JobState.COMPLETED}


def test_a_fault_is_kept_in_words(jobs):
    def fail(running):
        raise InvalidInput(Text("no", "不"), Text("do", "做"))

    job = jobs.wait(jobs.start("report", "a-v1", {}, fail).id)
    assert (job.state, job.message, job.hint) == (JobState.FAILED, Text("no", "不"), Text("do", "做"))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_fault_without_a_name_ends_the_job_too(jobs):
    def fail(running):
        raise ZeroDivisionError

    job = jobs.wait(jobs.start("report", "a-v1", {}, fail).id)
    assert job.state is JobState.FAILED
    assert "unexpected" in job.message.en


def test_names_that_lead_out_are_refused(jobs):
    with pytest.raises(InvalidName):
        jobs.get("../../etc")
    with pytest.raises(NotFound):
        jobs.get("augment-1-none")
