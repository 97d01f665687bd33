"""Checks before a training which rows truncation leaves without anything to learn."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sage_studio.errors import InvalidDataset
from sage_studio.training import retrieval_pairs, tokenize
from sage_studio.training.recipes import Recipe

AT_ONCE, MOST = 32, 2000
"""Rows looked at where one that can be learned is enough, and where all that cannot be are to be told."""
CHECKED = 20_000
"""Rows that are read when a task is prepared."""
NAMED = 5

FORMATS = {"sft": tokenize.ANSWERS, "dpo": tokenize.PAIRS}
"""Of the methods whose rows are cut by `max_length` and learned in part."""


@dataclass(frozen=True, slots=True)
class SkippedRows:
    """Rows of which the cut leaves nothing to learn, so that the trainer leaves them out.

    Attributes:
        looked_at: how many rows, from the first on, were looked at.
        first: numbers (from 1) of the first `NAMED` of them.
        lengths: tokens of each row that is learned, as it is cut; of a pair those of its longer side.
    """

    looked_at: int = 0
    count: int = 0
    first: tuple[int, ...] = ()
    lengths: tuple[int, ...] = ()


def find_skipped_rows(path: Path, recipe: Recipe, tokenizer: Any) -> SkippedRows:
    """Which of the first `MOST` rows the trainer will leave out. Raises `InvalidDataset`, also where it is all rows."""
    if recipe.type not in FORMATS:
        return SkippedRows()
    found, encoded = _encoded(path, recipe, tokenizer, MOST)
    if not encoded and found < MOST:
        raise _nothing(recipe, found)
    return SkippedRows(found, len(encoded.dropped), tuple(encoded.dropped[:NAMED]), _lengths(encoded))


def check_first_rows(path: Path, recipe: Recipe, tokenizer: Any) -> None:
    """Raise `InvalidDataset` where no row has anything to learn; for a method without such rows, do nothing.

    Of many rows only the first are looked at: if none of them is any good, the trainer says whether others are.
    """
    if recipe.type not in FORMATS:
        return
    for most in (AT_ONCE, MOST):
        found, encoded = _encoded(path, recipe, tokenizer, most)
        if encoded:
            return
    if found < MOST:
        raise _nothing(recipe, found)


def check_many_rows(path: Path, recipe: Recipe, tokenizer: Any, on_rows: Callable[[int], None]) -> None:
    """Read the first `CHECKED` rows as the trainer will; for a method whose rows are not cut, do nothing.

    Args:
        on_rows: called with the rows done, now and then.

    Raises:
        InvalidDataset: the template refuses a row, or none of the rows has anything to learn.
    """
    if recipe.type not in FORMATS:
        return
    found, encoded = _encoded(path, recipe, tokenizer, CHECKED, on_rows)
    if not encoded and found < CHECKED:
        raise _nothing(recipe, found)


def check_retrieval_rows(path: Path, recipe: Recipe, count: int) -> None:
    """Raise `InvalidDataset` where an embedder has nothing to tell apart; more than `MOST` rows are left to it."""
    if count <= MOST:
        retrieval_pairs.read_queries(path, recipe.max_samples)


def _lengths(encoded: tokenize.EncodedRows) -> tuple[int, ...]:
    if "input_ids" in encoded.columns:
        return tuple(map(len, encoded.columns["input_ids"]))
    names = ("prompt_ids", "chosen_ids", "rejected_ids")
    sides = zip(*(encoded.columns.get(name, []) for name in names), strict=True)
    return tuple(len(prompt) + max(len(chosen), len(rejected)) for prompt, chosen, rejected in sides)


def _encoded(
    path: Path, recipe: Recipe, tokenizer: Any, most: int, on_rows: Callable[[int], None] = lambda done: None
) -> tuple[int, tokenize.EncodedRows]:
    """How many rows there are, at most ``most``, and what becomes of them."""
    rows, limit = FORMATS[recipe.type], min(recipe.max_samples or most, most)
    found = tokenize.read_rows(path, limit, rows.parts)
    return len(found), rows.encode_some(found, tokenizer, recipe.max_length, on_rows)


def _nothing(recipe: Recipe, count: int) -> InvalidDataset:
    return FORMATS[recipe.type].nothing_left(count, recipe.max_length)
