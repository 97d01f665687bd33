"""Operations on base models: search the hub, download."""

from pydantic import BaseModel, Field

from sage_studio.downloads import Download
from sage_studio.errors import Conflict, HubUnavailable, InvalidInput, InvalidModel, NotFound, StorageFull
from sage_studio.fetching import Transfer
from sage_studio.hub import HubModel
from sage_studio.models.model_folder import ModelTask
from sage_studio.operations.operation import Noun
from sage_studio.studio import Studio
from sage_studio.text import Language

models = Noun("models")


class TransferView(BaseModel):
    """How far a download is."""

    model_name: str
    done_bytes: int
    total_bytes: int = Field(description="0 until the hub has told")
    bytes_per_second: float | None
    seconds_left: float | None

    @classmethod
    def of(cls, transfer: Transfer) -> "TransferView":
        """The view of a transfer."""
        return cls(
            model_name=transfer.name,
            done_bytes=transfer.done,
            total_bytes=transfer.total,
            bytes_per_second=transfer.per_second,
            seconds_left=transfer.seconds_left,
        )


class DownloadView(TransferView):
    """A download of a hub model: running, completed, stopped or failed."""

    state: str
    started_at: float = Field(description="Unix seconds")
    message: str
    hint: str

    @classmethod
    def showing(cls, download: Download, language: Language = "en") -> "DownloadView":
        """The view of a download."""
        return cls(
            **TransferView.of(download.transfer).model_dump(),
            state=str(download.state),
            started_at=download.started_at,
            message=download.message.in_(language),
            hint=download.hint.in_(language),
        )


class HubModelView(BaseModel):
    """A model that was found on the hub."""

    name: str
    parameters: int | None = Field(description="null where the hub does not know")
    gated: bool = Field(description="Its terms have to be accepted on the hub first")
    downloads: int = Field(description="In the last month")

    @classmethod
    def of(cls, model: HubModel) -> "HubModelView":
        """The view of a model."""
        return cls(name=model.name, parameters=model.parameters, gated=model.gated, downloads=model.downloads)


@models.get("/api/models/search", "search", raises=(HubUnavailable, InvalidInput))
def search_models(studio: Studio, q: str, task: ModelTask = "generative") -> list[HubModelView]:
    """The hub's models whose names contain ``q``, the most used first."""
    return [HubModelView.of(model) for model in studio.models.search(q, task)]


@models.get("/api/models/downloads", "downloads")
def list_downloads(studio: Studio, language: Language) -> list[DownloadView]:
    """Downloads of hub models, the newest first."""
    return [DownloadView.showing(each, language) for each in studio.models.downloads()]


@models.post(
    "/api/models/downloads", "download", status=202, raises=(InvalidModel, NotFound, HubUnavailable, StorageFull)
)
def download_model(studio: Studio, language: Language, model_name: str) -> DownloadView:
    """Start or resume the download of a hub model."""
    return DownloadView.showing(studio.models.download(model_name), language)


@models.delete("/api/models/downloads/{model_name:path}", "cancel-download", raises=(NotFound, Conflict))
def cancel_download(studio: Studio, language: Language, model_name: str) -> DownloadView:
    """Cancel a download; what was fetched is kept."""
    return DownloadView.showing(studio.models.cancel_download(model_name), language)
