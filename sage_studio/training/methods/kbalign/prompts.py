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
    "the text, and each answer is one full sentence that says only what the text says.",
    "你根据文本出题。每个问题都写明所问的对象，不看文本也能看懂；每个答案都是一句完整的话，只说文本中的内容。",
)
_EXAMPLE = Text(
    "The Lume bridge in Orvik was opened in 1931. It is 240 metres long and was designed by Ada Lind.",
    "奥维克的卢姆大桥于1931年通车，全长240米，由阿达·林德设计。",
)
_EXAMPLE_PAIRS = Text(
    "Question: When was the Lume bridge in Orvik opened?\nAnswer: The Lume bridge in Orvik was opened in 1931.\n\n"
    "Question: How long is the Lume bridge?\nAnswer: The Lume bridge is 240 metres long.\n\n"
    "Question: Who designed the Lume bridge?\nAnswer: The Lume bridge was designed by Ada Lind.",
    "问题：奥维克的卢姆大桥是哪一年通车的？\n答案：奥维克的卢姆大桥于1931年通车。\n\n"
    "问题：卢姆大桥有多长？\n答案：卢姆大桥全长240米。\n\n问题：卢姆大桥是谁设计的？\n答案：卢姆大桥由阿达·林德设计。",
)
_WRITE_PAIRS = Text(
    "Text:\n{text}\n\nWrite {count} questions about the text, each with its answer.",
    "文本：\n{text}\n\n请根据文本写出 {count} 个问题，并给出每个问题的答案。",
)
_QUESTION_ROLE = Text(
    "You turn a sentence into a question that the sentence answers.", "你把一句话变成一个问题，这句话就是它的答案。"
)
_QUESTION_EXAMPLES = (
    (
        Text("The Lume bridge in Orvik was opened in 1931.", "奥维克的卢姆大桥于1931年通车。"),
        Text("When was the Lume bridge in Orvik opened?", "奥维克的卢姆大桥是哪一年通车的？"),
    ),
    (
        Text("The Lume bridge was designed by Ada Lind.", "卢姆大桥由阿达·林德设计。"),
        Text("Who designed the Lume bridge?", "卢姆大桥是谁设计的？"),
    ),
    (
        Text("The wells of Hob are nine feet deep.", "霍布的水井深九尺。"),
        Text("How deep are the wells of Hob?", "霍布的水井有多深？"),
    ),
    (
        Text("The flag of Sorn is green.", "索恩的旗帜是绿色的。"),
        Text("What colour is the flag of Sorn?", "索恩的旗帜是什么颜色的？"),
    ),
)
_GENERAL_ROLE = Text(
    "You write general questions: how, why, what for, in what way things differ. Answering one may need other texts "
    "of the same collection as well. Each question names what it asks about.",
    "你提出概括性的问题：如何、为什么、有什么作用、有何不同。回答它可能还需要同一资料库中的其他文本。每个问题都写明所问的对象。",
)
_EXAMPLE_GENERAL = Text(
    "1. What makes the bridges of Orvik remarkable?\n2. How did Ada Lind shape the city of Orvik?\n"
    "3. Why was the Lume bridge built in Orvik?",
    "1. 奥维克的桥梁有哪些特别之处？\n2. 阿达·林德如何影响了奥维克的城市面貌？\n3. 为什么要在奥维克修建卢姆大桥？",
)
_WRITE_GENERAL = Text(
    "Text:\n{text}\n\nWrite {count} general questions on the subject of the text.",
    "文本：\n{text}\n\n请就文本的主题写出 {count} 个概括性的问题。",
)
_WRITE_GENERAL_OF_SEVERAL = Text(
    "Texts:\n{text}\n\nWrite {count} general questions on the subject that these texts share.",
    "文本：\n{text}\n\n请就这些文本共同的主题写出 {count} 个概括性的问题。",
)
_PART_ROLE = Text(
    'You answer a question from one text alone, in one or two sentences. If the text does not help, you write "none".',
    "你只根据给出的一段文本，用一两句话回答问题。如果文本没有帮助，就写“无”。",
)
_PART = Text("Text:\n{text}\n\nQuestion: {question}", "文本：\n{text}\n\n问题：{question}")
_REFINE_ROLE = Text(
    "You join notes into one good answer: complete, without repetition, saying only what the notes say.",
    "你把若干条笔记整理成一个完整的答案：内容齐全、不重复，只说笔记中的内容。",
)
_REFINE = Text("Question: {question}\n\nNotes:\n{notes}\n\nAnswer:", "问题：{question}\n\n笔记：\n{notes}\n\n答案：")
_WITH_REFERENCES = Text(
    "Use these references where they help.\n\n{references}\n\nQuestion: {question}",
    "如有帮助，请参考以下资料。\n\n{references}\n\n问题：{question}",
)
_JUDGE_ROLE = Text(
    'You compare an answer with the right answer. You begin with "correct because" or "wrong because" and say in one '
    "sentence what kind of error it is, such as missing facts, a wrong fact or beside the question, without giving the "
    "right answer away.",
    "你把一个回答与正确答案进行比较。以“正确，因为”或“错误，因为”开头，用一句话说明是哪类错误（如遗漏事实、事实错误、答非所问），不要透露正确答案。",
)
_JUDGE = Text(
    "Question: {question}\nRight answer: {right}\nAnswer: {given}",
    "问题：{question}\n正确答案：{right}\n回答：{given}",
)
_JUDGE_EXAMPLES = (
    (
        Text("When was the Lume bridge opened?", "卢姆大桥是哪一年通车的？"),
        Text("The Lume bridge was opened in 1931.", "卢姆大桥于1931年通车。"),
        Text("It was opened in 1874.", "它于1874年通车。"),
        Text("wrong because it states a wrong fact: the year.", "错误，因为事实错误：年份不对。"),
    ),
    (
        Text("Who designed the Lume bridge?", "卢姆大桥是谁设计的？"),
        Text("The Lume bridge was designed by Ada Lind.", "卢姆大桥由阿达·林德设计。"),
        Text("Ada Lind designed it.", "阿达·林德设计了它。"),
        Text("correct because it names the same designer.", "正确，因为说出了同一位设计者。"),
    ),
)
_CHECK = Text(
    "{asked}\n\nProposed answer: {given}\n\nIs the proposed answer correct? Say why.",
    "{asked}\n\n给出的回答：{given}\n\n这个回答正确吗？请说明理由。",
)


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
