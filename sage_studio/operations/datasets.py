"""Operations on datasets: bring rows in, look at them, check, edit, combine and enlarge them."""

from typing import Annotated, Any

from pydantic import BaseModel, Field, JsonValue

from sage_studio.data.column_mapping import ColumnMapping, parse_mapping
from sage_studio.data.dataset import Dataset, FormatCount
from sage_studio.data.formats import FORMATS, Format
from sage_studio.data.grading import Question
from sage_studio.data.quality import Finding, QualityReport
from sage_studio.data.rows import DataRow
from sage_studio.data.sources.documents import DocumentRows
from sage_studio.data.sources.local import FileInspection
from sage_studio.data.synthesis.annotate import AnnotateOrder
from sage_studio.data.synthesis.augment import AugmentOrder
from sage_studio.data.synthesis.mix import MixtureWeight, RowChange
from sage_studio.errors import (
    Conflict,
    DocsUnavailable,
    HubUnavailable,
    InvalidDataset,
    InvalidInput,
    InvalidModel,
    InvalidName,
    NotFound,
    StorageFull,
)
from sage_studio.fields import DatasetName, HubName, Id, Offset, PageSize
from sage_studio.operations.jobs import JobView
from sage_studio.operations.operation import SCRIPTS, Acknowledged, Noun, UploadedFile
from sage_studio.services.datasets import ReportOrder, seconds_per_epoch
from sage_studio.studio import Studio
from sage_studio.text import Language, Text
from sage_studio.training.preview import RowPreview
from sage_studio.training.recipes import methods_for

datasets = Noun("datasets")
MANY: dict[str, JsonValue] = {"minItems": 1, "maxItems": 64}
FINDINGS_SHOWN = 10_000
"""So many findings at once; REST gives all of them as a file."""


class DatasetStatsView(BaseModel):
    """The figures of a dataset. Characters are of prompts and answers together."""

    total_samples: int
    total_chars: int
    avg_chars_per_sample: float
    estimated_tokens: int
    tokens_are_exact: bool
    longest_chars: int
    languages: dict[str, int]
    languages_are_exact: bool = Field(description="Otherwise those of a sample, as of more than 20,000 rows")
    duplicates: int
    dropped: int


class FormatView(BaseModel):
    """A format that was found in a file."""

    name: str
    keys: list[str] = Field(description="The keys by which it was told")
    rows: int
    unread: list[str] = Field(description="Columns of which nothing is made")

    @classmethod
    def of(cls, found: FormatCount) -> "FormatView":
        """The view of a format."""
        return cls(name=found.name, keys=list(found.keys), rows=found.rows, unread=list(found.unread))


class DatasetView(BaseModel):
    """A dataset that is ready to train on."""

    id: str
    name: str
    version: int
    kind: str
    source: str
    commit: str | None
    sha256: str = Field(description="Of data.jsonl; empty while that of a large upload is computed")
    size_bytes: int
    created_at: float = Field(description="Unix seconds")
    row_kind: str = Field(description="What can be learned from its rows")
    methods: list[str] = Field(description="The training methods that learn from such rows")
    container: str = Field(description="What the rows were read from: JSON, CSV, PDF, …")
    formats: list[FormatView]
    stats: DatasetStatsView

    @classmethod
    def of(cls, dataset: Dataset) -> "DatasetView":
        """The view of a dataset."""
        stats = dataset.stats
        return cls(
            id=dataset.id,
            name=dataset.name,
            version=dataset.version,
            kind=dataset.kind,
            source=dataset.source,
            commit=dataset.commit,
            sha256=dataset.sha256,
            size_bytes=dataset.size_bytes,
            created_at=dataset.created_at,
            row_kind=dataset.row_kind,
            methods=methods_for(dataset.row_kind),
            container=dataset.container,
            formats=[FormatView.of(each) for each in dataset.formats],
            stats=DatasetStatsView(
                total_samples=stats.total_samples,
                total_chars=stats.total_chars,
                avg_chars_per_sample=round(stats.avg_chars_per_sample, 1),
                estimated_tokens=stats.estimated_tokens,
                tokens_are_exact=stats.tokens_are_exact,
                longest_chars=stats.longest_chars,
                languages=stats.languages,
                languages_are_exact=stats.languages_are_exact,
                duplicates=stats.duplicates,
                dropped=sum(dropped.count for dropped in stats.dropped),
            ),
        )


class RowView(BaseModel):
    """One row: what is asked, what is to be answered, and where it came from."""

    row: int = Field(description="Its number in the dataset, from 1")
    instruction: str
    output: str
    origin: dict[str, Any]

    @classmethod
    def of(cls, row: DataRow, number: int) -> "RowView":
        """The view of a row."""
        return cls(row=number, instruction=row.asked, output=row.answer, origin=row.origin.to_json())


