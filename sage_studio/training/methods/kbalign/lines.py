"""A stage's file: JSON lines, one a unit of work, written as each is done and read again when a run goes on.

Knows how a line is written whole and checked, for a person may have edited it. Knows nothing of what a stage does.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from sage_studio.errors import InvalidDataset, naming_full_disk
from sage_studio.files import write_atomically
from sage_studio.text import Text


class Line(BaseModel):
    """What stands in a line of a stage's file; keys that nobody knows are refused, so that a slip is not lost."""

    model_config = ConfigDict(extra="forbid", frozen=True)


AnyLine = TypeVar("AnyLine", bound=Line)


class Lines(Generic[AnyLine]):
    """The file of one stage.

    Args:
        path: the file; its folder is made where it is missing.
        kind: what each line is.
    """

    def __init__(self, path: Path, kind: type[AnyLine]) -> None:
        self.path = path
        self._kind = kind

    def read(self) -> list[AnyLine]:
        """The lines so far; a last line that was cut off while it was written is taken away.

        Raises:
            InvalidDataset: a line is not what the stage writes; names file, line and field.
        """
        if not self.path.exists():
            return []
        self._mend()
        numbered = enumerate(self.path.read_text(encoding="utf-8-sig").split("\n"), 1)
        return [self._checked(number, text) for number, text in numbered if text.strip()]

    def add(self, lines: Sequence[AnyLine]) -> None:
        """Append lines, in one write. Raises `StorageFull`."""
        with naming_full_disk(self.path):
            self.path.parent.mkdir(exist_ok=True)
            with self.path.open("ab", buffering=0) as file:
                file.write(_text(lines).encode())

    def replace(self, lines: Sequence[AnyLine]) -> None:
        """Write the file anew; it is there whole or not at all. Raises `StorageFull`."""
        self.path.parent.mkdir(exist_ok=True)
        write_atomically(self.path, _text(lines))

    def _mend(self) -> None:
        """End the file with a whole line: a last one without its newline is kept if it is whole, else cut away."""
        content = self.path.read_bytes()
        start = content.rfind(b"\n") + 1
        if start == len(content):
            return
        try:
            self._kind.model_validate_json(content[start:])
        except ValidationError:
            os.truncate(self.path, start)
        else:
            with self.path.open("ab") as file:
                file.write(b"\n")

    def _checked(self, number: int, text: str) -> AnyLine:
        try:
            return self._kind.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            what = f"{where}: {first['msg']}" if where else first["msg"]
            raise InvalidDataset(
                Text(f"{self.path.name}, line {number}: {what}.", f"{self.path.name} 第 {number} 行：{what}。"),
                Text(
                    "Correct the line, or delete it to have it made again; then resume.",
                    "请改正该行，或删除该行以重新生成，然后继续任务。",
                ),
                row=number,
            ) from error


def _text(lines: Sequence[Line]) -> str:
    return "".join(line.model_dump_json(exclude_defaults=True) + "\n" for line in lines)
