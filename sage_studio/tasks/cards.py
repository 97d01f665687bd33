"""Which cards a task gets: those it is pinned to, else one that no other running task has.

Knows the numbers of this machine's cards. Knows nothing of what is on them.
"""

from collections.abc import Iterable, Sequence

from sage_studio.files import write_atomically
from sage_studio.hardware import detect_hardware
from sage_studio.tasks.task import Task
from sage_studio.training.progress import JOB, read_job


def usable_cards() -> list[str]:
    """The indices of the GPUs that the studio itself may use."""
    return [str(card.index) for card in detect_hardware().cards]


def most_running(setting: int, cards: Sequence[str]) -> int:
    """How many tasks may run: the operator's number; 0 is one a card, and one where there is no card."""
    return setting or max(1, len(cards))


def assign_card(task: Task, running: Iterable[Task], cards: Sequence[str]) -> None:
    """Write into a task's orders which card it gets, on a machine with several.

    Where all are taken, the trainer chooses the freest at its start.
    """
    job = read_job(task.folder)
    if job.gpus or len(cards) < 2:
        return
    taken = {card for other in running for card in read_job(other.folder).gpus.split(",") if other.id != task.id}
    free = next((card for card in cards if card not in taken), "")
    write_atomically(task.folder / JOB, job.model_copy(update={"gpus": free}).model_dump_json(indent=2))
