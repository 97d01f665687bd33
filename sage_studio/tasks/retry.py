"""Running a task again with a smaller batch, after its memory was not enough.

Knows which files of the task's folder change, and what is said about it. Knows nothing of the queue or of processes.
"""

from typing import Any

from sage_studio.errors import Conflict
from sage_studio.files import write_atomically
from sage_studio.tasks.resume import prepare_resume
from sage_studio.tasks.task import Task
from sage_studio.text import Text
from sage_studio.training.failures import smaller_batch
from sage_studio.training.progress import JOB, LOG, RECIPE, Reason, Result, read_job
from sage_studio.training.recipes.parse import dump_recipe, parse_recipe

AUTOMATIC = 1
"""How often the studio does it unasked."""


def should_retry(task: Task, result: Result) -> bool:
    """Whether a run that ended for want of memory is to be tried again at once, with a smaller batch."""
    if result.reason is not Reason.MEMORY or task.recipe.get("per_device_train_batch_size", 1) < 2:
        return False
    return read_job(task.folder).smaller_batches < AUTOMATIC


def prepare_smaller(task: Task) -> tuple[dict[str, Any], Text]:
    """Write the smaller batch into the folder, and into its log.

    It goes on from the newest checkpoint if a step still is the same number of rows, else from the beginning.

    Returns:
        The task's new recipe, and what is said about it.

    Raises:
        Conflict: the batch is one row already, or the folder's orders cannot be read.
        NotFound: the folder is gone.
    """
    before = task.recipe
    if before.get("per_device_train_batch_size", 1) < 2:
        raise Conflict(
            Text(f"The batch of {task.id} is one row already.", f"{task.id} 的批大小已经是 1。"),
            Text(
                "Use a smaller max_length, gradient checkpointing, or 8 or 4 bits.",
                "请减小最大长度、开启梯度检查点，或用 8 位/4 位加载。",
            ),
        )
    after = {**before, **smaller_batch(before)}
    prepare_resume(task)
    write_atomically(task.folder / RECIPE, dump_recipe(parse_recipe(after)))
    job = read_job(task.folder)
    update = {"smaller_batches": job.smaller_batches + 1, "resume": _rows(after) == _rows(before)}
    write_atomically(task.folder / JOB, job.model_copy(update=update).model_dump_json(indent=2))
    said = _said(before, after)
    with (task.folder / LOG).open("a", encoding="utf-8") as log:
        log.write(f"{said.en}\n")
    return after, said


def _rows(recipe: dict[str, Any]) -> int:
    return int(recipe["per_device_train_batch_size"] * recipe["gradient_accumulation_steps"])


def _said(before: dict[str, Any], after: dict[str, Any]) -> Text:
    old, new = before["per_device_train_batch_size"], after["per_device_train_batch_size"]
    accumulated = after["gradient_accumulation_steps"]
    return Text(
        f"Memory was not enough for batch size {old}: again with batch size {new}, accumulated {accumulated} times.",
        f"内存不足以使用批大小 {old}：已改用批大小 {new}、梯度累积 {accumulated} 次重新运行。",
    )
