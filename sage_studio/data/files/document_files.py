"""Documents as they lie: one file, a zip of them, or a folder.

Knows where the bytes are and which names are documents'. Knows nothing of what is in them.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sage_studio.data.files.content import MIB, Content
from sage_studio.data.files.encoding import not_text
from sage_studio.data.files.kinds import DOCUMENTS, PDF, ROWS, ZIP, Kind
from sage_studio.data.files.zipped import check_zip, members_of
from sage_studio.errors import InvalidDataset
from sage_studio.text import Text

MAX_DOCUMENT = 64 * MIB
SKIPPED_FOLDERS = (".git", "node_modules", "__MACOSX", "__pycache__")


@dataclass(frozen=True, slots=True)
class DocumentFile:
    """One document: its path with forward slashes, what it is, and its bytes."""

    file: str
    kind: Kind
    content: bytes


def one_document(content: Content, kind: Kind) -> Iterator[DocumentFile]:
    """A document that is a file by itself, gzipped or not. Raises `InvalidDataset` for one that is too large."""
    with content.open() as file:
        document = _checked(DocumentFile(content.name, kind, file.read(MAX_DOCUMENT + 1)))
    for fault in content.faults:
        raise fault
    yield document


def zipped_documents(content: Content) -> Iterator[DocumentFile]:
    """The documents of a zip, by their names; files of rows too, though without their content, to be told of.

    Raises:
        InvalidDataset: the zip is damaged or does harm.
    """
    for path, member in members_of(content.path, content.name, content.max_bytes, tuple(DOCUMENTS), tuple(ROWS)):
        if any(part in SKIPPED_FOLDERS for part in Path(path).parts):
            continue
        if kind := ROWS.get(Path(path).suffix.lower()):
            yield DocumentFile(path, kind, member)
        else:
            yield _document(path.replace("\\", "/"), member, content)


def documents_below(root: Path, folder: Path) -> Iterator[DocumentFile]:
    """The documents in a folder, by their paths from ``root``, sorted; links are not followed."""
    for path in sorted(_paths_below(folder)):
        with path.open("rb") as file:
            content = file.read(MAX_DOCUMENT + 1)
        yield _document(path.relative_to(root).as_posix(), content, Content(path, MAX_DOCUMENT))


def _document(path: str, content: bytes, within: Content) -> DocumentFile:
    kind = DOCUMENTS[Path(path).suffix.lower()]
    if PDF in content[:1024]:
        kind = Kind.PDF
    elif content.startswith(ZIP) and kind is not Kind.DOCX:
        raise not_text(within, f"zip with another zip in it ({path})")
    return _checked(DocumentFile(path, kind, content))


def _checked(document: DocumentFile) -> DocumentFile:
    if len(document.content) > MAX_DOCUMENT:
        raise InvalidDataset(
            Text(
                f"{document.file} is larger than {MAX_DOCUMENT // MIB} MiB.",
                f"{document.file} 超过 {MAX_DOCUMENT // MIB} MiB。",
            ),
            Text("Split the document.", "请拆分该文档。"),
        )
    if document.kind is Kind.DOCX:
        check_zip(document.content, document.file, MAX_DOCUMENT)
    return document


def _paths_below(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder, followlinks=False):
        folders[:] = [name for name in folders if name not in SKIPPED_FOLDERS and not Path(parent, name).is_symlink()]
        for name in files:
            path = Path(parent, name)
            if path.suffix.lower() in DOCUMENTS and path.is_file() and not path.is_symlink():
                yield path
