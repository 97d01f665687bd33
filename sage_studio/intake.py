"""Bringing data in: the verbs of `Studio` that make a dataset of a file, of documents or of a data set on the hub.

Knows what a person may say of what was brought. Knows nothing of how it is read or kept.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sage_studio.data.dataset import Dataset, OnProgress, ignore_progress
from sage_studio.data.document_source import DocumentSource, Rows
from sage_studio.data.files.content import Content
from sage_studio.data.grading import Question
from sage_studio.data.hub import HubSource
from sage_studio.data.look import Look, columns_of, look_at
from sage_studio.data.mapping import ColumnMapping, MappingBook, guess
from sage_studio.data.quickstart import QuickstartSource, quickstart_questions
from sage_studio.data.repository_documents import RepositoryDocuments
from sage_studio.data.sources import named, source_of_file
from sage_studio.data.upload import check_file
from sage_studio.settings import Settings


@dataclass(frozen=True, slots=True)
class Brought:
    """A file as it was found, the column mapping last used for one with the same columns, and a guess at it, if any."""

    look: Look
    remembered: ColumnMapping | None
    guess: ColumnMapping | None = None


class Intake:
    """The part of the house that takes data in."""

    settings: Settings
    mappings: MappingBook
    add_dataset: Callable[..., Dataset]

    def upload_dataset(
        self,
        path: Path,
        name: str = "",
        on_progress: OnProgress = ignore_progress,
        mapping: ColumnMapping | None = None,
        rows: Rows = "questions",
    ) -> Dataset:
        """Check a file of rows or of documents and keep it as a dataset.

        Args:
            path: JSON, JSONL, CSV or Parquet (also .gz), or Markdown, HTML, TXT, PDF, DOCX or a zip of them.
            name: what to call it; the file's name unless given.
            on_progress: told the rows done.
            mapping: which column is which key; remembered for files with the same columns.
            rows: what documents become.

        Raises:
            UnknownColumns: a row has the keys of no format; `look_at_file` says which there are.
            InvalidDataset: naming the row.
        """
        source = source_of_file(path, self._most, mapping, rows)
        dataset = self.add_dataset(source, name, on_progress)
        if mapping is not None:
            self.mappings.remember(columns_of(Content(path, self._most)), mapping)
        return dataset

    def look_at_file(self, path: Path) -> Brought:
        """What a file holds, all of it read and nothing kept. Raises `InvalidDataset` for one of no known kind."""
        check_file(path, self._most)
        look = look_at(Content(path, self._most))
        if not look.needs_mapping:
            return Brought(look, self.mappings.recall(look.columns) if look.columns else None)
        return Brought(look, self.mappings.recall(look.columns), guess(look.columns))

    def add_repository(
        self,
        address: str,
        branch: str = "",
        folder: str = "",
        name: str = "",
        rows: Rows = "questions",
        on_progress: OnProgress = ignore_progress,
    ) -> Dataset:
        """Fetch the documents of a Git repository's folder and make them a dataset.

        Args:
            address: anything git takes, a local folder included.
            branch: a branch or a tag; empty for the default.
            folder: inside the repository; empty for all of it.
            name: what to call it; the repository's name unless given.
            rows: a question for each section, or passages without questions.
            on_progress: told the share fetched.

        Raises:
            InvalidInput, DocsUnavailable, InvalidDataset.
        """
        documents = RepositoryDocuments(address, branch, folder, self.settings.uploads_dir, on_progress)
        source = DocumentSource(
            documents.files,
            documents.name,
            documents.address,
            rows,
            about=named(documents.name),
            commit=lambda: documents.commit,
        )
        return self.add_dataset(source, name)

    def add_hub_dataset(
        self,
        repo: str,
        config: str = "",
        split: str = "",
        max_rows: int = 0,
        name: str = "",
        mapping: ColumnMapping | None = None,
        on_progress: OnProgress = ignore_progress,
    ) -> Dataset:
        """Fetch a dataset from the hub and keep it. Only data files are read; loading scripts are never run.

        Args:
            repo: ``owner/name``, at ``HF_ENDPOINT``.
            config: one of its configurations; empty for ``default`` or the only one.
            split: empty for ``train`` or the only one.
            max_rows: most rows to take; 0 for all.
            name: what to call it; the dataset's name unless given.
            mapping: which column is which key.
            on_progress: told the share of the file that is being fetched.

        Raises:
            HubUnavailable, NotFound, InvalidInput, InvalidDataset.
        """
        if mapping is not None:
            mapping.check()
        work_dir = self.settings.uploads_dir
        source = HubSource(repo.strip(), config, split, max_rows, self._most, work_dir, mapping, on_progress)
        return self.add_dataset(source, name)

    def add_quickstart_dataset(self, on_progress: OnProgress = ignore_progress) -> Dataset:
        """Keep the questions about SAGE that come with the studio as a dataset; its test questions are not in it."""
        return self.add_dataset(QuickstartSource(), on_progress=on_progress)

    def quickstart_test(self) -> tuple[Question, ...]:
        """The test questions of the quick-start set, with what makes an answer right; never trained on."""
        return quickstart_questions()

    @property
    def _most(self) -> int:
        return self.settings.max_upload_mb << 20
