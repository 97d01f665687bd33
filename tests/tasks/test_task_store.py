"""Creating, finding, moving and deleting tasks."""

import errno
import io
import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace

import pytest

from sage_studio.database import Database
from sage_studio.errors import Conflict, InvalidName, NotFound, StorageFull
from sage_studio.tasks.store import TaskStore
from sage_studio.tasks.task import TaskStatus
from sage_studio.text import verbatim
from sage_studio.training.progress import Reason, read_job
from sage_studio.training.recipes import load_recipe

QUEUED, PREPARING, STOPPED = TaskStatus.QUEUED, TaskStatus.PREPARING, TaskStatus.STOPPED


def test_a_new_task_is_a_row_and_a_folder(store, create, settings):
    before = int(time.time())
    task = create("complete", name="mine", learning_rate=1e-4)
    assert before <= int(task.id.removeprefix("finetune-")) <= time.time()
    assert (task.status, task.name, task.model, task.dataset_name) == (QUEUED, "mine", "tiny", "Docs")
    assert task.folder == settings.outputs_dir / task.id
    assert load_recipe(task.folder / "recipe.yaml").model_dump(mode="json") == task.recipe
    assert task.recipe["learning_rate"] == 1e-4
    assert read_job(task.folder).data_path == "complete"
    assert store.get(task.id) == task
    assert store.list() == [task]


def test_the_folder_is_complete_before_the_row_is_seen(store, create, monkeypatch):
    seen = []
    insert = TaskStore._insert

    def watching(self, number, task_id, *rest):
        folder = store._outputs / task_id
        seen.append((sorted(path.name for path in folder.iterdir()), store.list()))
        insert(self, number, task_id, *rest)

    monkeypatch.setattr(TaskStore, "_insert", watching)
    create()
    assert seen == [(["job.json", "recipe.yaml"], [])]


def test_threads_that_create_at_once_get_different_ids(store, create):
    with ThreadPoolExecutor(8) as pool:
        tasks = list(pool.map(lambda _: create(), range(24)))
    assert len({task.id for task in tasks}) == 24
    assert {task.id for task in store.list()} == {task.id for task in tasks}
    assert len(store.queue()) == 24


def test_a_clock_set_back_breaks_neither_ids_nor_order(store, create, monkeypatch):
    first = create()
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    second = create()
    store.delete(second)
    third = create()
    numbers = [int(task.id.removeprefix("finetune-")) for task in (first, second, third)]
    assert numbers == sorted(set(numbers)), "an id was used twice or went backwards"
    assert [task.id for task in store.list()] == [third.id, first.id]


def test_a_folder_left_by_a_lost_database_is_not_touched(create, settings, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 5000.0)
    old = settings.outputs_dir / "finetune-5000"
    old.mkdir(parents=True)
    (old / "adapter_model.safetensors").write_bytes(b"precious")
    assert create().id == "finetune-5001"
    assert [path.name for path in old.iterdir()] == ["adapter_model.safetensors"]


@pytest.mark.parametrize("write", [1, 2])
def test_a_full_disk_leaves_nothing(store, create, settings, monkeypatch, write):
    count = 0

    def full(descriptor):
        nonlocal count
        count += 1
        if count == write:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageFull, match="No room left"):
        create()
    assert list(settings.outputs_dir.iterdir()) == []
    assert store.list() == []
    create()


def test_a_full_database_leaves_nothing(store, create, database, settings):
    pages = database.rows("PRAGMA page_count")[0][0]
    database.rows(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StorageFull):  # a page holds several tasks
        [create() for _ in range(200)]
    kept = {task.id for task in store.list()}
    assert {path.name for path in settings.outputs_dir.iterdir()} == kept
    assert len(kept) < 200


def test_what_is_not_there_is_not_found(store, create):
    with pytest.raises(NotFound, match="finetune-1"):
        store.get("finetune-1")
    with pytest.raises(NotFound):
        store.transition("finetune-1", {QUEUED}, PREPARING)
    task = create()
    store.delete(task)
    with pytest.raises(NotFound):
        store.delete(task)


def test_a_transition_happens_only_from_the_given_statuses(store, create):
    task = create()
    moved = store.transition(task.id, {QUEUED}, PREPARING, pid=42, process_started=1.5, started_at=2.5)
    assert (moved.status, moved.pid, moved.process_started, moved.started_at) == (PREPARING, 42, 1.5, 2.5)
    assert store.get(task.id) == moved
    with pytest.raises(Conflict, match="preparing"):
        store.transition(task.id, {QUEUED, STOPPED}, TaskStatus.FAILED, reason=verbatim("never", "从未"))
    assert store.get(task.id) == moved


def test_reasons_are_kept_in_both_languages(store, create):
    task = create()
    reason, hint = verbatim("Killed.", "被终止。"), verbatim("Continue.", "继续。")
    failed = store.transition(
        task.id, {QUEUED}, TaskStatus.FAILED, reason_class=Reason.KILLED, reason=reason, hint=hint, finished_at=3.0
    )
    assert (failed.reason_class, failed.reason, failed.hint, failed.finished_at) == (Reason.KILLED, reason, hint, 3.0)
    assert failed.reason.zh == "被终止。"


