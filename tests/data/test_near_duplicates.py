"""Near-duplicates against the exact share of common shingles, in both scripts, and among more texts than one batch."""

import random

import pytest

from sage_studio.data import near_duplicates
from sage_studio.data.near_duplicates import NearDuplicates, resemblance, shingles


def found(texts, folder, border=None, alike=0.8):
    with NearDuplicates(folder) as near:
        for text in texts:
            near.add(text)
        pairs = near.pairs(alike) if border is None else near.pairs_across(border, alike)
        return [(pair.first, pair.second, pair.similarity) for pair in pairs]


def exact(one, other):
    left, right = set(shingles(one)), set(shingles(other))
    return len(left & right) / len(left | right)


@pytest.mark.parametrize("unit", ["w{} ", "{}"], ids=["words", "characters"])
def test_the_similarity_is_about_the_exact_one(tmp_path, unit):
    pick = random.Random(1)
    alphabet = [unit.format(n) if "w" in unit else chr(0x4E00 + n) for n in range(300)]
    base = [pick.choice(alphabet) for _ in range(200)]
    texts = ["".join(base)]
    for changes in (1, 3, 80):
        changed = list(base)
        for at in pick.sample(range(200), changes):
            changed[at] = pick.choice(alphabet)
        texts.append("".join(changed))
    pairs = found(texts, tmp_path, alike=0.7)
    assert [pair[1] for pair in pairs] == [1, 2]
    for first, second, similarity in pairs:
        assert similarity == pytest.approx(exact(texts[first], texts[second]), abs=0.15)


def test_chinese_has_no_blanks_and_is_still_told_apart(tmp_path):
    one = "窗口按照时间或者数量对记录进行分组，迟到的记录会被丢弃，除非设置了宽限期。"
    assert found(
        [one, one.replace("。", "！"), "检索器先把问题编码成向量，再在索引中查找最相近的片段。"], tmp_path
    ) == [(0, 1, 1.0)]
    assert len(shingles(one)) > 20


def test_each_repeat_is_named_once_with_an_earlier_text(tmp_path, monkeypatch):
    monkeypatch.setattr(near_duplicates, "BATCH", 7)
    texts = [f"text {n % 10} with words {n % 10} of its own {n % 10} and more {n % 10}" for n in range(50)]
    pairs = found(texts, tmp_path)
    assert [second for _, second, _ in pairs] == list(range(10, 50))
    assert all(first < second and first % 10 == second % 10 for first, second, _ in pairs)
    assert list(tmp_path.iterdir()) == []


def test_across_a_border_only_the_other_side_counts(tmp_path):
    texts = ["a b c d e f", "g h i j k l", "a b c d e f", "g h i j k l", "m n o p q r", "m n o p q r"]
    assert [pair[:2] for pair in found(texts, tmp_path, border=2)] == [(0, 2), (1, 3)]
    assert found(texts[:1], tmp_path) == found([], tmp_path) == []


@pytest.mark.parametrize(
    ("one", "other", "low", "high"),
    [
        ("How do I start a pipeline?", "how do i start a pipeline", 1, 1),
        ("How do I start a pipeline?", "How can I start a pipeline?", 0.5, 0.95),
        ("How do I start a pipeline?", "Wie wird das Wetter", 0, 0.1),
        ("如何启动流水线？", "怎样启动流水线？", 0.2, 0.95),
        ("", "", 1, 1),
    ],
)
def test_resemblance_of_short_texts(one, other, low, high):
    assert low <= resemblance(one, other) <= high
