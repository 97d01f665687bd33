"""How a fault in a row of a file is said.

Knows the words. Knows nothing of files or formats.
"""

from sage_studio.errors import InvalidDataset
from sage_studio.text import NOTHING, Text


def invalid_row(row: int, what: Text, hint: Text = NOTHING) -> InvalidDataset:
    """The error for one row, numbered from 1."""
    return InvalidDataset(Text(f"Row {row}: {what.en}", f"第 {row} 行：{what.zh}"), hint, row=row)
