"""Question-answer pairs generated about a text, kept only if it holds the evidence.

The filters follow the self-annotation of KBAlign (arXiv 2411.14790); the quoted evidence is our addition.
"""

import threading
from collections.abc import Callable, Iterable
from dataclasses import replace

from pydantic import BaseModel, ConfigDict, Field

from sage_studio.data.dataset import Dataset
from sage_studio.data.language import detect_language, prose_of
from sage_studio.data.rows import DataRow, Example, Message
from sage_studio.data.synthesis import origin_in
from sage_studio.data.synthesis.generated import Generate, GeneratedRows
from sage_studio.data.synthesis.qa_filter import (
    Bounds,
    QAPair,
    answer_fault,
    is_quoted,
    normalized,
    parse_pairs,
    question_fault,
)
from sage_studio.errors import InvalidInput
from sage_studio.fields import DatasetName, Id
from sage_studio.text import Text

MAX_TOKENS = 1024
MAX_SECTION_CHARS = 6000
"""Characters of a section that the model is shown."""
BOUNDS = {"en": Bounds(), "zh": Bounds(min_question=2, max_question=30, max_answer=100)}
DOING = Text("Writing questions and answers")

PROMPT = {
    "en": (
        "Write {count} questions that the text below answers, each with its answer and with the words of the text that "
        "prove it. A question must make sense without the text. Copy the evidence from the text letter by letter. "
        "Use this form and write nothing else:\nQ: question?\nA: answer\nE: evidence\n\n{about}\n-----\n{text}\n-----"
    ),
    "zh": (
        "请根据下面的文本写出 {count} 个问题，并给出答案和能证明答案的原文。"
        "问题不看文本也要能读懂；证据必须逐字抄自文本。只按以下格式输出："
        "\nQ: 问题？\nA: 答案\nE: 证据\n\n{about}\n-----\n{text}\n-----"
    ),
}
REASONS = {
    "unreadable": Text("no question with answer and evidence in the completion"),
    "question": Text("not a self-contained question of suitable length"),
    "answer": Text("the answer is empty, too long or says that nothing is known"),
    "evidence": Text("the evidence is not in the text"),
    "language": Text("in a different language than the text"),
    "repeat": Text("duplicate question"),
}


class AnnotateOrder(BaseModel):
    """How to annotate a dataset with questions and answers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset_id: Id
    name: DatasetName = Field("", description="Name of the new dataset; empty: the old name with -questions")
    pairs: int = Field(3, ge=1, le=10, description="Questions per section")
    max_rows: int = Field(0, ge=0, description="Use only the first N sections; 0: all")
    temperature: float = Field(0.8, ge=0, le=2)


def check_rows(dataset: Dataset) -> None:
    """Raise `InvalidInput` unless the rows hold texts to ask about."""
    if dataset.row_kind not in ("conversation", "passage"):
        raise InvalidInput(
            Text("{id} holds {row_kind} rows.", id=dataset.id, row_kind=dataset.row_kind),
            Text("Only documents and passages can be annotated."),
        )


def annotator(
    order: AnnotateOrder, dataset: Dataset, generate: Generate, known: Iterable[DataRow] = ()
) -> Callable[[int, DataRow], GeneratedRows]:
    """A thread-safe function that generates questions and answers about a row's text, each with its provenance.

    Args:
        known: rows generated before a restart; their questions are not repeated.
    """
    asked, lock = {normalized(row.asked) for row in known}, threading.Lock()

    def annotate(number: int, row: DataRow) -> GeneratedRows:
        generated, text = GeneratedRows(), row.texts[-1]
        language = "zh" if detect_language(prose_of(text) or text) == "zh" else "en"
        about = " › ".join(row.origin.heading)
        prompt = PROMPT[language].format(count=order.pairs, about=about, text=text[:MAX_SECTION_CHARS])
        pairs = [pair for pair in parse_pairs(generate(prompt, order.temperature, MAX_TOKENS)) if pair.evidence]
        if not pairs:
            generated.rejected["unreadable"] += 1
        for pair in pairs[: order.pairs]:
            key = normalized(pair.question)
            with lock:
                reason = rejection_reason(pair, text, language) or ("repeat" if key in asked else "")
                if not reason:
                    asked.add(key)
            if reason:
                generated.rejected[reason] += 1
                continue
            origin = replace(origin_in(row.origin, dataset.id, number, "annotated"), evidence=pair.evidence)
            generated.rows.append(Example((Message("user", pair.question),), pair.answer, origin))
        return generated

    return annotate


def rejection_reason(pair: QAPair, text: str, language: str) -> str:
    """Why a pair is not kept: a key of `REASONS`; empty if it is kept."""
    bounds = BOUNDS[language]
    if question_fault(pair.question, bounds):
        return "question"
    if answer_fault(pair.answer, bounds):
        return "answer"
    if not is_quoted(pair.evidence, text):
        return "evidence"
    return "" if detect_language(pair.question) == language else "language"
