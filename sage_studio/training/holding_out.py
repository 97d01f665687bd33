"""Which rows are held out: drawn by a seed, and rows that ask or answer the same stay on one side.

Otherwise a copy, a paraphrase or a row that was drawn twice would be learned and measured, and the held-out loss would
flatter. Knows numbers of rows and what stands for their texts. Knows nothing of tokens, tensors or trainers.
"""

import random
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence


def held_out(rows: Sequence[Iterable[Hashable]], share: float, seed: int) -> list[int]:
    """Numbers, from 0, of the rows to hold out: about ``share`` of them, at least one, and never all.

    The same seed draws the same rows.

    Args:
        rows: for each row what it must not have in common with a row on the other side.

    Example:
        >>> held_out([["a"], ["b"], ["a"], ["c", "b"]], share=0.5, seed=1)
        [1, 3]
    """
    wanted, found = max(1, round(share * len(rows))), list[int]()
    groups = families(rows)
    random.Random(seed).shuffle(groups)
    for group in groups:
        if len(found) + len(group) <= wanted:
            found += group
    if not found:  # each family is larger than the share
        found = min(groups, key=len)
    if len(found) == len(rows):  # all rows are of one family: there is no better way to part them
        found = random.Random(seed).sample(range(len(rows)), wanted)
    return sorted(found)


def families(rows: Sequence[Iterable[Hashable]]) -> list[list[int]]:
    """Numbers of the rows that have something in common, directly or through others; one alone is its own family."""
    parent = list(range(len(rows)))
    first: dict[Hashable, int] = {}
    for number, texts in enumerate(rows):
        for text in texts:
            one, other = _root(parent, first.setdefault(text, number)), _root(parent, number)
            parent[max(one, other)] = min(one, other)
    found = defaultdict[int, list[int]](list)
    for number in range(len(rows)):
        found[_root(parent, number)].append(number)
    return list(found.values())


def _root(parent: list[int], number: int) -> int:
    while parent[number] != number:
        parent[number] = number = parent[parent[number]]
    return number
