"""A Space for real: the builder's commands in an environment of their own, then the main job as the Space's user.

``make test-space`` runs this; ``make test`` does not, for it downloads 3 GB and takes minutes. With ``SPACE_BUILD`` set
to a folder, the environment is made there and kept, and used again while the requirements stay the same.

Not as on a real Space: the app listens on loopback, the model is small and made here (no hub is asked), and there is no
proxy in front.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import space_builder
from hub_provider import HubProvider
from running_space import RunningSpace
from test_space_app import LOGIN, PATHS, shown
from waiting import wait_until

from sage_studio.settings import PROJECT

USER = 1000
MODEL = "Qwen/Qwen2.5-0.5B-Instruct"
AS_ROOT = os.geteuid() == 0
OVER = ("completed", "failed", "stopped")
ROWS = [{"instruction": f"What is {n} and one?", "output": f"It is {n + 1}."} for n in range(8)]


@pytest.fixture(scope="session")
def place() -> Iterator[Path]:
    """A folder that the app's user may look into; pytest's own are private."""
    with tempfile.TemporaryDirectory(prefix="space-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(scope="session")
def python(place) -> str:
    """The Python of an environment that the builder's commands made."""
    folder = Path(os.environ.get("SPACE_BUILD") or place / "build").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    inside = folder / "venv" / "bin" / "python"
    stamp, wanted = folder / "built", fingerprint()
    if not (stamp.exists() and stamp.read_text(encoding="utf-8") == wanted):
        shutil.rmtree(folder / "venv", ignore_errors=True)
        begun = time.monotonic()
        run([find_python(), "-m", "venv", str(folder / "venv")])
        for arguments in space_builder.installs():
            run([str(inside), "-m", "pip", "install", "-q", *arguments])
        stamp.write_text(wanted, encoding="utf-8")
        say(f"built in {time.monotonic() - begun:.0f} s")
    return str(inside)


@pytest.fixture(scope="session")
def app(place) -> Iterator[Path]:
    """The repository as a Space holds it: what git tracks, in a folder that the app's user cannot write to."""
    folder = place / "app"
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=PROJECT, capture_output=True, check=True).stdout
    for name in filter(None, tracked.decode().split("\0")):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT / name, target)
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    yield folder
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755)


@pytest.fixture
def home(place, python) -> Path:
    """The container's HOME, with the model in it that ``preload_from_hub`` fetches."""
    folder = Path(tempfile.mkdtemp(prefix="user-", dir=place))
    cache = folder / ".cache" / "huggingface" / "hub"
    run([python, str(PROJECT / "tests" / "preloaded.py"), str(cache), MODEL])
    if AS_ROOT:
        for path in [folder, *folder.rglob("*")]:
            os.chown(path, USER, USER, follow_symlinks=False)
    return folder


def start(python: str, app: Path, home: Path, **variables: str) -> RunningSpace:
    """A Space that is told to ask no hub."""
    begun = time.monotonic()
    space = RunningSpace(home, python, app, USER if AS_ROOT else None, HF_HUB_OFFLINE="1", **variables)
    space.__enter__()
    say(f"HTTP 200 after {time.monotonic() - begun:.1f} s as uid {USER if AS_ROOT else os.geteuid()}")
    return space


def test_the_builder_installed_what_belongs_together(python):
    run([python, "-m", "pip", "check"])


