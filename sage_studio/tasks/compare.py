"""Compares runs: their curves, and only those settings that differ."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sage_studio.errors import InvalidInput
from sage_studio.tasks.task import Curve, Task, TaskProgress
from sage_studio.text import Text

FEWEST, MOST = 2, 8
NOT_SETTINGS = frozenset({"name", "output_dir"})


@dataclass(frozen=True, slots=True)
class TaskComparison:
    """Runs in the order asked for.

    Attributes:
        settings: each field whose values differ, with one value a run; None where a method has no such field.
    """

    tasks: tuple[Task, ...]
    progress: tuple[TaskProgress, ...]
    curves: tuple[Curve, ...]
    settings: dict[str, tuple[Any, ...]]


def compare_runs(tasks: Sequence[Task], progress: Sequence[TaskProgress], curves: Sequence[Curve]) -> TaskComparison:
    """Put runs beside each other. Raises `InvalidInput` for fewer than two or more than eight."""
    if not FEWEST <= len(tasks) <= MOST:
        raise InvalidInput(
            Text("{count} tasks cannot be compared.", count=len(tasks)),
            Text("Choose {fewest} to {most} different tasks.", fewest=FEWEST, most=MOST),
        )
    return TaskComparison(tuple(tasks), tuple(progress), tuple(curves), differing([task.recipe for task in tasks]))


def differing(recipes: Sequence[dict[str, Any]]) -> dict[str, tuple[Any, ...]]:
    """The fields whose values are not the same in all recipes, in the order of their first appearance."""
    fields = [name for name in dict.fromkeys(name for recipe in recipes for name in recipe) if name not in NOT_SETTINGS]
    columns = {name: tuple(recipe.get(name) for recipe in recipes) for name in fields}
    return {name: values for name, values in columns.items() if any(value != values[0] for value in values)}


def last_loss(progress: TaskProgress) -> float | None:
    """The run's mean loss once it is over, the newest one while it is not."""
    if progress.result is not None and progress.result.train_loss is not None:
        return progress.result.train_loss
    return progress.now.loss if progress.now is not None else None
