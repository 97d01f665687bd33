"""Fields in a file, and under their other documented names."""

import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from sage_studio.errors import InvalidInput, InvalidRecipe
from sage_studio.files import path_of, read_regular
from sage_studio.training.presets import PresetStore, as_yaml
from sage_studio.training.recipes import RECIPES, dump_recipe, parse_recipe
from sage_studio.validation_errors import shown

FIELDS = {"model_name_or_path": "m", "train_data": "/rows.json", "learning_rate": 0.001, "num_train_epochs": 2}


@pytest.fixture
def file(tmp_path: Path) -> Any:
    """Write a file and name it."""

    def write(content: Any, name: str = "run.yaml") -> str:
        text = content if isinstance(content, bytes) else yaml.safe_dump(content).encode()
        (tmp_path / name).write_bytes(text)
        return str(tmp_path / name)

    return write


@pytest.mark.parametrize("kind", RECIPES)
@pytest.mark.parametrize("name", ["train_data_path", "train_data", "input_path"])
def test_every_method_knows_its_rows_under_each_documented_name(kind: str, name: str):
    recipe = parse_recipe({"type": kind, "model_name_or_path": "m", name: "/rows.json"})
    own = name if name in RECIPES[kind].model_fields else "train_data_path"
    assert {field for field in RECIPES[kind].sources if getattr(recipe, field)} == {own}
    assert getattr(recipe, own) == "/rows.json"


def test_two_names_of_one_field_are_refused():
    with pytest.raises(InvalidRecipe, match="train_data_path is given too") as refused:
        parse_recipe({"model_name_or_path": "m", "train_data": "/a.json", "train_data_path": "/b.json"})
    assert refused.value.field == "train_data"
    assert parse_recipe({"model_name_or_path": "m", "train_data": "", "dataset_id": "d"}).train_data_path == ""


@pytest.mark.parametrize("kind", RECIPES)
def test_the_files_fields_are_the_recipes_and_the_recipe_stands_alone(file: Any, kind: str):
    recipe = parse_recipe({"type": kind, "config_file": file(FIELDS)})
    assert (recipe.model_name_or_path, recipe.train_data_path, recipe.learning_rate) == ("m", "/rows.json", 0.001)
    assert recipe.config_file == "", "a task must not change when the file does"
    assert parse_recipe(yaml.safe_load(dump_recipe(recipe))) == recipe


def test_the_method_may_stand_in_the_file(file: Any):
    assert parse_recipe({"config_file": file({**FIELDS, "type": "dpo"})}).type == "dpo"
    with pytest.raises(InvalidRecipe, match=r"its type is 'dpo', and 'sft' was asked for") as refused:
        parse_recipe({"type": "sft", "config_file": file({**FIELDS, "type": "dpo"})})
    assert refused.value.field == "config_file"


def test_what_is_given_counts_over_the_file_unless_it_is_the_default(file: Any):
    form = {name: info.default for name, info in RECIPES["sft"].model_fields.items() if not info.is_required()}
    asked = {**form, "type": "sft", "config_file": file(FIELDS), "num_train_epochs": 5}
    recipe = parse_recipe(asked)
    assert (recipe.learning_rate, recipe.num_train_epochs, recipe.train_data_path) == (0.001, 5, "/rows.json")
    recipe = parse_recipe({**asked, "dataset_id": "d", "model_name_or_path": "mine"})
    assert (recipe.dataset_id, recipe.train_data_path, recipe.model_name_or_path) == ("d", "", "mine")


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "holds no fields"),
        (b"- a\n- b\n", "holds no fields"),
        (b"1: 2\n", "holds no fields"),
        (b"values: 3\n", "holds no fields"),
        (b"ok: 1\nsecret: [1, 2\n", "line 3 is no YAML"),
        (b"!!python/object/apply:os.system ['true']\n", "line 1 is no YAML"),
        (b"\xff\xfe\x00", "no text in UTF-8"),
        (b"# " + b"x" * (1 << 20), "larger than 64 KiB"),
        (b"a: &a secret\nb: *a\n", "line 2 holds an alias"),
        (b"a: " + b"[" * 30 + b"]" * 30, "line 1 is nested too deeply"),
        (b"type: secret\n", "its type is no training method"),
    ],
    ids=["empty", "list", "numbers", "values", "cut-off", "python", "bytes", "large", "alias", "nested", "type"],
)
def test_a_file_that_holds_no_fields_is_refused_and_not_quoted(file: Any, content: bytes, named: str):
    path = file(content)
    with pytest.raises(InvalidRecipe) as refused:
        parse_recipe({"config_file": path})
    assert refused.value.field == "config_file"
    assert named in refused.value.message.en
    assert path in refused.value.message.zh
    assert "secret" not in refused.value.say("en")


@pytest.mark.parametrize("path", ["/no/such.yaml", "/"])
def test_a_file_that_is_not_there_is_named(path: str):
    with pytest.raises(InvalidRecipe, match=f"config_file = '{path}': it cannot be read"):
        parse_recipe({"config_file": path})


def test_a_wrong_field_in_the_file_is_named(file: Any):
    with pytest.raises(InvalidRecipe) as refused:
        parse_recipe({"config_file": file({**FIELDS, "learning_rat": 1})})
    assert refused.value.field == "learning_rat"
    with pytest.raises(InvalidRecipe, match="learning_rate: it must be greater than 0"):
        parse_recipe({"config_file": file({**FIELDS, "learning_rate": 0})})
    with pytest.raises(InvalidRecipe, match="learning_rate = 0"):
        parse_recipe({"config_file": file(FIELDS), "learning_rate": 0})