def test_the_main_job_runs_with_the_first_model(python, app, home):
    """Log in, chat with the model that came with the image, train it, let the result answer."""
    space = start(python, app, home, SAGE_STUDIO_AUTH=LOGIN)
    try:
        with space.client() as stranger:
            assert [path for path in PATHS if stranger.get(path).status_code != 401] == []
        with space.client() as browser:
            browser.auth = ("ada", "a pass:word")
            browser.timeout = 600
            assert browser.get("/api/models").json()["catalogue"][0] == MODEL
            answer = browser.post("/api/chat", json={"message": "Say hello.", "max_tokens": 8})
            assert answer.status_code == 200, answer.text + space.log
            assert answer.json()["model"] == MODEL
            say(f"{MODEL} (a stand-in of its architecture) answered")
            made = browser.post("/api/datasets", files={"file": ("rows.json", json.dumps(ROWS).encode())})
            assert made.status_code == 201, made.text
            recipe = {"model_name_or_path": MODEL, "dataset_id": made.json()["id"], "num_train_epochs": 1}
            started = browser.post("/api/finetune/start", json={"config": {**recipe, "max_length": 128}})
            assert started.status_code == 201, started.text
            task = f"/api/finetune/tasks/{started.json()['id']}"
            wait_until(lambda: browser.get(task).json()["status"] in OVER, 400)
            assert browser.get(task).json()["status"] == "completed", browser.get(f"{task}/logs").text
            used = browser.post("/api/finetune/use-as-backend", json={"task_id": started.json()["id"]})
            assert used.status_code == 200, used.text
            answer = browser.post("/api/chat", json={"message": "What is 3 and one?", "max_tokens": 8})
            assert answer.json()["model"] == started.json()["served_name"]
            say(f"trained {started.json()['id']}; it answers")
        assert (home / ".sage" / "studio_finetune" / "studio.db").is_file()
        assert not [path for path in app.rglob("*") if path.name == ".gradio"]
        assert "Traceback" not in space.log
        assert "pass:word" not in space.log
    finally:
        space.__exit__()
    assert space.process.returncode == 0


def test_without_storage_the_page_says_so(python, app, home):
    space = start(python, app, home, SAGE_STUDIO_AUTH=LOGIN)
    try:
        with space.client() as browser:
            browser.post("/login", data={"username": "ada", "password": "a pass:word"})
            ids = [part["props"].get("elem_id") for part in shown(browser)]
            assert "space-note" in ids
    finally:
        space.__exit__()


def test_signing_in_with_the_packages_of_the_builder(python, app, home):
    hub = HubProvider()
    space = start(python, app, home, **hub.variables)
    try:
        with space.client() as stranger:
            assert "Sign in with Hugging Face" in stranger.get("/").text
            assert stranger.get("/config").status_code == 401
        with space.client() as owner:
            assert space.sign_in(owner).status_code == 200
            assert [path for path in PATHS if owner.get(path).status_code != 200] == []
        say("the owner signed in by OAuth; a stranger did not get in")
    finally:
        space.__exit__()
        hub.close()


def test_with_no_login_it_stays_closed(python, app, home):
    space = start(python, app, home)
    try:
        with space.client() as browser:
            assert "SAGE_STUDIO_AUTH" in browser.get("/").text
            assert browser.get("/api/health").status_code == 503
    finally:
        space.__exit__()
    assert space.process.returncode == 0


def fingerprint() -> str:
    """What the environment depends on."""
    pins = (PROJECT / "requirements.txt").read_bytes()
    return hashlib.sha256(pins + repr((space_builder.python(), space_builder.installs())).encode()).hexdigest()


def find_python() -> str:
    """A Python of the Space's version that the app's user may run too."""
    name = f"python{space_builder.python()}"
    folders = os.environ.get("PATH", "").split(os.pathsep)
    for candidate in [*(f"{folder}/{name}" for folder in folders), sys.executable]:
        if not os.access(candidate, os.X_OK):
            continue
        script = "import ensurepip, sys; print(sys.version_info[0], sys.version_info[1], sep='.')"
        try:
            user = {"user": USER, "group": USER, "extra_groups": []} if AS_ROOT else {}
            done = subprocess.run([candidate, "-c", script], capture_output=True, text=True, check=False, **user)
        except OSError:
            continue
        if done.returncode == 0 and done.stdout.strip() == space_builder.python():
            return candidate
    pytest.skip(f"NO {name} that uid {USER} can run: the Space was not built")


def run(command: list[str]) -> None:
    """Run it, and say how long it took."""
    begun = time.monotonic()
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    say(f"{time.monotonic() - begun:6.1f} s  {' '.join(command)}")


def say(line: str) -> None:
    print(f"\n  {line}", end="", flush=True)


@pytest.fixture(autouse=True, scope="session")
def _end_of_line() -> Iterator[None]:
    yield
    print()
