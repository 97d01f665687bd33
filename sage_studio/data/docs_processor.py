"""The SAGE documentation as a source of rows: fetched, converted and kept as Alpaca JSON.

Knows the order of the steps and where the result lies. Knows nothing of git (that is `repository`), of Markdown
(`documents`) or of how a question is worded (`questions`).
"""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from sage_studio.data.dataset import Dropped, FormatCount, OnProgress, ignore_progress
from sage_studio.data.documents import parse_markdown
from sage_studio.data.example import Example
from sage_studio.data.files.kinds import Kind
from sage_studio.data.questions import Questions, questions_from
from sage_studio.data.repository import DocsRepository
from sage_studio.data.script import estimate_tokens
from sage_studio.files import write_atomically
from sage_studio.settings import PREFIX, Settings
from sage_studio.text import Text


class SAGEDocsProcessor:
    """Downloads the documentation and makes rows of it; itself a `DatasetSource`.

    Example:
        >>> from sage_studio.settings import load_settings
        >>> docs = SAGEDocsProcessor(load_settings())      # doctest: +SKIP
        >>> docs.prepare_training_data()                   # doctest: +SKIP
        PosixPath('.../sage_docs_finetune_data.json')
        >>> docs.get_stats()["total_samples"]              # doctest: +SKIP
        5871
    """

    kind: Literal["sage_docs"] = "sage_docs"
    name = "sage-docs"
    container = str(Kind.MARKDOWN)
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
        """Of the copy; ``sha256:…`` of its content where the address is a plain folder; None before any download."""
        copy = self._repository.copy()
        return copy.commit if copy is not None else None

    @property
    def dropped(self) -> tuple[Dropped, ...]:
        """What the last conversion left out, and why."""
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
            on_progress(1.0, Text("Converting the documentation", "正在转换文档"))
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
                Text(
                    f"Set {PREFIX}DOCS_FOLDER to the folder that holds the Markdown.",
                    f"请将 {PREFIX}DOCS_FOLDER 设为存放 Markdown 的文件夹。",
                ),
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
