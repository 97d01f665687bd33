"""The route for the engine's performance. Knows nothing of how it is measured."""

from fastapi import APIRouter, Request

from sage_studio.api.guard import language
from sage_studio.serving_views import EngineView, MetricsView
from sage_studio.studio import Studio


class MetricsResponse(MetricsView):
    """The figures, and the engine that they are of."""

    engine: EngineView


def routes(studio: Studio) -> APIRouter:
    """The route ``/api/metrics``."""
    router = APIRouter(prefix="/api", tags=["metrics"])

    @router.get("/metrics")
    def metrics(request: Request) -> MetricsResponse:
        """Speed, load, latency, cache and card: the newest sample and the last ten minutes."""
        view = MetricsView.of(studio.serving.metrics())
        engine = EngineView.of(studio.serving.status(), language(request))
        return MetricsResponse(newest=view.newest, series=view.series, engine=engine)

    return router
