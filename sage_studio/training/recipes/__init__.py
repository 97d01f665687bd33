"""The recipes: one class per training method, told apart by ``type``. A new method is entered here."""

from sage_studio.data.rows import RowKind
from sage_studio.training.recipes.base import Recipe
from sage_studio.training.recipes.embedding import EmbeddingRecipe
from sage_studio.training.recipes.generative import DPORecipe, SFTRecipe
from sage_studio.training.recipes.kbalign import KBAlignRecipe

__all__ = ["RECIPES", "DPORecipe", "EmbeddingRecipe", "KBAlignRecipe", "Recipe", "SFTRecipe", "methods_for"]

RECIPES: dict[str, type[Recipe]] = {
    "sft": SFTRecipe,
    "dpo": DPORecipe,
    "embedding": EmbeddingRecipe,
    "kbalign": KBAlignRecipe,
}


def methods_for(kind: RowKind) -> list[str]:
    """The methods that learn from rows of a kind."""
    return [method for method, recipe in RECIPES.items() if kind in recipe.accepts]
