"""M12: no child process is told a secret that it does not need.

One test reads every file of the package and finds each place that starts a process; the others start real ones and
look at what they got.
"""

import ast
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from waiting import wait_until

from sage_studio import child_environment as module
from sage_studio.child_environment import Needs, child_environment
from sage_studio.data.documents import git as cloning
from sage_studio.data.readers.convert import Converter
from sage_studio.data.readers.fast_jsonl import start_reader
from sage_studio.errors import EmbedderUnavailable, InvalidModel, StudioError
from sage_studio.models import unpack
from sage_studio.serving import retriever
from sage_studio.serving.engine import LaunchSpec, spawn_engine
from sage_studio.serving.merge import Merger
from sage_studio.serving.retriever import Embedder, EmbedderModel
from sage_studio.serving.types import Base
from sage_studio.settings import PROJECT
from sage_studio.tasks.launcher import PREPARER, TRAINER, ProcessLauncher
from sage_studio.training import memory

SECRETS = {
    "SAGE_STUDIO_AUTH": "me:hush-1",
    "SAGE_STUDIO_ENGINE_API_KEY": "hush-2",
    "OPENAI_API_KEY": "hush-3",
    "GITHUB_TOKEN": "hush-4",
    "AWS_SECRET_ACCESS_KEY": "hush-5",
    "DB_PASSWORD": "hush-6",
    "SAGE_STUDIO_DOCS_REPO": "https://me:hush-7@example.org/docs.git",
}
HUB = {"HF_TOKEN": "hf_hush", "HF_ENDPOINT": "https://me:hush-8@mirror.example"}
PLAIN = {"SAGE_TEST_OTHER": "plain", "CUDA_VISIBLE_DEVICES": ""}


@pytest.fixture(autouse=True)
def secrets(monkeypatch):
    for name, value in (SECRETS | HUB | PLAIN).items():
        monkeypatch.setenv(name, value)


def environment_of(pid: int) -> dict[str, str]:
    """What a living process was started with."""
    entries = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(entry.partition("=")[::2] for entry in entries if entry)


