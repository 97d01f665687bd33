"""The quick start at its other doors: the command line, the Dataset tab, the preset and the demo's table."""

import json
import subprocess
import sys

from sage_studio.data.sources.quickstart import load_facts, quickstart_questions
from sage_studio.settings import PREFIX, PROJECT
from sage_studio.training.presets import load_presets
from sage_studio.ui.datasets.dataset_tab import show_source
from scripts.demo import answers_table, right_ones

QUESTIONS = quickstart_questions()


def test_the_command_line_adds_it(tmp_path):
    command = [sys.executable, "-m", "sage_studio.cli", "quickstart"]
    environment = {f"{PREFIX}HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["stats"]["total_samples"] == sum(len(fact.asks) for fact in load_facts().facts)


def test_each_source_shows_its_own_box():
    for source in ("docs", "quickstart", "upload", "repository", "hub"):
        assert sum(update["visible"] for update in show_source("en", source)) == 1
    assert show_source("en", "quickstart")[1]["visible"]


def test_its_rows_fit_the_preset_made_for_it():
    preset = next(each for each in load_presets() if each.id == "quickstart-cpu")
    longest = max(len(ask) + len(fact.answer) for fact in load_facts().facts for ask in fact.asks)
    assert longest / 2 < preset.values["max_length"], "two characters a token is more than any of it takes"
    assert "model_name_or_path" not in preset.values


def test_the_demos_table_shows_each_question_with_both_answers_and_counts():
    wrong = ["It is " + "very " * 60 + "long."] * len(QUESTIONS)
    right = [question.answer for question in QUESTIONS]
    for width in (80, 120, 400):
        table = answers_table(QUESTIONS, wrong, right, width)
        assert max(map(len, table.splitlines())) <= min(width, 160)
        assert table.count("✓") == table.count("✗") == len(QUESTIONS)
        assert f"0 of {len(QUESTIONS)} right" in table
        assert f"{len(QUESTIONS)} of {len(QUESTIONS)} right" in table
    assert right_ones(QUESTIONS, [{"response": answer} for answer in right]) == len(QUESTIONS)
