"""What can be told of a text from its script alone: its language, and about how many tokens it makes.

Knows character classes. Knows no tokenizer and no row.
"""

import re

HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+")
LATIN_WORD = re.compile(r"[A-Za-z]{2,}")
OTHER_LETTER = re.compile(r"[\u0370-\u1fff\u2c00-\u2dff\u3040-\u30ff\uac00-\ud7af]+")
WORD = re.compile(r"\w")
CODE = re.compile(
    r"^[ >]*(?P<fence>`{3,}|~{3,}).*?(?:^[ >]*(?P=fence)[`~]*[ \t]*$|\Z)|`[^`\n]*`", re.DOTALL | re.MULTILINE
)
ADDRESS = re.compile(r"https?://\S+")

TOKENS_PER_HAN = 0.7
TOKENS_PER_OTHER = 0.27


def prose_of(text: str) -> str:
    """A Markdown text without its code and its web addresses."""
    if "`" in text or "~~~" in text:
        text = CODE.sub("", text)
    return ADDRESS.sub("", text) if "://" in text else text


def letters_in(text: str) -> int:
    """How many letters of any script."""
    return sum(map(str.isalpha, text))


def language_of_text(text: str) -> str:
    """``zh`` where Han characters are at least as many as Latin words, ``other`` for further scripts, else ``en``.

    Technical Chinese is full of Latin names, so one Han character weighs as much as a Latin word, though a Chinese word
    has close to two of them.

    Example:
        >>> language_of_text("SAGE 用 Pipeline 处理数据流"), language_of_text("Runs the pipeline.")
        ('zh', 'en')
    """
    if text.isascii():
        return "en"
    han = _characters(HAN, text)
    latin = len(LATIN_WORD.findall(text))
    other = _characters(OTHER_LETTER, text) // 2
    if other > han and other > latin:
        return "other"
    return "zh" if han and han >= latin else "en"


def estimate_tokens(text: str) -> int:
    """About how many tokens a multilingual tokenizer makes: 0.7 per Han character, 0.27 per Latin one.

    A character outside ASCII is weighed by its length in UTF-8, which is 3 bytes for a Han character.
    """
    wide = 0 if text.isascii() else (len(text.encode(errors="replace")) - len(text)) // 2
    return round(wide * TOKENS_PER_HAN + max(0, len(text) - wide) * TOKENS_PER_OTHER)


def useful_chars(text: str) -> int:
    """Letters and digits; a Han character counts twice, as it says about as much as two Latin letters or more."""
    return len(WORD.findall(text)) + (0 if text.isascii() else _characters(HAN, text))


def _characters(runs: re.Pattern[str], text: str) -> int:
    return len("".join(runs.findall(text)))
