"""Which datasets a method may learn from."""

import pytest

from sage_studio.data.dataset import Dataset, DatasetStats
from sage_studio.errors import InvalidDataset
from sage_studio.training.recipes import RECIPES, SFTRecipe
from sage_studio.workshop import check_kind


def dataset(row_kind):
    stats = DatasetStats(1, 1, 1.0, 1, 1)
    return Dataset("d-v1", "d", 1, "upload", "d.json", "0", 1, 0.0, stats, row_kind=row_kind)


@pytest.mark.parametrize("kind", ["retrieval", "passage"])
def test_rows_that_a_method_cannot_learn_from_are_refused(kind):
    recipe = SFTRecipe(model_name_or_path="m", dataset_id="d-v1")
    with pytest.raises(InvalidDataset) as refused:
        check_kind(recipe, dataset(kind))
    assert refused.value.message.en.startswith(f"d-v1 holds {kind} rows; sft learns from conversation, preference")
    assert refused.value.hint.zh


def test_rows_that_a_method_can_learn_from_pass():
    for kind in SFTRecipe.accepts:
        check_kind(SFTRecipe(model_name_or_path="m", dataset_id="d-v1"), dataset(kind))


def test_every_method_learns_from_something():
    assert all(recipe.accepts and recipe.title.zh for recipe in RECIPES.values())
