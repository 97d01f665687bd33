"""Questions and answers that a model writes about a text, each kept only if the text holds the evidence for it.

Knows the prompts, how a model's answer is read, and what is worth keeping. Knows nothing of engines: it is given a
function that answers.

The filters follow KBAlign (arXiv 2411.14790), section on self-annotation; the evidence that must be found is ours.
"""

import re
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from pydantic import BaseModel, ConfigDict, Field

from sage_studio.data.dataset import Dataset
from sage_studio.data.language import detect_language, prose_of
from sage_studio.data.making.derived import origin_in
from sage_studio.data.making.writing import Ask, Made
from sage_studio.data.rows import DataRow, Example, Message
from sage_studio.errors import InvalidInput
from sage_studio.text import Text

MOST_TOKENS = 1024
LONGEST_SECTION = 6000
"""Characters of a section that the model is shown."""
SHORTEST_EVIDENCE, SHORTEST_EVIDENCE_ZH = 8, 4
WORDS, CHARACTERS = (4, 25), (5, 60)
"""Least and most words of a question, and characters of a Chinese one."""
LONGEST_ANSWER, LONGEST_ANSWER_ZH = 70, 200
DOING = Text("Writing questions and answers", "正在编写问答")

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
    "unreadable": Text("the model's answer had no question, answer and evidence", "模型输出中没有完整的问、答和证据"),
    "question": Text("no question of a fit length", "不是长度合适的问题"),
    "answer": Text("an answer that is empty, too long or says nothing", "回答为空、过长或没有内容"),
    "evidence": Text("the evidence is not in the text", "证据不在原文中"),
    "language": Text("in another language than the text", "语言与原文不同"),
    "repeat": Text("asked before", "问题重复"),
}
LABELLED = re.compile(r"^[\W\d_]*(?P<label>Q|A|E|问题?|答案?|回答|证据)\s*\d*\s*[:：]\s*(?P<said>.*)$", re.IGNORECASE)
LABELS = {"q": "q", "a": "a", "e": "e", "问": "q", "问题": "q", "答": "a", "答案": "a", "回答": "a", "证据": "e"}
NOTHING_SAID = ("not mentioned", "not specified", "does not say", "no information", "未提及", "没有提到", "无法确定")


class AnnotateOrder(BaseModel):
    """What to write about a dataset."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset_id: str
    name: str = Field("", description="Of the new dataset; empty: the old name with -questions")
    pairs: int = Field(3, ge=1, le=10, description="Questions asked for per section")
    max_rows: int = Field(0, ge=0, description="Only the first so many sections; 0: all")
    temperature: float = Field(0.8, ge=0, le=2)


def check_rows(dataset: Dataset) -> None:
    """Raise `InvalidInput` unless the rows hold texts to ask about."""
    if dataset.row_kind not in ("conversation", "passage"):
        raise InvalidInput(
            Text(f"{dataset.id} holds {dataset.row_kind} rows.", f"{dataset.id} 的数据类型是 {dataset.row_kind}。"),
            Text("Questions are written about documents or passages.", "只能针对文档或文本段落编写问答。"),
        )


def annotator(
    order: AnnotateOrder, dataset: Dataset, ask: Ask, known: Iterable[DataRow] = ()
) -> Callable[[int, DataRow], Made]:
    """A function that makes questions and answers of a row's text, each linked to it; for several threads at once.

    Args:
        known: rows made before, whose questions are not asked again.
    """
    asked, lock = {_plain(row.asked) for row in known}, threading.Lock()

    def make(number: int, row: DataRow) -> Made:
        made, text = Made(), row.texts[-1]
        language = "zh" if detect_language(prose_of(text) or text) == "zh" else "en"
        about = " › ".join(row.origin.heading)
        prompt = PROMPT[language].format(count=order.pairs, about=about, text=text[:LONGEST_SECTION])
        found = list(pairs_in(ask(prompt, order.temperature, MOST_TOKENS)))
        if not found:
            made.refused["unreadable"] += 1
        for question, answer, evidence in found[: order.pairs]:
            with lock:
                reason = objection(question, answer, evidence, text, language)
                reason = reason or ("repeat" if _plain(question) in asked else "")
                asked.add(_plain(question) if not reason else "")
            if reason:
                made.refused[reason] += 1
                continue
            origin = replace(origin_in(row.origin, dataset.id, number, "annotated"), evidence=evidence)
            made.rows.append(Example((Message("user", question),), answer, origin))
        return made

    return make


def pairs_in(answer: str) -> Iterator[tuple[str, str, str]]:
    """Question, answer and evidence, wherever all three follow one another; further lines belong to the one before."""
    found: dict[str, str] = {}
    last = ""
    for line in [*answer.splitlines(), "Q: end"]:
        labelled = LABELLED.match(line.strip())
        if labelled is None:
            if last and line.strip():
                found[last] += f"\n{line.strip()}"
            continue
        last = LABELS[labelled["label"].lower()]
        if last == "q":
            if found.keys() >= {"q", "a", "e"}:
                yield found["q"], found["a"], found["e"]
            found = {}
        found[last] = labelled["said"].strip().strip('"“”')


def objection(question: str, answer: str, evidence: str, text: str, language: str) -> str:
    """Why a pair is not worth keeping: a key of `REASONS`, or empty."""
    if not _is_question(question, language):
        return "question"
    most = LONGEST_ANSWER_ZH if language == "zh" else LONGEST_ANSWER
    length = len(answer) if language == "zh" else len(answer.split())
    if not _plain(answer) or length > most or any(each in answer.lower() for each in NOTHING_SAID):
        return "answer"
    if not is_evidence(evidence, text):
        return "evidence"
    return "" if detect_language(question) == language else "language"


def is_evidence(evidence: str, text: str) -> bool:
    """Whether the text holds the evidence; letters and digits count, marks, blanks and case do not."""
    plain = _plain(evidence)
    return len(plain) >= (SHORTEST_EVIDENCE if plain.isascii() else SHORTEST_EVIDENCE_ZH) and plain in _plain(text)


def _is_question(question: str, language: str) -> bool:
    least, most = CHARACTERS if language == "zh" else WORDS
    length = len(question) if language == "zh" else len(question.split())
    return question.endswith(("?", "？")) and least <= length <= most and "\n" not in question


def _plain(text: str) -> str:
    return "".join(filter(str.isalnum, text.lower()))
