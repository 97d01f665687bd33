"""The house: the services wired together, and the verbs that a person, a script or a route can say.

Knows which service does what, and the few verbs that span two of them. Knows nothing of widgets, routes or HTTP; every
door calls these verbs and adds nothing of its own.
"""

import logging
import threading
from typing import Any

from filelock import FileLock, Timeout

from sage_studio.backend import Backend
from sage_studio.catalog import Catalog, ModelEntry, ModelRef
from sage_studio.curation import Curation
from sage_studio.data.docs_processor import SAGEDocsProcessor
from sage_studio.data.jobs import Jobs
from sage_studio.data.mapping import MappingBook
from sage_studio.data.store import DatasetStore
from sage_studio.database import Database
from sage_studio.doctor import Finding, diagnose, look
from sage_studio.downloads import Downloads
from sage_studio.errors import Conflict, StudioError
from sage_studio.footprints import FootprintBook
from sage_studio.hardware import Hardware, detect_hardware
from sage_studio.intake import Intake
from sage_studio.library import Library
from sage_studio.model_task import ModelTask
from sage_studio.paces import PaceBook
from sage_studio.recommendation import Recommendations
from sage_studio.retrieval import Retrieval
from sage_studio.serving import vllm_registry
from sage_studio.serving.metrics import MetricsSampler
from sage_studio.serving.retriever import Retriever
from sage_studio.serving.types import ChatMessage, RegisteredModel
from sage_studio.settings import PREFIX, PROJECT, Settings
from sage_studio.tasks.launcher import PREPARER, ProcessLauncher
from sage_studio.tasks.store import TaskStore
from sage_studio.tasks.supervisor import TaskSupervisor
from sage_studio.text import Text
from sage_studio.training.recipe import Preset
from sage_studio.training.recipes import RECIPES
from sage_studio.training.templates import TemplateBook
from sage_studio.votes import VoteBook
from sage_studio.workshop import Workshop

logger = logging.getLogger("sage_studio")


