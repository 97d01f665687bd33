"""What can be told of a text from its script alone: its language, and about how many tokens it makes.

Knows character classes. Knows no tokenizer and no row.
"""

import re

HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+")
OTHER_LETTER = re.compile(r"[\u0370-\u1fff\u2c00-\u2dff\u3040-\u30ff\uac00-\ud7af]+")
WORD = re.compile(r"\w")
CODE = re.compile(
    r"^[ >]*(?P<fence>`{3,}|~{3,}).*?(?:^[ >]*(?P=fence)[`~]*[ \t]*$|\Z)|`[^`\n]*`", re.DOTALL | re.MULTILINE
)
ADDRESS = re.compile(r"https?://\S+")
LONGEST_MARK = 100
"""How far after its begin code or an address may show what it is."""
LETTERS = bytes(ord("a") if chr(byte).isascii() and chr(byte).isalpha() else ord(" ") for byte in range(256))
HAN_BLOCKS = frozenset([*range(0x34, 0xA0), 0xF9, 0xFA])
OTHER_BLOCKS = frozenset([*range(0x03, 0x20), 0x2C, 0x2D, 0x30, *range(0xAC, 0xD8)])
"""First bytes, in UTF-16, of the characters of `HAN` and `OTHER_LETTER`; also those of some that are neither."""
BLOCKS = bytes(
    ord("m" if byte in (0x4D, 0xFA) else "h" if byte in HAN_BLOCKS else "o" if byte in OTHER_BLOCKS else " ")
    for byte in range(256)
)
"""Han, other letters, and m for a block of Han and of other characters."""

TOKENS_PER_HAN = 0.7
TOKENS_PER_OTHER = 0.27


def prose_of(text: str) -> str:
    """A Markdown text without its code and its web addresses."""
    if "`" in text or "~~~" in text:
        text = CODE.sub("", text)
    return ADDRESS.sub("", text) if "://" in text else text


def first_prose_of(text: str, length: int) -> str:
    """The first characters of `prose_of`, without looking at much more of the text than is needed for them."""
    tick = text.find("`")
    prose, at = "", 0
    while tick >= 0 and len(prose) < length:
        if tick - at > length - len(prose) and text[tick - 1] not in " >":
            break  # enough before the code; the signs of a quote before a fence would go with it
        begin, end = _code_at(text, at, tick)
        prose += text[at:begin]
        at = end
        tick = text.find("`", max(end, tick + 1))
    looked_at = text[: at + length + LONGEST_MARK]
    if ("/" in looked_at and "://" in looked_at) or (
        "~" in looked_at and "~~~" in looked_at
    ):  # one sign is found sooner
        return prose_of(text)[:length]
    return (prose + text[at : at + length])[:length]


def _code_at(text: str, at: int, tick: int) -> tuple[int, int]:
    """Begin and end of the code that a backtick may begin; ``at`` twice where it begins none."""
    if text.startswith("```", tick) and (tick == 0 or text[tick - 1] == "\n"):
        close = text.find("```", tick + 3) if text[tick + 3 : tick + 4] != "`" else 0
        if close > 0 and text[close - 1] == "\n" and text[close + 3 : close + 4] in ("\n", ""):
            return tick, close + 3  # plainly fenced, as nearly all code is
    elif text[tick - 1] not in "\n >":
        close = text.find("`", tick + 1)
        return (tick, close + 1) if close > 0 and "\n" not in text[tick:close] else (at, at)
    line = text.rfind("\n", at, tick) + 1 or at
    code = (None if text[line:tick].strip(" >") else CODE.match(text, line)) or CODE.match(text, tick)
    return code.span() if code is not None else (at, at)


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
    blocks = text.encode("utf-16-be", "surrogatepass")[::2].translate(BLOCKS)
    han, other = blocks.count(b"h"), blocks.count(b"o") // 2
    if b"m" in blocks:
        han = _characters(HAN, text)
    if other > han:  # at most so many: the blocks hold signs besides letters
        other = _characters(OTHER_LETTER, text) // 2
    if han >= other and han >= (len(text) - han) // 2:
        return "zh" if han else "en"
    latin = _latin_words(text)
    if other > han and other > latin:
        return "other"
    return "zh" if han and han >= latin else "en"


def estimate_tokens(text: str) -> int:
    """About how many tokens a multilingual tokenizer makes: 0.7 per Han character, 0.27 per Latin one.

    A character outside ASCII is weighed by its length in UTF-8, which is 3 bytes for a Han character.
    """
    return estimated_tokens(len(text), len(text) if text.isascii() else len(text.encode(errors="replace")))


def estimated_tokens(chars: int, utf8: int) -> int:
    """The same of a text of so many characters and bytes in UTF-8."""
    wide = (utf8 - chars) // 2
    return round(wide * TOKENS_PER_HAN + max(0, chars - wide) * TOKENS_PER_OTHER)


def useful_chars(text: str) -> int:
    """Letters and digits; a Han character counts twice, as it says about as much as two Latin letters or more."""
    return len(WORD.findall(text)) + (0 if text.isascii() else _characters(HAN, text))


def _characters(runs: re.Pattern[str], text: str) -> int:
    return len("".join(runs.findall(text)))


def _latin_words(text: str) -> int:
    """Runs of two letters or more."""
    return (b" " + text.encode("ascii", "replace").translate(LETTERS)).count(b" aa")
