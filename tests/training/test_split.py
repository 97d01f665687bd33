"""What is held out is never learned: rows with a text in common stay on one side."""

import random

import pytest

from sage_studio.training.trainer import connected_rows, hold_out


def test_rows_with_something_in_common_are_a_family():
    assert connected_rows([["a"], ["b", "x"], ["c"], ["x", "a"], []]) == [[0, 1, 3], [2], [4]]


@pytest.mark.parametrize("seed", range(5))
def test_no_text_is_on_both_sides(seed):
    pick = random.Random(seed)
    rows = [[f"q{pick.randrange(300)}", f"a{pick.randrange(900)}"] for _ in range(400)]
    held = set(hold_out(rows, 0.2, seed))
    assert 0 < len(held) <= 80
    learned = {text for number, texts in enumerate(rows) if number not in held for text in texts}
    assert not learned & {text for number in held for text in rows[number]}


def test_rows_apart_are_held_out_by_share_and_seed():
    rows = [[number] for number in range(100)]
    assert len(hold_out(rows, 0.25, 1)) == 25
    assert hold_out(rows, 0.25, 1) == hold_out(rows, 0.25, 1) != hold_out(rows, 0.25, 2)
    assert len(hold_out(rows, 0.001, 1)) == 1


def test_families_larger_than_the_share_go_over_whole():
    assert hold_out([["a"], ["a"], ["b"], ["b"], ["b"]], 0.2, 1) == [0, 1]


def test_one_family_is_parted_all_the_same():
    assert len(hold_out([["a"]] * 10, 0.2, 1)) == 2
