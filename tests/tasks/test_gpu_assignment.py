"""Which GPUs a task gets, and how a trainer is started on one or several."""

import json
import os
import sys

import pytest
from waiting import wait_until

from sage_studio import hardware
from sage_studio.errors import InvalidRecipe
from sage_studio.hardware import Gpu, Hardware, Unusable
from sage_studio.tasks.gpu_assignment import (
    GpuUsage,
    check_pinned_gpus,
    choose_gpus,
    max_running_tasks,
    pinned_gpus,
    tasks_per_gpu,
    usable_gpus,
    write_gpus,
)
from sage_studio.tasks.launcher import ACCELERATE, TRAINER, ProcessLauncher, command_for, gpus_of_task
from sage_studio.tasks.task import TaskStatus
from sage_studio.training.progress import JOB, read_job
from sage_studio.training.runner import own_folder

QUEUED, PREPARING, TRAINING = TaskStatus.QUEUED, TaskStatus.PREPARING, TaskStatus.TRAINING
STOPPED, FAILED, COMPLETED = TaskStatus.STOPPED, TaskStatus.FAILED, TaskStatus.COMPLETED
TWO = (Gpu(0, "RTX 3090", 24, 1), Gpu(1, "RTX 3090", 24, 1))


@pytest.fixture
def two_gpus(monkeypatch):
    printed = "".join(f"{n}, RTX 3060, 12288, 1024, 0, 580.95.05, GPU-{n}, 8.6\n" for n in (0, 1))
    monkeypatch.setattr(hardware, "query_gpus", lambda: printed)
    monkeypatch.setattr(hardware, "torch_has_cuda", lambda: True)
    monkeypatch.delenv(hardware.VISIBLE, raising=False)


# The choice


def test_the_studios_own_limits_count(two_gpus, monkeypatch):
    assert [gpu.index for gpu in usable_gpus()] == [0, 1]
    monkeypatch.setenv(hardware.VISIBLE, "1")
    assert [gpu.index for gpu in usable_gpus()] == [1]


@pytest.mark.parametrize(
    ("setting", "found", "most", "each"),
    [(0, 0, 1, 1), (0, 2, 2, 1), (1, 2, 1, 1), (3, 0, 3, 1), (3, 2, 3, 2)],
)
def test_one_task_a_gpu_unless_the_operator_lets_more_run(setting, found, most, each):
    assert (max_running_tasks(setting, TWO[:found]), tasks_per_gpu(setting, TWO[:found])) == (most, each)


def test_each_task_gets_a_gpu_of_its_own_and_then_they_wait():
    assert choose_gpus((), TWO, GpuUsage({})) == (0,)
    assert choose_gpus((), TWO, GpuUsage({"a": [0]})) == (1,)
    assert choose_gpus((), TWO, GpuUsage({"a": [0], "b": [1]})) is None
    assert choose_gpus((), TWO, GpuUsage({"a": [0, 1]})) is None


def test_where_the_operator_lets_tasks_share_the_emptiest_gpu_is_next():
    assert choose_gpus((), TWO, GpuUsage({"a": [0], "b": [0], "c": [1]}, per_gpu=3)) == (1,)


def test_a_pinned_task_gets_all_its_gpus_or_waits():
    assert choose_gpus((1,), TWO, GpuUsage({"a": [0]})) == (1,)
    assert choose_gpus((0,), TWO, GpuUsage({"a": [0]})) is None
    assert choose_gpus((0, 1), TWO, GpuUsage({"a": [1]})) is None
    assert choose_gpus((0, 1), TWO, GpuUsage({})) == (0, 1)


def test_the_chats_gpu_is_taken_last():
    assert choose_gpus((), TWO, GpuUsage({}, engine=[0])) == (1,)
    assert choose_gpus((), TWO, GpuUsage({"a": [1]}, engine=[0])) == (0,)


def test_a_gpu_that_is_large_enough_comes_before_one_that_the_chat_leaves_free():
    unlike = (Gpu(0, "RTX 3090", 24, 1), Gpu(1, "RTX 3060", 12, 1))
    assert choose_gpus((), unlike, GpuUsage({}, engine=[0]), need_gb=10) == (1,)
    assert choose_gpus((), unlike, GpuUsage({}, engine=[0]), need_gb=20) == (0,)
    assert choose_gpus((), unlike[::-1], GpuUsage({})) == (0,), "the larger one"


