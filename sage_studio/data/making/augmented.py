"""More rows by saying the same in other words: paraphrase, and translation there and back, by a model that is asked.

Knows the prompts and which answers are worth keeping. Knows nothing of engines: it is given a function that answers.

Back-translation: Sennrich, Haddow and Birch, "Improving Neural Machine Translation Models with Monolingual Data", 2016.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sage_studio.data.dataset import Dataset
from sage_studio.data.language import detect_language, prose_of
from sage_studio.data.making.derived import taken_from
from sage_studio.data.making.writing import Ask, Made, spoken
from sage_studio.data.near_duplicates import resemblance
from sage_studio.data.rows import DataRow, Example, Message
from sage_studio.errors import InvalidInput
from sage_studio.text import Text

Way = Literal["paraphrase", "back_translation"]
SHORTEST, LONGEST = 0.5, 2.0
MOST_TOKENS = 1024
LANGUAGES = {"en": "English", "zh": "Chinese", "other": "its own language"}
DOING = Text("Saying it in other words", "正在改写")

PARAPHRASE = (
    "Rewrite the text between the lines in {language} in other words. Keep its meaning, all names, numbers and code. "
    "Answer with the rewritten text alone.\n-----\n{text}\n-----"
)
TRANSLATE = (
    "Translate the text between the lines into {language}. Keep all names, numbers and code as they are. "
    "Answer with the translation alone.\n-----\n{text}\n-----"
)
REASONS = {
    "empty": Text("the model answered nothing", "模型没有给出内容"),
    "length": Text("much shorter or longer than its source", "长度与原文相差过大"),
    "copy": Text("too much like its source", "与原文过于相似"),
    "apart": Text("too little like its source", "与原文相差过大"),
    "language": Text("in another language than its source", "语言与原文不同"),
    "repeat": Text("said before", "与已有改写重复"),
    "untaken": Text("no conversation to say in other words", "不是可改写的对话"),
}


class AugmentOrder(BaseModel):
    """What to make of a dataset."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset_id: str
    name: str = Field("", description="Of the new dataset; empty: the old name with -augmented")
    ways: tuple[Way, ...] = ("paraphrase",)
    part: Literal["question", "answer", "both"] = Field("question", description="What is said in other words")
    copies: int = Field(1, ge=1, le=5, description="Tries per row and way")
    max_rows: int = Field(0, ge=0, description="Only the first so many rows; 0: all")
    least_alike: float = Field(0.1, ge=0, le=1, description="Share of character runs that must stay")
    most_alike: float = Field(0.9, ge=0, le=1, description="A text more alike is a copy and is left out")
    temperature: float = Field(0.8, ge=0, le=2)
    keep_originals: bool = Field(True, description="The new dataset begins with the rows it was made of")

    @model_validator(mode="after")
    def _band(self) -> Self:
        if self.least_alike >= self.most_alike:
            raise ValueError("least_alike must be below most_alike")
        if not self.ways:
            raise ValueError("name at least one way")
        return self


def check_rows(dataset: Dataset) -> None:
    """Raise `InvalidInput` unless the rows can be said in other words."""
    if dataset.row_kind != "conversation":
        raise InvalidInput(
            Text(f"{dataset.id} holds {dataset.row_kind} rows.", f"{dataset.id} 的数据类型是 {dataset.row_kind}。"),
            Text("Only conversations are said in other words.", "只有对话类数据可以改写。"),
        )


def augmenter(order: AugmentOrder, dataset: Dataset, ask: Ask) -> Callable[[int, DataRow], Made]:
    """A function that makes new rows of a row, each linked to it."""

    def make(number: int, row: DataRow) -> Made:
        made = Made()
        if not isinstance(row, Example):
            made.refused["untaken"] += 1
            return made
        known = {_plain(row.asked + row.completion)}
        for way in order.ways:
            for _ in range(order.copies):
                new, reason = _variant(row, way, order, ask)
                if not reason and _plain(new.asked + new.completion) in known:
                    reason = "repeat"
                if reason:
                    made.refused[reason] += 1
                    continue
                known.add(_plain(new.asked + new.completion))
                made.rows.append(taken_from(new, dataset, number, way))
        return made

    return make


def objection(old: str, new: str, least: float, most: float) -> str:
    """Why a text is not worth keeping beside the one it was made of: a key of `REASONS`, or empty."""
    if not new:
        return "empty"
    if not SHORTEST <= len(new) / len(old) <= LONGEST:
        return "length"
    if detect_language(prose_of(new)) != detect_language(prose_of(old)):
        return "language"
    alike = resemblance(old, new)
    if alike > most:
        return "copy"
    return "apart" if alike < least else ""


def _variant(row: Example, way: Way, order: AugmentOrder, ask: Ask) -> tuple[Example, str]:
    """The row in other words, and why it is not worth keeping, if so."""
    if order.part in ("question", "both"):
        old = row.prompt[-1].content
        new = _said_anew(old, way, order.temperature, ask)
        if reason := objection(old, new, order.least_alike, order.most_alike):
            return row, reason
        row = replace(row, prompt=(*row.prompt[:-1], Message("user", new)))
    if order.part in ("answer", "both"):
        new = _said_anew(row.completion, way, order.temperature, ask)
        if reason := objection(row.completion, new, order.least_alike, order.most_alike):
            return row, reason
        row = replace(row, completion=new)
    return row, ""


def _said_anew(text: str, way: Way, temperature: float, ask: Ask) -> str:
    own = detect_language(prose_of(text))
    if way == "paraphrase":
        return _asked(PARAPHRASE, LANGUAGES[own], text, temperature, ask)
    there = _asked(TRANSLATE, "English" if own == "zh" else "Chinese", text, temperature, ask)
    return _asked(TRANSLATE, LANGUAGES[own], there, temperature, ask) if there else ""


def _asked(prompt: str, language: str, text: str, temperature: float, ask: Ask) -> str:
    answer = ask(prompt.format(language=language, text=text), temperature, MOST_TOKENS)
    return spoken(answer).strip("-").strip()


def _plain(text: str) -> str:
    return "".join(_letters(text.lower()))


def _letters(text: str) -> Iterator[str]:
    return filter(str.isalnum, text)
