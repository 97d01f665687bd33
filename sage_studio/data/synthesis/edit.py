"""Edit rows of a dataset or exclude them; the result is a new version, the old one is left as it is."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from pydantic import BaseModel, ConfigDict, Field

from sage_studio.data.dataset import Dataset
from sage_studio.data.rows import DataRow, Example, Message, Passage, Preference
from sage_studio.data.synthesis import DerivedSource, origin_in
from sage_studio.errors import InvalidInput
from sage_studio.text import Text

EXCLUDED = Text("excluded by hand", "手动剔除")


class RowChange(BaseModel):
    """The edit of one row; a text that is null is kept."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    row: int = Field(ge=1, description="Number of the row, from 1")
    exclude: bool = False
    question: str | None = Field(None, description="The last turn of the prompt, or the query")
    answer: str | None = Field(None, description="The answer, chosen answer, first positive passage, or text")
    rejected: str | None = Field(None, description="The rejected answer of a preference")


class EditedSource(DerivedSource):
    """The edited rows of a dataset.

    Raises:
        InvalidInput: a change names no row or the same row as another, or would empty a text.
    """

    def __init__(self, dataset: Dataset, rows: Iterable[DataRow], changes: Sequence[RowChange]) -> None:
        super().__init__(dataset.kind, dataset.name, dataset.source, dataset.commit)
        self.container, self.formats = dataset.container, dataset.formats
        self._dataset, self._rows = dataset, rows
        self._changes = _changes_by_row(dataset, changes)

    def examples(self) -> Iterator[DataRow]:
        """The rows, in their order."""
        for number, row in enumerate(self._rows, 1):
            change = self._changes.get(number)
            if change is None:
                yield row
            elif change.exclude:
                self.left_out.add(EXCLUDED, f"{self._dataset.id}:{number}")
            else:
                yield replace(
                    apply_change(row, change), origin=origin_in(row.origin, self._dataset.id, number, "edited")
                )


def apply_change(row: DataRow, change: RowChange) -> DataRow:
    """The row with the texts of a change."""
    if isinstance(row, (Example, Preference)) and change.question is not None:
        row = replace(row, prompt=(*row.prompt[:-1], Message(row.prompt[-1].role, change.question)))
    if isinstance(row, Example):
        return row if change.answer is None else replace(row, completion=change.answer)
    if isinstance(row, Preference):
        chosen = row.chosen if change.answer is None else change.answer
        return replace(row, chosen=chosen, rejected=row.rejected if change.rejected is None else change.rejected)
    if isinstance(row, Passage):
        return row if change.answer is None else replace(row, text=change.answer)
    query = row.query if change.question is None else change.question
    return replace(row, query=query, pos=row.pos if change.answer is None else (change.answer, *row.pos[1:]))


def _changes_by_row(dataset: Dataset, changes: Sequence[RowChange]) -> Mapping[int, RowChange]:
    if not changes:
        raise InvalidInput(
            Text("No change was given.", "没有任何修改。"), Text("Edit or exclude a row.", "请修改或剔除某行。")
        )
    found: dict[int, RowChange] = {}
    for change in changes:
        if change.row > dataset.stats.total_samples or change.row in found:
            raise InvalidInput(
                Text(
                    f"Row {change.row} of {dataset.id} cannot be changed: it does not exist, or is given twice.",
                    f"无法修改 {dataset.id} 的第 {change.row} 行：该行不存在或重复指定。",
                ),
                Text(
                    f"Give each row once, from 1 to {dataset.stats.total_samples}.",
                    f"每行只能指定一次，范围 1 到 {dataset.stats.total_samples}。",
                ),
            )
        texts = (change.question, change.answer, change.rejected)
        if any(text is not None and not text.strip() for text in texts):
            raise InvalidInput(
                Text(f"Row {change.row}: a text must not be empty.", f"第 {change.row} 行：文本不能为空。"),
                Text("Exclude the row instead.", "如不需要该行，请剔除它。"),
            )
        found[change.row] = change
    return found
