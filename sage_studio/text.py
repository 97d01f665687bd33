"""One sentence in the two languages of the studio."""

import re
from typing import Literal, NamedTuple

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = ("en", "zh")


class Text(NamedTuple):
    """The same words in English and in Chinese."""

    en: str
    zh: str

    def in_(self, language: Language) -> str:
        """The words in one language."""
        return self.zh if language == "zh" else self.en

    def __bool__(self) -> bool:
        return bool(self.en)


NOTHING = Text("", "")


def language_of(accept_language: str | None) -> Language:
    """The language for an ``Accept-Language`` header or a locale's name: Chinese if it comes first, else English.

    The first choice has the highest ``q``; of several, the one named first.

    Example:
        >>> [language_of(value) for value in ("en;q=0.2, zh-CN;q=0.9", "zha", "de, zh", "zh_CN.UTF-8", None)]
        ['zh', 'en', 'en', 'zh', 'en']
    """
    choices = [choice.partition(";") for choice in (accept_language or "").split(",")]
    first, _, _ = max(choices, key=lambda choice: _quality(choice[2]))
    return "zh" if re.split(r"[-_.]", first.strip().lower())[0] == "zh" else "en"


def _quality(parameters: str) -> float:
    """The value of ``q=``, 0 to 1; 1 where there is none, 0 where it is no number between."""
    name, _, value = parameters.strip().partition("=")
    if name.strip().lower() != "q":
        return 1.0
    return float(value) if re.fullmatch(r"\s*(?:0(?:\.\d{0,3})?|1(?:\.0{0,3})?)\s*", value) else 0.0
