"""Stage files: JSON lines in a task's folder, from which a stopped run resumes.

Imports no torch: the web process lists these files and replaces them with edited ones.
"""

import codecs
import json
import re
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from sage_studio import files
from sage_studio.errors import InvalidDataset, NotFound
from sage_studio.files import write_atomically
from sage_studio.text import Text
from sage_studio.training.progress import Phase
from sage_studio.training.recipes.methods import KBAlignRecipe
from sage_studio.training.run import Run
from sage_studio.validation_errors import first_error

FOLDER = "kbalign"
CHUNKS, SHORT, GENERAL, LONG, SAMPLES = (
    "0-chunks.jsonl",
    "1-short.jsonl",
    "2-general.jsonl",
    "2-long.jsonl",
    "3-samples.jsonl",
)
CHECKS, ROWS = "4-round-{}-checks.jsonl", "4-round-{}-rows.jsonl"
MEANINGS = {
    CHUNKS: Text("Chunks of the knowledge base"),
    SHORT: Text("Short dependency: questions and answers per chunk"),
    GENERAL: Text("Long dependency: general questions"),
    LONG: Text("Long dependency: answers from several chunks"),
    SAMPLES: Text("Samples: questions, answers and references, by round"),
}
OF_A_ROUND = re.compile(r"4-round-(?P<round>\d{1,2})-(?P<what>checks|rows)\.jsonl")
CHECKED = Text("Round {round}: self-verification")
LEARNED = Text("Round {round}: training rows")

# Records


