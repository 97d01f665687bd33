"""Runs again and beside each other: reproducing, the next action, comparing."""

import pytest
from model_folder import write_model

from sage_studio.errors import Conflict, InvalidInput, NotFound
from sage_studio.studio import Studio
from sage_studio.tasks.compare import differing
from sage_studio.tasks.task import TaskStatus
from sage_studio.training.failures import LOWER_RATE_FACTOR
from sage_studio.training.progress import Reason, read_job
from sage_studio.training.recipes import parse_recipe
from sage_studio.training.save import LINEAGE, base_revision, changed_versions, read_lineage, write_lineage

COMPLETED, FAILED, QUEUED = TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.QUEUED


@pytest.fixture
def model(tmp_path):
    return write_model(tmp_path / "model")


@pytest.fixture
def studio(settings):
    """Nothing supervises: a task stays as a test puts it."""
    return Studio(settings)


@pytest.fixture
def dataset(studio, tmp_path):
    path = tmp_path / "rows.json"
    path.write_text('[{"instruction": "a", "output": "b"}]')
    return studio.datasets.upload(path)


@pytest.fixture
def completed(studio, model, dataset):
    """A completed task with what its trainer left."""
    task = studio.training.start({"model_name_or_path": str(model), "dataset_id": dataset.id, "learning_rate": 1e-3})
    (task.folder / "training_args.json").write_text("{}")
    write_lineage(
        task.folder,
        dataset_id=dataset.id,
        dataset_sha256=dataset.sha256,
        docs_commit="",
        rows=1,
        base_model=str(model),
        base_revision=base_revision(str(model)),
        chat_template_sha256="",
        versions={"trl": "1.15"},
        hardware="CPU",
        recipe=task.recipe,
    )
    return studio.tasks.store.transition(task.id, {QUEUED}, COMPLETED)


def test_a_run_is_queued_again_as_it_was(studio, completed):
    again = studio.training.reproduce(completed.id)
    assert (again.status, again.recipe) == (QUEUED, completed.recipe)
    job = read_job(again.folder)
    assert (job.reproduces, job.resume) == (completed.id, False)
    assert job.model_copy(update={"reproduces": ""}) == read_job(completed.folder)


def test_a_copy_elsewhere_is_not_asked_for_again(studio, completed):
    recipe = {**completed.recipe, "output_dir": "/somewhere"}
    studio.tasks.store.transition(completed.id, {COMPLETED}, COMPLETED, recipe=recipe)
    assert studio.training.reproduce(completed.id).recipe["output_dir"] == ""


def test_another_base_model_under_the_same_name_is_refused(studio, completed, model):
    (model / "model.safetensors").write_text("other weights")
    with pytest.raises(Conflict, match="not what it was"):
        studio.training.reproduce(completed.id)


def test_other_rows_under_the_same_id_are_refused(studio, completed):
    lineage = read_lineage(completed.folder).model_copy(update={"dataset_sha256": "0" * 64})
    (completed.folder / LINEAGE).write_text(lineage.model_dump_json())
    with pytest.raises(Conflict, match="not what it was"):
        studio.training.reproduce(completed.id)


def test_without_dataset_or_lineage_nothing_is_told_again(studio, completed, dataset):
    (completed.folder / LINEAGE).unlink()
    with pytest.raises(NotFound, match="lineage"):
        studio.training.reproduce(completed.id)
    studio.datasets.delete(dataset.id)


def test_only_a_completed_run_is_told_again(studio, model, dataset):
    task = studio.training.start({"model_name_or_path": str(model), "dataset_id": dataset.id})
    with pytest.raises(Conflict, match="not completed"):
        studio.training.reproduce(task.id)


def test_a_fingerprint_sees_both_ends_of_the_weights(model):
    weights = model / "model.safetensors"
    weights.write_bytes(bytes(4 << 20))
    before = base_revision(str(model))
    assert base_revision(str(model)) == before
    for place in (0, (4 << 20) - 1):
        content = bytearray(4 << 20)
        content[place] = 1
        weights.write_bytes(content)
        assert base_revision(str(model)) != before


def test_changed_versions_are_named(studio, completed):
    lineage = read_lineage(completed.folder)
    assert changed_versions(lineage, {"trl": "1.16"}) == "trl 1.15 → 1.16"
    assert changed_versions(lineage, {"trl": "1.15"}) == ""


def test_a_manifest_holds_no_path_of_this_machine(completed, tmp_path):
    recipe = read_lineage(completed.folder).recipe
    assert not {"output_dir", "train_data_path"} & set(recipe)


def failed(studio, task, reason, **changes):
    return studio.tasks.store.transition(task.id, {COMPLETED}, FAILED, reason_class=reason, **changes)


def test_the_next_action_after_a_diverged_run_is_a_lower_rate(studio, completed):
    again = studio.training.retry(failed(studio, completed, Reason.UNHEALTHY).id)
    assert again.id != completed.id
    assert again.recipe["learning_rate"] == pytest.approx(1e-3 / LOWER_RATE_FACTOR)


def test_the_next_action_after_want_of_memory_is_half_the_batch(studio, completed):
    recipe = {**completed.recipe, "per_device_train_batch_size": 4}
    again = studio.training.retry(failed(studio, completed, Reason.MEMORY, recipe=recipe).id)
    assert (again.id, again.status, again.recipe["per_device_train_batch_size"]) == (completed.id, QUEUED, 2)
    assert parse_recipe(again.recipe).gradient_accumulation_steps == 2


def test_the_next_action_after_a_kill_is_to_continue(studio, completed):
    again = studio.training.retry(failed(studio, completed, Reason.KILLED).id)
    assert (again.id, again.status) == (completed.id, QUEUED)
    assert read_job(again.folder).resume


@pytest.mark.parametrize("reason", [Reason.DATA, Reason.MODEL, Reason.MEMORY])
def test_what_only_a_person_can_choose_is_not_tried_again(studio, completed, reason):
    with pytest.raises(Conflict, match="fail again"):
        studio.training.retry(failed(studio, completed, reason).id)


def test_only_settings_that_differ_are_compared():
    recipes = [{"a": 1, "b": 2, "name": "x"}, {"a": 1, "b": 3, "name": "y", "c": 0}]
    assert differing(recipes) == {"b": (2, 3), "c": (None, 0)}


def test_one_run_or_nine_are_no_comparison(studio, completed):
    with pytest.raises(InvalidInput, match="1 tasks"):
        studio.tasks.compare([completed.id, completed.id])
    many = [studio.training.reproduce(completed.id).id for _ in range(9)]
    with pytest.raises(InvalidInput, match="9 tasks"):
        studio.tasks.compare(many)
    assert len(studio.tasks.compare(many[:8]).tasks) == 8


@pytest.mark.parametrize(
    ("field", "by_folder"), [("start_from", False), ("start_from", True), ("model_name_or_path", True)]
)
def test_what_a_queued_task_starts_from_cannot_be_deleted(studio, completed, model, dataset, field, by_folder):
    waiting = studio.training.start({"model_name_or_path": str(model), "dataset_id": dataset.id})
    named = {**waiting.recipe, field: str(completed.folder) if by_folder else completed.id}
    studio.tasks.store.transition(waiting.id, {QUEUED}, QUEUED, recipe=named)
    with pytest.raises(Conflict, match=waiting.id):
        studio.tasks.delete(completed.id)
    assert completed.folder.is_dir()
    studio.tasks.store.transition(waiting.id, {QUEUED}, TaskStatus.STOPPED, finished_at=1.0)
    studio.tasks.delete(completed.id)
    assert not completed.folder.exists()
