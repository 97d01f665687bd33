"""Steps that prepare a task, in their order.

They can be interrupted anywhere and begun again: each keeps what is complete and nothing else.
"""

import time
from dataclasses import replace
from pathlib import Path

from sage_studio import preflight
from sage_studio.catalog import ModelRef
from sage_studio.data.dataset import Dataset
from sage_studio.downloads import telling
from sage_studio.errors import InvalidDataset, InvalidModel
from sage_studio.fetching import fetch
from sage_studio.models.model_folder import snapshot, task_of_folder
from sage_studio.services.training import add_source, not_the_same
from sage_studio.settings import load_settings
from sage_studio.studio import Studio
from sage_studio.training.progress import RECIPE, Phase, ProgressWriter, TrainingJob, read_job, write_job
from sage_studio.training.recipes import Recipe, load_recipe
from sage_studio.training.save import base_revision, read_lineage

TELL_SECONDS = 0.3
"""Between two reports of the same step."""


def make_ready(folder: Path, progress: ProgressWriter) -> None:
    """Do all steps for the task in a folder; the last one marks its orders as prepared.

    Raises:
        StudioError: the task cannot be trained; the text says what to correct. Nothing that was done is lost.
    """
    studio = Studio(load_settings(), any_path=True)  # what the task names was looked at when it was asked for
    recipe, job = load_recipe(folder / RECIPE), read_job(folder)
    model, read_from = _model(studio, recipe, progress)
    preflight.check_model(recipe, read_from)
    adapter = preflight.adapter_folder(studio.tasks.store, recipe, model)
    job = job.model_copy(update={"model_location": model.location, "adapter_location": adapter})
    if job.source and not job.dataset_id:
        dataset = _dataset(studio, recipe, job.source, progress)
        job = job.model_copy(update={"dataset_id": dataset.id, "dataset_name": dataset.name})
        write_job(folder, job)
    dataset = studio.datasets.get(job.dataset_id)
    _check_rows(studio, recipe, read_from, dataset, progress)
    if not dataset.sha256:
        progress.phase(Phase.HASHING)
        dataset = studio.datasets.store.hashed(dataset)
    known = {
        "data_path": str(studio.datasets.store.data_path(dataset.id)),
        "dataset_sha256": dataset.sha256,
        "docs_commit": dataset.commit or "",
    }
    if job.reproduces:
        _check_same(studio, job, dataset, model)
    write_job(folder, job.model_copy(update={**known, "prepared": True}))


def _model(studio: Studio, recipe: Recipe, progress: ProgressWriter) -> tuple[ModelRef, ModelRef]:
    """The model as the trainer is to name it, and where its files can be read; fetched or unpacked first."""
    model = studio.catalog.resolve(recipe.model_name_or_path, ask_hub=False)
    if model.is_local:
        if model.packed is not None:
            progress.phase(Phase.UNPACKING)
        model = studio.models.ensure(recipe.model_name_or_path)
        return model, model
    if (folder := snapshot(model.location)) is None:
        progress.phase(Phase.DOWNLOADING)
        folder = fetch(model.location, model.trust_remote_code, telling(progress))
    return model, replace(model, location=str(folder), task=model.task or task_of_folder(folder))


def _dataset(studio: Studio, recipe: Recipe, source: str, progress: ProgressWriter) -> Dataset:
    """Keep a file or folder of this machine as a dataset."""
    progress.phase(Phase.READING_FILE, Path(source).name)
    return add_source(studio.datasets, recipe, Path(source))


def _check_rows(studio: Studio, recipe: Recipe, model: ModelRef, dataset: Dataset, progress: ProgressWriter) -> None:
    preflight.check_kind(recipe, dataset)
    total = preflight.rows_to_check(recipe, dataset.stats.total_samples)
    progress.phase(Phase.CHECKING_ROWS)
    progress.write(done=0, total=total, unit="rows")
    began = told = time.monotonic()

    def tell(done: int) -> None:
        nonlocal told
        now = time.monotonic()
        if now - told >= TELL_SECONDS or done >= total:
            told, rate = now, done / max(now - began, 1e-6)
            progress.write(
                done=done, total=total, unit="rows", per_second=rate, eta_seconds=max(0, total - done) / max(rate, 1e-6)
            )

    path = studio.datasets.store.data_path(dataset.id)
    preflight.check_rows(recipe, model, path, dataset.stats.total_samples, tell)


def _check_same(studio: Studio, job: TrainingJob, dataset: Dataset, model: ModelRef) -> None:
    """Raise `InvalidDataset` or `InvalidModel` unless both are those of the run that is to be repeated."""
    lineage = read_lineage(studio.tasks.get(job.reproduces).folder)
    if dataset.sha256 != lineage.dataset_sha256:
        raise InvalidDataset(*not_the_same(dataset.id, lineage.dataset_sha256, dataset.sha256))
    revision = base_revision(model.location)
    if revision != lineage.base_revision:
        raise InvalidModel(*not_the_same(model.name, lineage.base_revision, revision))
