"""Retrieval-augmented generation (RAG): the retriever, answers from its passages.

`answer_twice` is targeted query expansion, KBAlign's way of answering (arXiv 2411.14790): a first answer names what the
question only hints at, and so finds passages that the question alone does not.
"""

import logging
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from sage_studio.catalog import BUILT_IN_EMBEDDER, Catalog
from sage_studio.data.dataset import Dataset
from sage_studio.data.language import HAN
from sage_studio.downloads import Downloads
from sage_studio.errors import Conflict, InvalidInput, InvalidModel, NotFound, StudioError
from sage_studio.models.model_folder import is_here
from sage_studio.services.datasets import DatasetService
from sage_studio.services.models import ModelService
from sage_studio.serving.registry import VLLMRegistry
from sage_studio.serving.retriever import IndexStatus, Retriever, RetrieverConfig
from sage_studio.serving.types import ChatChunk, ChatMessage, Source
from sage_studio.tasks.store import TaskStore
from sage_studio.text import Text
from sage_studio.training.recipes import RECIPES

logger = logging.getLogger("sage_studio")

PASSAGES = 4
MOST_PASSAGES = 50
FIRST_PIECES = 128
"""So much of the first answer is looked up with, a token or little more a piece: small embedders read 256 tokens."""
LONGEST_QUERY = 4000
"""Characters that passages can be looked up with."""
GROUNDED = Text(
    "Answer the question from these passages. If they do not hold the answer, say so.\n\n{}\n\nQuestion: {}"
)

Ask = Callable[[Sequence[ChatMessage]], Generator[ChatChunk, None, None]]
"""A conversation -> its answer; closing it ends it in the engine."""
LookUp = Callable[[str], Sequence[Source]]
"""Passages for a query, the best first."""


@dataclass(frozen=True, slots=True)
class RetrieverStatus:
    """What looks things up, where, and how far its index is."""

    choice: RetrieverConfig
    index: IndexStatus


class RagService:
    """The retriever: which embedder retrieves, from which dataset, and what it finds."""

    def __init__(
        self,
        catalog: Catalog,
        models: ModelService,
        downloads: Downloads,
        datasets: DatasetService,
        tasks: TaskStore,
        registry: VLLMRegistry,
        retriever: Retriever,
    ) -> None:
        self._catalog = catalog
        self._models = models
        self._downloads = downloads
        self._datasets = datasets
        self._tasks = tasks
        self._registry = registry
        self.retriever = retriever

    def use(self, task_id: str = "", model: str = "", dataset_id: str = "") -> RetrieverStatus:
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
            choice = replace(choice, dataset_id=self._datasets.get(dataset_id).id)
        self.retriever.choose(choice)
        logger.info("Retriever: %s", choice.model)
        threading.Thread(target=self._prepare, args=(choice,), name="make-index", daemon=True).start()
        return self.status()

    def status(self) -> RetrieverStatus:
        """What looks things up; the built-in embedder unless another was chosen."""
        return RetrieverStatus(self.retriever.chosen or RetrieverConfig(BUILT_IN_EMBEDDER, ""), self.retriever.status)

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
        choice = self.retriever.chosen or self._base(BUILT_IN_EMBEDDER)
        dataset = self._place(dataset_id or choice.dataset_id)
        self._fetch(choice)
        return self.retriever.search(
            choice, dataset, self._datasets.store.data_path(dataset.id).parent, question, count
        )

    def learned_references(self, model: str | None = None) -> bool:
        """Whether a model was taught to answer from references, as KBAlign teaches; None asks of the current one."""
        known = self._registry.models()
        asked = next((each for each in known if (each.name == model if model else each.current)), None)
        if asked is None or "task_id" not in asked.config:
            return False
        try:
            task = self._tasks.get(asked.config["task_id"])
        except NotFound:
            return False
        return task.type == "kbalign" and bool(task.recipe.get("references", True))

    def _tuned(self, task_id: str) -> RetrieverConfig:
        task = self._tasks.completed(task_id)
        if RECIPES[task.type].model_task != "embedding":
            raise Conflict(
                Text("{id} trained no embedder.", id=task.id),
                Text("Set it as the backend instead."),
            )
        base = self._models.ensure(task.model)
        known = {dataset.id for dataset in self._datasets.list()}
        dataset_id = task.dataset_id if task.dataset_id in known else ""
        return RetrieverConfig(task.served_name, str(task.folder), base.trust_remote_code, task.id, dataset_id)

    def _base(self, name: str) -> RetrieverConfig:
        if self._catalog.resolve(name).task == "generative":
            raise InvalidModel(
                Text("{name} writes text and is no embedder.", name=name),
                Text("Choose an embedder, such as {built_in_embedder}.", built_in_embedder=BUILT_IN_EMBEDDER),
            )
        ref = self._models.ensure(name)
        return RetrieverConfig(ref.name, ref.location, ref.trust_remote_code)

    def _fetch(self, choice: RetrieverConfig) -> None:
        """See to it that the embedder's files are on this machine. Raises as `Downloads.fetch`."""
        if not is_here(choice.location):
            self._downloads.fetch(choice.location, choice.trust_remote_code)

    def _place(self, dataset_id: str) -> Dataset:
        if dataset_id:
            return self._datasets.store.hashed(self._datasets.get(dataset_id))
        known = sorted(self._datasets.list(), key=lambda dataset: dataset.kind != "sage_docs")
        if not known:
            raise NotFound(
                Text("There is no dataset to answer from."),
                Text("Prepare the SAGE documentation or upload a dataset."),
            )
        return self._datasets.store.hashed(known[0])

    def _prepare(self, choice: RetrieverConfig) -> None:
        try:
            dataset = self._place(choice.dataset_id)
            self._fetch(choice)
            self.retriever.prepare(choice, dataset, self._datasets.store.data_path(dataset.id).parent)
        except StudioError as error:
            logger.warning("The retriever's index was not made: %s", error)


