"""The form is the recipe: every field is an input, nothing else is, and what is typed comes out again."""

from typing import get_args

import gradio as gr
import pytest

from sage_studio.errors import InvalidRecipe
from sage_studio.training.presets import load_presets
from sage_studio.training.recipes import RECIPES, SFTRecipe, parse_recipe
from sage_studio.training.recipes.base import Group
from sage_studio.ui.components.labels import in_labels
from sage_studio.ui.components.localization import LabelRegistry
from sage_studio.ui.training.form import bounds_of, fields_in, form_updates, given, inputs_for, step_of

GROUPS = get_args(Group)


@pytest.fixture(scope="module")
def inputs():
    words = LabelRegistry()
    with gr.Blocks():
        made = {}
        for group in GROUPS:
            made |= inputs_for(
                words, SFTRecipe, fields_in([SFTRecipe], group), {"model_name_or_path": ["a"], "dataset_id": []}
            )
    return made


def test_every_field_but_the_type_is_an_input(inputs):
    assert set(inputs) == set(SFTRecipe.model_fields) - {"type"}


def test_an_input_fits_its_fields_type(inputs):
    assert isinstance(inputs["use_lora"], gr.Checkbox)
    assert isinstance(inputs["learning_rate"], gr.Number)
    assert inputs["learning_rate"].value == 5e-5
    assert [value for _, value in inputs["quantization"].choices] == ["none", "8bit", "4bit"]
    assert inputs["model_name_or_path"].allow_custom_value
    assert isinstance(inputs["lora_target_modules"], gr.Textbox)


def test_no_input_checks_a_value_itself(inputs):
    """Gradio's own bounds would answer in English before the recipe is asked."""
    assert all(box.minimum is None and box.maximum is None for box in inputs.values() if isinstance(box, gr.Number))


def test_bounds_are_shown_with_the_explanation(inputs):
    assert bounds_of(SFTRecipe.model_fields["num_train_epochs"]) == "> 0, ≤ 1000"
    assert "≥ 1, ≤ 512" in inputs["lora_r"].info


def test_an_arrow_key_moves_a_learning_rate_by_a_sensible_step():
    assert step_of(SFTRecipe.model_fields["learning_rate"]) == pytest.approx(1e-5)
    assert step_of(SFTRecipe.model_fields["lora_r"]) == 1


def test_the_forms_defaults_are_a_valid_recipe_once_model_and_data_are_named(inputs):
    values = [box.value for box in inputs.values()]
    recipe = parse_recipe(given(SFTRecipe, list(inputs), values) | {"model_name_or_path": "m", "dataset_id": "d"})
    assert inputs["model_name_or_path"].value == "a"
    assert recipe == SFTRecipe(model_name_or_path="m", dataset_id="d")


def test_an_emptied_number_is_refused_by_name(inputs):
    values = given(SFTRecipe, list(inputs), [box.value for box in inputs.values()])
    with pytest.raises(InvalidRecipe) as refused:
        parse_recipe(values | {"model_name_or_path": "m", "dataset_id": "d", "lora_r": None})
    assert refused.value.field == "lora_r"


@pytest.mark.parametrize("preset", load_presets(), ids=lambda preset: preset.id)
def test_a_preset_sets_its_fields_resets_the_others_and_keeps_what_is_trained(preset):
    names = list(fields_in([SFTRecipe], "what")) + list(fields_in([SFTRecipe], "common"))
    updates = dict(zip(names, form_updates(SFTRecipe, names, preset.values), strict=True))
    assert "value" not in updates["dataset_id"]
    for name in fields_in([SFTRecipe], "common"):
        assert updates[name]["value"] == preset.values.get(name, SFTRecipe.model_fields[name].default)


def test_only_the_fields_of_the_method_are_seen_at_first():
    with gr.Blocks():
        made = inputs_for(LabelRegistry(), SFTRecipe, fields_in(RECIPES.values(), "common"), {})
    assert {name for name, box in made.items() if box.visible} == set(fields_in([SFTRecipe], "common"))
    assert len(made) > len(fields_in([SFTRecipe], "common"))


def test_a_text_that_names_fields_is_said_in_the_forms_labels():
    assert in_labels("max_length = 64 cuts off all.", "en") == "Max sequence length 64 cuts off all."
    assert in_labels("model_name_or_path = 'x' is an embedder", "zh") == "模型 'x' is an embedder"
    assert in_labels("raise max_samples, or eval_share", "en") == "raise Max rows, or Hold-out"
    assert in_labels("the name of a type", "en") == "the name of a type"
