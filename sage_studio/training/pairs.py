"""From ``data.jsonl`` to pairs of answers as token ids: a better and a worse one to the same prompt.

Knows the row's shape and what truncation does to a pair. Knows nothing of tensors or trainers.
"""

from collections.abc import Callable, Mapping
from typing import Any

from sage_studio.errors import InvalidDataset
from sage_studio.text import Text
from sage_studio.training.rows import Encoded, Row, chunks, encode_each


def paired(line: Mapping[str, Any]) -> Row:
    """A line of ``data.jsonl`` as ``prompt``, ``chosen`` and ``rejected``."""
    return {name: line[name] for name in ("prompt", "chosen", "rejected")}


def encode(
    rows: list[Row], tokenizer: Any, max_length: int, on_rows: Callable[[int], None] = lambda done: None
) -> Encoded:
    """As `encode_some`. Raises `InvalidDataset` also where no row has two different answers left after truncation."""
    encoded = encode_some(rows, tokenizer, max_length, on_rows)
    if not encoded:
        raise no_difference(len(rows), max_length)
    return encoded


def encode_some(
    rows: list[Row], tokenizer: Any, max_length: int, on_rows: Callable[[int], None] = lambda done: None
) -> Encoded:
    """Columns ``prompt_ids``, ``chosen_ids`` and ``rejected_ids``; a prompt with either answer fits ``max_length``.

    Args:
        rows: conversational ``prompt``, ``chosen`` and ``rejected``.
        tokenizer: one with a chat template.
        max_length: longest prompt with an answer, in tokens; the end of a longer answer is cut.
        on_rows: called with the rows done, now and then.

    Raises:
        InvalidDataset: the template refuses a row.
    """
    encoded = Encoded()
    for first, chunk in chunks(rows):
        sides = (encode_each(chunk, tokenizer, first, side) for side in ("chosen", "rejected"))
        for number, (better, worse) in enumerate(zip(*sides, strict=True), first):
            known = min(better.known, worse.known)
            chosen, rejected = better.ids[known:max_length], worse.ids[known:max_length]
            if not chosen or not rejected or chosen == rejected:
                encoded.dropped.append(number)
                continue
            if max(len(better.ids), len(worse.ids)) > max_length:
                encoded.truncated.append(number)
            prompt = better.ids[:known]
            encoded.add(prompt, chosen, prompt_ids=prompt, chosen_ids=chosen, rejected_ids=rejected)
            encoded.diverging += better.diverging or worse.diverging
            encoded.answer_tokens += len(chosen) + len(rejected)
            encoded.tokens += 2 * known + len(chosen) + len(rejected)
        on_rows(first + len(chunk) - 1)
    return encoded


def no_difference(count: int, max_length: int) -> InvalidDataset:
    """The error for pairs of which the cut leaves nothing that differs."""
    return InvalidDataset(
        Text(
            f"In all {count} rows nothing that differs between chosen and rejected fits into "
            f"max_length = {max_length} tokens.",
            f"全部 {count} 行中，chosen 与 rejected 的不同之处都超出了 max_length = {max_length} 个 token。",
        ),
        Text("Raise max_length, or shorten the prompts.", "请增大 max_length，或缩短提示。"),
    )