class KnownFormat(BaseModel):
    """A format that columns can be mapped to."""

    name: str
    needs: list[str]
    takes: list[str] = Field(description="Further keys, read where they are there")

    @classmethod
    def of(cls, known: Format) -> "KnownFormat":
        """The view of a format."""
        return cls(name=known.name, needs=list(known.needs), takes=list(known.takes))


class QuestionView(BaseModel):
    """A test question and what makes an answer to it right."""

    question: str
    answer: str = Field(description="A right answer")
    key: list[str] = Field(description='What a right answer says: each item, in which "a | b" means either')
    reject: list[str] = Field(description="What a right answer does not say")

    @classmethod
    def of(cls, question: Question) -> "QuestionView":
        """The view of a question."""
        return cls(
            question=question.question, answer=question.answer, key=list(question.key), reject=list(question.reject)
        )


class FileInspectionView(BaseModel):
    """What a file holds."""

    container: str
    rows: int = Field(description="Rows read: all, unless one cannot be used as it stands")
    columns: list[str]
    sample: list[dict[str, Any]]
    formats: list[FormatView]
    row_kind: str | None
    methods: list[str]
    fault: dict[str, Any] | None = Field(description="code, message, hint and row, where a row cannot be used")
    needs_mapping: bool = Field(description="Whether somebody has to say which column is which")
    remembered: ColumnMapping | None = Field(description="The mapping last used for these columns")
    guess: ColumnMapping | None = Field(description="What the columns seem to be, where somebody has to say it")
    known_formats: list[KnownFormat]

    @classmethod
    def of(cls, found: FileInspection, language: Language = "en") -> "FileInspectionView":
        """The view of an inspected file."""
        fault = found.fault
        return cls(
            container=found.container,
            rows=found.rows,
            columns=list(found.columns),
            sample=[{key: _short(value) for key, value in row.items()} for row in found.sample],
            formats=[FormatView.of(each) for each in found.formats],
            row_kind=found.row_kind,
            methods=methods_for(found.row_kind) if found.row_kind is not None else [],
            fault=None
            if fault is None
            else {
                "code": fault.code,
                "message": fault.message.in_(language),
                "hint": fault.hint.in_(language),
                "row": fault.row,
            },
            needs_mapping=found.needs_mapping,
            remembered=found.remembered,
            guess=found.guess,
            known_formats=[KnownFormat.of(each) for each in FORMATS],
        )


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


class PreviewSpanView(BaseModel):
    """A readable piece of the rendered text."""

    text: str
    tokens: int
    fate: str = Field(description="read, learned, or cut")


class RowPreviewView(BaseModel):
    """One text of a row as the model sees it."""

    side: str
    tokens: int
    left_out: bool
    ids: list[int]
    labels: list[int] = Field(description="As long as ids; -100 where the loss does not fall")
    pieces: list[PreviewSpanView]

    @classmethod
    def of(cls, seen: RowPreview) -> "RowPreviewView":
        """The view of a text."""
        return cls(
            side=seen.side,
            tokens=seen.tokens,
            left_out=seen.left_out,
            ids=list(seen.ids),
            labels=list(seen.labels),
            pieces=[PreviewSpanView(text=piece.text, tokens=piece.tokens, fate=piece.fate) for piece in seen.pieces],
        )


class PrepareResponse(BaseModel):
    """The dataset made of the documentation."""

    status: str = "success"
    message: str
    data_file: str
    dataset_id: str
    stats: DatasetStatsView


class PreviewView(BaseModel):
    """Some rows and how many there are."""

    total: int
    offset: int
    rows: list[RowView]


class ReportAnswer(BaseModel):
    """The last report, or null before the first."""

    report: InspectionView | None


class DatasetDeleted(Acknowledged):
    """Which dataset is gone."""

    dataset_id: str


# Bring rows in


@datasets.post("/api/finetune/prepare-sage-docs", "docs", raises=(DocsUnavailable, StorageFull), interfaces=("rest",))
def prepare_sage_docs_by_rest(studio: Studio, language: Language, force_refresh: bool = False) -> PrepareResponse:
    """Fetch the SAGE documentation and make it a dataset."""
    view = DatasetView.of(studio.datasets.prepare_sage_docs(force_refresh))
    message = Text("{count} rows ready", count=view.stats.total_samples)
    return PrepareResponse(
        message=message.in_(language),
        data_file=str(studio.settings.docs_data_path),
        dataset_id=view.id,
        stats=view.stats,
    )


@datasets.post("/api/finetune/prepare-sage-docs", "docs", interfaces=SCRIPTS)
def prepare_sage_docs(studio: Studio, force_refresh: bool = False) -> DatasetView:
    """Fetch the SAGE documentation and make it a dataset."""
    return DatasetView.of(studio.datasets.prepare_sage_docs(force_refresh))