def test_of_two_that_move_a_task_one_wins(store, create):
    task = create()
    ready = threading.Barrier(8)

    def move(_: int) -> bool:
        ready.wait()
        try:
            store.transition(task.id, {QUEUED}, PREPARING)
        except Conflict:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(move, range(8))) == [False] * 7 + [True]


def test_the_queue_is_in_order_and_a_resumed_task_goes_to_its_end(store, create):
    first, second, third = create(), create(), create()
    assert [task.id for task in store.queue()] == [first.id, second.id, third.id]
    store.transition(first.id, {QUEUED}, STOPPED, finished_at=1.0)
    assert store.queue_place(first.id) is None
    store.transition(first.id, {STOPPED}, QUEUED, finished_at=None)
    assert [task.id for task in store.queue()] == [second.id, third.id, first.id]
    assert [store.queue_place(task.id) for task in (first, second, third)] == [3, 1, 2]


def test_a_task_taken_from_the_queue_in_vain_keeps_its_place(store, create):
    first, second = create(), create()
    store.transition(first.id, {QUEUED}, PREPARING)
    assert [task.id for task in store.running()] == [first.id]
    store.transition(first.id, {PREPARING}, QUEUED)
    assert [task.id for task in store.queue()] == [first.id, second.id]


def test_delete_removes_row_and_folder(store, create, settings):
    task = create()
    (task.folder / "checkpoints").mkdir()
    store.delete(task)
    assert store.list() == []
    assert list(settings.outputs_dir.iterdir()) == []


def test_delete_of_a_task_whose_folder_is_gone(store, create):
    task = create()
    task.folder.rename(task.folder.with_name("elsewhere"))
    store.delete(task)
    assert store.list() == []


def test_a_running_task_is_not_deleted(store, create):
    task = create()
    store.transition(task.id, {QUEUED}, TaskStatus.TRAINING)
    with pytest.raises(Conflict, match="training"):
        store.delete(task)
    assert (task.folder / "recipe.yaml").exists()
    assert store.get(task.id).status is TaskStatus.TRAINING


@pytest.mark.parametrize("bad_id", ["../victim", "a/b", "..", ""])
def test_nothing_outside_the_outputs_is_deleted(store, create, settings, bad_id):
    victim = settings.outputs_dir.parent / "victim"
    victim.mkdir(parents=True)
    task = create()
    for bad in (replace(task, folder=victim), replace(task, id=bad_id), replace(task, id=bad_id, folder=victim)):
        with pytest.raises(InvalidName):
            store.delete(bad)
    assert victim.is_dir()
    assert task.folder.is_dir()


def test_a_link_in_place_of_a_folder_is_removed_and_not_followed(store, create, tmp_path):
    task = create()
    elsewhere = task.folder.rename(tmp_path / "elsewhere")
    task.folder.symlink_to(elsewhere)
    store.delete(task)
    assert not os.path.lexists(task.folder)
    assert (elsewhere / "recipe.yaml").exists()


def test_a_failed_deletion_changes_nothing(store, create, monkeypatch):
    task = create()
    transaction = Database.transaction

    @contextmanager
    def failing(self):
        with transaction(self) as sql:
            yield sql
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Database, "transaction", failing)
        with pytest.raises(OSError, match="No space"):
            store.delete(task)
    assert store.get(task.id) == task
    assert read_job(task.folder).data_path == "complete"


def test_a_deletion_cut_short_is_finished_later(store, create, settings):
    (settings.outputs_dir / ".deleted-finetune-1" / "checkpoints").mkdir(parents=True)
    task = create()
    store.remove_leftovers()
    assert [path.name for path in settings.outputs_dir.iterdir()] == [task.id]


def test_a_thousand_tasks_are_listed_with_one_query_and_no_file(store, create, database, monkeypatch):
    task = create()
    columns = [row["name"] for row in database.rows("PRAGMA table_info(tasks)") if row["name"] not in ("number", "id")]
    with database.transaction() as sql:
        sql.executemany(
            f"INSERT INTO tasks (number, id, {', '.join(columns)}) SELECT ?, ?, {', '.join(columns)} FROM tasks "
            "WHERE id = ?",
            [(number, f"finetune-{number}", task.id) for number in range(1, 1000)],
        )
    right, queries = database.rows, []
    monkeypatch.setattr(database, "rows", lambda *asked: queries.append(asked) or right(*asked))
    monkeypatch.setattr(io, "open", lambda *_, **__: pytest.fail("a file"))
    monkeypatch.setattr(os, "stat", lambda *_, **__: pytest.fail("a file"))
    tasks = store.list()
    monkeypatch.undo()
    assert len(queries) == 1
    assert len(tasks) == 1000
    assert [task.id, "finetune-999", "finetune-998"] == [found.id for found in tasks[:3]]


def test_a_second_store_on_the_same_files_sees_the_same(store, create, settings):
    task = create()
    assert TaskStore(Database(settings.database_path), settings.outputs_dir).list() == [task]


def test_the_home_may_be_moved(create, settings, tmp_path):
    task = create()
    moved = settings.root.rename(tmp_path / "moved")
    store = TaskStore(Database(moved / "studio.db"), moved / "outputs")
    assert json.loads((store.get(task.id).folder / "job.json").read_text())["data_path"] == "complete"
