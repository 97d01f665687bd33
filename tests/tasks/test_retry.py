"""Memory that was not enough: once again with a smaller batch, and what is offered after that."""

import pytest

from sage_studio.errors import Conflict, NotFound
from sage_studio.tasks.scheduler import prepare_smaller_batch
from sage_studio.tasks.task import TaskStatus
from sage_studio.training.failures import BY_REASON, Action, next_action, smaller_batch
from sage_studio.training.progress import Reason, read_job
from sage_studio.training.recipes import load_recipe

COMPLETED, FAILED, STOPPED = TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.STOPPED


def test_once_it_is_tried_again_unasked_and_said_in_the_log_and_in_the_task(run_scheduler, create, reaches):
    run_scheduler()
    task = create("greedy", per_device_train_batch_size=2, gradient_accumulation_steps=3)
    done = reaches(task, COMPLETED)
    said = "Memory was not enough for batch size 2: again with batch size 1, accumulated 6 times."
    assert done.reason.en == said
    assert "批大小 1" in done.reason.zh
    assert said in (done.folder / "train.log").read_text()
    recipe = load_recipe(done.folder / "recipe.yaml")
    assert (recipe.per_device_train_batch_size, recipe.gradient_accumulation_steps) == (1, 6)
    assert done.recipe == recipe.model_dump(mode="json")
    assert (done.folder / "result.1.json").exists()
    assert read_job(done.folder).resume, "a step is as many rows as before"


def test_not_a_second_time_unasked(run_scheduler, create, reaches):
    scheduler = run_scheduler()
    task = create("greedy", per_device_train_batch_size=8)
    failed = reaches(task, FAILED)
    assert failed.recipe["per_device_train_batch_size"] == 4
    assert (failed.reason_class, failed.next_action) == (Reason.MEMORY, Action.SMALLER_BATCH)
    scheduler.retry_smaller(failed)
    assert reaches(task, FAILED).recipe["per_device_train_batch_size"] == 2
    scheduler.retry_smaller(failed)
    assert reaches(task, COMPLETED).recipe["per_device_train_batch_size"] == 1


def test_a_batch_of_one_row_is_not_tried_again(run_scheduler, create, reaches):
    scheduler = run_scheduler()
    failed = reaches(create("fail"), FAILED)
    assert failed.next_action is Action.OTHER_SETTINGS
    with pytest.raises(Conflict, match="one row already"):
        scheduler.retry_smaller(failed)


def test_only_what_is_over_is_tried_again(run_scheduler, create, reaches):
    scheduler = run_scheduler()
    with pytest.raises(Conflict, match="neither stopped nor failed"):
        scheduler.retry_smaller(reaches(create(), COMPLETED))


def test_a_folder_that_is_gone_is_named(create, store):
    import shutil

    task = create(per_device_train_batch_size=2)
    shutil.rmtree(task.folder)
    with pytest.raises(NotFound, match="gone"):
        prepare_smaller_batch(task)


@pytest.mark.parametrize(
    ("before", "after"), [((2, 1), (1, 2)), ((8, 2), (4, 4)), ((3, 1), (1, 3)), ((5, 1), (2, 3)), ((1, 4), (1, 4))]
)
def test_a_step_has_at_least_as_many_rows_as_before(before, after):
    names = ("per_device_train_batch_size", "gradient_accumulation_steps")
    assert smaller_batch(dict(zip(names, before, strict=True))) == dict(zip(names, after, strict=True))
    assert after[0] * after[1] >= before[0] * before[1]


def test_where_a_step_changes_it_begins_anew(create):
    task = create(per_device_train_batch_size=5)
    prepare_smaller_batch(task)
    assert not read_job(task.folder).resume


def test_every_class_of_failure_has_a_next_action():
    assert set(BY_REASON) | {Reason.MEMORY} == set(Reason)
    assert next_action(None, {}) is Action.RESUME
    assert next_action(Reason.UNHEALTHY, {}) is Action.LOWER_RATE


def test_a_task_that_goes_on_has_no_next_action(create):
    assert create().next_action is None
