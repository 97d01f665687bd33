"""Routes for models: which can answer, and which one does. Knows nothing of engines."""

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict

from sage_studio.api.guard import language
from sage_studio.models.model_folder import ModelTask
from sage_studio.serving_views import BackendView, DownloadView, EngineView, HubModelView, ModelView
from sage_studio.studio import Studio


class SwitchRequest(BaseModel):
    """A model, by name."""

    model_config = ConfigDict(extra="forbid")

    model_name: str


class ModelsResponse(BaseModel):
    """Models that can answer, those the catalogue offers to train, and the engine."""

    current: str | None
    models: list[ModelView]
    catalogue: list[str]
    engine: EngineView


def routes(studio: Studio) -> APIRouter:
    """The routes under ``/api/models``."""
    router = APIRouter(prefix="/api/models", tags=["models"])

    @router.get("")
    def models(request: Request) -> ModelsResponse:
        """All models and the one that answers now."""
        registered = studio.serving.models()
        return ModelsResponse(
            current=next((model.name for model in registered if model.current), None),
            models=[ModelView.of(model) for model in registered],
            catalogue=[entry.id for task in ("generative", "embedding") for entry in studio.models.choices(task)],
            engine=EngineView.of(studio.serving.status(), language(request)),
        )

    @router.post("/switch")
    def switch(request: Request, body: SwitchRequest) -> BackendView:
        """Make a model the one that answers."""
        return BackendView.of(studio.serving.switch(body.model_name), language(request))

    @router.post("/retry-vllm")
    def retry_vllm(request: Request) -> EngineView:
        """Try vLLM again where it did not start, so that another engine serves in its place."""
        return EngineView.of(studio.serving.retry_vllm(), language(request))

    @router.get("/search")
    def search(q: str, task: ModelTask = "generative") -> list[HubModelView]:
        """The hub's models whose names have ``q`` in them, the most used first."""
        return [HubModelView.of(model) for model in studio.models.search(q, task)]

    @router.get("/downloads")
    def downloads(request: Request) -> list[DownloadView]:
        """Downloads of hub models, the newest first."""
        return [DownloadView.showing(each, language(request)) for each in studio.models.downloads()]

    @router.post("/downloads", status_code=202)
    def download(request: Request, body: SwitchRequest) -> DownloadView:
        """Begin to fetch a hub model, or go on with it."""
        return DownloadView.showing(studio.models.download(body.model_name), language(request))

    @router.delete("/downloads/{name:path}")
    def cancel(request: Request, name: str) -> DownloadView:
        """Break a download off; what was fetched is kept."""
        return DownloadView.showing(studio.models.cancel_download(name), language(request))

    @router.delete("/{name:path}")
    def delete(name: str) -> dict[str, str]:
        """Forget a model; its files stay. The current one cannot be forgotten."""
        studio.serving.forget(name)
        return {"status": "success", "model_name": name}

    return router
