"""The SAGE documentation as a source of rows, from a local copy of its repository.

The copy is replaced only by a good one.
"""

import hashlib
import json
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from time import time
from typing import Any, Literal

from sage_studio.data.dataset import Dropped, FormatCount, OnProgress, ignore_progress
from sage_studio.data.documents.git import CREDENTIALS, CloneFailed, clone, is_repository, local_path
from sage_studio.data.documents.markdown import parse_markdown
from sage_studio.data.documents.questions import Questions, questions_from
from sage_studio.data.language import estimate_tokens
from sage_studio.data.readers.documents import files_below
from sage_studio.data.readers.file_type import FileType
from sage_studio.data.rows import Example
from sage_studio.errors import DocsUnavailable, InvalidSetting, naming_full_disk
from sage_studio.files import write_atomically
from sage_studio.settings import PREFIX, Settings
from sage_studio.text import NOTHING, Text

MARKER = ".sage_studio.json"
SUFFIXES = (".md", ".markdown")


@dataclass(frozen=True, slots=True)
class DocsCopy:
    """Description of the local copy.

    Attributes:
        address: where it came from, without credentials.
        commit: of a git repository; ``sha256:…`` of the content of a plain folder.
        fetched_at: Unix seconds.
    """

    address: str
    branch: str
    folder: str
    commit: str
    fetched_at: float


