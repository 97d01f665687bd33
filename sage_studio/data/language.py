"""Language detection by script, and a token estimate by size; no model, no tokenizer."""

import re
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import numpy as np


Amount = TypeVar("Amount", int, "np.ndarray[Any, np.dtype[np.int64]]")
HAN_RANGES = r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
HAN = re.compile(rf"[{HAN_RANGES}]+")
WORD = re.compile(r"\w+")
CODE = re.compile(
    r"^[ >]*(?P<fence>`{3,}|~{3,}).*?(?:^[ >]*(?P=fence)[`~]*[ \t]*$|\Z)|`[^`\n]*`", re.DOTALL | re.MULTILINE
)
ADDRESS = re.compile(r"https?://\S+")
BYTES_PER_TOKEN = 4
FEW_LETTERS = 10
"""Least letters by which a language can be told."""
LEADS = {
    "a": (*range(ord("A"), ord("Z") + 1), *range(ord("a"), ord("z") + 1)),
    "h": range(0xE4, 0xEA),
    "o": (*range(0xCD, 0xE2), *range(0xEA, 0xEE)),
    "k": (0xE3,),
}
"""First bytes in UTF-8: of Latin letters, of Han, of other letters, and of kana and also of Chinese punctuation."""
CLASSES = bytes(next((ord(name) for name, bytes_ in LEADS.items() if byte in bytes_), ord(" ")) for byte in range(256))
KANA = (b"\xe3\x81", b"\xe3\x82", b"\xe3\x83")


def prose_of(text: str) -> str:
    """A Markdown text without code and URLs."""
    if "`" in text or "~~~" in text:
        text = CODE.sub("", text)
    return ADDRESS.sub("", text) if "://" in text else text


def shows_language(text: str) -> bool:
    """Whether a text has enough letters, of any script, to tell its language."""
    return len(list(islice(filter(str.isalpha, text), FEW_LETTERS))) == FEW_LETTERS


def detect_language(text: str) -> str:
    """``zh`` where Han characters are at least as many as Latin words, ``other`` for further scripts, else ``en``.

    Technical Chinese is full of Latin names, so one Han character weighs as much as a Latin word, though a Chinese word
    has close to two of them.

    Example:
        >>> detect_language("SAGE 用 Pipeline 处理数据流"), detect_language("Runs the pipeline.")
        ('zh', 'en')
    """
    return detect_language_utf8(text.encode(errors="surrogatepass")) or "en"


def detect_language_utf8(text: bytes, least: int = 0) -> str:
    """The same for UTF-8, possibly cut within a character; empty if it has fewer letters than ``least``."""
    classes = (b" " + text).translate(CLASSES)
    han = classes.count(b"h")
    if han >= least and 6 * han > len(text):
        return "zh"  # whatever the rest is: a word has two letters and a space
    latin = classes.count(b" aa")
    other = classes.count(b"o") + classes.count(b"k")
    if other // 2 > han:  # at most so many
        other = classes.count(b"o") + sum(map(text.count, KANA))
    if han + 2 * latin < least and han + other + classes.count(b"a") < least:
        return ""
    if other // 2 > max(han, latin):
        return "other"
    return "zh" if han and han >= latin else "en"


def estimate_tokens(text: str) -> int:
    """Estimated tokens of a multilingual tokenizer: one per four bytes of UTF-8 (a Han character has three bytes).

    Example:
        >>> estimate_tokens("词" * 100), estimate_tokens("a" * 100)
        (75, 25)
    """
    return estimate_tokens_of_size(len(text) if text.isascii() else len(text.encode(errors="replace")))


def estimate_tokens_of_size(utf8: Amount) -> Amount:
    """The same for a size, or an array of sizes, in bytes."""
    return (utf8 + BYTES_PER_TOKEN // 2) // BYTES_PER_TOKEN


def useful_chars(text: str) -> int:
    """Letters and digits; a Han character counts twice, as it carries about as much as two Latin letters."""
    return _characters(WORD, text) + (0 if text.isascii() else _characters(HAN, text))


def _characters(runs: re.Pattern[str], text: str) -> int:
    return len("".join(runs.findall(text)))
