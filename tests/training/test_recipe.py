"""A recipe's bounds, its errors and the ready recipes."""

from pathlib import Path

import pytest

from sage_studio.errors import InvalidRecipe
from sage_studio.settings import CONFIGS
from sage_studio.training.presets import load_presets
from sage_studio.training.recipes import SFTRecipe, dump_recipe, load_recipe, parse_recipe

GIVEN = {"type": "sft", "model_name_or_path": "m", "dataset_id": "d"}

BAD = [
    ("name", "x" * 81),
    ("model_name_or_path", "  "),
    ("num_train_epochs", 0),
    ("num_train_epochs", 1001),
    ("per_device_train_batch_size", 0),
    ("per_device_train_batch_size", -1),
    ("per_device_train_batch_size", 1025),
    ("per_device_train_batch_size", 1.5),
    ("learning_rate", "abc"),
    ("learning_rate", 0),
    ("learning_rate", 1.1),
    ("learning_rate", float("nan")),
    ("quantization", "2bit"),
    ("max_length", 15),
    ("max_length", 131073),
    ("use_lora", "perhaps"),
    ("lora_r", 0),
    ("lora_r", 513),
    ("lora_alpha", 0),
    ("lora_alpha", 4097),
    ("lora_dropout", -0.1),
    ("lora_dropout", 1),
    ("lora_target_modules", ""),
    ("gradient_accumulation_steps", 0),
    ("gradient_accumulation_steps", 4097),
    ("gradient_checkpointing", "yes please"),
    ("max_steps", -1),
    ("max_samples", -1),
    ("warmup_ratio", -0.1),
    ("warmup_ratio", 1),
    ("lr_scheduler_type", "magic"),
    ("optimizer", "sgd"),
    ("weight_decay", -0.1),
    ("weight_decay", 1.1),
    ("max_grad_norm", 0),
    ("max_grad_norm", 1001),
    ("logging_steps", 0),
    ("save_steps", 0),
    ("save_total_limit", 0),
    ("save_total_limit", 101),
    ("precision", "fp8"),
    ("gpu_vis", "all"),
    ("seed", -1),
    ("seed", 2**32),
    ("use_rslora", "yes please"),
    ("use_dora", 2),
    ("eval_share", -0.1),
    ("eval_share", 0.51),
    ("eval_steps", -1),
    ("load_best_model", "the best"),
    ("early_stopping_patience", -1),
    ("early_stopping_patience", 1001),
    ("packing", "tightly"),
    ("no_such_field", 1),
]


@pytest.mark.parametrize(("field", "value"), BAD)
def test_a_value_out_of_bounds_is_named(field: str, value: object):
    with pytest.raises(InvalidRecipe) as caught:
        parse_recipe({**GIVEN, field: value})
    assert caught.value.field == field
    assert field in caught.value.message.en
    assert field in caught.value.message.zh


def test_every_bounded_field_has_a_bad_value_here():
    free = {"type", "dataset_id", "train_data_path", "output_dir", "config_file", "start_from"}
    assert {field for field, _ in BAD} >= set(SFTRecipe.model_fields) - free


@pytest.mark.parametrize(
    "values",
    [
        {"type": "sft", "dataset_id": "d"},
        {"type": "sft", "model_name_or_path": "m"},
        {**GIVEN, "train_data_path": "/also.json"},
        {**GIVEN, "type": "magic"},
        {**GIVEN, "use_lora": False, "quantization": "4bit"},
    ],
)
def test_recipes_that_do_not_fit_together_are_refused(values: dict[str, object]):
    with pytest.raises(InvalidRecipe) as caught:
        parse_recipe(values)
    assert all(caught.value.message.pair())


def test_defaults_are_the_documented_ones():
    recipe = parse_recipe(GIVEN)
    assert (recipe.num_train_epochs, recipe.per_device_train_batch_size, recipe.learning_rate) == (3, 1, 5e-5)
    assert recipe.use_lora


def test_a_method_has_defaults_that_suit_it():
    dpo = parse_recipe({**GIVEN, "type": "dpo"})
    assert (dpo.num_train_epochs, dpo.learning_rate, dpo.lora_dropout) == (1, 1e-5, 0)
    with pytest.raises(InvalidRecipe) as caught:
        parse_recipe({**GIVEN, "type": "dpo", "learning_rate": 2})
    assert caught.value.field == "learning_rate", "the bounds are those of the one declaration"
    assert parse_recipe(GIVEN).learning_rate == 5e-5


def test_a_recipe_survives_its_file(tmp_path: Path):
    recipe = parse_recipe({**GIVEN, "name": "我的模型", "learning_rate": "2e-4"})
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    assert load_recipe(tmp_path / "recipe.yaml") == recipe


@pytest.mark.parametrize("content", [None, b"[1, 2]", b"a: [", b"", b"\xff\xfe\x00"])
def test_a_file_that_holds_no_recipe_is_refused(tmp_path: Path, content: bytes | None):
    path = tmp_path / "recipe.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidRecipe):
        load_recipe(path)


def test_every_ready_recipe_loads():
    files = sorted((CONFIGS / "recipes").glob("*.yaml"))
    presets = load_presets()
    assert len(presets) == len(files) >= 5
    assert len({preset.id for preset in presets}) == len(presets)


def test_a_ready_recipe_with_an_unknown_key_is_refused(tmp_path: Path):
    text = "type: sft\ntitle: {en: a, zh: a}\nnote: {en: a, zh: a}\nvalues: {learning_rat: 1}\n"
    (tmp_path / "10-bad.yaml").write_text(text)
    with pytest.raises(InvalidRecipe) as caught:
        load_presets(tmp_path)
    assert caught.value.field == "learning_rat"
