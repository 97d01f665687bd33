"""Which source of rows a file is: records, one document, or a zip of documents.

Knows the sources. Knows nothing of how any of them reads.
"""

from functools import partial
from pathlib import Path

from sage_studio.data.dataset import DatasetSource
from sage_studio.data.document_source import DocumentSource, Rows
from sage_studio.data.files.content import Content
from sage_studio.data.files.document_files import one_document, zipped_documents
from sage_studio.data.files.kinds import Kind, kind_of
from sage_studio.data.mapping import ColumnMapping
from sage_studio.data.upload import UploadSource, check_file
from sage_studio.text import Text


def source_of_file(
    path: Path, max_bytes: int, mapping: ColumnMapping | None = None, rows: Rows = "questions"
) -> DatasetSource:
    """The source for a file, told by its content.

    Args:
        path: the file.
        max_bytes: refuse a larger one, or one that unpacks to more.
        mapping: which column is which key, for records.
        rows: what documents become.

    Raises:
        InvalidDataset: it is of no kind that can be read.
        InvalidInput: the mapping does not fit its format.
    """
    content = Content(path, max_bytes)
    check_file(path, max_bytes)
    kind = kind_of(content)
    if kind.holds_rows:
        if mapping is not None:
            mapping.check()
        return UploadSource(path, max_bytes, mapping=mapping)
    if kind is Kind.ZIP:
        return DocumentSource(partial(zipped_documents, content), path.stem, path.name, rows, about=named(path.stem))
    return DocumentSource(partial(one_document, content, kind), path.stem, path.name, rows)


def named(name: str) -> Text:
    """A set of documents as questions name it."""
    return Text(name, f"{name} 中")
