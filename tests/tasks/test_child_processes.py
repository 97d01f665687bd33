"""Children that are of use to one process alone: they end with it, and when they are no longer wanted."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from waiting import patient, wait_until

from sage_studio.processes import run_to_end
from sage_studio.settings import PROJECT

CHILD = (
    "import sys, time\n"
    "from sage_studio.processes import end_with_parent\n"
    "end_with_parent()\n"
    "print(sys.stdin.read())\n"
    "from pathlib import Path\n"
    "import os\n"
    "Path(sys.argv[1]).write_text(str(os.getpid()))\n"
    "time.sleep(float(sys.argv[2]))\n"
)
PARENT = (
    "import os, sys\n"
    "from pathlib import Path\n"
    "from sage_studio.processes import run_to_end\n"
    "run_to_end([sys.executable, '-c', sys.argv[1], sys.argv[2], '3600'], os.environ, Path.cwd())\n"
)


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def written(path: Path) -> int:
    return int(wait_until(lambda: path.is_file() and path.read_text()))


def test_a_child_answers_what_it_is_asked(tmp_path):
    command = [sys.executable, "-c", CHILD, str(tmp_path / "pid"), "0"]
    done = run_to_end(command, os.environ, PROJECT, input="x" * 200_000)
    assert (done.returncode, len(done.stdout.strip())) == (0, 200_000)


def test_a_child_ends_when_its_parent_is_killed(tmp_path):
    parent = subprocess.Popen([sys.executable, "-c", PARENT, CHILD, str(tmp_path / "pid")], cwd=PROJECT)
    child = written(tmp_path / "pid")
    parent.kill()
    parent.wait(patient())
    wait_until(lambda: gone(child))


def test_a_child_that_is_not_wanted_any_more_is_ended(tmp_path):
    def check():
        if (tmp_path / "pid").is_file() and (tmp_path / "pid").read_text():
            raise KeyError

    command = [sys.executable, "-c", CHILD, str(tmp_path / "pid"), "3600"]
    with pytest.raises(KeyError):
        run_to_end(command, os.environ, PROJECT, check=check)
    assert gone(written(tmp_path / "pid"))


def test_a_child_that_takes_too_long_is_ended(tmp_path):
    with pytest.raises(subprocess.TimeoutExpired):
        run_to_end([sys.executable, "-c", CHILD, str(tmp_path / "pid"), "3600"], os.environ, PROJECT, seconds=0.3)
