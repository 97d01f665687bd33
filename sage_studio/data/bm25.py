"""Okapi BM25 over Latin and Chinese text, in memory."""

import math
import re
from collections import Counter
from collections.abc import Sequence

from sage_studio.data.language import HAN

K1, B = 1.2, 0.75
"""How soon a repeated word stops counting, and how much a long text is held back: the usual values."""
RUNS = re.compile(rf"{HAN.pattern}|(?:(?!{HAN.pattern})[^\W_])+")
"""Stretches of Han characters, and of letters or digits of other scripts."""


def words_of(text: str) -> list[str]:
    """The words of a text in small letters; Chinese, which writes no spaces, as every two neighbouring characters.

    Example:
        >>> words_of("SAGE 用 pipeline_1 处理数据")
        ['sage', '用', 'pipeline', '1', '处理', '理数', '数据']
    """
    words = []
    for run in RUNS.findall(text.lower()):
        if HAN.match(run) and len(run) > 1:
            words += [run[at : at + 2] for at in range(len(run) - 1)]
        else:
            words.append(run)
    return words


class BM25:
    """An index over texts, kept in memory.

    Example:
        >>> BM25(["the red bridge", "a blue cheese", "bridge toll"]).nearest("Which cheese is blue?", 2)
        [1]
    """

    def __init__(self, texts: Sequence[str]) -> None:
        counts = [Counter(words_of(text)) for text in texts]
        lengths = [count.total() for count in counts]
        mean = sum(lengths) / len(lengths) if any(lengths) else 1.0
        self._holds: dict[str, list[tuple[int, float]]] = {}
        for number, (count, length) in enumerate(zip(counts, lengths, strict=True)):
            damping = K1 * (1 - B + B * length / mean)
            for word, times in count.items():
                self._holds.setdefault(word, []).append((number, times * (K1 + 1) / (times + damping)))
        self._size = len(texts)

    def nearest(self, query: str, count: int) -> list[int]:
        """Numbers of at most ``count`` texts that share a word with the query, the best first, counted from 0."""
        scores: Counter[int] = Counter()
        for word in set(words_of(query)):
            holds = self._holds.get(word, [])
            rarity = math.log(1 + (self._size - len(holds) + 0.5) / (len(holds) + 0.5))
            for number, weight in holds:
                scores[number] += rarity * weight  # type: ignore[assignment]  # a Counter adds floats as well
        return sorted(scores, key=lambda number: (-scores[number], number))[:count]
