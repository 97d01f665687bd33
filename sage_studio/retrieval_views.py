"""What the REST routes and the named client endpoints show of the retriever and of what it finds.

Knows the shapes and how to fill them. Knows nothing of routes or widgets.
"""

from pydantic import BaseModel, Field

from sage_studio.services.rag import RetrieverStatus
from sage_studio.serving.types import Source
from sage_studio.text import Language


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
