"""The lines of ``data.jsonl``, as a training child reads them.

Knows the file and which line of it is no JSON. Knows nothing of what a row holds.
"""

import json
from pathlib import Path
from typing import Any

from sage_studio.errors import InvalidDataset
from sage_studio.text import Text

PREPARE_AGAIN = Text("Prepare or upload the dataset again.", "请重新准备或上传数据集。")


def read_lines(path: Path, limit: int = 0) -> list[tuple[int, Any]]:
    """What each line holds, with its number, from 1; the first ``limit`` rows unless it is 0.

    Raises:
        InvalidDataset: the file is missing or empty, or a line is no JSON; the text names the line.
    """
    rows: list[tuple[int, Any]] = []
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if limit and len(rows) == limit:
                    break
                if line.strip():
                    rows.append((number, _values(number, line)))
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidDataset(
            Text(f"{path} cannot be read: {error}", f"无法读取 {path}：{error}"), PREPARE_AGAIN
        ) from error
    if not rows:
        raise InvalidDataset(Text(f"{path} holds no rows.", f"{path} 中没有数据。"), PREPARE_AGAIN)
    return rows


def no_row(number: int, error: Exception) -> InvalidDataset:
    """The error for a line that is no row."""
    return InvalidDataset(
        Text(f"Line {number} of the data is no row: {error!r}", f"数据第 {number} 行无效：{error!r}"),
        PREPARE_AGAIN,
        row=number,
    )


def _values(number: int, line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError as error:
        raise no_row(number, error) from error
