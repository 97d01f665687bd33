"""The recipes of CONTRIBUTING.md: short, about names that exist, and tried where code is all that they need."""

import re
from typing import Literal

import pytest

from sage_studio.data import formats
from sage_studio.settings import PROJECT
from sage_studio.training.recipes import RECIPES, parse_recipe

PAGES = [PROJECT / "CONTRIBUTING.md", PROJECT / "CONTRIBUTING.zh.md"]
RECIPE_HEAD = re.compile(r"^## (?:Add |新增)", re.M)


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_each_recipe_has_at_most_ten_lines(page):
    recipes = RECIPE_HEAD.split(page.read_text(encoding="utf-8"))[1:]
    assert len(recipes) == 5
    for recipe in recipes:
        lines = [line for line in recipe.splitlines()[1:] if line.strip() and not line.startswith("<!--")]
        assert 1 <= len(lines) <= 10, lines


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_each_name_in_the_recipes_is_one_of_the_code(page):
    code = "\n".join(path.read_text(encoding="utf-8") for path in sorted((PROJECT / "sage_studio").rglob("*.py")))
    recipes = "".join(RECIPE_HEAD.split(page.read_text(encoding="utf-8"))[1:])
    names = set(re.findall(r"`([A-Z]\w+|[a-z]+_[a-z_]+)`", recipes)) - {"title", "note", "gradio_client"}
    assert {"RECIPES", "METHODS", "FORMATS", "Verdict", "NothingToLearn"} <= names
    for name in names:
        assert re.search(rf"^(?:class|def) {name}\b|^{name}\b.*=", code, re.M), name


def test_a_format_is_added_by_one_entry(monkeypatch):
    def read(record, origin):
        alpaca = formats.BY_NAME["Alpaca"]
        return alpaca.read({"instruction": record["clue"], "output": record["response"]}, origin)

    entry = formats.Format("quiz", "conversation", ("clue", "response"), read)
    monkeypatch.setattr(formats, "FORMATS", (entry, *formats.FORMATS))
    monkeypatch.setitem(formats.BY_NAME, entry.name, entry)  # made of FORMATS when the module is imported
    formats.detect_format.cache_clear()
    row = formats.RecordReader("rows.json").read({"clue": "A red planet", "response": "Mars"}, row=1)
    formats.detect_format.cache_clear()
    assert row.answer == "Mars"


def test_a_method_is_added_by_one_entry(monkeypatch):
    class Distillation(RECIPES["sft"]):
        """A method that is not there."""

        type: Literal["distillation"] = "distillation"

    monkeypatch.setitem(RECIPES, "distillation", Distillation)
    given = {"type": "distillation", "model_name_or_path": "SmolLM2-135M-Instruct", "dataset_id": "rows-v1"}
    assert isinstance(parse_recipe(given), Distillation)
