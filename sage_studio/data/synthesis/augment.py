"""Data augmentation: paraphrases and back-translations by a language model.

Back-translation: Sennrich, Haddow and Birch, "Improving Neural Machine Translation Models with Monolingual Data", 2016.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sage_studio.data.dataset import Dataset
from sage_studio.data.language import detect_language, prose_of
from sage_studio.data.near_duplicates import resemblance
from sage_studio.data.rows import DataRow, Example, Message
from sage_studio.data.synthesis import taken_from
from sage_studio.data.synthesis.generated import Generate, GeneratedRows, clean_completion
from sage_studio.data.synthesis.qa_filter import normalized
from sage_studio.errors import InvalidInput
from sage_studio.fields import DatasetName, Id
from sage_studio.text import Text

Way = Literal["paraphrase", "back_translation"]
MIN_LENGTH_RATIO, MAX_LENGTH_RATIO = 0.5, 2.0
"""Length in characters of a paraphrase divided by that of its source."""
MAX_TOKENS = 1024
LANGUAGES = {"en": "English", "zh": "Chinese", "other": "its own language"}
DOING = Text("Paraphrasing")

PARAPHRASE = (
    "Rewrite the text between the lines in {language} in other words. Keep its meaning, all names, numbers and code. "
    "Answer with the rewritten text alone.\n-----\n{text}\n-----"
)
TRANSLATE = (
    "Translate the text between the lines into {language}. Keep all names, numbers and code as they are. "
    "Answer with the translation alone.\n-----\n{text}\n-----"
)
REASONS = {
    "empty": Text("the model gave an empty answer"),
    "length": Text("much shorter or longer than the original"),
    "copy": Text("too similar to the original"),
    "apart": Text("too different from the original"),
    "language": Text("in a different language than the original"),
    "repeat": Text("duplicate of another paraphrase"),
    "untaken": Text("not a conversation that can be paraphrased"),
}


class AugmentOrder(BaseModel):
    """How to augment a dataset."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset_id: Id
    name: DatasetName = Field("", description="Name of the new dataset; empty: the old name with -augmented")
    ways: tuple[Way, ...] = ("paraphrase",)
    part: Literal["question", "answer", "both"] = Field("question", description="What is paraphrased")
    copies: int = Field(1, ge=1, le=5, description="Attempts per row and way")
    max_rows: int = Field(0, ge=0, description="Use only the first N rows; 0: all")
    least_alike: float = Field(0.1, ge=0, le=1, description="Minimum similarity to the original (shared shingles)")
    most_alike: float = Field(0.9, ge=0, le=1, description="Maximum similarity; anything closer counts as a copy")
    temperature: float = Field(0.8, ge=0, le=2)
    keep_originals: bool = Field(True, description="The new dataset starts with the original rows")

    @model_validator(mode="after")
    def _check_fields(self) -> Self:
        if self.least_alike >= self.most_alike:
            raise ValueError("least_alike must be below most_alike")
        if not self.ways:
            raise ValueError("name at least one way")
        return self


def check_rows(dataset: Dataset) -> None:
    """Raise `InvalidInput` unless the rows can be paraphrased."""
    if dataset.row_kind != "conversation":
        raise InvalidInput(
            Text("{id} holds {row_kind} rows.", id=dataset.id, row_kind=dataset.row_kind),
            Text("Only conversations can be augmented."),
        )


def augmenter(order: AugmentOrder, dataset: Dataset, generate: Generate) -> Callable[[int, DataRow], GeneratedRows]:
    """A function that generates variants of a row, each with its provenance."""

    def augment(number: int, row: DataRow) -> GeneratedRows:
        generated = GeneratedRows()
        if not isinstance(row, Example):
            generated.rejected["untaken"] += 1
            return generated
        seen = {normalized(row.asked + row.completion)}
        for way in order.ways:
            for _ in range(order.copies):
                variant, reason = _variant(row, way, order, generate)
                if not reason and normalized(variant.asked + variant.completion) in seen:
                    reason = "repeat"
                if reason:
                    generated.rejected[reason] += 1
                    continue
                seen.add(normalized(variant.asked + variant.completion))
                generated.rows.append(taken_from(variant, dataset, number, way))
        return generated

    return augment


def rejection_reason(original: str, variant: str, min_similarity: float, max_similarity: float) -> str:
    """Why a variant of a text is not kept: a key of `REASONS`; empty if it is kept."""
    if not variant:
        return "empty"
    if not MIN_LENGTH_RATIO <= len(variant) / len(original) <= MAX_LENGTH_RATIO:
        return "length"
    if detect_language(prose_of(variant)) != detect_language(prose_of(original)):
        return "language"
    similarity = resemblance(original, variant)
    if similarity > max_similarity:
        return "copy"
    return "apart" if similarity < min_similarity else ""


def _variant(row: Example, way: Way, order: AugmentOrder, generate: Generate) -> tuple[Example, str]:
    """The row with the chosen parts paraphrased, and the reason to reject it, if any."""
    if order.part in ("question", "both"):
        original = row.prompt[-1].content
        variant = _paraphrase(original, way, order.temperature, generate)
        if reason := rejection_reason(original, variant, order.least_alike, order.most_alike):
            return row, reason
        row = replace(row, prompt=(*row.prompt[:-1], Message("user", variant)))
    if order.part in ("answer", "both"):
        variant = _paraphrase(row.completion, way, order.temperature, generate)
        if reason := rejection_reason(row.completion, variant, order.least_alike, order.most_alike):
            return row, reason
        row = replace(row, completion=variant)
    return row, ""


def _paraphrase(text: str, way: Way, temperature: float, generate: Generate) -> str:
    def ask(prompt: str, language: str, text: str) -> str:
        completion = generate(prompt.format(language=language, text=text), temperature, MAX_TOKENS)
        return clean_completion(completion).strip("-").strip()

    language = detect_language(prose_of(text))
    if way == "paraphrase":
        return ask(PARAPHRASE, LANGUAGES[language], text)
    pivot = ask(TRANSLATE, "English" if language == "zh" else "Chinese", text)
    return ask(TRANSLATE, LANGUAGES[language], pivot) if pivot else ""
