"""Operations on dataset jobs: long work on a dataset, in the background."""

from typing import Any

from pydantic import BaseModel, Field

from sage_studio.data.jobs import Job
from sage_studio.errors import Conflict, NotFound
from sage_studio.fields import Id
from sage_studio.operations.operation import Acknowledged, Noun
from sage_studio.studio import Studio
from sage_studio.text import Language

jobs = Noun("jobs")


class JobView(BaseModel):
    """Long work on a dataset."""

    id: str
    kind: str
    dataset_id: str
    state: str
    created_at: float = Field(description="Unix seconds")
    done: int
    total: int
    doing: str
    message: str
    hint: str
    result: str = Field(description="Id of the dataset that it made")

    @classmethod
    def of(cls, job: Job, language: Language = "en") -> "JobView":
        """The view of a job."""
        values: dict[str, Any] = {name: getattr(job, name) for name in ("id", "kind", "dataset_id", "created_at")}
        return cls(
            **values,
            state=str(job.state),
            done=job.done,
            total=job.total,
            doing=job.doing.in_(language),
            message=job.message.in_(language),
            hint=job.hint.in_(language),
            result=job.result,
        )


class JobDeleted(Acknowledged):
    """Which job is gone."""

    job_id: str


@jobs.get("/api/dataset-jobs", "list")
def list_dataset_jobs(studio: Studio, language: Language, dataset_id: str = "") -> list[JobView]:
    """Dataset jobs, the newest first."""
    return [JobView.of(job, language) for job in studio.datasets.list_jobs(dataset_id)]


@jobs.get("/api/dataset-jobs/{job_id}", "show", raises=(NotFound,))
def get_dataset_job(studio: Studio, language: Language, job_id: Id) -> JobView:
    """One job and how far it is."""
    return JobView.of(studio.datasets.get_job(job_id), language)


@jobs.post("/api/dataset-jobs/{job_id}/stop", "stop", raises=(NotFound, Conflict))
def stop_dataset_job(studio: Studio, language: Language, job_id: Id) -> JobView:
    """Stop a job after the piece at hand; what is done stays."""
    return JobView.of(studio.datasets.stop_job(job_id), language)


@jobs.post("/api/dataset-jobs/{job_id}/resume", "resume", raises=(NotFound, Conflict))
def resume_dataset_job(studio: Studio, language: Language, job_id: Id) -> JobView:
    """Resume a stopped or failed job."""
    return JobView.of(studio.datasets.resume_job(job_id), language)


@jobs.delete("/api/dataset-jobs/{job_id}", "delete", raises=(NotFound, Conflict))
def delete_dataset_job(studio: Studio, job_id: Id) -> JobDeleted:
    """Delete a job; a dataset that it made stays."""
    studio.datasets.delete_job(job_id)
    return JobDeleted(job_id=job_id)
