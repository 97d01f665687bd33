"""Column mappings: which column of a file is which key of a format.

A person's choice is remembered per set of columns.
"""

import hashlib
import json
from collections.abc import Collection, Mapping
from time import time
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sage_studio.data.formats import BY_NAME, FORMATS, Format
from sage_studio.data.rows import invalid_row
from sage_studio.database import Database
from sage_studio.errors import InvalidInput
from sage_studio.text import Text
from sage_studio.validation_errors import first_error

ALSO_CALLED: Mapping[str, tuple[str, ...]] = {
    "instruction": ("指令",),
    "input": ("context", "输入", "上下文"),
    "output": ("response", "输出"),
    "prompt": ("提示",),
    "completion": ("response",),
    "question": ("问题", "提问", "问"),
    "answer": ("response", "答案", "回答", "回复", "答"),
    "messages": ("conversation", "dialog", "dialogue", "chat", "turns"),
    "conversations": ("items",),
    "chosen": ("preferred", "better"),
    "rejected": ("dispreferred", "worse"),
    "query": ("查询",),
    "pos": ("passage", "document", "context"),
    "text": ("content", "body", "正文", "文本", "内容"),
}
"""Common other names of the keys, used to guess a mapping."""


class ColumnMapping(BaseModel):
    """A format and, for each of its keys that the file has, the column that holds it.

    Example:
        >>> mapping = ColumnMapping(format="Alpaca", columns={"instruction": "问", "output": "答"})
        >>> mapping.apply({"问": "Why?", "答": "So.", "id": 7}, row=1)
        {'instruction': 'Why?', 'output': 'So.'}
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: str = Field(description="Name of a known format: Alpaca, messages, query/pos/neg, …")
    columns: dict[str, str] = Field(description="Key of the format -> column of the file")

    def check(self) -> None:
        """Raise `InvalidInput` unless the format is known, its needed keys are there, and no others."""
        wanted = self._format()
        keys = (*wanted.needs, *wanted.takes)
        missing = [key for key in wanted.needs if not self.columns.get(key, "").strip()]
        unknown = [key for key in self.columns if key not in keys]
        if missing or unknown:
            what = (
                Text("{format} needs {missing}.", format=self.format, missing=missing)
                if missing
                else Text("{format} has no {key!r}.", format=self.format, key=unknown[0])
            )
            raise InvalidInput(what, Text("Its keys: {keys}.", keys=list(keys)))

    def apply(self, record: Any, row: int) -> dict[str, Any]:
        """A record under the format's keys. Raises `InvalidDataset` where it is no object or lacks a needed column."""
        if not isinstance(record, Mapping):
            raise invalid_row(row, Text("it is no object with columns."))
        needed = self._format().needs
        for key, column in self.columns.items():
            if key in needed and column not in record:
                there = ", ".join(map(str, record))[:300]
                raise invalid_row(
                    row,
                    Text("it has no column {column!r} for {key}.", column=column, key=key),
                    Text("Its columns: {there}.", there=there),
                )
        return {key: record.get(column) for key, column in self.columns.items() if column}

    def _format(self) -> Format:
        found = BY_NAME.get(self.format)
        if found is None:
            raise InvalidInput(
                Text("There is no format {format!r}.", format=self.format),
                Text("Formats: {formats}.", formats=list(BY_NAME)),
            )
        return found


def guess_mapping(columns: Collection[str]) -> ColumnMapping | None:
    """A likely mapping of these columns, for a person to confirm; None if they match no format.

    Example:
        >>> found = guess_mapping(["Instruction", "context", "response", "id"])
        >>> found.format, found.columns
        ('Alpaca', {'instruction': 'Instruction', 'output': 'response', 'input': 'context'})
    """
    named = {column.strip().casefold(): column for column in columns}
    best, most = None, -1
    for each in FORMATS:
        found = {key: column for key in (*each.needs, *each.takes) if (column := _called(key, named))}
        needed = [found.get(key) for key in each.needs]
        own = sum(key in named for key in each.needs)
        if all(needed) and len(set(needed)) == len(needed) and own > most:
            best, most = ColumnMapping(format=each.name, columns=found), own
    return best


def parse_mapping(text: str) -> ColumnMapping | None:
    """A mapping written as JSON; None for no text. Raises `InvalidInput` for anything else."""
    if not text.strip():
        return None
    try:
        return ColumnMapping.model_validate_json(text)
    except ValidationError as error:
        message = first_error(error.errors()).sentence
        raise InvalidInput(
            Text("The mapping cannot be read: {message}.", message=message),
            Text('Give {"format": "Alpaca", "columns": {"instruction": "column", "output": "column"}}.'),
        ) from error


class ColumnMappingStore:
    """Stores the last mapping used for each set of columns."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def remember(self, columns: Collection[str], mapping: ColumnMapping) -> None:
        """Store the mapping for these columns, replacing the one before."""
        with self._database.transaction() as sql:
            sql.execute(
                "INSERT OR REPLACE INTO column_mappings VALUES (?, ?, ?)",
                (_columns_key(columns), mapping.model_dump_json(), time()),
            )

    def recall(self, columns: Collection[str]) -> ColumnMapping | None:
        """The mapping last used for these columns, in any order; None for columns never mapped."""
        query = "SELECT mapping FROM column_mappings WHERE columns_key = ?"
        rows = self._database.rows(query, (_columns_key(columns),))
        return ColumnMapping.model_validate_json(rows[0]["mapping"]) if rows else None


def _called(key: str, named: Mapping[str, str]) -> str | None:
    return next((named[name] for name in (key, *ALSO_CALLED.get(key, ())) if name in named), None)


def _columns_key(columns: Collection[str]) -> str:
    return hashlib.sha256(json.dumps(sorted(set(columns))).encode()).hexdigest()
