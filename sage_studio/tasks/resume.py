"""Making a task folder ready for a second run that goes on where the first one ended.

Knows which files of the first run stay and which step aside. Knows nothing of the queue or of processes.
"""

from pathlib import Path

from sage_studio.errors import Conflict, NotFound
from sage_studio.files import write_atomically
from sage_studio.models.model_folder import is_here
from sage_studio.tasks.endings import GONE
from sage_studio.tasks.task import Task
from sage_studio.text import Text
from sage_studio.training.progress import JOB, RESULT, read_job


def prepare_resume(task: Task) -> None:
    """Put the last result aside as ``result.1.json`` and tell the child to continue.

    Where the model is no longer on this machine, it is prepared again first.

    To be called before the task is queued again: a crash in between leaves a task that can still be resumed.

    Raises:
        NotFound: the folder is gone.
        Conflict: the child's orders in it cannot be read.
        StorageFull: nothing has changed.
    """
    if not task.folder.is_dir():
        raise NotFound(
            Text(f"The folder of {task.id} is gone: {task.folder}.", f"{task.id} 的文件夹已不存在：{task.folder}。"),
            GONE,
        )
    try:
        job = read_job(task.folder)
        job = job.model_copy(update={"resume": True, "prepared": job.prepared and is_here(job.model_location)})
    except (ValueError, FileNotFoundError) as error:
        raise Conflict(
            Text(f"{task.folder / JOB} cannot be read: {error}", f"无法读取 {task.folder / JOB}：{error}"),
            Text("Start a new task with the same settings.", "请用相同的设置新建任务。"),
        ) from error
    write_atomically(task.folder / JOB, job.model_dump_json(indent=2))
    result = task.folder / RESULT
    if result.exists():
        result.rename(_free_name(result))


def _free_name(path: Path) -> Path:
    """``result.1.json`` for ``result.json``, or the next number that is free."""
    number = 1
    while (free := path.with_suffix(f".{number}{path.suffix}")).exists():
        number += 1
    return free
