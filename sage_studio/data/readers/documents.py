"""Finds documents: a single file, the members of a zip, or the files of a folder."""

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from sage_studio.data.readers.content import MIB, FileContent, unsupported_file
from sage_studio.data.readers.file_type import DOCUMENTS, PDF, ROWS, ZIP, FileType
from sage_studio.data.readers.zip import check_zip, zip_members
from sage_studio.errors import InvalidDataset
from sage_studio.text import Text

MAX_DOCUMENT = 64 * MIB
SKIPPED_FOLDERS = (".git", "node_modules", "__MACOSX", "__pycache__")


@dataclass(frozen=True, slots=True)
class DocumentFile:
    """A document: path with forward slashes, type and bytes."""

    file: str
    kind: FileType
    content: bytes


def single_document(content: FileContent, kind: FileType) -> Iterator[DocumentFile]:
    """A file that is a document, gzipped or not. Raises `InvalidDataset` if it is too large."""
    with content.open() as file:
        document = _checked(DocumentFile(content.name, kind, file.read(MAX_DOCUMENT + 1)))
    for fault in content.read_errors:
        raise fault
    yield document


def zipped_documents(content: FileContent) -> Iterator[DocumentFile]:
    """The documents of a zip, by their names; files of rows too, though without their content, to be told of.

    Raises:
        InvalidDataset: the zip is damaged or does harm.
    """
    for path, member in zip_members(content.path, content.name, content.max_bytes, tuple(DOCUMENTS), tuple(ROWS)):
        if any(part in SKIPPED_FOLDERS for part in Path(path).parts):
            continue
        if kind := ROWS.get(Path(path).suffix.lower()):
            yield DocumentFile(path, kind, member)
        else:
            yield _document(path.replace("\\", "/"), member, content)


def folder_documents(root: Path, folder: Path) -> Iterator[DocumentFile]:
    """The documents in a folder, by their paths from ``root``, sorted; links are not followed."""
    for path in files_below(folder, DOCUMENTS):
        with path.open("rb") as file:
            content = file.read(MAX_DOCUMENT + 1)
        yield _document(path.relative_to(root).as_posix(), content, FileContent(path, MAX_DOCUMENT))


def files_below(folder: Path, suffixes: Collection[str], *, hidden: bool = True) -> list[Path]:
    """The files in a folder and below it, sorted by path; links are not followed, nor are `SKIPPED_FOLDERS` entered.

    Args:
        suffixes: in small letters, with their dots.
        hidden: whether names that begin with a dot are taken.
    """
    found = []
    for parent, folders, files in os.walk(folder, followlinks=False):
        folders[:] = [name for name in folders if name not in SKIPPED_FOLDERS and (hidden or name[0] != ".")]
        for path in (Path(parent, name) for name in files if hidden or name[0] != "."):
            if path.suffix.lower() in suffixes and path.is_file() and not path.is_symlink():
                found.append(path)
    return sorted(found)


def _document(path: str, content: bytes, within: FileContent) -> DocumentFile:
    kind = DOCUMENTS[Path(path).suffix.lower()]
    if PDF in content[:1024]:
        kind = FileType.PDF
    elif content.startswith(ZIP) and kind is not FileType.DOCX:
        raise unsupported_file(within, f"zip with another zip in it ({path})")
    return _checked(DocumentFile(path, kind, content))


def _checked(document: DocumentFile) -> DocumentFile:
    if len(document.content) > MAX_DOCUMENT:
        raise InvalidDataset(
            Text("{file} is larger than {max_document} MiB.", file=document.file, max_document=MAX_DOCUMENT // MIB),
            Text("Split the document."),
        )
    if document.kind is FileType.DOCX:
        check_zip(document.content, document.file, MAX_DOCUMENT)
    return document
