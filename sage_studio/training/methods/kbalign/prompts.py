"""The prompts of each stage with few-shot examples, in English and Chinese.

The examples matter: a small model imitates them where it does not follow the instruction alone.
"""

from collections.abc import Sequence
from typing import Literal

from sage_studio.text import Text
from sage_studio.training.methods.kbalign.generator import Messages, conversation

Language = Literal["en", "zh"]

_PAIRS_ROLE = Text(
    "You write exam questions about a text. Each question names what it asks about, so that it is understood without "
    "the text, and each answer is one full sentence that says only what the text says."
)
_EXAMPLE = Text("The Lume bridge in Orvik was opened in 1931. It is 240 metres long and was designed by Ada Lind.")
_EXAMPLE_PAIRS = Text(
    "Question: When was the Lume bridge in Orvik opened?\nAnswer: The Lume bridge in Orvik was opened in 1931.\n\n"
    "Question: How long is the Lume bridge?\nAnswer: The Lume bridge is 240 metres long.\n\n"
    "Question: Who designed the Lume bridge?\nAnswer: The Lume bridge was designed by Ada Lind."
)
_WRITE_PAIRS = Text("Text:\n{text}\n\nWrite {count} questions about the text, each with its answer.")
_QUESTION_ROLE = Text("You turn a sentence into a question that the sentence answers.")
_QUESTION_EXAMPLES = (
    (
        Text("The Lume bridge in Orvik was opened in 1931."),
        Text("When was the Lume bridge in Orvik opened?"),
    ),
    (
        Text("The Lume bridge was designed by Ada Lind."),
        Text("Who designed the Lume bridge?"),
    ),
    (
        Text("The wells of Hob are nine feet deep."),
        Text("How deep are the wells of Hob?"),
    ),
    (
        Text("The flag of Sorn is green."),
        Text("What colour is the flag of Sorn?"),
    ),
)
_GENERAL_ROLE = Text(
    "You write general questions: how, why, what for, in what way things differ. Answering one may need other texts "
    "of the same collection as well. Each question names what it asks about."
)
_EXAMPLE_GENERAL = Text(
    "1. What makes the bridges of Orvik remarkable?\n2. How did Ada Lind shape the city of Orvik?\n"
    "3. Why was the Lume bridge built in Orvik?"
)
_WRITE_GENERAL = Text("Text:\n{text}\n\nWrite {count} general questions on the subject of the text.")
_WRITE_GENERAL_OF_SEVERAL = Text(
    "Texts:\n{text}\n\nWrite {count} general questions on the subject that these texts share."
)
_PART_ROLE = Text(
    'You answer a question from one text alone, in one or two sentences. If the text does not help, you write "none".'
)
_PART = Text("Text:\n{text}\n\nQuestion: {question}")
_REFINE_ROLE = Text(
    "You join notes into one good answer: complete, without repetition, saying only what the notes say."
)
_REFINE = Text("Question: {question}\n\nNotes:\n{notes}\n\nAnswer:")
_WITH_REFERENCES = Text("Use these references where they help.\n\n{references}\n\nQuestion: {question}")
_JUDGE_ROLE = Text(
    'You compare an answer with the right answer. You begin with "correct because" or "wrong because" and say in one '
    "sentence what kind of error it is, such as missing facts, a wrong fact or beside the question, without giving the "
    "right answer away."
)
_JUDGE = Text("Question: {question}\nRight answer: {right}\nAnswer: {given}")
_JUDGE_EXAMPLES = (
    (
        Text("When was the Lume bridge opened?"),
        Text("The Lume bridge was opened in 1931."),
        Text("It was opened in 1874."),
        Text("wrong because it states a wrong fact: the year."),
    ),
    (
        Text("Who designed the Lume bridge?"),
        Text("The Lume bridge was designed by Ada Lind."),
        Text("Ada Lind designed it."),
        Text("correct because it names the same designer."),
    ),
)
_CHECK = Text("{asked}\n\nProposed answer: {given}\n\nIs the proposed answer correct? Say why.")


def write_pairs(text: str, count: int, language: Language) -> Messages:
    """Short dependency: questions and answers about a text."""
    form = _WRITE_PAIRS.in_(language)
    example = form.format(text=_EXAMPLE.in_(language), count=3)
    return conversation(
        _PAIRS_ROLE.in_(language), example, _EXAMPLE_PAIRS.in_(language), form.format(text=text, count=count)
    )


def write_question(quote: str, language: Language) -> Messages:
    """Short dependency: a question to a sentence, shown without context, which would distract a small model."""
    turns = [turn.in_(language) for example in _QUESTION_EXAMPLES for turn in example]
    return conversation(_QUESTION_ROLE.in_(language), *turns, quote)


def write_general(texts: Sequence[str], count: int, language: Language) -> Messages:
    """Long dependency: general questions on the subject of a text, or of several similar ones."""
    example = _WRITE_GENERAL.in_(language).format(text=_EXAMPLE.in_(language), count=3)
    form = _WRITE_GENERAL if len(texts) == 1 else _WRITE_GENERAL_OF_SEVERAL
    asked = form.in_(language).format(text="\n\n".join(texts), count=count)
    return conversation(_GENERAL_ROLE.in_(language), example, _EXAMPLE_GENERAL.in_(language), asked)


def answer_part(question: str, text: str, language: Language) -> Messages:
    """The answer to a question from one text alone."""
    return conversation(_PART_ROLE.in_(language), _PART.in_(language).format(text=text, question=question))


def refine(question: str, notes: Sequence[str], language: Language) -> Messages:
    """Long dependency: merge several partial answers into one."""
    listed = "\n".join(f"- {note}" for note in notes)
    return conversation(_REFINE_ROLE.in_(language), _REFINE.in_(language).format(question=question, notes=listed))


def with_references(question: str, references: Sequence[str], language: Language) -> str:
    """A question with the passages retrieved for it; the question alone if there are none."""
    if not references:
        return question
    listed = "\n\n".join(f"[{number}] {text}" for number, text in enumerate(references, 1))
    return _WITH_REFERENCES.in_(language).format(references=listed, question=question)


def judge(question: str, right: str, given: str, language: Language) -> Messages:
    """Verification: whether an answer is correct, compared with the reference answer."""
    form = _JUDGE.in_(language)
    turns: list[str] = []
    for asked, reference, answer, verdict in _JUDGE_EXAMPLES:
        shown = form.format(question=asked.in_(language), right=reference.in_(language), given=answer.in_(language))
        turns += [shown, verdict.in_(language)]
    return conversation(_JUDGE_ROLE.in_(language), *turns, form.format(question=question, right=right, given=given))


def check(asked: str, given: str, language: Language) -> str:
    """Verification as a training prompt: judge an answer without seeing the reference answer."""
    return _CHECK.in_(language).format(asked=asked, given=given)
