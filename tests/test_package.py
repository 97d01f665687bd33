"""The package: a wheel that is built and installed, its command, and a studio in the background."""

import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
import tomllib
import venv

import httpx
import pytest
from waiting import ENGINE, patient

from sage_studio import __version__, daemon
from sage_studio.errors import Conflict, EngineUnavailable
from sage_studio.settings import PREFIX, PROJECT

PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_dependencies_are_those_that_are_pinned():
    lines = (PROJECT / "requirements.in").read_text(encoding="utf-8").splitlines()
    assert PYPROJECT["dependencies"] == [line.partition("#")[0].strip() for line in lines if re.match(r"\w", line)]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the environment in which the wheel is installed; all else it needs is this environment's."""
    folder = tmp_path_factory.mktemp("package")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=PROJECT, check=True, capture_output=True, timeout=patient())
    (wheel,) = folder.glob("*.whl")
    assert wheel.name.startswith(f"sage_studio-{__version__}-")
    venv.create(folder / "venv", symlinks=True)
    python = folder / "venv" / "bin" / "python"
    install = [
        sys.executable,
        "-m",
        "uv",
        "pip",
        "install",
        "--quiet",
        "--offline",
        "--no-deps",
        "--python",
        str(python),
    ]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True, timeout=patient())
    (own,) = (folder / "venv" / "lib").glob("python*/site-packages")
    here = [path for path in sys.path if path.endswith("site-packages")]
    (own / "others.pth").write_text("\n".join(here), encoding="utf-8")
    return folder


def test_a_checkout_has_the_command_too(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("install", PROJECT / "scripts" / "install.py")
    install = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(install)
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    monkeypatch.setattr(install, "PYTHON", python)
    install.write_command()
    done = subprocess.run([str(python.parent / "sage"), "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert "studio" in done.stdout, done.stderr


def run(installed, home, *words, check=True):
    """What the installed command prints, in a folder without the sources."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {f"{PREFIX}HOME": str(home), f"{PREFIX}ENGINE": "transformers"}
    done = subprocess.run(
        [str(installed / "venv" / "bin" / "sage"), *words],
        cwd=installed,
        env=environment,
        capture_output=True,
        text=True,
        timeout=patient(ENGINE),
    )
    assert not check or done.returncode == 0, done.stderr
    return done


def test_the_installed_command_does_an_operation(installed, tmp_path):
    made = json.loads(run(installed, tmp_path, "datasets", "quickstart").stdout)
    assert made["stats"]["total_samples"] == 336
    assert [each["id"] for each in json.loads(run(installed, tmp_path, "datasets").stdout)] == [made["id"]]


def test_a_studio_in_the_background_starts_once_and_stops(installed, tmp_path, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv(f"{PREFIX}PORT", str(free.getsockname()[1]))
    assert run(installed, tmp_path, "studio", "status", check=False).returncode == 1
    started = json.loads(run(installed, tmp_path, "studio", "start").stdout)
    try:
        health = httpx.get(f"{started['url']}/api/health", timeout=patient()).json()
        assert (health["status"], health["version"]) == ("ok", __version__)
        assert json.loads(run(installed, tmp_path, "studio", "status").stdout) == started
        again = run(installed, tmp_path, "studio", "start", check=False)
        assert again.returncode == 2
        assert started["url"] in again.stderr
        restarted = json.loads(run(installed, tmp_path, "studio", "restart").stdout)
        assert restarted["pid"] != started["pid"]
        assert "Queued task" not in run(installed, tmp_path, "studio", "logs", "--lines", "5").stdout
    finally:
        stopped = json.loads(run(installed, tmp_path, "studio", "stop").stdout)
    assert stopped == {"running": False, "stopped": True}
    assert run(installed, tmp_path, "studio", "status", check=False).returncode == 1
    assert json.loads(run(installed, tmp_path, "studio", "stop").stdout)["stopped"] is False


def test_a_pid_file_of_a_process_that_is_gone_counts_as_none(settings):
    settings.root.mkdir(parents=True, exist_ok=True)
    for text in ("", "{}", "[]", json.dumps({"pid": os.getpid(), "started": 1.0, "url": "http://127.0.0.1:1"})):
        (settings.root / daemon.PID_FILE).write_text(text, encoding="utf-8")
        assert daemon.running_studio(settings) is None
        assert daemon.stop(settings) is False
    daemon.write_pid_file(settings, "http://127.0.0.1:1")
    assert daemon.running_studio(settings).pid == os.getpid()
    with pytest.raises(Conflict, match="runs already"):
        daemon.start(settings)
    daemon.remove_pid_file(settings)
    assert daemon.running_studio(settings) is None


def test_a_studio_that_does_not_start_says_why(settings, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setenv(f"{PREFIX}PORT", str(taken.getsockname()[1]))
        with pytest.raises(EngineUnavailable, match="cannot be used"):
            daemon.start(settings, patient())


def test_the_last_lines_of_a_file(tmp_path):
    assert daemon.last_lines(tmp_path / "none", 3) == []
    (tmp_path / "log").write_text("a\nb\nc\n", encoding="utf-8")
    assert daemon.last_lines(tmp_path / "log", 2) == ["b", "c"]


def test_the_extras_have_the_versions_that_are_pinned():
    extras = PYPROJECT["optional-dependencies"]
    pinned = {
        name: (PROJECT / f"requirements-{name}.txt").read_text(encoding="utf-8").splitlines() for name in ("gpu", "cpu")
    }
    for name, lines in pinned.items():
        (wanted,) = (line.partition(";")[0].strip() for line in extras[name])
        assert wanted in {line.partition(" ;")[0] for line in lines}
    (mcp,) = (line.partition(" ;")[0] for line in pinned["cpu"] if line.startswith("mcp=="))
    assert extras["mcp"] == ["mcp>=2"]
    assert int(mcp.removeprefix("mcp==").partition(".")[0]) >= 2
