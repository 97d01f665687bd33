"""Which cards a task gets, and how a trainer is started on one or several."""

import sys

import pytest

from sage_studio import hardware
from sage_studio.tasks.cards import assign_card, most_running, usable_cards
from sage_studio.tasks.launcher import TRAINER, ProcessLauncher, cards_of, command_for
from sage_studio.training.child import own_folder
from sage_studio.training.progress import JOB, Job, read_job


@pytest.fixture
def two_cards(monkeypatch):
    printed = "".join(f"{n}, RTX 3060, 12288, 1024, 0, 580.95.05, GPU-{n}, 8.6\n" for n in (0, 1))
    monkeypatch.setattr(hardware, "query_cards", lambda: printed)
    monkeypatch.setattr(hardware, "torch_has_cuda", lambda: True)
    monkeypatch.delenv(hardware.VISIBLE, raising=False)


def test_the_studios_own_limits_count(two_cards, monkeypatch):
    assert usable_cards() == ["0", "1"]
    monkeypatch.setenv(hardware.VISIBLE, "1")
    assert usable_cards() == ["1"]


@pytest.mark.parametrize(("setting", "found", "most"), [(0, [], 1), (0, ["0", "1"], 2), (1, ["0", "1"], 1), (3, [], 3)])
def test_as_many_run_as_there_are_cards_unless_the_operator_says(setting, found, most):
    assert most_running(setting, found) == most


def test_each_task_gets_a_card_of_its_own(create):
    first, second, third = create(), create(), create()
    for task, running in ((first, []), (second, [first]), (third, [first, second])):
        assign_card(task, running, ["0", "1"])
    assert [cards_of(task.folder) for task in (first, second, third)] == [["0"], ["1"], []]


def test_a_pinned_task_stays_pinned_and_one_card_needs_no_pin(create):
    task = create()
    assign_card(task, [], ["0"])
    assert cards_of(task.folder) == []
    (task.folder / JOB).write_text(Job(model_location="m", data_path="d", gpus="1").model_dump_json())
    assign_card(task, [], ["0", "1"])
    assert read_job(task.folder).gpus == "1"


def test_several_cards_are_driven_by_accelerate_with_the_folder_last():
    assert command_for(TRAINER, ["0"]) == list(TRAINER)
    assert command_for(TRAINER, ["0", "2"]) == [
        *(sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"),
        *("-m", "sage_studio.training"),
    ]


def test_the_child_sees_only_its_cards(create):
    task = create()
    (task.folder / JOB).write_text(Job(model_location="m", data_path="d", gpus="1").model_dump_json())
    show = "import os; print(os.environ['CUDA_VISIBLE_DEVICES'])"
    child = ProcessLauncher([sys.executable, "-c", show]).launch(task.folder)
    assert child.ended_by() == ""
    assert (task.folder / "train.log").read_text().strip() == "1"


def test_only_the_first_of_several_processes_writes_into_the_tasks_folder(tmp_path):
    assert own_folder(tmp_path, 0) == tmp_path
    other = own_folder(tmp_path, 1)
    assert other.parent == tmp_path
    assert other.name.startswith("."), "hidden names are not taken away with the model"
