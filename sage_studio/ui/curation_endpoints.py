"""The named endpoints for ``gradio_client`` that care for datasets: look closely, see a row, edit, combine, enlarge.

Knows names and parameters. Knows nothing of widgets: these endpoints have none.
"""

from collections.abc import Callable
from typing import Any

from sage_studio.curation_views import FindingView, InspectionView, JobView, SeenView
from sage_studio.studio import Studio
from sage_studio.views import DatasetView

FINDINGS_SHOWN = 10_000


def curation_verbs(studio: Studio) -> list[Callable[..., Any]]:
    """Each verb as a function with real parameter names."""
    return [*_looking(studio), *_making(studio), *_jobs(studio)]


def _looking(studio: Studio) -> list[Callable[..., Any]]:
    def inspect_dataset(dataset_id: str, model: str = "", max_length: int = 1024, against: str = "") -> dict[str, Any]:
        """Look closely at all rows, in the background; ask /dataset_report when the job is done."""
        job = studio.datasets.inspect(dataset_id, model=model, max_length=int(max_length), against=against)
        return JobView.of(job).model_dump()

    def dataset_report(dataset_id: str) -> dict[str, Any]:
        """What the last close look found; empty before the first."""
        found = studio.datasets.inspection(dataset_id)
        if found is None:
            return {}
        return InspectionView.of(found, studio.training.tokens_per_second(found.model)).model_dump()

    def dataset_findings(dataset_id: str, kind: str = "") -> list[dict[str, Any]]:
        """Rows that were left out or found wanting, with their numbers and why; REST gives all of them as a file."""
        found = zip(range(FINDINGS_SHOWN), studio.datasets.findings(dataset_id, kind), strict=False)
        return [FindingView.of_finding(finding).model_dump() for _, finding in found]

    def see_row(dataset_id: str, row: int, model: str = "", max_length: int = 1024) -> list[dict[str, Any]]:
        """A row, from 1, as a model would see it in a training: pieces, ids and labels."""
        return [
            SeenView.of(each).model_dump()
            for each in studio.datasets.tokenized_row(dataset_id, int(row), model, int(max_length))
        ]

    return [inspect_dataset, dataset_report, dataset_findings, see_row]


def _making(studio: Studio) -> list[Callable[..., Any]]:
    def edit_dataset(dataset_id: str, changes: list[dict[str, Any]]) -> dict[str, Any]:
        """A new version with rows changed or left out: {row, exclude?, question?, answer?, rejected?} each."""
        return DatasetView.of(studio.datasets.edit(dataset_id, changes)).model_dump()

    def combine_datasets(
        portions: list[dict[str, Any]], name: str = "combined", seed: int = 42, shuffle: bool = True
    ) -> dict[str, Any]:
        """Several datasets as one: {dataset_id, weight?, cap?} each."""
        return DatasetView.of(studio.datasets.combine(portions, name, int(seed), shuffle)).model_dump()

    def augment_dataset(
        dataset_id: str,
        ways: list[str] | None = None,
        part: str = "question",
        copies: int = 1,
        max_rows: int = 0,
        name: str = "",
        least_alike: float = 0.1,
        most_alike: float = 0.9,
        temperature: float = 0.8,
        keep_originals: bool = True,
    ) -> dict[str, Any]:
        """Say rows in other words with the current chat model, in the background; too like or unlike is left out."""
        values: dict[str, Any] = {"ways": ways or ["paraphrase"], "part": part, "copies": copies, "max_rows": max_rows}
        band = {"least_alike": least_alike, "most_alike": most_alike, "temperature": temperature}
        job = studio.datasets.augment(dataset_id=dataset_id, name=name, keep_originals=keep_originals, **values, **band)
        return JobView.of(job).model_dump()

    def annotate_dataset(
        dataset_id: str, pairs: int = 3, max_rows: int = 0, name: str = "", temperature: float = 0.8
    ) -> dict[str, Any]:
        """Write questions about texts with the current chat model, in the background."""
        job = studio.datasets.annotate(
            dataset_id=dataset_id, pairs=pairs, max_rows=max_rows, name=name, temperature=temperature
        )
        return JobView.of(job).model_dump()

    return [edit_dataset, combine_datasets, augment_dataset, annotate_dataset]


def _jobs(studio: Studio) -> list[Callable[..., Any]]:
    def list_dataset_jobs(dataset_id: str = "") -> list[dict[str, Any]]:
        """Long work on datasets, the newest first."""
        return [JobView.of(job).model_dump() for job in studio.datasets.list_jobs(dataset_id)]

    def get_dataset_job(job_id: str) -> dict[str, Any]:
        """How such work stands."""
        return JobView.of(studio.datasets.get_job(job_id)).model_dump()

    def stop_dataset_job(job_id: str) -> dict[str, Any]:
        """Stop it after the piece at hand; what is done stays."""
        return JobView.of(studio.datasets.stop_job(job_id)).model_dump()

    def resume_dataset_job(job_id: str) -> dict[str, Any]:
        """Go on with it."""
        return JobView.of(studio.datasets.resume_job(job_id)).model_dump()

    def delete_dataset_job(job_id: str) -> dict[str, str]:
        """Forget it; a dataset that it made stays."""
        studio.datasets.delete_job(job_id)
        return {"status": "success", "job_id": job_id}

    return [list_dataset_jobs, get_dataset_job, stop_dataset_job, resume_dataset_job, delete_dataset_job]
