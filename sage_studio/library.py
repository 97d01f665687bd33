"""The datasets: the verbs of `Studio` that need only the dataset store and the documentation.

Knows how a source becomes a kept dataset, and which tasks still need one. Knows nothing of training or serving.
"""

from collections.abc import Callable
from pathlib import Path

from sage_studio.data.dataset import Dataset, DatasetSource, OnProgress, ignore_progress
from sage_studio.data.docs_processor import SAGEDocsProcessor
from sage_studio.data.knowledge import KnowledgeSource
from sage_studio.data.paging import Preview
from sage_studio.data.store import DatasetStore
from sage_studio.errors import Conflict
from sage_studio.files import safe_name
from sage_studio.settings import Settings
from sage_studio.tasks.store import TaskStore
from sage_studio.text import Text

FETCHED = 0.7
"""Share of a progress bar that fetching takes; the rest is counting and keeping the rows."""


class Library:
    """The part of the house that keeps datasets."""

    settings: Settings
    datasets: DatasetStore
    docs: SAGEDocsProcessor
    tasks: TaskStore
    default_model: Callable[[], str]
    busy_with: Callable[[str], list[str]]

    def prepare_sage_docs(self, force_refresh: bool = False, on_progress: OnProgress = ignore_progress) -> Dataset:
        """Fetch the SAGE documentation and make it a dataset. Cached until ``force_refresh``.

        Raises:
            DocsUnavailable: it cannot be fetched; a cached copy, if any, is untouched and named in the hint.
        """
        self.docs.prepare_training_data(
            force_refresh, on_progress=lambda share, doing: on_progress(FETCHED * share, doing)
        )
        return self.add_dataset(
            self.docs, on_progress=lambda share, doing: on_progress(FETCHED + (1 - FETCHED) * share, doing)
        )

    def add_knowledge(self, path: Path, on_progress: OnProgress = ignore_progress) -> Dataset:
        """Keep the texts of a file or folder on this machine as a dataset of passages. Raises `InvalidDataset`."""
        source = KnowledgeSource(path, max_bytes=self.settings.max_upload_mb << 20)
        return self.add_dataset(source, on_progress=on_progress)

    def add_dataset(self, source: DatasetSource, name: str = "", on_progress: OnProgress = ignore_progress) -> Dataset:
        """Keep the rows of any source. The same rows under the same name are the same dataset, not a new version."""
        return self.datasets.add(source, name=name, tokenizer=self._tokenizer(), on_progress=on_progress)

    def list_datasets(self) -> list[Dataset]:
        """All datasets, newest first."""
        return self.datasets.list()

    def get_dataset(self, dataset_id: str) -> Dataset:
        """One dataset. Raises `NotFound`."""
        return self.datasets.get(safe_name(dataset_id))

    def preview_dataset(self, dataset_id: str, offset: int = 0, limit: int = 20, search: str = "") -> Preview:
        """Some rows of a dataset, and how many match."""
        return self.datasets.preview(safe_name(dataset_id), offset=offset, limit=limit, search=search)

    def delete_dataset(self, dataset_id: str) -> None:
        """Delete a dataset. Raises `Conflict` while a task that is not over, or a job, needs it."""
        users = [task.id for task in self.tasks.list() if task.dataset_id == dataset_id and not task.status.is_over]
        users += self.busy_with(dataset_id)
        if users:
            raise Conflict(
                Text(f"{dataset_id} is in use by {', '.join(users)}.", f"{dataset_id} 正被 {', '.join(users)} 使用。"),
                Text("Stop the task first, or wait for its end.", "请先停止该任务，或等待其结束。"),
            )
        self.datasets.delete(safe_name(dataset_id))

    def _tokenizer(self) -> Path | None:
        """The default model's ``tokenizer.json``, if it is on this machine already."""
        path = self.settings.models_dir / self.default_model() / "tokenizer.json"
        return path if path.is_file() else None
