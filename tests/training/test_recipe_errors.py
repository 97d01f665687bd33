"""A fault in a recipe as it is said at the form: in its labels, and first of all what is missing."""

import pytest

from sage_studio.errors import InvalidRecipe
from sage_studio.training.recipes import CHOOSE_MODEL, RECIPES, parse_recipe
from sage_studio.training.recipes.base import CHOOSE_DATASET

NAMED = {"model_name_or_path": "m", "dataset_id": "d"}


def refused(**values):
    with pytest.raises(InvalidRecipe) as caught:
        parse_recipe(values)
    return caught.value


def test_what_is_missing_is_said_as_a_newcomer_needs_it():
    assert refused(model_name_or_path="m", dataset_id="").at_form == CHOOSE_DATASET
    assert refused(model_name_or_path="m").say_at_form("zh") == "请先选择数据集。"
    assert refused(model_name_or_path="", dataset_id="d").at_form == CHOOSE_MODEL
    assert "clear one" in refused(**NAMED, train_data_path="/rows.json").say_at_form("en")


@pytest.mark.parametrize("method", RECIPES)
@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("value", [None, -1, "x", ""])
def test_no_field_is_called_by_its_name(method, language, value):
    for name, info in RECIPES[method].model_fields.items():
        if name in ("type", "config_file") or not info.json_schema_extra:
            continue
        try:
            parse_recipe({"type": method, **NAMED, name: value})
        except InvalidRecipe as error:
            said = error.say_at_form(language)
            assert name not in said or "_" not in name
            assert "=" not in said, said
            assert "None" not in said, said


def test_a_bound_is_said_with_the_label_and_the_value():
    error = refused(**NAMED, num_train_epochs=0)
    assert error.say_at_form("en") == "Epochs: it must be greater than 0 (now 0)."
    assert error.say_at_form("zh") == "训练轮数：必须大于 0（当前为 0）。"
    assert error.say("en").startswith("num_train_epochs = 0: it must be greater than 0"), "a script sees the field"


@pytest.mark.parametrize(
    "values",
    [
        {"quantization": "4bit", "use_lora": False},
        {"start_from": "task", "use_lora": False},
        {"use_dora": True, "use_lora": False},
        {"early_stopping_patience": 2},
        {"early_stopping_patience": 2, "eval_share": 0.1, "load_best_model": False},
        {"type": "dpo", "loss_type": "robust"},
        {"type": "kbalign", "short_dependency": False, "long_dependency": False},
        {"train_data_path": "/rows.json"},
    ],
)
def test_each_contradiction_is_said_in_both_languages_to_scripts_and_at_the_form(values):
    error = refused(**NAMED, **values)
    assert error.say("en").startswith("The recipe contradicts itself: ")
    assert error.message.en.split(": ", 1)[1] not in error.message.zh
    assert error.at_form.en
    assert error.at_form.zh != error.at_form.en
    assert "_" not in error.at_form.en, "labels, not names of fields"
