"""Documents as a source of rows: a question for each section, or passages."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

from sage_studio.data.dataset import DropCounter, Dropped, FormatCount
from sage_studio.data.documents.markdown import parse_markdown
from sage_studio.data.documents.questions import passages_from, questions_from
from sage_studio.data.documents.sections import Section, paged_section, plain_section
from sage_studio.data.readers.content import decode_text
from sage_studio.data.readers.convert import ConversionFailed, Converter
from sage_studio.data.readers.documents import DocumentFile
from sage_studio.data.readers.file_type import FileType
from sage_studio.data.rows import DataRow
from sage_studio.errors import InvalidDataset
from sage_studio.text import NOTHING, Text

DocumentRows = Literal["questions", "passages"]
LEAST_CHARS_A_PAGE = 8
LOCKED = "password"

SCANNED = Text("no text on its pages: a scan")
OCR = Text("Run text recognition over it first (for example ocrmypdf), then bring it again.")
HOLDS_ROWS = Text("rows, not a document")
BY_ITSELF = Text("Bring a file of rows by itself, not in a zip.")
NO_ENCODING = Text("its text is in no known encoding")
NEEDS_PASSWORD = Text("needs a password")


class UnusableDocument(Exception):
    """A document that yields no sections, and why."""

    def __init__(self, reason: Text, hint: Text = NOTHING) -> None:
        super().__init__(reason.en)
        self.reason, self.hint = reason, hint


class DocumentSource:
    """The rows of one document or of many.

    Args:
        files: gives the documents, each time it is called.
        name: the dataset's name.
        source: the file's name or the repository's address.
        rows: a question for each section, or passages without questions.
        about: what the questions ask of; nothing where the document's own title says it.
        commit: gives the repository's commit once ``files`` has begun.
    """

    kind: Literal["documents"] = "documents"

    def __init__(
        self,
        files: Callable[[], Iterator[DocumentFile]],
        name: str,
        source: str,
        rows: DocumentRows = "questions",
        about: Text = NOTHING,
        commit: Callable[[], str | None] = lambda: None,
    ) -> None:
        self._files, self._rows, self._about, self._commit = files, rows, about, commit
        self.name, self.source = name, source
        self.dropped: tuple[Dropped, ...] = ()
        self.formats: tuple[FormatCount, ...] = ()
        self._kinds: dict[FileType, int] = {}

    @property
    def commit(self) -> str | None:
        """Commit of the repository; None for files."""
        return self._commit()

    @property
    def container(self) -> str:
        """``PDF``, or ``Markdown, PDF`` for several kinds."""
        return ", ".join(self._kinds)

    def examples(self) -> Iterator[DataRow]:
        """The rows, in the order of the documents' names.

        Raises:
            InvalidDataset: no document gives a row; says why the first one does not.
        """
        self._kinds = {}
        left_out, refused = DropCounter(), list[tuple[str, UnusableDocument]]()
        sections = list(self._sections(left_out, refused))  # all of them: only now is the commit known
        rows: Sequence[DataRow]
        if self._rows == "passages":
            rows = tuple(passages_from(sections, self.commit, left_out))
            self.dropped = left_out.dropped
        else:
            found = questions_from(sections, self.commit, self._about)
            rows, self.dropped = found.examples, found.dropped + left_out.dropped
        if not rows:
            raise self._nothing(refused)
        yield from rows

    def _sections(
        self, left_out: DropCounter, refused: list[tuple[str, UnusableDocument]]
    ) -> Iterator[tuple[str, Section]]:
        with Converter() as converter:
            for document in self._files():
                if document.kind.holds_rows:
                    refused.append((document.file, UnusableDocument(HOLDS_ROWS, BY_ITSELF)))
                    left_out.add(HOLDS_ROWS, document.file)
                    continue
                self._kinds[document.kind] = self._kinds.get(document.kind, 0) + 1
                try:
                    section = read_document(document, converter)
                except UnusableDocument as reason:
                    refused.append((document.file, reason))
                    left_out.add(reason.reason, document.file)
                    continue
                yield document.file, section

    def _nothing(self, refused: list[tuple[str, UnusableDocument]]) -> InvalidDataset:
        for file, why in refused:
            return InvalidDataset(Text("{file}: {reason}.", file=file, reason=why.reason), why.hint)
        return InvalidDataset(
            Text("{source} holds no section of text to train on.", source=self.source),
            Text("Bring Markdown, HTML, TXT, PDF or DOCX with text."),
        )


def read_document(document: DocumentFile, converter: Converter) -> Section:
    """A document as sections.

    Raises:
        Unusable: it is damaged, locked, a scan or in no known encoding.
    """
    if document.kind is FileType.PDF:
        return _read_pdf(document, converter)
    if document.kind is FileType.DOCX:
        return parse_markdown(_converted(document, converter, document.content), document.file)
    text = decode_text(document.content, is_page=document.kind is FileType.HTML)
    if text is None:
        raise UnusableDocument(NO_ENCODING, Text("Save it as UTF-8."))
    if document.kind is FileType.HTML:
        return parse_markdown(_converted(document, converter, text.encode()), document.file)
    return plain_section(text, document.file) if document.kind is FileType.TEXT else parse_markdown(text, document.file)


def _read_pdf(document: DocumentFile, converter: Converter) -> Section:
    found = _convert(document, converter, document.content)
    pages = found["pages"]
    if sum(len(text) for page in pages for text in page) < LEAST_CHARS_A_PAGE * max(len(pages), 1):
        raise UnusableDocument(Text("{scanned} ({count})", scanned=SCANNED, count=len(pages)), OCR)
    return paged_section(pages, [tuple(entry) for entry in found["outline"]], document.file)


def _converted(document: DocumentFile, converter: Converter, content: bytes) -> str:
    markdown: str = _convert(document, converter, content)["markdown"]
    return markdown


def _convert(document: DocumentFile, converter: Converter, content: bytes) -> dict[str, Any]:
    try:
        return converter.convert(document.kind, content)
    except ConversionFailed as error:
        if LOCKED in str(error).lower():
            raise UnusableDocument(NEEDS_PASSWORD, Text("Remove the password first.")) from error
        raise UnusableDocument(
            Text("the {kind} cannot be read ({error})", kind=document.kind, error=error),
            Text("Open and save it anew, or bring it as Markdown or TXT."),
        ) from error
