"""Routes for the retriever: which one looks things up, and what it finds. Knows nothing of vectors."""

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from sage_studio.api.guard import language
from sage_studio.retrieval_views import RetrieverView, SourceView
from sage_studio.services.rag import PASSAGES
from sage_studio.studio import Studio


class RetrieverRequest(BaseModel):
    """A completed embedding task, or a base embedder; the built-in one without either."""

    model_config = ConfigDict(extra="forbid")

    task_id: str = ""
    model_name: str = ""
    dataset_id: str = Field("", description="Where it looks; the task's dataset, else the documentation, unless given")


class LookUp(BaseModel):
    """A question to look passages up for."""

    model_config = ConfigDict(extra="forbid")

    query: str
    count: int = PASSAGES
    dataset_id: str = Field("", description="Where to look; the retriever's own dataset unless given")


class Found(BaseModel):
    """The passages most like the question, the most alike first."""

    passages: list[SourceView]


def routes(studio: Studio) -> APIRouter:
    """The routes of the retriever."""
    router = APIRouter(prefix="/api", tags=["retriever"])

    @router.post("/finetune/use-as-retriever")
    def use_as_retriever(request: Request, body: RetrieverRequest) -> RetrieverView:
        """Let an embedder look things up from now on; its index is made in the background."""
        status = studio.rag.use(body.task_id, body.model_name, body.dataset_id)
        return RetrieverView.of(status, language(request))

    @router.get("/retriever")
    def retriever(request: Request) -> RetrieverView:
        """What looks things up, and how far its index is."""
        return RetrieverView.of(studio.rag.status(), language(request))

    @router.post("/retrieve")
    def retrieve(body: LookUp) -> Found:
        """The passages of a dataset that answer a question best; the first time an index is made."""
        found = studio.rag.retrieve(body.query, body.count, body.dataset_id)
        return Found(passages=[SourceView.of(source) for source in found])

    return router
