"""What is shown of a dataset's care: the close look, rows as a model sees them, jobs. Plain JSON shapes.

Knows the shapes and how to fill them. Knows nothing of routes, widgets or where the objects come from.
"""

from typing import Any

from pydantic import BaseModel, Field

from sage_studio.data.jobs import Job
from sage_studio.data.quality import Finding, QualityReport
from sage_studio.text import Language
from sage_studio.training.preview import Seen


class FindingView(BaseModel):
    """One thing about one row."""

    kind: str
    row: int | None = Field(description="Number of the row, from 1; null for a row that is not in the dataset")
    of: int | None = Field(description="The row that it repeats")
    detail: str
    where: str = Field(description="The place in the source")

    @classmethod
    def of_finding(cls, finding: Finding) -> "FindingView":
        """The view of a finding."""
        return cls(kind=finding.kind, row=finding.row, of=finding.of, detail=finding.detail, where=finding.where)


class InspectionView(BaseModel):
    """What a close look at all rows found."""

    made_at: float = Field(description="Unix seconds")
    rows: int
    model: str = Field(description="Whose tokenizer counted")
    max_length: int
    tokens: int | None = Field(description="Of all rows, uncut, with the chat template")
    tokens_per_epoch: int | None = Field(description="As they are trained on, cut at max_length")
    longest: int | None
    share_cut: float | None = Field(description="Share of rows longer than max_length")
    histogram: list[tuple[int, int]] = Field(description="(upper bound in tokens, rows up to it), ascending")
    against: str = Field(description="The dataset searched for leaks")
    counts: dict[str, int] = Field(description="Findings per kind")
    seconds_per_epoch: float | None = Field(description="By the speed of earlier runs on this machine; null if none")

    @classmethod
    def of(cls, inspection: QualityReport, tokens_per_second: float | None) -> "InspectionView":
        """The view of a look, with the time that an epoch would take."""
        return cls(
            made_at=inspection.made_at,
            rows=inspection.rows,
            model=inspection.model,
            max_length=inspection.max_length,
            tokens=inspection.tokens,
            tokens_per_epoch=inspection.tokens_per_epoch,
            longest=inspection.longest,
            share_cut=inspection.share_cut,
            histogram=list(inspection.histogram),
            against=inspection.against,
            counts=inspection.counts,
            seconds_per_epoch=seconds_per_epoch(inspection, tokens_per_second),
        )


class PieceView(BaseModel):
    """A readable piece of the rendered text."""

    text: str
    tokens: int
    fate: str = Field(description="read, learned, or cut")


class SeenView(BaseModel):
    """One text of a row as the model sees it."""

    side: str
    tokens: int
    left_out: bool
    ids: list[int]
    labels: list[int] = Field(description="As long as ids; -100 where the loss does not fall")
    pieces: list[PieceView]

    @classmethod
    def of(cls, seen: Seen) -> "SeenView":
        """The view of a text."""
        return cls(
            side=seen.side,
            tokens=seen.tokens,
            left_out=seen.left_out,
            ids=list(seen.ids),
            labels=list(seen.labels),
            pieces=[PieceView(text=piece.text, tokens=piece.tokens, fate=piece.fate) for piece in seen.pieces],
        )


class JobView(BaseModel):
    """Long work on a dataset."""

    id: str
    kind: str
    dataset_id: str
    state: str
    created_at: float = Field(description="Unix seconds")
    done: int
    total: int
    doing: str
    message: str
    hint: str
    result: str = Field(description="Id of the dataset that it made")

    @classmethod
    def of(cls, job: Job, language: Language = "en") -> "JobView":
        """The view of a job."""
        values: dict[str, Any] = {name: getattr(job, name) for name in ("id", "kind", "dataset_id", "created_at")}
        return cls(
            **values,
            state=str(job.state),
            done=job.done,
            total=job.total,
            doing=job.doing.in_(language),
            message=job.message.in_(language),
            hint=job.hint.in_(language),
            result=job.result,
        )


def seconds_per_epoch(inspection: QualityReport, tokens_per_second: float | None) -> float | None:
    """How long an epoch would take; None where the tokens or the speed are not known."""
    if inspection.tokens_per_epoch is None or not tokens_per_second:
        return None
    return round(inspection.tokens_per_epoch / tokens_per_second, 1)
