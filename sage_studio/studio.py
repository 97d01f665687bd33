"""The studio: one home, its services wired together, and their life from start to close."""

from filelock import FileLock, Timeout

from sage_studio.catalog import Catalog
from sage_studio.data.column_mapping import ColumnMappingStore
from sage_studio.data.sources.sage_docs import SAGEDocsProcessor
from sage_studio.data.store import DatasetStore
from sage_studio.database import Database
from sage_studio.doctor import CheckResult, diagnose, look
from sage_studio.downloads import Downloads
from sage_studio.errors import Conflict
from sage_studio.files import make_private
from sage_studio.hardware import detect_hardware
from sage_studio.paths import LocalPaths
from sage_studio.services.chat import ChatService
from sage_studio.services.datasets import DatasetService
from sage_studio.services.estimates import EstimateService
from sage_studio.services.models import ModelService
from sage_studio.services.presets import PresetService
from sage_studio.services.rag import RagService
from sage_studio.services.serving import ServingService
from sage_studio.services.tasks import TaskService
from sage_studio.services.training import TrainingService
from sage_studio.serving import vllm_registry
from sage_studio.serving.retriever import Retriever
from sage_studio.settings import PREFIX, PROJECT, Settings
from sage_studio.tasks.background import BackgroundTasks
from sage_studio.tasks.launcher import PREPARER, ProcessLauncher
from sage_studio.tasks.scheduler import TaskScheduler
from sage_studio.tasks.store import TaskStore
from sage_studio.text import Text
from sage_studio.training.presets import PresetStore


class Studio:
    """A container: every capability is a method of one of its services.

    Example:
        >>> studio = Studio(load_settings())  # doctest: +SKIP
        >>> studio.start()  # doctest: +SKIP
        >>> docs = studio.datasets.prepare_sage_docs()  # doctest: +SKIP
        >>> recipe = {"model_name_or_path": "SmolLM2-135M-Instruct", "dataset_id": docs.id}  # doctest: +SKIP
        >>> task = studio.training.start(recipe)  # doctest: +SKIP
    """

    def __init__(self, settings: Settings, *, queues_only: bool = False, any_path: bool = False) -> None:
        """A studio over a home; nothing runs before `start`.

        Args:
            any_path: who asks works on this machine, and may name any path of it; see `sage_studio.paths`.
            queues_only: leave the tasks that are made to the studio that runs on this home, or to the next one.
        """
        self.settings = settings
        make_private(settings.root.parent, settings.root)
        paths = LocalPaths(settings, any_path=any_path)
        self.catalog = Catalog(settings, paths=paths)
        self.database = Database(settings.database_path)
        self._lock = FileLock(settings.root / "studio.lock")
        registry = vllm_registry
        registry.configure(settings, self.database)
        store = TaskStore(self.database, settings.outputs_dir, settings.jobs_dir)
        rows = DatasetStore(self.database, settings.datasets_dir)
        downloads = Downloads(settings.downloads_dir, ProcessLauncher(PREPARER, environment=settings.environment))
        scheduler = TaskScheduler(
            store,
            ProcessLauncher(stop_grace_seconds=settings.stop_grace_seconds),
            settings,
            before_start=registry.before_training,
            after_end=lambda: self.serving.after_training(),
            preparer=ProcessLauncher(PREPARER, environment=settings.environment),
            engine_gpus=registry.engine_gpus,
        )
        retriever = Retriever(settings, self.database)
        self._jobs = BackgroundTasks(store, settings.jobs_dir, queues_only=queues_only)
        self.models = ModelService(settings, detect_hardware(), self.catalog, registry, downloads, self._jobs)
        self.tasks = TaskService(store, scheduler, registry, retriever, self._jobs)
        self.serving = ServingService(
            settings, self.catalog, registry, self.models, store, scheduler, self.database, self._jobs
        )
        self.datasets = DatasetService(
            settings,
            rows,
            SAGEDocsProcessor(settings),
            ColumnMappingStore(self.database),
            self._jobs,
            store,
            self.models,
            self.serving,
            paths,
        )
        self.estimates = EstimateService(
            settings, self.catalog, self.models, rows, store, scheduler, registry, self._jobs
        )
        self.presets = PresetService(
            self.catalog, PresetStore(settings.root / "recipes", paths.resolve), rows, self.estimates
        )
        self.training = TrainingService(settings, self.catalog, self.models, self.datasets, self.estimates, self.tasks)
        self.rag = RagService(self.catalog, self.models, downloads, self.datasets, store, registry, retriever)
        self.chat = ChatService(self.serving, self.rag, self.database)

    def start(self) -> None:
        """Take the home for this process, adopt running tasks and engine, and begin to supervise.

        Raises:
            Conflict: another studio works on the same home.
        """
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            home = self.settings.root.parent
            raise Conflict(
                Text("Another studio already works in {home}.", home=home),
                Text("Stop it, or set {prefix}HOME to another folder.", prefix=PREFIX),
            ) from error
        self.settings.uploads_dir.mkdir(parents=True, exist_ok=True)
        self.serving.registry.adopt()
        self.tasks.scheduler.start()
        self._jobs.recover()
        self._jobs.watch()
        self.serving.after_training()  # the last one may have ended while no studio ran
        self.serving.sampler.start()

    def close(self) -> None:
        """Stop supervising; trainings go on by themselves. The engine stops unless ``keep_engine``."""
        self._jobs.close()
        self.serving.sampler.close()
        self.tasks.scheduler.close()
        self.rag.retriever.close()
        self.serving.registry.close()
        self._lock.release()

    def doctor(self) -> list[CheckResult]:
        """What this machine can and cannot do; where there is a GPU, torch is asked, which takes seconds."""
        return diagnose(look(PROJECT, self.settings.root))
