"""One sentence in the two languages that the studio speaks.

Knows how a text is kept and chosen. Knows nothing of where it is shown, nor of how a person's language is found.
"""

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
    """The language for an HTTP ``Accept-Language`` value: Chinese when its first choice is, else English."""
    first = (accept_language or "").split(",")[0].strip().lower()
    return "zh" if first.startswith("zh") else "en"