class DocsRepository:
    """The copy of the documentation that the settings name, under ``settings.docs_dir``."""

    def __init__(self, settings: Settings) -> None:
        self.address = CREDENTIALS.sub("", settings.docs_repo.strip())
        self.folder = settings.docs_dir
        self._given = settings.docs_repo.strip()
        self._branch = settings.docs_branch.strip()
        self._inside = settings.docs_folder.strip().strip("/") or "."

    def copy(self) -> DocsCopy | None:
        """The local copy, if it is of the configured address, branch and folder; else None."""
        try:
            found = DocsCopy(**json.loads((self.folder / MARKER).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        wanted = (self.address, self._branch, self._inside)
        return found if (found.address, found.branch, found.folder) == wanted else None

    def documents(self, root: Path | None = None) -> Iterator[tuple[str, bytes]]:
        """The Markdown files as (path inside the repository, content) pairs, sorted; links are not followed."""
        root = root or self.folder
        inside = root / self._inside
        for path in files_below(inside if inside.is_dir() else root, SUFFIXES):
            yield path.relative_to(root).as_posix(), path.read_bytes()

    def fetch(self, accept: Callable[[Path, str], None], on_progress: OnProgress = ignore_progress) -> DocsCopy:
        """Fetch a new copy and replace the old one if that succeeds.

        Args:
            accept: called with the new folder and its commit before it replaces the old; what it raises keeps the old.
            on_progress: the share fetched.

        Raises:
            InvalidSetting: ``docs_folder`` leads out of the repository.
            DocsUnavailable: naming the address, the cause and the remedy.
        """
        self._check_inside()
        self._clear_up()
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with naming_full_disk(self.folder):
            new = Path(tempfile.mkdtemp(prefix=f"{self.folder.name}.new-", dir=self.folder.parent))
            try:
                commit = self._fill(new / "copy", on_progress)
                accept(new / "copy", commit)
                copy = DocsCopy(self.address, self._branch, self._inside, commit, time())
                write_atomically(new / "copy" / MARKER, json.dumps(asdict(copy)))
                self._swap(new / "copy")
            finally:
                shutil.rmtree(new, ignore_errors=True)
        return copy

    def unavailable(self, cause: str, remedy: Text = NOTHING) -> DocsUnavailable:
        """The error for unavailable documentation, with a hint to the local copy if there is one."""
        cause = CREDENTIALS.sub("", cause)
        hint = remedy or Text(
            "Check that git is installed, the network and git's proxy settings, or set "
            "{prefix}DOCS_REPO to a mirror, a local folder or a git bundle.",
            prefix=PREFIX,
        )
        copy = self.copy()
        if copy is not None:
            day = datetime.fromtimestamp(copy.fetched_at).strftime("%Y-%m-%d %H:%M")
            hint = Text(
                "{hint} The copy of {day} (commit {commit}) is still there: prepare without refreshing to use it.",
                hint=hint,
                day=day,
                commit=copy.commit[:14],
            )
        return DocsUnavailable(
            Text("The documentation at {address} cannot be fetched: {cause}", address=self.address, cause=cause),
            hint,
        )

    def _check_inside(self) -> None:
        path = PurePosixPath(self._inside.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or path.as_posix().startswith("-"):
            raise InvalidSetting(
                Text("docs_folder = {inside!r} leads out of the repository.", inside=self._inside),
                Text("Set {prefix}DOCS_FOLDER to a folder inside it, without '..'.", prefix=PREFIX),
            )

    def _clear_up(self) -> None:
        """Recover from a crash: restore a copy that was moved aside, remove unfinished ones."""
        aside = self._aside
        if aside.exists() and not self.folder.exists():
            aside.rename(self.folder)
        for left in (aside, *self.folder.parent.glob(f"{self.folder.name}.new-*")):
            shutil.rmtree(left, ignore_errors=True)

    @property
    def _aside(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.old")

    def _swap(self, new: Path) -> None:
        if self.folder.exists():
            self.folder.rename(self._aside)
        new.rename(self.folder)
        shutil.rmtree(self._aside, ignore_errors=True)

    def _fill(self, new: Path, on_progress: OnProgress) -> str:
        local = local_path(self._given)
        if local is not None and local.is_dir() and not is_repository(local):
            return self._fill_from_folder(local, new)
        try:
            commit = clone(str(local or self._given), self._branch, self._inside, new, on_progress)
        except CloneFailed as error:
            raise self.unavailable(str(error)) from error
        if not (new / self._inside).is_dir():
            raise self.unavailable(
                f"it has no folder {self._inside}",
                Text("Set {prefix}DOCS_FOLDER to the folder that holds the Markdown.", prefix=PREFIX),
            )
        return commit

    def _fill_from_folder(self, source: Path, new: Path) -> str:
        """Copy the Markdown of a plain folder; one without a ``docs_folder`` is itself that folder."""
        inside = source / self._inside
        digest = hashlib.sha256()
        new.mkdir()
        for path in files_below(inside if inside.is_dir() else source, SUFFIXES):
            name, content = path.relative_to(source), path.read_bytes()
            digest.update(f"{name.as_posix()}\0{len(content)}\0".encode() + content)
            target = new / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        return f"sha256:{digest.hexdigest()[:40]}"


class SAGEDocsProcessor:
    """Downloads the documentation and makes rows of it; itself a `DatasetSource`.

    Example::

        docs = SAGEDocsProcessor(load_settings())
        docs.prepare_training_data()  # PosixPath('.../sage_docs_finetune_data.json')
        docs.get_stats()["total_samples"]  # 5871
    """

    kind: Literal["sage_docs"] = "sage_docs"
    name = "sage-docs"
    container = str(FileType.MARKDOWN)
    formats: tuple[FormatCount, ...] = ()

    def __init__(self, settings: Settings) -> None:
        self._repository = DocsRepository(settings)
        self._data_path = settings.docs_data_path
        self._lock = threading.RLock()
        self._converted: tuple[str, Questions] | None = None

    @property
    def source(self) -> str:
        """The repository's address, without credentials."""
        return self._repository.address

    @property
    def commit(self) -> str | None:
        """Commit of the copy; ``sha256:…`` of its content for a plain folder; None before a download."""
        copy = self._repository.copy()
        return copy.commit if copy is not None else None

    @property
    def dropped(self) -> tuple[Dropped, ...]:
        """What the last conversion dropped, per reason."""
        return self._converted[1].dropped if self._converted is not None else ()

    def download_docs(self, force_refresh: bool = False, on_progress: OnProgress = ignore_progress) -> Path:
        """Fetch the documentation unless a copy of the configured address, branch and folder is there.

        Returns:
            The folder of the copy.

        Raises:
            DocsUnavailable: naming address, cause and remedy; a copy that was there is untouched.
            InvalidSetting: ``docs_folder`` leads out of the repository.
        """
        with self._lock:
            if force_refresh or self._repository.copy() is None:
                self._repository.fetch(self._accept, on_progress)
            return self._repository.folder

    def convert_markdown_to_qa(self) -> list[dict[str, Any]]:
        """The copy as Alpaca rows: instruction, empty input, output and origin. Downloads first if there is none."""
        return [_alpaca(example) for example in self._questions().examples]

    def prepare_training_data(self, force_refresh: bool = False, on_progress: OnProgress = ignore_progress) -> Path:
        """Download, convert and write the rows as one JSON list.

        Returns:
            ``settings.docs_data_path``.

        Raises:
            DocsUnavailable, InvalidSetting: as `download_docs`.
            StorageFull: the file before is untouched.
        """
        with self._lock:
            self.download_docs(force_refresh, on_progress)
            on_progress(1.0, Text("Converting the documentation"))
            rows = self.convert_markdown_to_qa()
            write_atomically(self._data_path, json.dumps(rows, ensure_ascii=False, indent=1))
        return self._data_path

    def get_stats(self) -> dict[str, int | float]:
        """``total_samples``, ``total_chars`` of question and answer, ``avg_chars_per_sample``, ``estimated_tokens``."""
        examples = self._questions().examples
        texts = [f"{example.prompt[-1].content}{example.completion}" for example in examples]
        chars = sum(map(len, texts))
        return {
            "total_samples": len(texts),
            "total_chars": chars,
            "avg_chars_per_sample": round(chars / len(texts), 1),
            "estimated_tokens": sum(map(estimate_tokens, texts)),
        }

    def examples(self) -> Iterator[Example]:
        """The rows, in the order of the files."""
        yield from self._questions().examples

    def _questions(self) -> Questions:
        with self._lock:
            self.download_docs()
            commit = self.commit
            if self._converted is None or self._converted[0] != commit:
                self._convert(self._repository.folder, str(commit))
            assert self._converted is not None
            return self._converted[1]

    def _accept(self, folder: Path, commit: str) -> None:
        self._convert(folder, commit)

    def _convert(self, folder: Path, commit: str) -> None:
        documents = (
            (file, parse_markdown(_decoded(content), file)) for file, content in self._repository.documents(folder)
        )
        questions = questions_from(documents, commit)
        if not questions.examples:
            raise self._repository.unavailable(
                "it holds no section of Markdown to train on",
                Text("Set {prefix}DOCS_FOLDER to the folder that holds the Markdown.", prefix=PREFIX),
            )
        self._converted = (commit, questions)


def _decoded(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("gb18030", errors="replace")


def _alpaca(example: Example) -> dict[str, Any]:
    return {
        "instruction": example.prompt[-1].content,
        "input": "",
        "output": example.completion,
        "origin": example.to_json()["origin"],
    }
