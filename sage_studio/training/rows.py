"""From ``data.jsonl`` to token ids and labels: the loss falls on the answer alone.

Knows the row's shape, the chat template and what truncation does to a row. Knows nothing of tensors or trainers.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sage_studio.errors import InvalidDataset, InvalidModel
from sage_studio.text import Text
from sage_studio.training.lines import no_row, read_lines

IGNORED = -100
"""The label that the loss leaves out."""
CHUNK = 512
LONG_ANSWER = 24
"""Tokens from which two equal answers are copies; shorter ones (yes, positive, 42) answer many questions."""


Messages = list[dict[str, str]]
Row = dict[str, Messages]
"""The parts of a row that are needed, each a list of messages; ``prompt`` is always among them."""


@dataclass(slots=True)
class Encoded:
    """Rows as the trainer reads them.

    Attributes:
        columns: for each name one list of token ids or labels a row, none longer than ``max_length``.
        tokens, answer_tokens: tokens of all rows, and those of them that the loss falls on.
        truncated: numbers (from 1) of the rows that were longer, and kept.
        dropped: numbers of the rows left out because truncation had cut off all there was to learn.
        diverging: rows whose prompt the template renders differently once an answer follows.
        said: for each row a number for its question, and one for a long answer; the same for the same text.
    """

    columns: dict[str, list[list[int]]] = field(default_factory=dict)
    tokens: int = 0
    answer_tokens: int = 0
    truncated: list[int] = field(default_factory=list)
    dropped: list[int] = field(default_factory=list)
    diverging: int = 0
    said: list[tuple[int, ...]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def add(self, question: list[int], answer: list[int], **row: list[int]) -> None:
        """Append a row: what is asked and answered in it, and one list for each column."""
        for name, values in row.items():
            self.columns.setdefault(name, []).append(values)
        asked = hash((0, *question))
        self.said.append((asked, hash((1, *answer))) if len(answer) >= LONG_ANSWER else (asked,))


@dataclass(frozen=True, slots=True)
class Tokens:
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


def answered(line: Mapping[str, Any]) -> Row:
    """A line of ``data.jsonl`` as ``prompt`` and ``completion``; of a preference the chosen side."""
    return {"prompt": line["prompt"], "completion": line["chosen"] if "chosen" in line else line["completion"]}


def read_rows(path: Path, limit: int = 0, parts: Callable[[Mapping[str, Any]], Row] = answered) -> list[Row]:
    """The rows of ``data.jsonl``, the first ``limit`` of them unless it is 0, each as the ``parts`` it is needed in.

    Raises:
        InvalidDataset: the file is missing or empty, or a line is no row; the text names the line.
    """
    return [_row(number, line, parts) for number, line in read_lines(path, limit)]


def check_template(tokenizer: Any) -> None:
    """Raise `InvalidModel` for a tokenizer that cannot render a conversation."""
    if not getattr(tokenizer, "chat_template", None):
        raise InvalidModel(
            Text(
                "The model's tokenizer has no chat template, so a conversation cannot be written for it.",
                "该模型的分词器没有对话模板，无法表示对话。",
            ),
            Text("Choose the model's Instruct or Chat variant.", "请选择该模型的 Instruct 或 Chat 版本。"),
        )


def encode(
    rows: list[Row], tokenizer: Any, max_length: int, on_rows: Callable[[int], None] = lambda done: None
) -> Encoded:
    """As `encode_some`. Raises `InvalidDataset` also where no row has any of its answer left after truncation."""
    encoded = encode_some(rows, tokenizer, max_length, on_rows)
    if not encoded:
        raise all_masked(len(rows), max_length)
    return encoded


def encode_some(
    rows: list[Row], tokenizer: Any, max_length: int, on_rows: Callable[[int], None] = lambda done: None
) -> Encoded:
    """Columns ``input_ids`` and ``labels``, where everything before the answer is masked.

    Args:
        rows: conversational ``prompt`` and ``completion``.
        tokenizer: one with a chat template.
        max_length: longest row in tokens; the end of a longer one is cut.
        on_rows: called with the rows done, now and then.

    Raises:
        InvalidDataset: the template refuses a row.
    """
    encoded = Encoded()
    for first, chunk in chunks(rows):
        for number, tokens in enumerate(encode_each(chunk, tokenizer, first), first):
            _add(encoded, number, tokens, max_length)
        on_rows(first + len(chunk) - 1)
    return encoded


def all_masked(count: int, max_length: int) -> InvalidDataset:
    """The error for rows of which the cut leaves nothing to learn."""
    return InvalidDataset(
        Text(
            f"In all {count} rows the prompt alone fills max_length = {max_length} tokens: no answer is left to learn.",
            f"全部 {count} 行的提示本身就占满了 max_length = {max_length} 个 token，没有剩下可学习的回答。",
        ),
        Text("Raise max_length, or shorten the prompts.", "请增大 max_length，或缩短提示。"),
    )


def chunks(rows: list[Row]) -> Iterator[tuple[int, list[Row]]]:
    """Some hundred rows at a time, with the number (from 1) of the first of them."""
    for start in range(0, len(rows), CHUNK):
        yield start + 1, rows[start : start + CHUNK]


def encode_each(rows: list[Row], tokenizer: Any, first: int = 1, answer: str = "completion") -> Iterator[Tokens]:
    """Each row by itself, uncut; all of them are tokenized together, so give some hundred at a time.

    Args:
        rows: conversational ``prompt`` and ``answer``.
        tokenizer: transformers', or a `sage_studio.training.tokenizing.ChatTokenizer`.
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
        yield Tokens(ids, known, diverging=known < len(before))


def _add(encoded: Encoded, number: int, tokens: Tokens, max_length: int) -> None:
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
            Text(
                f"The model's chat template refuses row {number}: {error}", f"模型的对话模板拒绝第 {number} 行：{error}"
            ),
            Text("Correct the row, or choose another model.", "请修改该行，或选择其他模型。"),
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
        raise no_row(number, error) from error
    return row
