"""Turns a pydantic error into a sentence in both languages: which field, which value, which rule.

Pydantic says its rules in English only. They are looked up here by its error types; a rule of our own brings both
languages with it as a `RuleError`.
"""

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sage_studio.text import NOTHING, Text, verbatim

SHOWN = 80
"""Characters of a wrong value, or of its field's name, that are repeated."""
NUMBER = Text("it must be a number")
WHOLE_NUMBER = Text("it must be a whole number")
BOOLEAN = Text("it must be true or false")
OBJECT = Text("it must be an object with fields")
LIST = Text("it must be a list")
RULES: dict[str, Text] = {
    "missing": Text("it must be given"),
    "extra_forbidden": Text("there is no such field"),
    "greater_than": Text("it must be greater than {gt}"),
    "greater_than_equal": Text("it must be at least {ge}"),
    "less_than": Text("it must be less than {lt}"),
    "less_than_equal": Text("it must be at most {le}"),
    "float_parsing": NUMBER,
    "float_type": NUMBER,
    "finite_number": Text("it must be a finite number"),
    "int_parsing": WHOLE_NUMBER,
    "int_parsing_size": WHOLE_NUMBER,
    "int_type": WHOLE_NUMBER,
    "int_from_float": WHOLE_NUMBER,
    "bool_parsing": BOOLEAN,
    "bool_type": BOOLEAN,
    "string_type": Text("it must be text"),
    "string_too_short": Text("it must not be empty"),
    "string_too_long": Text("it must have at most {max_length} characters"),
    "string_pattern_mismatch": Text("it must match the pattern {pattern}"),
    "literal_error": Text("it must be one of {expected}"),
    "enum": Text("it must be one of {expected}"),
    "too_short": Text("it must have at least {min_length} items"),
    "too_long": Text("it must have at most {max_length} items"),
    "list_type": LIST,
    "tuple_type": LIST,
    "dict_type": OBJECT,
    "model_type": OBJECT,
    "model_attributes_type": OBJECT,
    "json_invalid": Text("it is not valid JSON ({error})"),
}
"""Pydantic's error types; one that is missing here is said in pydantic's English."""


class RuleError(ValueError):
    """A rule of ours that a value breaks, for ``raise`` in a validator of pydantic.

    Args:
        rule: as the second half of "field = value: …", without a full stop.
        at_form: the whole sentence for a person at the form, who sees labels and not the names of fields.
    """

    def __init__(self, rule: Text, at_form: Text = NOTHING) -> None:
        super().__init__(rule.en)
        self.rule, self.at_form = rule, at_form


@dataclass(frozen=True, slots=True)
class FieldError:
    """One of pydantic's errors.

    Attributes:
        path: the field and, within it, keys and positions; empty where the fields contradict each other.
        kind: pydantic's error type.
        value: what was given.
        rule: what is wrong with it, without a full stop.
        at_form: the sentence for a person at the form, where the rule brings one.
        hidden: whether the value is kept out of the sentence: it stands in a file that the caller only named.
    """

    path: tuple[str, ...]
    kind: str
    value: Any
    rule: Text
    at_form: Text = NOTHING
    hidden: bool = False

    @property
    def name(self) -> str:
        """The path with dots: ``messages.0.role``."""
        return cut(".".join(self.path))

    @property
    def sentence(self) -> Text:
        """``learning_rate = 0: it must be greater than 0``; no full stop."""
        value = "" if self.hidden or self.kind in ("missing", "json_invalid") else f" = {shown(self.value)}"
        if not self.path:
            return self.rule
        return Text("{name}{value}: {rule}", name=self.name, value=value, rule=self.rule)


def first_error(errors: Sequence[Any]) -> FieldError:
    """The first of what ``ValidationError.errors()`` lists, in both languages.

    Example:
        >>> from pydantic import BaseModel, Field, ValidationError
        >>> class Recipe(BaseModel):
        ...     epochs: int = Field(gt=0)
        >>> try:
        ...     Recipe(epochs=0)
        ... except ValidationError as error:
        ...     print(first_error(error.errors()).sentence.zh)
        epochs = 0：必须大于 0
    """
    error = errors[0]
    context: Mapping[str, Any] = {name: _plain(value) for name, value in error.get("ctx", {}).items()}
    path, raised = tuple(map(str, error["loc"])), context.get("error")
    if isinstance(raised, RuleError):
        return FieldError(path, error["type"], error.get("input"), raised.rule, raised.at_form)
    if isinstance(raised, ValueError):
        return FieldError(path, error["type"], error.get("input"), verbatim(str(raised)))
    rule = RULES.get(error["type"])
    message = rule.with_values(**context) if rule is not None else verbatim(error["msg"])
    return FieldError(path, error["type"], error.get("input"), message)


def _plain(value: Any) -> Any:
    """A bound as a person writes it: 0 for 0.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def cut(text: str, most: int = SHOWN) -> str:
    """At most so many characters of a text."""
    return text if len(text) <= most else f"{text[:most]}…"


class _Bounded(reprlib.Repr):
    """Writes no more of a large value than is shown of it."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 4
        self.maxdict = self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = self.maxdeque = SHOWN
        self.maxstring = self.maxlong = self.maxother = SHOWN

    def repr_str(self, x: str, level: int) -> str:
        return cut(repr(x[: SHOWN + 1]))

    def repr_int(self, x: int, level: int) -> str:
        return repr(x) if x.bit_length() < 4 * SHOWN else hex(x >> max(0, x.bit_length() - 4 * SHOWN))

    def repr_bytes(self, x: bytes, level: int) -> str:
        return cut(repr(x[: SHOWN + 1]))


def shown(value: Any) -> str:
    """A wrong value as an error repeats it: as Python writes it, cut."""
    return cut(_Bounded().repr(value))
