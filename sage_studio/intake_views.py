"""What the REST routes and the client endpoints show of a file that was brought, before it is kept.

Knows the shape and how to fill it. Knows nothing of routes or widgets.
"""

from typing import Any

from pydantic import BaseModel, Field

from sage_studio.data.column_mapping import ColumnMapping
from sage_studio.data.formats import FORMATS, Format
from sage_studio.data.grading import Question
from sage_studio.data.inspect_file import FileInspection
from sage_studio.text import Language
from sage_studio.training.recipes import methods_for
from sage_studio.views import FormatView


class KnownFormat(BaseModel):
    """A format that columns can be mapped to."""

    name: str
    needs: list[str]
    takes: list[str] = Field(description="Further keys, read where they are there")

    @classmethod
    def of(cls, known: Format) -> "KnownFormat":
        """The view of a format."""
        return cls(name=known.name, needs=list(known.needs), takes=list(known.takes))


class QuestionView(BaseModel):
    """A test question and what makes an answer to it right."""

    question: str
    answer: str = Field(description="A right answer")
    key: list[str] = Field(description='What a right answer says: each item, in which "a | b" means either')
    reject: list[str] = Field(description="What a right answer does not say")

    @classmethod
    def of(cls, question: Question) -> "QuestionView":
        """The view of a question."""
        return cls(
            question=question.question, answer=question.answer, key=list(question.key), reject=list(question.reject)
        )


class LookView(BaseModel):
    """What a file holds."""

    container: str
    rows: int = Field(description="Rows read: all, unless one cannot be used as it stands")
    columns: list[str]
    sample: list[dict[str, Any]]
    formats: list[FormatView]
    row_kind: str | None
    methods: list[str]
    fault: dict[str, Any] | None = Field(description="code, message, hint and row, where a row cannot be used")
    needs_mapping: bool = Field(description="Whether somebody has to say which column is which")
    remembered: ColumnMapping | None = Field(description="The mapping last used for these columns")
    guess: ColumnMapping | None = Field(description="What the columns seem to be, where somebody has to say it")
    known_formats: list[KnownFormat]

    @classmethod
    def of(cls, found: FileInspection, language: Language = "en") -> "LookView":
        """The view of a look at a file."""
        fault = found.fault
        return cls(
            container=found.container,
            rows=found.rows,
            columns=list(found.columns),
            sample=[{key: _short(value) for key, value in row.items()} for row in found.sample],
            formats=[FormatView.of(each) for each in found.formats],
            row_kind=found.row_kind,
            methods=methods_for(found.row_kind) if found.row_kind is not None else [],
            fault=None
            if fault is None
            else {
                "code": fault.code,
                "message": fault.message.in_(language),
                "hint": fault.hint.in_(language),
                "row": fault.row,
            },
            needs_mapping=found.needs_mapping,
            remembered=found.remembered,
            guess=found.guess,
            known_formats=[KnownFormat.of(each) for each in FORMATS],
        )


def _short(value: Any, longest: int = 500) -> Any:
    """A value as it may be shown: JSON as it is where it is short, else the beginning of its text."""
    text = value if isinstance(value, str) else str(value)
    if len(text) > longest:
        return f"{text[:longest]}…"
    return value if isinstance(value, str | int | float | bool | list | dict | None) else text