def leaks(environment: dict[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in environment.items() if "hush" in value]


@pytest.fixture
def spy(tmp_path, monkeypatch):
    """A program in place of Python that writes down what it was told, and ends; call it for what that was."""
    seen, program = tmp_path / "seen.json", tmp_path / "python"
    program.write_text(
        f"#!{sys.executable} -IS\n"
        "import json, os, sys\n"
        f"open({str(seen)!r} + '.part', 'w').write(json.dumps(dict(os.environ)))\n"
        f"os.replace({str(seen)!r} + '.part', {str(seen)!r})\n"
        "sys.exit(3)\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    return lambda: json.loads(wait_until(lambda: seen.is_file() and seen.read_text()))


# Every place


STARTS = {
    *("subprocess.Popen", "subprocess.run", "subprocess.call", "subprocess.check_call", "subprocess.check_output"),
    *("start_detached", "start_with_log", "run_to_end"),
}
FORBIDDEN = {
    *("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "pty.spawn"),
    *("asyncio.create_subprocess_exec", "asyncio.create_subprocess_shell"),
}
"""Cannot be given an environment, or not in a way that this test could see."""
MAKERS = {"child_environment", "trainer_environment"}
PASSES_ON = {"processes.py"}
"""Starts what others name, with the environment that they name."""


def starts(tree: ast.AST) -> list[tuple[ast.Call, str]]:
    """The calls that start a process, or prepare to."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            for part in (node.func, *node.args):
                name = ast.unparse(part)
                if name in STARTS | FORBIDDEN or name.startswith(("os.exec", "os.spawn", "os.posix_spawn")):
                    found.append((node, name))
    return found


def made_here(call: ast.Call, tree: ast.AST) -> bool:
    """Whether an argument is what a maker made, directly or by a name given to it in this file."""
    made = {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and makes(node.value)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    given = [*call.args, *(keyword.value for keyword in call.keywords)]
    return any(makes(value) or (isinstance(value, ast.Name) and value.id in made) for value in given)


def makes(value: ast.AST) -> bool:
    return isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id in MAKERS


def bare(source: str) -> list[str]:
    """The starts without an environment of their own."""
    tree = ast.parse(source)
    return [
        f"line {call.lineno}: {name}" for call, name in starts(tree) if name in FORBIDDEN or not made_here(call, tree)
    ]


@pytest.mark.parametrize("path", sorted((PROJECT / "sage_studio").rglob("*.py")), ids=lambda path: path.name)
def test_every_process_is_started_with_an_environment_of_its_own(path):
    """M12."""
    if path.name in PASSES_ON:
        assert "os.environ" not in path.read_text().replace('os.environ.pop(PARENT, "")', "")
        return
    assert bare(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "subprocess.run(['git'])",
        "subprocess.Popen(command, env=os.environ)",
        "subprocess.Popen(command, env={**os.environ, 'A': '1'})",
        "start_detached(command, os.environ, PROJECT, log)",
        "functools.partial(subprocess.Popen, command)",
        "os.system('true')",
        "os.execv(path, arguments)",
        "asyncio.create_subprocess_exec('git')",
    ],
)
def test_the_reader_of_the_code_finds_a_bare_start(source):
    assert bare(source)


def test_the_places_that_start_processes_are_found_at_all():
    found = [path.name for path in (PROJECT / "sage_studio").rglob("*.py") if starts(ast.parse(path.read_text()))]
    assert len(found) > 12
    assert {"launcher.py", "engine.py", "git.py", "convert.py", "unpack.py", "merge.py", "memory.py"} <= set(found)


# What is kept


@pytest.mark.parametrize(
    ("needs", "kept"),
    [
        (Needs.SYSTEM, {"PATH", "LC_ALL"}),
        (Needs.NETWORK, {"PATH", "LC_ALL", "https_proxy", "GIT_SSL_CAINFO", "SSH_AUTH_SOCK"}),
        (Needs.LIBRARIES, {"PATH", "LC_ALL", "GIT_SSL_CAINFO", "SSH_AUTH_SOCK", "OMP_NUM_THREADS", "HF_HOME"}),
        (
            Needs.HUB,
            {"PATH", "LC_ALL", "https_proxy", "GIT_SSL_CAINFO", "SSH_AUTH_SOCK", "OMP_NUM_THREADS", "HF_HOME"}
            | {"HF_TOKEN", "HF_ENDPOINT"},
        ),
    ],
)
def test_what_a_child_is_told(needs, kept):
    others = {
        "PATH": "/bin", "LC_ALL": "C", "https_proxy": "http://me:pw@proxy", "GIT_SSL_CAINFO": "/x", "HF_HOME": "/hub",
        "SSH_AUTH_SOCK": "/agent", "OMP_NUM_THREADS": "2", "MY_PAT": "p", "wandb_api_key": "w", "SIGNING_KEY": "s",
    }  # fmt: skip
    told = child_environment(needs, environment=SECRETS | HUB | others)
    assert set(told) == kept
    assert child_environment(needs, {"VLLM_API_KEY": "its own"}, {})["VLLM_API_KEY"] == "its own"


def test_a_word_that_only_sounds_like_a_secret_is_kept():
    harmless = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1", "KEYBOARD": "us", "A": "://b"}
    assert child_environment(Needs.LIBRARIES, environment=harmless) == harmless


def test_the_studio_itself_is_told_everything():
    given = SECRETS | HUB
    assert child_environment(Needs.EVERYTHING, environment=given) == given


def test_the_module_needs_nothing_that_must_be_installed():
    """The doctor runs before anything is installed."""
    roots = {
        (node.module or "").split(".")[0] if isinstance(node, ast.ImportFrom) else node.names[0].name.split(".")[0]
        for node in ast.walk(ast.parse(Path(module.__file__).read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert roots <= sys.stdlib_module_names


# Real children


def test_a_trainer_and_a_download_are_told_the_hubs_token_alone(tmp_path, spy):
    for command in (TRAINER, PREPARER):
        child = ProcessLauncher((sys.executable, *command[1:])).launch(tmp_path)
        seen = spy()
        wait_until(lambda child=child: not child.is_alive())
        (tmp_path / "seen.json").unlink()
        assert {entry.partition("=")[0] for entry in leaks(seen)} == set(HUB)
        assert seen["SAGE_TEST_OTHER"] == "plain"


@pytest.mark.parametrize(("base", "told"), [("", set()), ("someone/model", set(HUB))])
def test_an_engine_is_told_its_own_key_and_the_hubs_token_only_to_download(tmp_path, spy, base, told):
    (tmp_path / "config.json").write_text("{}")
    launch = LaunchSpec([sys.executable], {"OWN": "1"})
    record = spawn_engine("vllm", Base(base or str(tmp_path), "m"), 1, launch, tmp_path, tmp_path / "engine.log")
    seen = spy()
    assert {entry.partition("=")[0] for entry in leaks(seen)} == told
    assert (seen["VLLM_API_KEY"], seen["OWN"], seen["SAGE_TEST_OTHER"]) == (record.key, "1", "plain")


def test_an_embedder_on_this_machine_is_told_no_secret_of_others(settings, tmp_path, spy):
    with pytest.raises(EmbedderUnavailable):
        Embedder(settings).embed(EmbedderModel(str(tmp_path)), ["text"])
    seen = spy()
    assert leaks(seen) == []
    assert seen[retriever.KEY_VARIABLE]


def test_unpacking_is_told_no_secret(tmp_path, spy):
    with pytest.raises(InvalidModel):
        unpack._unpack_in_child(tmp_path / "packed", tmp_path / "folder", lambda: None)
    assert leaks(spy()) == []


@pytest.mark.parametrize(("base", "told"), [("", set()), ("someone/model", set(HUB))])
def test_a_merge_is_told_the_hubs_token_only_to_download(tmp_path, spy, base, told):
    merger = Merger(tmp_path, tmp_path, 5.0, lambda *_: [sys.executable])
    order = {"adapter": "a", "base": base or str(tmp_path), "dest": str(tmp_path / "to"), "trust_remote_code": False}
    files = merger._files(order)
    files.progress.parent.mkdir()
    child = merger._start(order, files, tmp_path / "merge.log")
    assert {entry.partition("=")[0] for entry in leaks(spy())} == told
    wait_until(lambda: not child.is_alive())


@pytest.mark.parametrize(("location", "told"), [("", set()), ("someone/model", set(HUB))])
def test_the_memory_trace_is_told_the_hubs_token_only_to_download(tmp_path, spy, location, told):
    request = memory.TraceRequest.model_construct(location=location or str(tmp_path))
    with pytest.raises(StudioError):
        memory.run_child("sage_studio.training.memory_trace", request, {})
    assert {entry.partition("=")[0] for entry in leaks(spy())} == told


def test_a_converter_is_told_no_more_than_any_program():
    from sage_studio.data.readers.file_type import FileType

    with Converter() as converter:
        converter.convert(FileType.HTML, b"<p>text</p>")
        assert converter._process is not None
        seen = environment_of(converter._process.pid)
    assert leaks(seen) == []
    assert seen.keys().isdisjoint(PLAIN)
    assert seen["PATH"] == os.environ["PATH"]


def test_a_reader_of_data_files_is_told_no_more_than_any_program():
    reader = start_reader()
    try:
        seen = wait_until(lambda: environment_of(reader.pid))
    finally:
        reader.kill()
        reader.wait()
        reader.stdin.close()
        reader.stdout.close()
    assert leaks(seen) == []
    assert "SAGE_TEST_OTHER" not in seen


def test_git_is_told_no_secret(tmp_path, monkeypatch):
    """A real clone, through a program that writes down what git is told."""
    import git

    source = tmp_path / "source"
    repository = git.Repo.init(source)
    (source / "page.md").write_text("# Page\n")
    repository.git.add(A=True)
    repository.git.execute(
        ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", "commit", "--quiet", "--message=page"]
    )
    head = repository.head.commit.hexsha
    wrapper, seen = tmp_path / "bin" / "git", tmp_path / "seen"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\nenv >> "{seen}"\nexec {shutil.which("git")} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:{os.environ['PATH']}")
    commit = cloning.clone(str(source), "", ".", tmp_path / "copy", lambda *_: None)
    assert commit == head
    assert (tmp_path / "copy" / "page.md").is_file()
    told = seen.read_text()
    assert "GIT_TERMINAL_PROMPT=0" in told
    assert "hush" not in told
    assert "SAGE_TEST_OTHER" not in told