class StageRecord(BaseModel):
    """One line of a stage file. Unknown keys are refused, so that a typo in an edited file is not lost."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


Record = TypeVar("Record", bound=StageRecord)


class RecordFile(Generic[Record]):
    """The records of one stage.

    Args:
        path: the file; its folder is created if missing.
        kind: class of the records.
    """

    def __init__(self, path: Path, kind: type[Record]) -> None:
        self.path = path
        self._kind = kind

    def read(self) -> list[Record]:
        """The records so far; a last line that was cut off while it was written is removed.

        Raises:
            InvalidDataset: a line is not a record of this stage; the text names file, line and field.
        """
        if not files.mend(self.path, self._is_record):
            return []
        lines = enumerate(self.path.read_text(encoding="utf-8-sig").split("\n"), 1)
        return [self._parse(number, line) for number, line in lines if line.strip()]

    def append(self, records: Sequence[Record]) -> None:
        """Append records, all or none. Raises `StorageFull`."""
        self.path.parent.mkdir(exist_ok=True)
        files.append(self.path, map(_to_json, records), sync=True)

    def replace(self, records: Sequence[Record]) -> None:
        """Write the file anew, atomically. Raises `StorageFull`."""
        self.path.parent.mkdir(exist_ok=True)
        write_atomically(self.path, "".join(f"{_to_json(record)}\n" for record in records))

    def _is_record(self, line: bytes) -> bool:
        try:
            self._kind.model_validate_json(line.removeprefix(codecs.BOM_UTF8))
        except ValidationError:
            return False
        return True

    def _parse(self, number: int, line: str) -> Record:
        try:
            return self._kind.model_validate_json(line)
        except ValidationError as error:
            message = first_error(error.errors()).sentence
            raise InvalidDataset(
                Text("{name}, line {number}: {message}.", name=self.path.name, number=number, message=message),
                Text("Correct the line, or delete it to have it generated again; then resume the task."),
                row=number,
            ) from error


def _to_json(record: StageRecord) -> str:
    return record.model_dump_json(exclude_defaults=True, by_alias=True)


# Running a stage

Unit = TypeVar("Unit")


def process_pending(
    run: Run[KBAlignRecipe],
    phase: Phase,
    file: RecordFile[Record],
    units: Mapping[Hashable, Unit],
    key_of: Callable[[Record], Hashable],
    process: Callable[[Sequence[Unit]], Sequence[Record]],
    batch_size: int = 0,
) -> list[Record]:
    """Process the units that have no record in the stage's file yet, in batches, and append their records.

    Args:
        units: all units of the stage by key; one whose key a record has is done, however the record was edited.
        process: makes one record per unit of a batch.
        batch_size: units per batch; a stop or crash loses at most one batch. 0: the recipe's ``generation_batch_size``.

    Returns:
        The records of all units, in the order of the file.

    Raises:
        Stopped: asked to; every finished batch is in the file.
        InvalidDataset: a line of the file is not a record.
    """
    done = set(map(key_of, file.read()))
    pending = [unit for key, unit in units.items() if key not in done]
    finished, started = len(units) - len(pending), time.monotonic()
    batch_size = batch_size or run.recipe.generation_batch_size
    run.progress.phase(phase)
    for start in range(0, len(pending), batch_size):
        eta = (time.monotonic() - started) / start * (len(pending) - start) if start else None
        _report(run, phase, finished + start, len(units), eta)
        file.append(process(pending[start : start + batch_size]))
    _report(run, phase, len(units), len(units), 0.0)
    print(f"{phase.value.replace('_', ' ')}: {len(units)} done, {finished} of them before · {file.path.name}")
    return [record for record in file.read() if key_of(record) in units]


def _report(run: Run[KBAlignRecipe], phase: Phase, done: int, total: int, eta: float | None) -> None:
    name = phase.value.replace("_", " ")
    run.state.place = Text("in {name}, {done} of {total} done", name=name, done=done, total=total)
    run.stop.check()
    run.progress.write(done=done, total=total, detail=f"{done:,}/{total:,}", eta_seconds=eta)


# The files of a task, for a person


@dataclass(frozen=True, slots=True)
class StageFile:
    """One stage file of a task; ``rows`` is its number of lines."""

    name: str
    path: Path
    meaning: Text
    rows: int
    size_bytes: int


def stage_files(task_folder: Path) -> list[StageFile]:
    """The stage files that exist, in the order of the stages; any other file of the folder is ignored."""
    return sorted(_existing(task_folder / FOLDER), key=lambda file: _order(file.name))


def stage_file(task_folder: Path, name: str) -> StageFile:
    """One of `stage_files`. The name is only compared, never used as a path. Raises `NotFound`."""
    for file in stage_files(task_folder):
        if file.name == name:
            return file
    raise NotFound(
        Text("The task has no stage file {name!r}.", name=name),
        Text("Choose a name from the list of its files."),
    )


def replace_stage_file(task_folder: Path, name: str, text: str) -> StageFile:
    """Replace one of `stage_files` with an edited text; its fields are checked when the stage resumes.

    Raises:
        NotFound: there is no such file yet.
        InvalidDataset: a line is not a JSON object; the text names file and line, and nothing has changed.
        StorageFull: nothing has changed.
    """
    path = stage_file(task_folder, name).path
    lines = text.removeprefix("\ufeff").split("\n")
    for number, line in enumerate(lines, 1):
        if line.strip() and not _is_object(line):
            raise InvalidDataset(
                Text("{name}, line {number}: not a JSON object.", name=name, number=number),
                Text("Correct the line, or delete it to have it generated again."),
                row=number,
            )
    write_atomically(path, "".join(f"{line.strip()}\n" for line in lines if line.strip()))
    return stage_file(task_folder, name)


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _existing(folder: Path) -> Iterator[StageFile]:
    for path in folder.glob("*.jsonl"):
        meaning = _meaning(path.name)
        if meaning is not None and path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                rows = sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))
            yield StageFile(path.name, path, meaning, rows, path.stat().st_size)


def _meaning(name: str) -> Text | None:
    found = OF_A_ROUND.fullmatch(name)
    if found is None:
        return MEANINGS.get(name)
    meaning = CHECKED if found["what"] == "checks" else LEARNED
    return meaning.with_values(round=found["round"])


def _order(name: str) -> tuple[int, str]:
    found = OF_A_ROUND.fullmatch(name)
    return (int(found["round"]) if found else 0, name)
