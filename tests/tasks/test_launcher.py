"""Starting a child, and knowing it again."""

import os
import signal
import subprocess
import sys
from dataclasses import replace

import psutil
import pytest
from waiting import wait_until

from sage_studio.settings import PROJECT
from sage_studio.tasks.launcher import ProcessLauncher, find_child, trainer_environment

SHOW = """
import json, os, sys
print(json.dumps({
    "cwd": os.getcwd(), "session": os.getsid(0), "pid": os.getpid(), "arguments": sys.argv[1:],
    "input": sys.stdin.read(), "unbuffered": os.environ["PYTHONUNBUFFERED"],
}))
print("to stderr", file=sys.stderr)
"""
SLEEP = "import time; time.sleep(3600)"


@pytest.fixture
def launch(tmp_path):
    """Start Python code as a child; it is killed at the end of the test."""
    children = []
    folder = tmp_path / "task"
    folder.mkdir()

    def launch(code):
        child = ProcessLauncher([sys.executable, "-c", code]).launch(folder)
        children.append(child)
        return child

    yield launch
    for child in children:
        child.signal(signal.SIGKILL)


def test_the_child_is_detached_and_its_output_is_appended(launch, tmp_path):
    import json

    log = tmp_path / "task" / "train.log"
    log.write_text("of the first run\n")
    child = launch(SHOW)
    wait_until(lambda: not child.is_alive())
    first, shown, last = log.read_text().splitlines()
    said = json.loads(shown)
    assert (first, last) == ("of the first run", "to stderr")
    assert said == {
        "cwd": str(PROJECT), "session": child.pid, "pid": child.pid, "arguments": [str(tmp_path / "task")],
        "input": "", "unbuffered": "1",
    }  # fmt: skip


def test_the_default_is_the_real_trainer():
    assert ProcessLauncher()._command == (sys.executable, "-m", "sage_studio.training")


def test_the_studios_secrets_and_another_launchers_variables_stay_at_home():
    given = {
        "SAGE_STUDIO_AUTH": "me:secret", "SAGE_STUDIO_ENGINE_API_KEY": "k", "OPENAI_API_KEY": "k",
        "HF_TOKEN": "t", "HF_ENDPOINT": "mirror", "PATH": "/bin",
        "RANK": "3", "WORLD_SIZE": "4", "ACCELERATE_USE_FSDP": "true",
    }  # fmt: skip
    kept = {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "HF_TOKEN": "t",
        "HF_ENDPOINT": "mirror",
        "PATH": "/bin",
        "PYTHONUNBUFFERED": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    assert trainer_environment(environment=given) == kept


def test_a_secret_does_not_reach_the_child(launch, tmp_path, monkeypatch):
    monkeypatch.setenv("SAGE_STUDIO_AUTH", "me:open-sesame")
    child = launch("import os; print('open-sesame' in str(os.environ))")
    wait_until(lambda: not child.is_alive())
    assert (tmp_path / "task" / "train.log").read_text() == "False\n"


def test_a_child_that_ended_is_reaped(launch):
    child = launch("")
    wait_until(lambda: not psutil.pid_exists(child.pid))
    assert not child.is_alive()
    assert child.exit_signal() == ""
    assert not child.signal(signal.SIGTERM)


def test_a_signal_that_ended_it_is_told(launch):
    child = launch(SLEEP)
    assert child.is_alive()
    assert child.signal(signal.SIGKILL)
    wait_until(lambda: not child.is_alive())
    assert child.exit_signal() == "SIGKILL"


def test_a_zombie_is_not_alive(tmp_path):
    popen = subprocess.Popen([sys.executable, "-c", "", str(tmp_path)], start_new_session=True)
    wait_until(lambda: psutil.Process(popen.pid).status() == psutil.STATUS_ZOMBIE)
    started = psutil.Process(popen.pid).create_time()
    assert find_child(popen.pid, started, tmp_path) is None
    popen.wait()


def test_it_is_known_again_by_pid_and_start(launch, tmp_path):
    child = launch(SLEEP)
    again = find_child(child.pid, child.started, tmp_path / "other")
    assert again == child
    assert again.is_alive()
    assert again.exit_signal() == ""


def test_it_is_found_by_its_folder_where_the_record_is_missing_or_the_clock_was_set(launch, tmp_path):
    child = launch(SLEEP)
    folder = tmp_path / "task"
    assert find_child(None, None, folder) == child
    assert find_child(child.pid, child.started - 3600, folder) == child
    assert find_child(None, None, tmp_path / "other") is None


def test_another_process_with_the_pid_is_not_it_and_is_never_signalled(launch, tmp_path):
    other = launch(SLEEP)
    assert find_child(other.pid, other.started - 3600, tmp_path / "gone") is None
    ended = launch("")
    wait_until(lambda: not psutil.pid_exists(ended.pid))
    reused = replace(ended, pid=other.pid)
    assert not reused.signal(signal.SIGKILL)
    reused.kill_group()
    with pytest.raises(subprocess.TimeoutExpired):
        other._popen.wait(0.2)


def test_what_it_left_behind_is_killed(launch, tmp_path):
    code = f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {SLEEP!r}]).pid)"
    child = launch(code)
    wait_until(lambda: not psutil.pid_exists(child.pid))
    left = int((tmp_path / "task" / "train.log").read_text())
    assert os.getpgid(left) == child.pid
    child.kill_group()
    wait_until(lambda: not psutil.pid_exists(left) or psutil.Process(left).status() == psutil.STATUS_ZOMBIE)


def test_a_folder_that_is_gone_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        ProcessLauncher().launch(tmp_path / "gone")
