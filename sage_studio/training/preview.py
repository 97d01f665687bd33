"""Shows a row as the model sees it: the rendered text in spans, each read, learned or cut off.

Token ids and the loss mask come from `sage_studio.training.tokenize`, which the trainer itself uses.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sage_studio.data.rows import DataRow, Example, Preference
from sage_studio.models.chat_template import ChatTokenizer
from sage_studio.training.tokenize import IGNORED, TokenizedRow, check_template, encode_each

TokenUse = Literal["read", "learned", "cut"]
"""What becomes of a token: only read, also learned, or never seen because ``max_length`` cuts it off."""


@dataclass(frozen=True, slots=True)
class PreviewSpan:
    """A readable piece of the rendered text and how many tokens it is."""

    text: str
    tokens: int
    fate: TokenUse


@dataclass(frozen=True, slots=True)
class RowPreview:
    """One text that the model is given.

    Attributes:
        side: which of the row's texts: ``completion``, ``chosen``, ``rejected`` or ``text``.
        ids: what the trainer puts into the batch.
        labels: as long as ``ids``; `IGNORED` where the loss does not fall.
        tokens: before the cut.
        left_out: the cut leaves no token to learn, so that the trainer leaves the row out.
    """

    side: str
    pieces: tuple[PreviewSpan, ...]
    ids: tuple[int, ...]
    labels: tuple[int, ...]
    tokens: int
    left_out: bool


def preview_row(row: DataRow, tokenizer: ChatTokenizer, max_length: int) -> tuple[RowPreview, ...]:
    """What a training makes of a row: one text of a conversation, two of a preference, all of any other kind.

    Raises:
        InvalidModel: the tokenizer has no chat template, but the row needs one.
        InvalidDataset: the template refuses the row.
    """
    if isinstance(row, (Example, Preference)):
        check_template(tokenizer)
        return tuple(_preview(side, tokens, tokenizer, max_length) for side, tokens in _sides(row, tokenizer))
    ids = tokenizer(row.texts)["input_ids"]
    return tuple(_preview("text", TokenizedRow(each, 0, False), tokenizer, max_length) for each in ids)


def lengths(rows: Sequence[DataRow], tokenizer: ChatTokenizer, max_length: int) -> Iterator[tuple[int, bool]]:
    """Per row: its tokens before any cut, and whether the cut leaves something to learn. Some hundred rows at a time.

    A preference counts by its longer side; of the other kinds, which have no template, each text stands for itself.
    """
    for row in rows:
        if isinstance(row, (Example, Preference)):
            check_template(tokenizer)
            sides = [tokens for _, tokens in _sides(row, tokenizer)]
            yield max(len(side.ids) for side in sides), all(side.learned(max_length) for side in sides)
        else:
            yield max(map(len, tokenizer(row.texts)["input_ids"])), True


def _sides(row: Example | Preference, tokenizer: Any) -> Iterator[tuple[str, TokenizedRow]]:
    values = row.to_json()
    names = ("completion",) if isinstance(row, Example) else ("chosen", "rejected")
    rows = [{"prompt": values["prompt"], "completion": values[name]} for name in names]
    yield from zip(names, encode_each(rows, tokenizer, row.origin.row or 1), strict=True)


def _preview(side: str, tokens: TokenizedRow, tokenizer: ChatTokenizer, max_length: int) -> RowPreview:
    kept = tokens.ids[:max_length]
    left_out = not tokens.learned(max_length)
    labels = [IGNORED] * min(tokens.known, len(kept)) + kept[tokens.known :]
    return RowPreview(
        side, tuple(_pieces(tokens, tokenizer, max_length)), tuple(kept), tuple(labels), len(tokens.ids), left_out
    )


def _pieces(tokens: TokenizedRow, tokenizer: ChatTokenizer, max_length: int) -> Iterator[PreviewSpan]:
    """By fate, so that no piece stands on both sides of a border."""
    spans: tuple[tuple[TokenUse, int, int], ...] = (
        ("read", 0, min(tokens.known, max_length)),
        ("learned", tokens.known, max_length),
        ("cut", max_length, len(tokens.ids)),
    )
    for fate, begin, end in spans:
        yield from (PreviewSpan(text, count, fate) for text, count in tokenizer.pieces(tokens.ids[begin:end]))