def test_what_a_task_in_front_waits_for_is_not_given_to_one_behind_it():
    assert choose_gpus((), TWO, GpuUsage({"a": [1]}, awaited={0, 1})) is None
    assert choose_gpus((0,), TWO, GpuUsage({"a": [1]}, awaited={0, 1})) is None


def test_without_a_gpu_there_is_nothing_to_choose():
    assert choose_gpus((), (), GpuUsage({"a": ()})) == ()


# What a person pins


def test_a_pin_is_read_from_the_recipe():
    assert [pinned_gpus({"gpu_vis": value}) for value in ("", "1", "0,2")] == [(), (1,), (0, 2)]


SET_ASIDE = (
    (Gpu(1, "GTX 1080", 8, 0, capability=(6, 1)), Unusable.OLD_GPU),
    (Gpu(2, "RTX 3060", 12, 0), Unusable.HIDDEN),
    (Gpu(3, "RTX 3070", 8, 0, driver="550.54"), Unusable.OLD_DRIVER),
    (Gpu(4, "GB10", 0, 0), Unusable.NO_MEMORY_FIGURE),
    (Gpu(5, "RTX 4090", 24, 0), Unusable.CPU_TORCH),
)


@pytest.mark.parametrize(
    ("pin", "why"),
    [
        ("1", "compute capability 7.5"),
        ("2", "CUDA_VISIBLE_DEVICES hides the RTX 3060"),
        ("3", "driver 550.54"),
        ("4", "nvidia-smi"),
        ("5", "built for the CPU only"),
        ("7", "no such GPU"),
        ("0,0", "named twice"),
        ("0,2", "GPU 2"),
    ],
)
def test_a_pin_to_a_gpu_that_cannot_be_used_is_refused_with_the_reason(pin, why):
    found = Hardware((Gpu(0, "RTX 3090", 24, 1),), 64, 8, 8, SET_ASIDE)
    with pytest.raises(InvalidRecipe) as caught:
        check_pinned_gpus({"gpu_vis": pin}, found)
    assert why in caught.value.message.en
    assert caught.value.message.zh
    assert caught.value.field == "gpu_vis"
    assert "0 (RTX 3090)" in caught.value.hint.en or pin == "0,0"


def test_a_pin_that_can_be_used_passes_and_without_a_gpu_none_can():
    check_pinned_gpus({"gpu_vis": "0"}, Hardware(TWO, 64, 8, 8))
    check_pinned_gpus({"gpu_vis": ""}, Hardware((), 64, 8, 8))
    with pytest.raises(InvalidRecipe) as caught:
        check_pinned_gpus({"gpu_vis": "0"}, Hardware((), 64, 8, 8))
    assert "Leave gpu_vis empty" in caught.value.hint.en


# In the queue


def test_a_resumed_task_takes_a_free_gpu_and_not_the_one_it_had(two_gpus, run_scheduler, create, store, reaches):
    """It was on 0; while it was stopped another task took 0: it must not share it while 1 is free."""
    scheduler = run_scheduler()
    first = reaches(create("wait"), TRAINING)
    assert gpus_of_task(first.folder) == ["0"]
    scheduler.stop(first)
    reaches(first, STOPPED)
    second = reaches(create("wait"), TRAINING)
    assert gpus_of_task(second.folder) == ["0"]
    scheduler.resume(first)
    wait_until(lambda: store.get(first.id).status is COMPLETED)
    assert gpus_of_task(first.folder) == ["1"]


def test_a_task_waits_where_all_gpus_are_taken(two_gpus, run_scheduler, create, store, reaches):
    run_scheduler()
    one, two = reaches(create("wait"), TRAINING), reaches(create("wait", gpu_vis="1"), TRAINING)
    third = create()
    last = create(gpu_vis="0")
    (two.folder / "go").touch()
    reaches(third, COMPLETED)
    assert gpus_of_task(third.folder) == ["1"]
    assert store.get(last.id).status is QUEUED, "its GPU is taken"
    (one.folder / "go").touch()
    reaches(last, COMPLETED)
    assert gpus_of_task(last.folder) == ["0"]


def test_a_pinned_task_waits_for_its_gpu_and_those_behind_it_go_on(two_gpus, run_scheduler, create, store, reaches):
    run_scheduler()
    one = reaches(create("wait"), TRAINING)
    pinned, behind = create(gpu_vis="0"), create()
    reaches(behind, COMPLETED)
    assert gpus_of_task(behind.folder) == ["1"]
    assert store.get(pinned.id).status is QUEUED
    (one.folder / "go").touch()
    reaches(pinned, COMPLETED)
    assert gpus_of_task(pinned.folder) == ["0"]


