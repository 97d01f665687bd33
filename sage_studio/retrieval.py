"""Answers from documents: the verbs of `Studio` about the retriever.

Knows how a task or a base embedder becomes the retriever. Knows nothing of vectors or processes, of how an answer is
drawn from what is found (`grounding`), nor of widgets or routes.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from sage_studio.catalog import BUILT_IN_EMBEDDER, Catalog, ModelRef
from sage_studio.data.dataset import Dataset
from sage_studio.data.store import DatasetStore
from sage_studio.downloads import Downloads
from sage_studio.errors import Conflict, InvalidInput, InvalidModel, NotFound, StudioError
from sage_studio.grounding import LONGEST_QUERY
from sage_studio.hub import is_here
from sage_studio.serving.registry import VLLMRegistry
from sage_studio.serving.retriever import IndexStatus, Retriever, RetrieverConfig
from sage_studio.serving.types import Source
from sage_studio.tasks.store import TaskStore
from sage_studio.tasks.task import Task
from sage_studio.text import Text
from sage_studio.training.recipes import RECIPES

logger = logging.getLogger("sage_studio")

PASSAGES = 4
MOST_PASSAGES = 50


@dataclass(frozen=True, slots=True)
class RetrieverStatus:
    """What looks things up, where, and how far its index is."""

    choice: RetrieverConfig
    index: IndexStatus


class Retrieval:
    """The part of the house that looks things up."""

    catalog: Catalog
    datasets: DatasetStore
    registry: VLLMRegistry
    tasks: TaskStore
    finder: Retriever
    ensure_model: Callable[[str], ModelRef]
    downloads: Downloads
    list_datasets: Callable[[], list[Dataset]]
    get_dataset: Callable[[str], Dataset]
    _completed: Callable[[str], Task]

    def use_as_retriever(self, task_id: str = "", model: str = "", dataset_id: str = "") -> RetrieverStatus:
        """Let an embedder look things up from now on; its index is made in the background.

        Args:
            task_id: a completed embedding task; or
            model: a base embedder of the catalogue, the hub or a folder; the built-in one without either.
            dataset_id: where it looks; the task's own dataset, else the documentation, unless given.

        Raises:
            Conflict: the task is not completed, or its model is no embedder.
            InvalidModel, NotFound: there is no such task, model or dataset.
        """
        choice = self._tuned(task_id) if task_id else self._base(model or BUILT_IN_EMBEDDER)
        if dataset_id:
            choice = replace(choice, dataset_id=self.get_dataset(dataset_id).id)
        self.finder.choose(choice)
        logger.info("Retriever: %s", choice.model)
        threading.Thread(target=self._prepare, args=(choice,), name="make-index", daemon=True).start()
        return self.retriever()

    def retriever(self) -> RetrieverStatus:
        """What looks things up; the built-in embedder unless another was chosen."""
        return RetrieverStatus(self.finder.chosen or RetrieverConfig(BUILT_IN_EMBEDDER, ""), self.finder.status)

    def retrieve(self, question: str, count: int = PASSAGES, dataset_id: str = "") -> list[Source]:
        """The passages that are most like a question, the most alike first; the first time an index is made.

        Args:
            question: at most `LONGEST_QUERY` characters.
            count: how many, 1 to `MOST_PASSAGES`.
            dataset_id: where to look; the retriever's own dataset unless given.

        Raises:
            InvalidInput: the question is empty or too long, or ``count`` out of bounds.
            NotFound: the dataset or the retriever's folder is gone.
            InvalidDataset: the dataset has nothing to look up.
            EmbedderUnavailable: the embedder does not run.
        """
        _check_question(question, count)
        choice = self.finder.chosen or self._base(BUILT_IN_EMBEDDER)
        dataset = self._place(dataset_id or choice.dataset_id)
        self._fetch(choice)
        return self.finder.search(choice, dataset, self.datasets.data_path(dataset.id).parent, question, count)

    def learned_references(self, model: str | None = None) -> bool:
        """Whether a model was taught to answer from references, as KBAlign teaches; None asks of the current one."""
        known = self.registry.models()
        asked = next((each for each in known if (each.name == model if model else each.current)), None)
        if asked is None or "task_id" not in asked.config:
            return False
        try:
            task = self.tasks.get(asked.config["task_id"])
        except NotFound:
            return False
        return task.type == "kbalign" and bool(task.recipe.get("references", True))

    def _tuned(self, task_id: str) -> RetrieverConfig:
        task = self._completed(task_id)
        if RECIPES[task.type].model_task != "embedding":
            raise Conflict(
                Text(f"{task.id} trained no embedder.", f"{task.id} 训练的不是嵌入模型。"),
                Text("Set it as the backend instead.", "请将其设为后端。"),
            )
        base = self.ensure_model(task.model)
        known = {dataset.id for dataset in self.list_datasets()}
        dataset_id = task.dataset_id if task.dataset_id in known else ""
        return RetrieverConfig(task.served_name, str(task.folder), base.trust_remote_code, task.id, dataset_id)

    def _base(self, name: str) -> RetrieverConfig:
        if self.catalog.resolve(name).task == "generative":
            raise InvalidModel(
                Text(f"{name} writes text and is no embedder.", f"{name} 是文本生成模型，不是嵌入模型。"),
                Text(f"Choose an embedder, such as {BUILT_IN_EMBEDDER}.", f"请选择嵌入模型，如 {BUILT_IN_EMBEDDER}。"),
            )
        ref = self.ensure_model(name)
        return RetrieverConfig(ref.name, ref.location, ref.trust_remote_code)

    def _fetch(self, choice: RetrieverConfig) -> None:
        """See to it that the embedder's files are on this machine. Raises as `Downloads.fetch`."""
        if not is_here(choice.location):
            self.downloads.fetch(choice.location, choice.trust_remote_code)

    def _place(self, dataset_id: str) -> Dataset:
        if dataset_id:
            return self.datasets.hashed(self.get_dataset(dataset_id))
        known = sorted(self.list_datasets(), key=lambda dataset: dataset.kind != "sage_docs")
        if not known:
            raise NotFound(
                Text("There is no dataset to answer from.", "没有可用于问答的数据集。"),
                Text("Prepare the SAGE documentation or upload a dataset.", "请先准备 SAGE 文档或上传数据集。"),
            )
        return self.datasets.hashed(known[0])

    def _prepare(self, choice: RetrieverConfig) -> None:
        try:
            dataset = self._place(choice.dataset_id)
            self._fetch(choice)
            self.finder.prepare(choice, dataset, self.datasets.data_path(dataset.id).parent)
        except StudioError as error:
            logger.warning("The retriever's index was not made: %s", error)


def _check_question(question: Any, count: int) -> None:
    if not isinstance(question, str) or not question.strip():
        raise InvalidInput(Text("The message is empty.", "消息为空。"), Text("Type something.", "请输入内容。"))
    if len(question) > LONGEST_QUERY:
        raise InvalidInput(
            Text(
                f"The question has {len(question):,} characters; documents can be searched for {LONGEST_QUERY:,}.",
                f"问题有 {len(question):,} 个字符；文档检索最多支持 {LONGEST_QUERY:,} 个。",
            ),
            Text("Shorten it, or answer without documents.", "请缩短问题，或关闭文档问答。"),
        )
    if not 1 <= count <= MOST_PASSAGES:
        raise InvalidInput(
            Text(f"count = {count} is out of bounds.", f"count = {count} 超出范围。"),
            Text(f"Give 1 to {MOST_PASSAGES}.", f"请填写 1 到 {MOST_PASSAGES}。"),
        )
