"""Some rows of a dataset at a time, all of them or those that hold some words.

Knows pages, and remembers the finds of the last searches so that the next page of one reads nothing anew. Knows nothing
of datasets but their folders.
"""

import threading
from array import array
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from sage_studio.data.example import DataRow
from sage_studio.data.rows import read_rows, rows_at, search_rows
from sage_studio.errors import InvalidInput
from sage_studio.text import Text

LARGEST_PAGE = 1000
SEARCHES_KEPT = 8


@dataclass(frozen=True, slots=True)
class Preview:
    """Some rows of a dataset; ``total`` rows match in all, the first shown is number ``offset`` of them, from 0.

    Attributes:
        numbers: of the rows in the dataset, from 1.
    """

    rows: tuple[DataRow, ...]
    total: int
    offset: int
    numbers: tuple[int, ...] = ()


class Pages:
    """Reads pages; safe to use from many threads."""

    def __init__(self) -> None:
        self._found: OrderedDict[tuple[str, int, str], array[int]] = OrderedDict()
        self._lock = threading.Lock()

    def page(self, folder: Path, total: int, offset: int, limit: int, search: str) -> Preview:
        """Some of the ``total`` rows in a folder, or of those that hold the words; only a new search reads all of them.

        Raises:
            InvalidInput: no such page can be.
        """
        if offset < 0 or not 1 <= limit <= LARGEST_PAGE:
            raise InvalidInput(
                Text(f"offset {offset}, limit {limit} is no page.", f"offset {offset}、limit {limit} 不是有效的分页。"),
                Text(f"offset >= 0 and 1 <= limit <= {LARGEST_PAGE}.", f"offset ≥ 0 且 1 ≤ limit ≤ {LARGEST_PAGE}。"),
            )
        words = search.strip()
        if not words:
            rows = tuple(read_rows(folder, offset, limit))
            return Preview(rows, total, offset, tuple(range(offset + 1, offset + len(rows) + 1)))
        found = self._finds(folder, words)
        numbers = found[offset : offset + limit]
        return Preview(tuple(rows_at(folder, numbers)), len(found), offset, tuple(each + 1 for each in numbers))

    def _finds(self, folder: Path, words: str) -> "array[int]":
        key = (str(folder), folder.stat().st_mtime_ns, words)
        with self._lock:
            if key in self._found:
                self._found.move_to_end(key)
                return self._found[key]
        found = search_rows(folder, words)
        with self._lock:
            self._found[key] = found
            while len(self._found) > SEARCHES_KEPT:
                self._found.popitem(last=False)
        return found
