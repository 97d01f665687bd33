"""The table of operations: everything that a caller can ask of the studio, declared once. See `operation`."""

from sage_studio.operations import chat, datasets, jobs, models, presets, rag, serving, system, tasks, training
from sage_studio.operations.operation import Interface, Operation

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


def operations(interface: Interface) -> list[Operation]:
    """The operations that an interface offers, in the order of the table."""
    return [each for noun in NOUNS for each in noun.operations if interface in each.interfaces]
