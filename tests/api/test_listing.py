"""The list of tasks by REST: what is kept of finished tasks between two looks is never shown once they have changed."""

from fastapi.testclient import TestClient

from sage_studio.studio import Studio
from sage_studio.tasks.task import Task, TaskStatus
from sage_studio.text import verbatim
from sage_studio.training.progress import ProgressWriter, Reason, TrainingJob
from sage_studio.training.recipes import SFTRecipe


def made(studio: Studio) -> Task:
    """A task that nobody starts."""
    recipe = SFTRecipe(model_name_or_path="m", dataset_id="d")
    return studio.tasks.store.create(
        recipe, TrainingJob(model_location="m", data_path="d"), dataset_id="d", dataset_name="D"
    )


def test_a_listed_task_is_as_it_is_alone_whatever_becomes_of_it(client: TestClient, studio: Studio):
    studio.tasks.scheduler.close()
    first, second = made(studio), made(studio)

    def check(language: str = "en") -> list[dict]:
        spoken = {"Accept-Language": language}
        listed = client.get("/api/finetune/tasks", headers=spoken).json()
        assert listed == [client.get(f"/api/finetune/tasks/{view['id']}", headers=spoken).json() for view in listed]
        return listed

    assert [view["id"] for view in check()] == [second.id, first.id]
    reason = verbatim("The file is broken.", "文件已损坏。")
    studio.tasks.store.transition(
        first.id, {TaskStatus.QUEUED}, TaskStatus.FAILED, reason_class=Reason.DATA, reason=reason, finished_at=2.0
    )
    assert check()[1]["reason"] == check()[1]["reason"] == "The file is broken."
    assert check("zh")[1]["reason"] == "文件已损坏。"
    assert check()[1]["reason"] == "The file is broken."
    ProgressWriter(first.folder).write(step=3, total_steps=4, loss=1.5)
    assert check()[1]["step"] == 3
    (first.folder / "result.json").write_text('{"status": "failed", "peak_memory_gb": 1.5}')
    check()
    studio.tasks.store.transition(first.id, {TaskStatus.FAILED}, TaskStatus.QUEUED, finished_at=None)
    assert check()[1]["status"] == "queued"
    studio.tasks.delete(second.id)
    assert [view["id"] for view in check()] == [first.id]
