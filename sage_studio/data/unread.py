"""The columns of a file that hold something of which nothing is made: a person may have wanted them.

Knows the keys that each format reads. Knows nothing of files; memory grows with the names alone.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from sage_studio.data.dataset import FormatCount
from sage_studio.data.formats import BY_NAME, Format, format_of
from sage_studio.data.mapping import ColumnMapping

MOST_NAMES = 100
NOTHING: tuple[Any, ...] = (None, "", [], {}, "[]")
"""What a column holds that was written for the sake of other rows; ``[]`` is how ShareGPT writes no tools."""


class Unread:
    """Sees records go by.

    Args:
        mapping: which column is which key; None to go by the columns' names.

    Example:
        >>> unread = Unread()
        >>> unread.see({"question": "Why?", "answer": "So.", "context": "Rain."})
        >>> unread.beside((FormatCount("question/answer", ("question", "answer"), 1),))[0].unread
        ('context',)
    """

    def __init__(self, mapping: ColumnMapping | None = None) -> None:
        self._mapping = mapping
        self._names: defaultdict[str, dict[str, None]] = defaultdict(dict)

    def see(self, record: Any) -> None:
        """One more record, of any kind."""
        if not isinstance(record, Mapping):
            return
        found = format_of(record) if self._mapping is None else BY_NAME[self._mapping.format]
        if found is None:
            return
        names = self._names[found.name]
        for name, value in record.items():
            if value not in NOTHING and len(names) < MOST_NAMES and not self._is_read(name, found):
                names[name] = None

    def see_all(self, records: Iterable[Any]) -> None:
        """Many records."""
        for record in records:
            self.see(record)

    def beside(self, formats: Iterable[FormatCount]) -> tuple[FormatCount, ...]:
        """The formats with the columns that were not read."""
        return tuple(replace(each, unread=tuple(self._names.get(each.name, ()))) for each in formats)

    def _is_read(self, name: str, found: Format) -> bool:
        if self._mapping is not None:
            return name in self._mapping.columns.values()
        stem, _, number = str(name).rpartition("_")
        return name in found.needs or name in found.takes or (number.isdecimal() and stem in found.takes)
