"""What KBAlign leaves in a task's folder, by name: a file a stage and two a round, and what each is.

Knows names and what they mean to a person. Knows nothing of what stands in the files but that each line is a JSON
object; imports no torch.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sage_studio.errors import InvalidDataset, NotFound
from sage_studio.files import write_atomically
from sage_studio.text import Text

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
    CHUNKS: Text("The knowledge base in chunks", "切分后的知识库片段"),
    SHORT: Text("Short dependency: questions and answers a chunk", "短依赖：每个片段的问答"),
    GENERAL: Text("Long dependency: general questions", "长依赖：概括性问题"),
    LONG: Text("Long dependency: their answers from several chunks", "长依赖：综合多个片段的回答"),
    SAMPLES: Text("Samples: questions, answers and references, by round", "样本：按轮次排列的问题、答案与参考"),
}
OF_A_ROUND = re.compile(r"4-round-(?P<round>\d{1,2})-(?P<what>checks|rows)\.jsonl")
CHECKED = Text("Round {}: self-verification", "第 {} 轮：自我验证")
LEARNED = Text("Round {}: what was learned", "第 {} 轮：训练数据")


@dataclass(frozen=True, slots=True)
class StageFile:
    """One file of a stage. ``rows`` counts its lines."""

    name: str
    path: Path
    meaning: Text
    rows: int
    size_bytes: int


def stage_files(task_folder: Path) -> list[StageFile]:
    """The stages' files that are there, in the order of the stages; whatever else lies there is none of them."""
    return sorted(_found(task_folder / FOLDER), key=lambda file: _order(file.name))


def stage_file(task_folder: Path, name: str) -> StageFile:
    """One of `stage_files`. The name is only compared, never made a path of. Raises `NotFound`."""
    for file in stage_files(task_folder):
        if file.name == name:
            return file
    raise NotFound(
        Text(f"The task has no stage file {name!r}.", f"该任务没有名为 {name!r} 的阶段文件。"),
        Text("Take a name from the list of its files.", "请从文件列表中选取。"),
    )


def replace_stage_file(task_folder: Path, name: str, text: str) -> StageFile:
    """Put an edited text in the place of one of `stage_files`; the stage itself checks its fields when it goes on.

    Raises:
        NotFound: there is no such file yet.
        InvalidDataset: a line is no JSON object; the text names file and line, and nothing has changed.
        StorageFull: nothing has changed.
    """
    path = stage_file(task_folder, name).path
    lines = text.removeprefix("\ufeff").split("\n")
    for number, line in enumerate(lines, 1):
        if line.strip() and not _is_object(line):
            raise InvalidDataset(
                Text(f"{name}, line {number}: it is no JSON object.", f"{name} 第 {number} 行：不是 JSON 对象。"),
                Text("Correct the line, or delete it to have it made again.", "请改正该行，或删除该行以重新生成。"),
                row=number,
            )
    write_atomically(path, "".join(f"{line.strip()}\n" for line in lines if line.strip()))
    return stage_file(task_folder, name)


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _found(folder: Path) -> Iterator[StageFile]:
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
    said = CHECKED if found["what"] == "checks" else LEARNED
    return Text(*(text.format(found["round"]) for text in said))


def _order(name: str) -> tuple[int, str]:
    found = OF_A_ROUND.fullmatch(name)
    return (int(found["round"]) if found else 0, name)