@datasets.post("/api/datasets", "upload", status=201, raises=(InvalidDataset, InvalidName, StorageFull))
def upload_dataset(
    studio: Studio,
    file: UploadedFile,
    name: DatasetName = "",
    mapping: Annotated[
        str, Field(description='JSON: {"format": "Alpaca", "columns": {"instruction": "column", "output": "column"}}')
    ] = "",
    rows: Annotated[DocumentRows, Field(description="What documents become")] = "questions",
) -> DatasetView:
    """Keep a file as a dataset: JSON, JSONL, CSV, Parquet (also .gz), Markdown, HTML, TXT, PDF, DOCX or a zip."""
    return DatasetView.of(studio.datasets.upload(file, name, mapping=parse_mapping(mapping), rows=rows))


@datasets.post("/api/datasets/look", "look", raises=(InvalidDataset, InvalidName, StorageFull))
def look_at_file(studio: Studio, language: Language, file: UploadedFile) -> FileInspectionView:
    """What a file holds: columns, first rows, formats, the methods it can train. Nothing is kept."""
    return FileInspectionView.of(studio.datasets.inspect_file(file), language)


@datasets.post(
    "/api/datasets/from-repository",
    "from-repository",
    status=201,
    raises=(DocsUnavailable, InvalidDataset, InvalidInput),
)
def add_repository(
    studio: Studio,
    address: Annotated[str, Field(description="Anything git takes")],
    branch: Annotated[str, Field(description="A branch or a tag; empty for the default")] = "",
    folder: Annotated[str, Field(description="Inside the repository; empty for all of it")] = "",
    name: DatasetName = "",
    rows: DocumentRows = "questions",
) -> DatasetView:
    """Make a dataset of the documents in a Git repository's folder."""
    return DatasetView.of(studio.datasets.add_repository(address, branch, folder, name, rows))


@datasets.post(
    "/api/datasets/from-hub",
    "from-hub",
    status=201,
    raises=(HubUnavailable, InvalidDataset, InvalidInput, NotFound, StorageFull),
)
def add_hub_dataset(
    studio: Studio,
    repo: Annotated[HubName, Field(description="owner/name")],
    config: str = "",
    split: str = "",
    max_rows: Annotated[int, Field(ge=0, description="Maximum number of rows; 0 for all")] = 0,
    name: DatasetName = "",
    mapping: ColumnMapping | str | None = "",
) -> DatasetView:
    """Download a dataset of the hub by its id. Loading scripts are never run."""
    given = parse_mapping(mapping) if isinstance(mapping, str) else mapping
    return DatasetView.of(studio.datasets.add_from_hub(repo, config, split, max_rows, name, given))


@datasets.post("/api/datasets/quickstart", "quickstart", status=201, raises=(StorageFull,))
def add_quickstart_dataset(studio: Studio) -> DatasetView:
    """Keep the questions about SAGE that come with the studio as a dataset."""
    return DatasetView.of(studio.datasets.add_quickstart())


@datasets.get("/api/datasets/quickstart/test", "quickstart-test")
def quickstart_test(studio: Studio) -> list[QuestionView]:
    """The test questions of the quick-start set, which are in no dataset, and what makes an answer right."""
    return [QuestionView.of(question) for question in studio.datasets.quickstart_test()]


# Look at them


@datasets.get("/api/datasets", "list", parallel=True)
def list_datasets(studio: Studio) -> list[DatasetView]:
    """All datasets, newest first."""
    return [DatasetView.of(dataset) for dataset in studio.datasets.list()]


@datasets.get("/api/datasets/{dataset_id}", "show", raises=(NotFound, InvalidName))
def get_dataset(studio: Studio, dataset_id: Id) -> DatasetView:
    """One dataset."""
    return DatasetView.of(studio.datasets.get(dataset_id))


@datasets.get("/api/datasets/{dataset_id}/preview", "preview", raises=(NotFound, InvalidName, InvalidInput))
def preview_dataset(
    studio: Studio, dataset_id: Id, offset: Offset = 0, limit: PageSize = 20, search: str = ""
) -> PreviewView:
    """Some rows of a dataset."""
    page = studio.datasets.preview(dataset_id, offset=offset, limit=limit, search=search)
    rows = [RowView.of(row, number) for row, number in zip(page.rows, page.numbers, strict=True)]
    return PreviewView(total=page.total, offset=page.offset, rows=rows)


@datasets.delete("/api/datasets/{dataset_id}", "delete", raises=(NotFound, InvalidName, Conflict))
def delete_dataset(studio: Studio, dataset_id: Id) -> DatasetDeleted:
    """Delete a dataset; refused while a task needs it."""
    studio.datasets.delete(dataset_id)
    return DatasetDeleted(dataset_id=dataset_id)


