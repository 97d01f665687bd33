"""What the doctor says of this machine and of recorded ones: each with the advice that its owner gets."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from sage_studio import doctor
from sage_studio.doctor import Facts, Level, diagnose, look, report
from sage_studio.settings import PROJECT
from scripts import doctor_figures

MACHINES = json.loads((Path(__file__).parent / "machines.json").read_text(encoding="utf-8"))


def recorded(machine: dict) -> Facts:
    return doctor_figures.recorded(machine["facts"])


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine["name"])
def test_each_recorded_machine_gets_its_advice(machine):
    facts = recorded(machine)
    findings = diagnose(facts)
    assert facts.kind == machine["kind"]
    for check, (level, words) in machine["expect"].items():
        worst = [finding for finding in findings if finding.check == check and str(finding.level) == level]
        assert worst, f"{check}: {[(each.check, str(each.level)) for each in findings]}"
        assert any(words in finding.remedy.en for finding in worst)
    expected = {check for check, (level, _) in machine["expect"].items() if level in ("problem", "blocking")}
    trouble = {finding.check for finding in findings if finding.level in (Level.PROBLEM, Level.BLOCKING)}
    assert trouble - expected <= {"git"}, "trouble that nobody expects on this machine"


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine["name"])
def test_whatever_does_not_work_is_said_with_a_remedy_in_both_languages(machine):
    for finding in diagnose(recorded(machine)):
        assert finding.found.en
        assert finding.found.zh
        if finding.level in (Level.PROBLEM, Level.BLOCKING):
            for text in (finding.consequence, finding.remedy):
                assert text.en
                assert text.zh
                assert text.en != text.zh


def test_this_machine_is_examined_for_real(tmp_path):
    facts = look(PROJECT, tmp_path / "home" / "not" / "yet")
    assert facts.python == tuple(sys.version_info[:3])
    assert facts.disk_free_gb > 0
    assert {finding.check for finding in diagnose(facts)} >= {"python", "git", "disk"}


def test_the_command_runs_on_a_bare_interpreter():
    """Nothing is installed when `make run` asks: isolated, without site-packages."""
    done = subprocess.run(
        [sys.executable, "-S", "-E", str(PROJECT / "scripts" / "doctor.py"), "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    told = json.loads(done.stdout)
    assert {finding["check"] for finding in told["findings"]} >= {"python", "git", "disk"}
    assert recorded({"facts": told["facts"]}).python == tuple(told["facts"]["python"])


@pytest.mark.parametrize(
    ("distribution", "command"),
    [
        ("ubuntu debian", "sudo apt install git"),
        ("fedora", "sudo dnf install git"),
        ("arch", "sudo pacman -S git"),
        ("opensuse-leap suse opensuse", "sudo zypper install git"),
    ],
)
def test_the_remedy_is_the_distributions_own_command(distribution, command):
    facts = replace(recorded(MACHINES[0]), git="", distribution=distribution)
    assert [each.remedy.en for each in diagnose(facts) if each.check == "git"] == [f"Run: {command}"]


def test_the_quiet_report_says_only_what_is_not_well():
    facts = recorded(MACHINES[0])
    assert report(diagnose(facts), "en", quiet=True) == ""
    said = report(diagnose(replace(facts, git="")), "zh", quiet=True)
    assert said.splitlines() == [
        "✗ 未安装 git",
        "    无法获取 SAGE 文档和 Git 仓库。",
        "    请运行：sudo apt install git",
    ]


def test_torch_is_asked_in_a_process_of_its_own(monkeypatch, tmp_path):
    """With a GPU that nvidia-smi lists and torch does not see, trainings would silently run on the CPU."""
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text('#!/bin/sh\necho \'{"version": "2.13.0+cu130", "cuda": "13.0", "devices": 0}\'\n')
    python.chmod(0o755)
    monkeypatch.setattr(doctor, "query_gpus", lambda: MACHINES[0]["facts"]["nvidia_smi"])
    facts = look(tmp_path, tmp_path)
    assert facts.torch == {"version": "2.13.0+cu130", "cuda": "13.0", "devices": 0}
    assert [each.level for each in diagnose(facts) if each.check == "torch"] == [Level.PROBLEM]


def test_the_page_of_recorded_machines_is_true():
    assert doctor_figures.TARGET.read_text(encoding="utf-8") == doctor_figures.page()