@pytest.mark.parametrize(
    "content",
    [
        b'{"auths": {"registry.example": {"auth": "U0VDUkVU"}}}',
        b"token: U0VDUkVU\n",
        b"root:*:U0VDUkVU:0:99999:7:::\n",
        b"lora_r: [U0VDUkVU]\n",
        b"learning_rate: U0VDUkVU\n",
        b"train_data: U0VDUkVU\ntrain_data_path: U0VDUkVU\n",
        b"type: sft\nvalues: {type: U0VDUkVU}\n",
    ],
    ids=["docker", "token", "shadow", "list", "number", "two names", "type"],
)
def test_no_error_repeats_what_a_named_file_holds(file: Any, content: bytes):
    """H2: a Docker config's key and a line of /etc/shadow came back in the answer."""
    for asked in ({}, {"type": "sft"}, {"model_name_or_path": "m", "dataset_id": "d"}):
        with pytest.raises(InvalidRecipe) as refused:
            parse_recipe({**asked, "config_file": file(content)})
        said = [refused.value.say("en"), refused.value.say("zh"), refused.value.say_at_form("en"), refused.value.field]
        assert not any("U0VDUkVU" in each for each in said)


def test_a_device_and_a_pipe_are_no_files_of_fields(tmp_path: Path):
    """H5: /dev/zero took all memory, and a pipe held its thread for ever."""
    os.mkfifo(tmp_path / "pipe")
    for path in ("/dev/zero", str(tmp_path / "pipe"), "/dev/stdin"):
        with pytest.raises(InvalidRecipe, match="it cannot be read"):
            parse_recipe({"config_file": path})


def test_a_file_that_claims_to_be_empty_is_not_read_to_its_end(tmp_path: Path):
    """H5: the size that `stat` tells is no limit: files below /proc have none."""
    with pytest.raises(InvalidRecipe):
        parse_recipe({"config_file": "/proc/self/maps"})
    with pytest.raises(OSError, match="too large"):
        read_regular(Path("/proc/self/maps"), 100)


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/" + "x/" * 3000, "longer than a path can be"),
        ("x" * 300, "longer than a path can be"),
        ("~nosuchuser/x", "no such user"),
        ("/tmp/\0", "NUL"),
        ("/tmp/\ud800", "half a character"),
    ],
)
def test_what_can_be_no_path_is_said_to_be_none(path: str, why: str):
    """L1: each of these was a 500."""
    with pytest.raises(InvalidInput, match=why) as refused:
        path_of(path, "config_file")
    assert len(refused.value.message.en) < 200
    with pytest.raises(InvalidInput):
        parse_recipe({"config_file": path})


def test_large_values_are_cut_in_errors():
    """H5: 5 MB in, 5 MB out."""
    large = "x" * 5_000_000
    nested = {"a": [large] * 100, large: {large: [[[large]]]}}
    for name, value in {"type": large, "learning_rate": large, "lora_r": nested, "no_field": nested, large: 1}.items():
        with pytest.raises(InvalidRecipe) as refused:
            parse_recipe({"model_name_or_path": "m", "dataset_id": "d", name: value})
        assert len(refused.value.message.en) < 500
        assert len(refused.value.say_at_form("zh")) < 5000
    assert shown(10**5000).startswith("0x")
    assert (shown("a'b"), shown([1, {"a": None}]), shown(1.5)) == ('"a\'b"', "[1, {'a': None}]", "1.5")


def test_a_template_with_aliases_is_refused(tmp_path: Path):
    """H5: a template of 312 bytes made an answer of 28 MB."""
    levels = ["a: &a [x,x,x,x,x,x,x,x,x]"] + [
        f"{new}: &{new} [{','.join([f'*{old}'] * 9)}]" for old, new in pairwise("abcdefg")
    ]
    with pytest.raises(InvalidRecipe, match="line 2 holds an alias"):
        PresetStore(tmp_path).load("\n".join(levels), "bomb")
    with pytest.raises(InvalidRecipe, match="larger than 64 KiB"):
        PresetStore(tmp_path).load("#" * 100_000, "long")


def test_a_template_and_a_tasks_recipe_are_such_files(file: Any, tmp_path: Path):
    book = PresetStore(tmp_path / "recipes")
    saved = book.save("mine", {"type": "dpo", "beta": 0.2})
    recipe = parse_recipe({**FIELDS, "config_file": file(as_yaml(saved).encode())})
    assert (recipe.type, recipe.model_dump()["beta"], recipe.learning_rate) == ("dpo", 0.2, 0.001)
    again = parse_recipe({"config_file": file(dump_recipe(recipe).encode())})
    assert again == recipe


def test_a_template_keeps_what_the_file_says_and_no_rows(file: Any, tmp_path: Path):
    book = PresetStore(tmp_path / "recipes")
    kept = book.save("from a file", {"type": "kbalign", "config_file": file(FIELDS), "input_path": "/kb", "rounds": 2})
    assert kept.values == {"learning_rate": 0.001, "num_train_epochs": 2.0, "rounds": 2}
