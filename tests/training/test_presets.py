"""Templates that a person keeps: saved, loaded from YAML, duplicated, compared, deleted."""

import pytest

from sage_studio.errors import Conflict, InvalidRecipe, NotFound
from sage_studio.training.presets import PresetStore, as_yaml, load_presets

VALUES = {"type": "sft", "learning_rate": 1e-4, "lora_r": 16, "dataset_id": "d", "output_dir": "/x", "name": "one run"}


@pytest.fixture
def book(tmp_path):
    return PresetStore(tmp_path / "recipes")


def test_only_what_differs_from_the_defaults_and_belongs_to_no_single_run_is_kept(book, tmp_path):
    saved = book.save(" My rate ", VALUES)
    assert (saved.title["zh"], saved.values) == ("My rate", {"learning_rate": 1e-4})
    again = PresetStore(tmp_path / "recipes")
    assert again.get(saved.id) == saved
    assert [preset.id for preset in again.all()] == [*(preset.id for preset in load_presets()), saved.id]


def test_the_same_name_replaces_and_another_does_not(book):
    book.save("mine", VALUES)
    book.save("mine", {**VALUES, "lora_r": 8})
    book.save("Mine!", VALUES)
    own = book.all()[len(book.ready) :]
    assert [preset.values.get("lora_r") for preset in own] == [None, 8] or len(own) == 2


def test_names_without_a_latin_letter_are_told_apart(book):
    ids = {book.save(title, VALUES).id for title in ("我的设置", "别的设置", "mine")}
    assert len(ids) == 3
    assert all(part.isascii() for part in ids)


def test_a_template_survives_its_yaml(book):
    saved = book.save("mine", VALUES)
    loaded = book.load(as_yaml(saved), title="copy")
    assert (loaded.type, loaded.values) == (saved.type, saved.values)
    assert loaded.id != saved.id


def test_a_tasks_recipe_can_be_loaded(book):
    loaded = book.load("type: sft\nname: old run\nlearning_rate: 0.001\ndataset_id: d-v1\n")
    assert (loaded.title["en"], loaded.values) == ("old run", {"learning_rate": 0.001})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1, 2", "no YAML"),
        ("- a\n- b", "no recipe"),
        ("name: x\nlearning_rat: 1", "learning_rat"),
        ("name: x\nlearning_rate: 0", "learning_rate = 0"),
        ("name: x\ntype: magic", "magic"),
        ("learning_rate: 0.001", "title"),
        ("name: x\nvalues: 3", "no recipe"),
        ("1: 2", "no recipe"),
        pytest.param('name: "a\\nb"', "title", id="unseen"),
    ],
)
def test_a_text_that_is_no_template_is_refused_by_name(book, text, said):
    with pytest.raises(InvalidRecipe) as refused:
        book.load(text)
    assert said in refused.value.message.en
    assert book.all() == book.ready


def test_a_copy_has_another_name(book):
    first = book.save("mine", VALUES)
    copy = book.duplicate(first.id, "theirs")
    assert (copy.values, copy.title["en"]) == (first.values, "theirs")
    assert book.duplicate(book.ready[0].id, "from a ready one").values == book.ready[0].values
    with pytest.raises(Conflict, match="already"):
        book.duplicate(first.id, "theirs")
    with pytest.raises(NotFound):
        book.duplicate("my-nobody", "x")


def test_only_ones_own_are_deleted(book):
    saved = book.save("mine", VALUES)
    book.delete(saved.id)
    assert book.all() == book.ready
    with pytest.raises(NotFound):
        book.delete(saved.id)
    with pytest.raises(Conflict, match="comes with"):
        book.delete(book.ready[0].id)


def test_differences_count_the_defaults(book):
    first, second = book.save("a", VALUES), book.save("b", {"type": "sft", "lora_r": 8})
    assert book.difference(first.id, second.id) == {"learning_rate": (1e-4, 5e-5), "lora_r": (16, 8)}
    assert book.difference(first.id, first.id) == {}


def test_a_broken_file_is_left_out_and_said_in_the_log(book, tmp_path, caplog):
    saved = book.save("mine", VALUES)
    path = tmp_path / "recipes" / f"{saved.id}.yaml"
    for broken in (
        "type: sft",
        "[1, 2",
        "type: sft\ntitle: {en: a, zh: a}\nnote: {en: '', zh: ''}\nvalues: {lora_r: 0}",
    ):
        path.write_text(broken)
        assert book.all() == book.ready
        assert str(path) in caplog.text or "lora_r" in caplog.text
        caplog.clear()
