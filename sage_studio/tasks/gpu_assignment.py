"""GPU assignment: the GPUs that a task is pinned to, else a free one."""

import math
from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from sage_studio.errors import InvalidRecipe
from sage_studio.files import write_atomically
from sage_studio.hardware import OLDEST_DRIVER, VISIBLE, Gpu, Hardware, Unusable, detect_hardware
from sage_studio.tasks.task import Task
from sage_studio.text import Text
from sage_studio.training.progress import JOB, read_job


def usable_gpus() -> tuple[Gpu, ...]:
    """The GPUs that the studio may use now."""
    return detect_hardware().gpus


def max_running_tasks(setting: int, gpus: Collection[Gpu]) -> int:
    """How many tasks may run: the operator's number; 0 is one a GPU, and one where there is no GPU."""
    return setting or max(1, len(gpus))


def tasks_per_gpu(setting: int, gpus: Collection[Gpu]) -> int:
    """How many tasks may share a GPU: one, unless the operator lets more tasks run than there are GPUs."""
    return max(1, math.ceil(setting / len(gpus))) if gpus else 1


def pinned_gpus(recipe: Mapping[str, Any]) -> tuple[int, ...]:
    """The GPUs that a person pinned a recipe to; none: whichever is free."""
    numbers = str(recipe.get("gpu_vis") or "")
    return tuple(int(number) for number in numbers.split(",")) if numbers else ()


def check_pinned_gpus(recipe: Mapping[str, Any], hardware: Hardware) -> None:
    """Raise `InvalidRecipe` unless every GPU that a recipe is pinned to is there, visible and usable."""
    pinned = pinned_gpus(recipe)
    message = f"gpu_vis = {','.join(map(str, pinned))}"
    if len(set(pinned)) < len(pinned):
        raise _refused(
            Text("{message}: a GPU is named twice.", message=message),
            Text("Name each GPU once."),
        )
    usable = {gpu.index for gpu in hardware.gpus}
    for number in pinned:
        if number not in usable:
            why = _why_not(number, hardware)
            raise _refused(
                Text("{message}: GPU {number} cannot be used: {why}.", message=message, number=number, why=why),
                _instead(hardware),
            )


@dataclass(frozen=True, slots=True)
class GpuUsage:
    """Who holds which GPUs, by physical number.

    Attributes:
        held: of each running task.
        engine: by the chat engine; given to a training only if no other GPU is free.
        awaited: of tasks that wait in front for GPUs they are pinned to; not given to those behind them.
        per_gpu: how many tasks may share a GPU.
    """

    held: Mapping[str, Sequence[int]]
    engine: Collection[int] = ()
    awaited: AbstractSet[int] = frozenset()
    per_gpu: int = 1

    def tasks_on(self, number: int) -> int:
        """How many tasks run on a GPU."""
        return sum(number in numbers for numbers in self.held.values())

    def is_free(self, number: int) -> bool:
        """Whether one more task may run on a GPU, and none in front waits for it."""
        return self.tasks_on(number) < self.per_gpu and number not in self.awaited


def choose_gpus(
    pinned: Sequence[int], gpus: Sequence[Gpu], usage: GpuUsage, need_gb: float = 0.0
) -> tuple[int, ...] | None:
    """The GPUs that a task gets now; None if it has to wait. Empty on a machine without a GPU.

    Args:
        pinned: those that it is pinned to; it gets all of them or waits.
        gpus: the GPUs that can be used.
        need_gb: memory that it is estimated to take, in GiB; a GPU that has as much comes first.

    Example:
        >>> two = (Gpu(0, "A", 24, 0), Gpu(1, "B", 24, 0))
        >>> choose_gpus((), two, GpuUsage(held={}, engine=[0]))
        (1,)
        >>> choose_gpus((), two, GpuUsage(held={"one": [0], "other": [1]})) is None
        True
    """
    if pinned:
        return tuple(pinned) if all(usage.is_free(number) for number in pinned) else None
    if not gpus:
        return ()
    free = [gpu for gpu in gpus if usage.is_free(gpu.index)]
    if not free:
        return None

    def preference(gpu: Gpu) -> tuple[bool, int, bool, float]:
        too_small = gpu.memory_gb < need_gb
        return too_small, usage.tasks_on(gpu.index), gpu.index in usage.engine, -gpu.memory_gb

    return (min(free, key=preference).index,)


def write_gpus(task: Task, gpus: Sequence[int]) -> None:
    """Write the GPUs of a run into ``job.json``, over those of an earlier run. Raises as `read_job`."""
    job = read_job(task.folder)
    numbers = ",".join(map(str, gpus))
    if numbers != job.gpus:
        write_atomically(task.folder / JOB, job.model_copy(update={"gpus": numbers}).model_dump_json(indent=2))


def _refused(message: Text, hint: Text) -> InvalidRecipe:
    return InvalidRecipe(message, hint, field="gpu_vis")


def _why_not(number: int, hardware: Hardware) -> Text:
    found = next(((gpu, why) for gpu, why in hardware.set_aside if gpu.index == number), None)
    if found is None:
        return Text("this machine has no such GPU")
    gpu, why = found
    match why:
        case Unusable.HIDDEN:
            return Text("{visible} hides the {name}", visible=VISIBLE, name=gpu.name)
        case Unusable.OLD_DRIVER:
            return Text(
                "the driver {driver} of the {name} is older than {oldest_driver}",
                driver=gpu.driver,
                name=gpu.name,
                oldest_driver=OLDEST_DRIVER,
            )
        case Unusable.OLD_GPU:
            return Text("the {name} is older than compute capability 7.5", name=gpu.name)
        case Unusable.CPU_TORCH:
            return Text("the installed torch is built for the CPU only")
        case Unusable.NO_MEMORY_FIGURE:
            return Text("nvidia-smi does not say how much memory the {name} has", name=gpu.name)


def _instead(hardware: Hardware) -> Text:
    if not hardware.gpus:
        return Text("Leave gpu_vis empty: there is no GPU to train on here.")
    known = ", ".join(f"{gpu.index} ({gpu.name})" for gpu in hardware.gpus)
    return Text("Choose from: {known}; or leave it empty.", known=known)
