"""Operations on the retriever: which embedder retrieves, and what it finds."""

from typing import Annotated

from pydantic import BaseModel, Field

from sage_studio.errors import (
    Conflict,
    EmbedderUnavailable,
    HubUnavailable,
    InvalidDataset,
    InvalidInput,
    InvalidModel,
    InvalidName,
    NotFound,
)
from sage_studio.fields import OptionalId, PassageCount, Query
from sage_studio.operations.operation import SCRIPTS, Noun
from sage_studio.services.rag import PASSAGES, RetrieverStatus
from sage_studio.serving.types import Source
from sage_studio.studio import Studio
from sage_studio.text import Language

retriever = Noun("retriever")
NOTHING_FOUND = (InvalidInput, InvalidName, NotFound, InvalidDataset, InvalidModel, EmbedderUnavailable, HubUnavailable)
WHERE = Field(description="Where to look; the retriever's own dataset unless given")


class SourceView(BaseModel):
    """A passage that was found."""

    text: str
    file: str
    heading: str = Field(description="The headings above it, joined by ›")
    score: float = Field(description="Cosine of question and passage, -1 to 1")

    @classmethod
    def of(cls, source: Source) -> "SourceView":
        """The view of a source."""
        return cls(text=source.text, file=source.file, heading=source.heading, score=source.score)


class RetrieverView(BaseModel):
    """What looks things up, where, and how far its index is."""

    model: str
    task_id: str
    dataset_id: str = Field(description="Where it looks; empty for the documentation, else the newest dataset")
    state: str = Field(description="idle, building, ready or failed")
    indexed_dataset_id: str
    done: int
    passages: int
    message: str

    @classmethod
    def of(cls, status: RetrieverStatus, language: Language = "en") -> "RetrieverView":
        """The view of the retriever's status."""
        choice, index = status.choice, status.index
        return cls(
            model=choice.model,
            task_id=choice.task_id,
            dataset_id=choice.dataset_id,
            state=index.state,
            indexed_dataset_id=index.dataset_id,
            done=index.done,
            passages=index.passages,
            message=index.message.in_(language),
        )


class Found(BaseModel):
    """The passages most similar to the question, the most similar first."""

    passages: list[SourceView]


@retriever.post(
    "/api/finetune/use-as-retriever", "use", raises=(Conflict, InvalidModel, InvalidName, NotFound, HubUnavailable)
)
def use_as_retriever(
    studio: Studio,
    language: Language,
    task_id: OptionalId = "",
    model_name: str = "",
    dataset_id: Annotated[
        OptionalId, Field(description="Where to look; the task's dataset, else the documentation, unless given")
    ] = "",
) -> RetrieverView:
    """Retrieve with a completed embedding task's model, or a base embedder; the index is built in the background."""
    return RetrieverView.of(studio.rag.use(task_id, model_name, dataset_id), language)


@retriever.get("/api/retriever", "show")
def get_retriever(studio: Studio, language: Language) -> RetrieverView:
    """The retriever, and how far its index is."""
    return RetrieverView.of(studio.rag.status(), language)


@retriever.post("/api/retrieve", "retrieve", raises=NOTHING_FOUND, interfaces=("rest",))
def retrieve_by_rest(
    studio: Studio,
    query: Query,
    count: PassageCount = PASSAGES,
    dataset_id: Annotated[OptionalId, WHERE] = "",
) -> Found:
    """The passages of a dataset that answer a question best; the index is built the first time."""
    return Found(passages=retrieve(studio, query, count, dataset_id))


@retriever.post("/api/retrieve", "retrieve", interfaces=SCRIPTS)
def retrieve(
    studio: Studio,
    query: Query,
    count: PassageCount = PASSAGES,
    dataset_id: Annotated[OptionalId, WHERE] = "",
) -> list[SourceView]:
    """The passages of a dataset that answer a question best; the index is built the first time."""
    return [SourceView.of(source) for source in studio.rag.retrieve(query, count, dataset_id)]