def test_the_gpus_of_a_task_are_known_again_after_a_restart(two_gpus, run_scheduler, create, reaches):
    scheduler = run_scheduler()
    running = reaches(create("wait"), TRAINING)
    scheduler.close()
    run_scheduler()
    other = reaches(create(), COMPLETED)
    assert (gpus_of_task(running.folder), gpus_of_task(other.folder)) == (["0"], ["1"])


def test_a_removed_folder_of_a_running_task_fails_that_task_alone(two_gpus, store, settings, create, monkeypatch):
    from sage_studio.tasks.scheduler import TaskScheduler

    class Started:
        pid, started = 1, 1.0

        def is_alive(self):
            return True

        def signal(self, number):
            return True

    class Never:
        def launch(self, folder):
            return Started()

    scheduler, first = TaskScheduler(store, Never(), settings), create()
    scheduler._round()
    (first.folder / JOB).unlink()
    second = create()
    scheduler._round()
    assert store.get(second.id).status is PREPARING
    assert gpus_of_task(second.folder) == ["1"]


def test_a_pinned_gpu_that_has_gone_fails_the_task_by_name(two_gpus, run_scheduler, create, reaches, monkeypatch):
    monkeypatch.setenv(hardware.VISIBLE, "1")
    run_scheduler()
    failed = reaches(create(gpu_vis="0"), FAILED)
    assert "CUDA_VISIBLE_DEVICES hides" in failed.reason.en


def test_a_training_says_which_gpus_it_takes_from_the_chat(two_gpus, run_scheduler, create, reaches):
    told = []
    run_scheduler(told.append, lambda: None, lambda: [0])
    reaches(create(), COMPLETED)
    reaches(create(gpu_vis="0"), COMPLETED)
    assert told == [(1,), (0,)], "one that the engine does not hold, unless it is pinned"


# The child


def test_the_gpus_of_a_run_are_written_over_those_of_an_earlier_one(create):
    task = create()
    write_gpus(task, (1,))
    write_gpus(task, (0, 2))
    assert (read_job(task.folder).gpus, gpus_of_task(task.folder)) == ("0,2", ["0", "2"])
    write_gpus(task, ())
    assert gpus_of_task(task.folder) == []


def test_several_gpus_are_driven_by_accelerate_with_the_folder_last():
    assert command_for(TRAINER, ["0"]) == list(TRAINER)
    assert command_for(TRAINER, ["0", "2"]) == [
        *(sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(ACCELERATE)),
        *("--multi_gpu", "--num_processes", "2", "-m", "sage_studio.training"),
    ]


@pytest.mark.parametrize("pinned", ["1", "1,0"])
def test_the_child_sees_only_its_gpus_numbered_as_nvidia_smi_does(create, monkeypatch, pinned):
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "FASTEST_FIRST")
    monkeypatch.setenv(hardware.VISIBLE, "0,1")
    task = create()
    write_gpus(task, [int(number) for number in pinned.split(",")])
    show = "import os, json; print(json.dumps(dict(os.environ)))"
    monkeypatch.setattr("sage_studio.tasks.launcher.command_for", lambda command, _: list(command))
    child = ProcessLauncher([sys.executable, "-c", show], stop_grace_seconds=90.5).launch(task.folder)
    assert child.exit_signal() == ""
    seen = json.loads((task.folder / "train.log").read_text())
    assert (seen["CUDA_VISIBLE_DEVICES"], seen["CUDA_DEVICE_ORDER"]) == (pinned, "PCI_BUS_ID")
    assert seen.get("TORCH_ELASTIC_SHUTDOWN_TIMEOUT") == ("91" if "," in pinned else None)


def test_torchs_agent_gives_several_processes_the_studios_grace(monkeypatch):
    from torch.distributed.launcher.api import LaunchConfig

    from sage_studio.tasks.launcher import gpu_environment

    assert LaunchConfig(min_nodes=1, max_nodes=1, nproc_per_node=2).shutdown_timeout == 30, "torch's own"
    for name, value in gpu_environment(["0", "1"], 120.0).items():
        monkeypatch.setenv(name, value)
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"
    assert LaunchConfig(min_nodes=1, max_nodes=1, nproc_per_node=2).shutdown_timeout == 120


def test_only_the_first_of_several_processes_writes_into_the_tasks_folder(tmp_path):
    assert own_folder(tmp_path, 0) == tmp_path
    other = own_folder(tmp_path, 1)
    assert other.parent == tmp_path
    assert other.name.startswith("."), "hidden names are not taken away with the model"