def _check_question(question: Any, count: int) -> None:
    if not isinstance(question, str) or not question.strip():
        raise InvalidInput(Text("The message is empty."), Text("Type something."))
    if len(question) > LONGEST_QUERY:
        raise InvalidInput(
            Text(
                "The question has {count:,} characters; documents can be searched for {longest_query:,}.",
                count=len(question),
                longest_query=LONGEST_QUERY,
            ),
            Text("Shorten it, or answer without documents."),
        )
    if not 1 <= count <= MOST_PASSAGES:
        raise InvalidInput(
            Text("count = {count} is out of bounds.", count=count),
            Text("Give 1 to {most_passages}.", most_passages=MOST_PASSAGES),
        )


# Answers from passages


def answer_once(messages: Sequence[ChatMessage], ask: Ask, look_up: LookUp) -> Iterator[ChatChunk]:
    """Look up passages for the last question and answer from them; the last piece names them.

    Raises:
        what ``look_up`` and ``ask`` raise, before the first piece is taken.
    """
    found = look_up(question_of(messages))
    return _finished(ask(grounded(messages, found)), found, look_ups=1)


def answer_twice(messages: Sequence[ChatMessage], ask: Ask, look_up: LookUp) -> Iterator[ChatChunk]:
    """As `answer_once`, but the first answer is only looked up with, and the question is answered from what that finds.

    Where that finds the same passages the first answer stands and goes on. While it is still written, pieces without
    text come, so that whoever waits can leave: closing the iterator ends whichever answer is under way.

    Raises:
        what ``look_up`` and ``ask`` raise: for the first answer before the first piece is taken.
    """
    found = look_up(question_of(messages))
    return _anew(messages, found, ask(grounded(messages, found)), ask, look_up)


def question_of(messages: Sequence[ChatMessage]) -> str:
    """What is to be looked up: the last message."""
    return messages[-1]["content"] if messages else ""


def grounded(messages: Sequence[ChatMessage], sources: Sequence[Source]) -> list[ChatMessage]:
    """The conversation with passages put before its last question, in the question's language."""
    question = question_of(messages)
    passages = "\n\n".join(f"[{place}] {named(source)}\n{source.text}" for place, source in enumerate(sources, 1))
    chinese = HAN.search(question) is not None
    content = GROUNDED.in_("zh" if chinese else "en").format(passages, question)
    return [*messages[:-1], ChatMessage(role="user", content=content)]


def named(source: Source) -> str:
    """``file › heading``."""
    return " › ".join(part for part in (source.file, source.heading) if part)


def _anew(
    messages: Sequence[ChatMessage],
    found: Sequence[Source],
    first: Generator[ChatChunk, None, None],
    ask: Ask,
    look_up: LookUp,
) -> Iterator[ChatChunk]:
    began, read = time.monotonic(), list[ChatChunk]()
    with closing(first):
        for chunk in first:
            read.append(chunk)
            if chunk.done or len(read) == FIRST_PIECES:
                break
            yield ChatChunk("", chunk.model, look_ups=1)
        draft = "".join(chunk.text for chunk in read).strip()
        query = f"{question_of(messages)}\n{draft}"[:LONGEST_QUERY]
        again = look_up(query) if draft else found
        waited = time.monotonic() - began
        if _passages(again) == _passages(found):
            stands = (replace(chunk, first_token_seconds=0.0) for chunk in chain(read, first))
            yield from _finished(stands, found, 2 if draft else 1, waited)
            return
    yield from _finished(ask(grounded(messages, again)), again, 2, waited)


def _passages(sources: Sequence[Source]) -> set[tuple[str, str, str]]:
    """Without the score, which is another for another query."""
    return {(source.file, source.heading, source.text) for source in sources}


def _finished(
    chunks: Iterable[ChatChunk], sources: Sequence[Source], look_ups: int, waited: float = 0.0
) -> Iterator[ChatChunk]:
    """An answer whose last piece names what it was drawn from, and counts what it was waited for before."""
    for chunk in chunks:
        if not chunk.done:
            yield chunk
            continue
        seconds = None if chunk.first_token_seconds is None else waited + chunk.first_token_seconds
        yield replace(chunk, sources=tuple(sources), look_ups=look_ups, first_token_seconds=seconds)
