"""A Space's builder finds a set of packages: its very commands, resolved against the index, nothing downloaded."""

import itertools
import shutil
import subprocess
import sysconfig

import pytest
import space_builder
from waiting import ENGINE, patient

from sage_studio.settings import PROJECT

UV = shutil.which("uv", path=sysconfig.get_path("scripts")) or shutil.which("uv")
NO_ANSWER = ("Failed to fetch", "error sending request")
"""What uv says of an index that fell silent; that a set cannot be resolved it says otherwise."""


def compile(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Resolve what pip would be asked to install, for the Space's Python and platform."""
    command = [str(UV), "pip", "compile", "-q", "--no-header", "--no-annotate", "--no-sources"]
    command += ["--python-version", space_builder.python(), "--python-platform", "x86_64-manylinux_2_28", "-"]
    files = [path for flag, path in itertools.pairwise(arguments) if flag == "-r"]
    source = "\n".join([*(f"-r {path}" for path in files), *(word for word in arguments if word not in {"-r", *files})])
    return subprocess.run(command, input=source, capture_output=True, text=True, cwd=PROJECT, timeout=patient(ENGINE))


@pytest.fixture(scope="module", autouse=True)
def _index():
    if UV is None:
        pytest.skip("NO UV: the Space's build was not resolved (uv is in requirements-dev.txt)")
    if compile(["uvicorn"]).returncode:
        pytest.skip("NO PACKAGE INDEX: the Space's build was not resolved")


def resolve(arguments: list[str]) -> tuple[bool, str]:
    """Whether pip could install this, and which versions, or why not."""
    done = compile(arguments)
    if done.returncode and any(words in done.stderr for words in NO_ANSWER):
        pytest.skip(f"NO PACKAGE INDEX: the Space's build was not resolved: {done.stderr.strip()[-200:]}")
    return done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("arguments", space_builder.installs()[1:], ids=["base", "space"])
def test_the_builder_finds_a_set_of_packages(arguments):
    found, said = resolve(arguments)
    assert found, said


def test_what_the_builder_adds_moves_none_of_our_pins():
    found, said = resolve(space_builder.installs()[2])
    assert found, said
    lines = (PROJECT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    ours = {line.partition(" ;")[0] for line in lines if not line.startswith("#")}
    names = {pin.partition("==")[0] for pin in ours}
    theirs = {line for line in said.splitlines() if line.partition("==")[0] in names}
    assert len(theirs) > 90
    assert theirs <= ours


def test_a_pydantic_above_the_cap_is_noticed():
    """With this pin every Space failed to build: the check is able to fail."""
    found, said = resolve(["pydantic==2.14.3", space_builder.gradio()])
    assert not found
    assert "pydantic" in said
