"""Messages for people: English in the code, other languages from gettext catalogues.

A `Text` is lazy: it is put into words when it is shown, in the language of whoever reads it. A language is one folder
of ``sage_studio/locale``; ``make translations`` collects the messages of the code and compiles the catalogues.
"""

import gettext
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

Language = str
"""A language of the studio, as a folder of ``locale`` is called: ``en``, ``zh``."""
LOCALE = Path(__file__).parent / "locale"
DOMAIN = "sage_studio"


def found_languages() -> tuple[Language, ...]:
    """English and every language that has a compiled catalogue."""
    return ("en", *sorted(path.parent.parent.name for path in LOCALE.glob("*/LC_MESSAGES/*.mo")))


LANGUAGES = found_languages()


class Text:
    """A message, its values, and its words in each language.

    Args:
        message: the English words, a literal; ``{name}`` stands for a value, formatted as by `str.format`.
        context: parts messages that are alike in English and not in another language.
        values: what the names stand for. A `Text` among them is translated too; of a list or tuple, the parts are
            joined with the comma of the language.

    Example:
        >>> said = Text("{count} files were left out: {names}", count=2, names=["a.md", "b.md"])
        >>> said.en
        '2 files were left out: a.md, b.md'
    """

    __slots__ = ("_words", "context", "message", "values")

    def __init__(self, message: str = "", /, *, context: str = "", **values: Any) -> None:
        self.message = message
        self.context = context
        self.values = values
        self._words: dict[Language, str] = {}

    def in_(self, language: Language) -> str:
        """The words in one language; in English where there is no translation."""
        if language not in self._words:
            words = translated(self.message, language, self.context)
            values = {name: _in(language, value) for name, value in self.values.items()}
            self._words[language] = words.format(**values) if values else words
        return self._words[language]

    @property
    def en(self) -> str:
        """The words in English."""
        return self.in_("en")

    @property
    def zh(self) -> str:
        """The words in Chinese."""
        return self.in_("zh")

    def translations(self) -> dict[Language, str]:
        """Language -> the words in it, as they are stored and sent; `multilingual` reads them again."""
        return {language: self.in_(language) for language in LANGUAGES}

    def pair(self) -> tuple[str, str]:
        """English and Chinese, as 0.1 kept them in its files and tables."""
        return self.en, self.zh

    def with_values(self, **values: Any) -> "Text":
        """The same message with values."""
        text = Text(context=self.context, **values)
        text.message = self.message
        return text

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """As JSON, the `pair`."""
        from pydantic_core import core_schema  # `make doctor` says its texts before anything is installed

        pair = handler.generate_schema(NamedTuple("Text", [("en", str), ("zh", str)]))
        read = core_schema.no_info_after_validator_function(lambda words: verbatim(*words), pair)
        known = core_schema.is_instance_schema(cls)
        return core_schema.json_or_python_schema(
            json_schema=read,
            python_schema=core_schema.union_schema([known, read]),
            serialization=core_schema.plain_serializer_function_ser_schema(cls.pair, return_schema=pair),
        )

    def __bool__(self) -> bool:
        return bool(self.message)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Text) and self.translations() == other.translations()

    def __hash__(self) -> int:
        return hash(self.en)

    def __repr__(self) -> str:
        return f"Text({self.en!r})"


def verbatim(en: str, /, zh: str | None = None, **others: str) -> Text:
    """A text that is not translated: a name, what another program said, or words that were stored.

    Example:
        >>> verbatim("stderr of git").zh
        'stderr of git'
    """
    text = Text()
    text.message = en
    words = {"zh": zh if zh is not None else en, **others}
    text._words = {language: words.get(language, en) for language in LANGUAGES} | {"en": en}
    return text


def multilingual(words: Mapping[Language, str] | Mapping[Literal["en", "zh"], str]) -> Text:
    """A text from its words in each language; English where one is missing."""
    given: dict[Language, str] = {str(language): said for language, said in words.items()}
    return verbatim(given.pop("en"), **given)


NOTHING = verbatim("")
TAGS = {"zh": "zh-CN"}
"""Language -> what HTML calls it, where that is not its name here."""


@cache
def catalogue(language: Language) -> gettext.NullTranslations:
    """The compiled catalogue of a language; an empty one if there is none."""
    return gettext.translation(DOMAIN, LOCALE, [language], fallback=True)


def translated(message: str, language: Language, context: str = "") -> str:
    """The words of a catalogue for an English message, without its values; the message itself if it has none."""
    if not message or language == "en":
        return message
    known = catalogue(language)
    return known.pgettext(context, message) if context else known.gettext(message)


def _in(language: Language, value: Any) -> Any:
    if isinstance(value, Text):
        return value.in_(language)
    return _Listed(value, language) if isinstance(value, list | tuple) else value


class _Listed:
    """A list as ``{name}`` shows it, with the comma of the language; ``{name!r}`` shows it as Python does."""

    def __init__(self, parts: "list[Any] | tuple[Any, ...]", language: Language) -> None:
        self._parts, self._language = parts, language

    def __str__(self) -> str:
        comma = Text(", ", context="between the parts of a list").in_(self._language)
        return comma.join(str(_in(self._language, part)) for part in self._parts)

    def __repr__(self) -> str:
        return repr(self._parts)


def language_of(accept_language: str | None) -> Language:
    """The language for an ``Accept-Language`` header or a locale's name: the first choice if it is known, else English.

    The first choice has the highest ``q``; of several, the one named first.

    Example:
        >>> [language_of(value) for value in ("en;q=0.2, zh-CN;q=0.9", "zha", "de, zh", "zh_CN.UTF-8", None)]
        ['zh', 'en', 'en', 'zh', 'en']
    """
    choices = [choice.partition(";") for choice in (accept_language or "").split(",")]
    first, _, _ = max(choices, key=lambda choice: _quality(choice[2]))
    name = re.split(r"[-_.]", first.strip().lower())[0]
    return name if name in LANGUAGES else "en"


def _quality(parameters: str) -> float:
    """The value of ``q=``, 0 to 1; 1 where there is none, 0 where it is no number between."""
    name, _, value = parameters.strip().partition("=")
    if name.strip().lower() != "q":
        return 1.0
    return float(value) if re.fullmatch(r"\s*(?:0(?:\.\d{0,3})?|1(?:\.0{0,3})?)\s*", value) else 0.0
