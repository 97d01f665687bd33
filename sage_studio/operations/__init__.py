"""The table of operations: everything that a caller can ask of the studio, declared once. See `operation`."""

from sage_studio.operations import chat, datasets, jobs, models, presets, rag, serving, system, tasks, training
from sage_studio.operations.operation import Door, Operation

NOUNS = (
    datasets.datasets,
    jobs.jobs,
    training.training,
    tasks.tasks,
    presets.presets,
    models.models,
    serving.serving,
    chat.votes,
    rag.retriever,
    system.system,
)


def operations(door: Door) -> list[Operation]:
    """The operations that a door offers, in the order of the table."""
    return [each for noun in NOUNS for each in noun.operations if door in each.doors]