# Check rows


@datasets.post(
    "/api/datasets/report", "check", status=202, raises=(NotFound, InvalidInput, InvalidModel, HubUnavailable, Conflict)
)
def inspect_dataset(studio: Studio, language: Language, order: ReportOrder) -> JobView:
    """Check all rows in the background: near-duplicates, leaks, lengths. The report is there when the job is done."""
    return JobView.of(studio.datasets.inspect(**order.model_dump()), language)


@datasets.get("/api/datasets/{dataset_id}/report", "report", raises=(NotFound, InvalidName), interfaces=("rest",))
def dataset_report_by_rest(studio: Studio, dataset_id: Id) -> ReportAnswer:
    """The last report; null before the first."""
    return ReportAnswer(report=_report(studio, dataset_id))


@datasets.get("/api/datasets/{dataset_id}/report", "report", interfaces=SCRIPTS)
def dataset_report(studio: Studio, dataset_id: Id) -> InspectionView | dict[str, Any]:
    """The last report; empty before the first."""
    return _report(studio, dataset_id) or {}


def _report(studio: Studio, dataset_id: str) -> InspectionView | None:
    found = studio.datasets.inspection(dataset_id)
    return None if found is None else InspectionView.of(found, studio.training.tokens_per_second(found.model))


@datasets.get("/api/datasets/{dataset_id}/findings", "findings", interfaces=SCRIPTS)
def dataset_findings(studio: Studio, dataset_id: Id, kind: str = "") -> list[FindingView]:
    """Rows that were left out or found wanting, with their numbers and why; REST gives all of them as a file."""
    found = zip(range(FINDINGS_SHOWN), studio.datasets.findings(dataset_id, kind), strict=False)
    return [FindingView.of_finding(finding) for _, finding in found]


@datasets.get(
    "/api/datasets/{dataset_id}/rows/{row}/tokens",
    "tokens",
    raises=(NotFound, InvalidName, InvalidInput, InvalidModel, InvalidDataset, HubUnavailable),
)
def see_row(
    studio: Studio,
    dataset_id: Id,
    row: int,
    model: str = "",
    max_length: Annotated[int, Field(ge=16, le=131072, description="Tokens at which a row is cut")] = 1024,
) -> list[RowPreviewView]:
    """A row, from 1, as a model would see it in a training: pieces, ids and labels."""
    return [RowPreviewView.of(each) for each in studio.datasets.tokenized_row(dataset_id, row, model, max_length)]


# Make new datasets


@datasets.post(
    "/api/datasets/{dataset_id}/edit", "edit", status=201, raises=(NotFound, InvalidName, InvalidInput, InvalidDataset)
)
def edit_dataset(
    studio: Studio,
    dataset_id: Id,
    changes: Annotated[list[RowChange], Field(description="{row, exclude?, question?, answer?, rejected?} each")],
) -> DatasetView:
    """A new version with rows changed or left out; the old one stays."""
    return DatasetView.of(studio.datasets.edit(dataset_id, [change.model_dump() for change in changes]))


@datasets.post("/api/datasets/combine", "combine", status=201, raises=(NotFound, InvalidInput, InvalidDataset))
def combine_datasets(
    studio: Studio,
    portions: Annotated[
        list[MixtureWeight], Field(description="{dataset_id, weight?, cap?} each", json_schema_extra=MANY)
    ],
    name: DatasetName = "combined",
    seed: int = 42,
    shuffle: bool = True,
) -> DatasetView:
    """Several datasets as one."""
    return DatasetView.of(studio.datasets.combine([portion.model_dump() for portion in portions], name, seed, shuffle))


@datasets.post(
    "/api/datasets/augment", "augment", status=202, raises=(NotFound, InvalidInput, InvalidDataset, Conflict)
)
def augment_dataset(studio: Studio, language: Language, order: AugmentOrder) -> JobView:
    """Rephrase rows with the current chat model, in the background; too similar or too different ones are dropped."""
    return JobView.of(studio.datasets.augment(**order.model_dump()), language)


@datasets.post(
    "/api/datasets/annotate", "annotate", status=202, raises=(NotFound, InvalidInput, InvalidDataset, Conflict)
)
def annotate_dataset(studio: Studio, language: Language, order: AnnotateOrder) -> JobView:
    """Write questions and answers about texts with the current chat model, in the background."""
    return JobView.of(studio.datasets.annotate(**order.model_dump()), language)


def _short(value: Any, longest: int = 500) -> Any:
    """A value as it may be shown: JSON as it is where it is short, else the beginning of its text."""
    text = value if isinstance(value, str) else str(value)
    if len(text) > longest:
        return f"{text[:longest]}…"
    return value if isinstance(value, str | int | float | bool | list | dict | None) else text