class Studio(Intake, Library, Curation, Workshop, Recommendations, Retrieval, Backend):
    """Everything the studio can do.

    Example:
        >>> studio = Studio(load_settings())  # doctest: +SKIP
        >>> studio.start()  # doctest: +SKIP
        >>> docs = studio.prepare_sage_docs()  # doctest: +SKIP
        >>> recipe = {"model_name_or_path": "SmolLM2-135M-Instruct", "dataset_id": docs.id}
        >>> task = studio.start_finetune(recipe)  # doctest: +SKIP
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.hardware: Hardware = detect_hardware()
        self.catalog = Catalog(settings)
        self._lock = FileLock(settings.root / "studio.lock")
        self.database = Database(settings.database_path)
        self.datasets = DatasetStore(self.database, settings.datasets_dir)
        self.jobs = Jobs(settings.jobs_dir)
        self.mappings = MappingBook(self.database)
        self.docs = SAGEDocsProcessor(settings)
        self.tasks = TaskStore(self.database, settings.outputs_dir)
        self.registry = vllm_registry
        self.registry.configure(settings, self.database)
        self.supervisor = TaskSupervisor(
            self.tasks,
            ProcessLauncher(stop_grace_seconds=settings.stop_grace_seconds),
            settings,
            before_start=self.registry.before_training,
            after_end=self._after_training,
            preparer=ProcessLauncher(PREPARER, environment=settings.environment),
            engine_cards=self.registry.engine_cards,
        )
        self.downloads = Downloads(settings.downloads_dir, ProcessLauncher(PREPARER, environment=settings.environment))
        self.awaited: list[str] = []
        self.not_fetched: StudioError | None = None
        self.footprints = FootprintBook(settings.models_dir / ".footprints")
        self.paces = PaceBook(settings.models_dir / ".footprints")
        self.known_models: dict[str, ModelRef] = {}
        self.known_lengths: dict[tuple[Any, ...], tuple[int, ...]] = {}
        self.known_rows: dict[tuple[Any, ...], tuple[Text, ...]] = {}
        self.finder = Retriever(settings, self.database)
        self.vote_book = VoteBook(self.database)
        self.sampler = MetricsSampler(self._metrics_address, lambda: detect_hardware().cards)
        self.templates = TemplateBook(settings.root / "recipes")

    # Life

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
                Text(f"Another studio already works in {home}.", f"已有另一个工作室在使用 {home}。"),
                Text(
                    f"Stop it, or set {PREFIX}HOME to another folder.",
                    f"请先停止它，或将 {PREFIX}HOME 设为其他文件夹。",
                ),
            ) from error
        self.settings.uploads_dir.mkdir(parents=True, exist_ok=True)
        self.registry.adopt()
        self.supervisor.start()
        self._after_training()  # the last one may have ended while no studio ran
        self.sampler.start()

    def close(self) -> None:
        """Stop supervising; trainings go on by themselves. The engine stops unless ``keep_engine``."""
        self.jobs.close()
        self.sampler.close()
        self.supervisor.close()
        self.finder.close()
        self.registry.close()
        self._lock.release()

    def doctor(self) -> list[Finding]:
        """What this machine can and cannot do; where there is a GPU, torch is asked, which takes seconds."""
        return diagnose(look(PROJECT, self.settings.root))

    @property
    def presets(self) -> list[Preset]:
        """The ready templates and a person's own."""
        return self.templates.all()

    # Models

    def model_choices(self, task: ModelTask = "generative") -> list[ModelEntry]:
        """The models of the catalogue that are for ``task`` and can be had here, the default first."""
        default = self.catalog.default(self.hardware.has_gpu, task, self.suits_hardware)
        return sorted(
            (entry for entry in self.catalog.entries if entry.task == task and self.catalog.is_at_hand(entry)),
            key=lambda entry: entry.id != default,
        )

    def ask(self, prompt: str, temperature: float, max_tokens: int) -> str:
        """The current model's answer to one message, whole; for work that asks many. Raises as `chat`."""
        message: ChatMessage = {"role": "user", "content": prompt}
        chunks = self.chat([message], temperature=temperature, max_tokens=max_tokens)
        return "".join(chunk.text for chunk in chunks)

    # Serving: the rest of its verbs stand in `sage_studio.backend`

    def use_as_backend(self, task_id: str) -> RegisteredModel:
        """Let a completed task's model answer the chat from the next message on.

        Raises:
            Conflict: the task is not completed, or its model does not write text.
            NotFound: its folder is gone.
            EngineUnavailable: the engine did not load it; the model before it is current again.
        """
        task = self._completed(task_id)
        if RECIPES[task.type].model_task != "generative":
            raise Conflict(
                Text(f"{task.id} is an embedder and cannot chat.", f"{task.id} 是嵌入模型，无法对话。"),
                Text("Set it as the retriever instead.", "请将其设为检索器。"),
            )
        result = self.supervisor.progress(task).result
        base = self.ensure_model(task.model)
        kind = result.model_kind if result is not None and result.model_kind is not None else "adapter"
        self.registry.register_model(
            task.served_name,
            str(task.folder),
            {
                "kind": kind,
                "base": base.location,
                "base_name": base.name,
                "task_id": task.id,
                "trust_remote_code": base.trust_remote_code,
            },
        )
        return self.switch_model(task.served_name)

    def _after_training(self) -> None:
        """Give the engine its GPU back once no training runs or waits. Never waits for it."""
        if not self.tasks.training() and not self.tasks.queue():
            threading.Thread(target=self._bring_engine_back, name="engine-back", daemon=True).start()

    def _bring_engine_back(self) -> None:
        try:
            self.registry.after_training()
        except StudioError as error:
            logger.error("The engine did not come back: %s", error)
        self.database.close()
