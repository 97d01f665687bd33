"""Turns the rows of data.jsonl into token ids and labels: chat template, loss mask, truncation."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sage_studio.errors import InvalidDataset, InvalidModel
from sage_studio.text import Text

IGNORED = -100
"""The label that the loss leaves out."""
CHUNK = 512
LONG_ANSWER = 24
"""Tokens from which two equal answers are copies; shorter ones (yes, positive, 42) answer many questions."""


Messages = list[dict[str, str]]
Row = dict[str, Messages]
"""The parts of a row that are needed, each a list of messages; ``prompt`` is always among them."""
PREPARE_AGAIN = Text("Prepare or upload the dataset again.")


@dataclass(slots=True)
class EncodedRows:
    """Rows as the trainer reads them.

    Attributes:
        columns: for each name one list of token ids or labels a row, none longer than ``max_length``.
        tokens, answer_tokens: tokens of all rows, and those of them that the loss falls on.
        truncated: numbers (from 1) of the rows that were longer, and kept.
        dropped: numbers of the rows left out because truncation had cut off all there was to learn.
        diverging: rows whose prompt the template renders differently once an answer follows.
        text_keys: for each row a number for its question, and one for a long answer; the same for the same text.
    """

    columns: dict[str, list[list[int]]] = field(default_factory=dict)
    tokens: int = 0
    answer_tokens: int = 0
    truncated: list[int] = field(default_factory=list)
    dropped: list[int] = field(default_factory=list)
    diverging: int = 0
    text_keys: list[tuple[int, ...]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def add(self, question: list[int], answer: list[int], **row: list[int]) -> None:
        """Append a row: what is asked and answered in it, and one list for each column."""
        for name, values in row.items():
            self.columns.setdefault(name, []).append(values)
        asked = hash((0, *question))
        self.text_keys.append((asked, hash((1, *answer))) if len(answer) >= LONG_ANSWER else (asked,))


@dataclass(frozen=True, slots=True)
class TokenizedRow:
    """One row, whole: nothing is cut yet.

    Attributes:
        ids: all token ids.
        known: how many of them, from the first on, the loss leaves out.
        diverging: the template renders the prompt differently once an answer follows.
    """

    ids: list[int]
    known: int
    diverging: bool

    def learned(self, max_length: int) -> int:
        """Tokens that the loss falls on when the row is cut at ``max_length``; 0 for a row that is left out."""
        return max(0, min(len(self.ids), max_length) - self.known)


def prompt_and_completion(line: Mapping[str, Any]) -> Row:
    """A line of ``data.jsonl`` as ``prompt`` and ``completion``; of a preference the chosen side."""
    return {"prompt": line["prompt"], "completion": line["chosen"] if "chosen" in line else line["completion"]}


def read_rows(
    path: Path, limit: int = 0, parts: Callable[[Mapping[str, Any]], Row] = prompt_and_completion
) -> list[Row]:
    """The rows of ``data.jsonl``, the first ``limit`` of them unless it is 0, each as the ``parts`` it is needed in.

    Raises:
        InvalidDataset: the file is missing or empty, or a line is no row; the text names the line.
    """
    return [_row(number, line, parts) for number, line in read_lines(path, limit)]


def check_template(tokenizer: Any) -> None:
    """Raise `InvalidModel` for a tokenizer that cannot render a conversation."""
    if not getattr(tokenizer, "chat_template", None):
        raise InvalidModel(
            Text("The model's tokenizer has no chat template, so a conversation cannot be written for it."),
            Text("Choose the model's Instruct or Chat variant."),
        )


def encode_answers(
    rows: list[Row], tokenizer: Any, max_length: int, on_rows: Callable[[int], None] = lambda done: None
) -> EncodedRows:
    """Columns ``input_ids`` and ``labels``, where everything before the answer is masked.

    Args:
        rows: conversational ``prompt`` and ``completion``.
        tokenizer: one with a chat template.
        max_length: longest row in tokens; the end of a longer one is cut.
        on_rows: called with the rows done, now and then.

    Raises:
        InvalidDataset: the template refuses a row.
    """
    encoded = EncodedRows()
    for first, chunk in chunks(rows):
        for number, tokens in enumerate(encode_each(chunk, tokenizer, first), first):
            _add(encoded, number, tokens, max_length)
        on_rows(first + len(chunk) - 1)
    return encoded


def all_masked(count: int, max_length: int) -> InvalidDataset:
    """The error for rows of which the cut leaves nothing to learn."""
    return InvalidDataset(
        Text(
            "In all {count} rows the prompt alone fills max_length = {max_length} tokens: no answer is left to learn.",
            count=count,
            max_length=max_length,
        ),
        Text("Raise max_length, or shorten the prompts."),
    )


def chunks(rows: list[Row]) -> Iterator[tuple[int, list[Row]]]:
    """Some hundred rows at a time, with the number (from 1) of the first of them."""
    for start in range(0, len(rows), CHUNK):
        yield start + 1, rows[start : start + CHUNK]


def encode_each(rows: list[Row], tokenizer: Any, first: int = 1, answer: str = "completion") -> Iterator[TokenizedRow]:
    """Each row by itself, uncut; all of them are tokenized together, so give some hundred at a time.

    Args:
        rows: conversational ``prompt`` and ``answer``.
        tokenizer: transformers', or a `sage_studio.models.model_folder.ChatTokenizer`.
        first: number of the first of them, for messages.
        answer: which part of the rows follows the prompt.

    Raises:
        InvalidDataset: the template refuses a row.
    """
    prompts = [_render(tokenizer, row["prompt"], at, prompt=True) for at, row in enumerate(rows, first)]
    wholes = [_render(tokenizer, row["prompt"] + row[answer], at, prompt=False) for at, row in enumerate(rows, first)]
    for prompt, whole, before, ids in zip(
        prompts, wholes, _ids(tokenizer, prompts), _ids(tokenizer, wholes), strict=True
    ):
        if ids[: len(before)] != before and whole.startswith(prompt):
            # a token spans the border; when chatting none can
            ids = before + _ids(tokenizer, [whole[len(prompt) :]])[0]
        known = next((at for at, (a, b) in enumerate(zip(before, ids, strict=False)) if a != b), None)
        known = min(len(before), len(ids)) if known is None else known
        yield TokenizedRow(ids, known, diverging=known < len(before))


def _add(encoded: EncodedRows, number: int, tokens: TokenizedRow, max_length: int) -> None:
    learned = tokens.learned(max_length)
    if not learned:
        encoded.dropped.append(number)
        return
    if len(tokens.ids) > max_length:
        encoded.truncated.append(number)
    ids = tokens.ids[:max_length]
    question, answer = tokens.ids[: tokens.known], ids[tokens.known :]
    encoded.add(question, answer, input_ids=ids, labels=[IGNORED] * tokens.known + answer)
    encoded.diverging += tokens.diverging
    encoded.tokens += len(ids)
    encoded.answer_tokens += learned


def _ids(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=False, return_attention_mask=False)["input_ids"]
    return ids


def _render(tokenizer: Any, messages: list[dict[str, str]], number: int, *, prompt: bool) -> str:
    import jinja2

    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt))
    except jinja2.TemplateError as error:
        raise InvalidDataset(
            Text("The model's chat template refuses row {number}: {error}", number=number, error=error),
            Text("Correct the row, or choose another model."),
            row=number,
        ) from error


def _row(number: int, line: Any, parts: Callable[[Mapping[str, Any]], Row]) -> Row:
    try:
        row = parts(line)
        for name, messages in row.items():
            if not messages:
                raise ValueError(f"{name} must not be empty")
            for message in messages:
                if not isinstance(message["role"], str) or not isinstance(message["content"], str):
                    raise TypeError("role and content must be text")
    except (ValueError, KeyError, TypeError) as error:
        raise invalid_line(number, error) from error
    return row


# Preference pairs


def prompt_and_pair(line: Mapping[str, Any]) -> Row:
    """A line of ``data.jsonl`` as ``prompt``, ``chosen`` and ``rejected``."""
    return {name: line[name] for name in ("prompt", "chosen", "rejected")}


def encode_pairs(
    rows: list[Row], tokenizer: Any, max_length: int, on_rows: Callable[[int], None] = lambda done: None
) -> EncodedRows:
    """Columns ``prompt_ids``, ``chosen_ids`` and ``rejected_ids``; a prompt with either answer fits ``max_length``.

    Args:
        rows: conversational ``prompt``, ``chosen`` and ``rejected``.
        tokenizer: one with a chat template.
        max_length: longest prompt with an answer, in tokens; the end of a longer answer is cut.
        on_rows: called with the rows done, now and then.

    Raises:
        InvalidDataset: the template refuses a row.
    """
    encoded = EncodedRows()
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
            "In all {count} rows nothing that differs between chosen and rejected fits into max_length "
            "= {max_length} tokens.",
            count=count,
            max_length=max_length,
        ),
        Text("Raise max_length, or shorten the prompts."),
    )


@dataclass(frozen=True)
class RowFormat:
    """How a method reads its rows.

    Attributes:
        parts: picks from a line of ``data.jsonl`` what is needed of it.
        encode_some: makes token ids of rows; arguments as of `encode_answers`.
        nothing_left: the error for so many rows of which truncation at so many tokens leaves nothing to learn.
    """

    parts: Callable[[Mapping[str, Any]], Row]
    encode_some: Callable[[list[Row], Any, int, Callable[[int], None]], EncodedRows]
    nothing_left: Callable[[int, int], InvalidDataset]

    def encode(
        self, rows: list[Row], tokenizer: Any, max_length: int, on_rows: Callable[[int], None] = lambda done: None
    ) -> EncodedRows:
        """As ``encode_some``. Raises `InvalidDataset` also where truncation leaves nothing to learn in any row."""
        encoded = self.encode_some(rows, tokenizer, max_length, on_rows)
        if not encoded:
            raise self.nothing_left(len(rows), max_length)
        return encoded


ANSWERS = RowFormat(prompt_and_completion, encode_answers, all_masked)
PAIRS = RowFormat(prompt_and_pair, encode_pairs, no_difference)


# Lines of data.jsonl


def read_lines(path: Path, limit: int = 0) -> list[tuple[int, Any]]:
    """What each line holds, with its number, from 1; the first ``limit`` rows unless it is 0.

    Raises:
        InvalidDataset: the file is missing or empty, or a line is no JSON; the text names the line.
    """
    rows: list[tuple[int, Any]] = []
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if limit and len(rows) == limit:
                    break
                if line.strip():
                    rows.append((number, _values(number, line)))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidDataset(Text("{path} cannot be read: {error}", path=path, error=error), PREPARE_AGAIN) from error
    if not rows:
        raise InvalidDataset(Text("{path} holds no rows.", path=path), PREPARE_AGAIN)
    return rows


def invalid_line(number: int, error: Exception) -> InvalidDataset:
    """The error for a line that is no row."""
    return InvalidDataset(
        Text("Line {number} of the data is no row: {error!r}", number=number, error=error),
        PREPARE_AGAIN,
        row=number,
    )


def _values(number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise invalid_line(number, error) from error
