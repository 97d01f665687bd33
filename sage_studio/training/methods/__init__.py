"""The training methods: one module each, entered here under the recipe's ``type``.

A method's module offers ``train(run)``, which leaves the finished model in the run's folder, keeps ``run.tally`` and
raises `Stopped` once a checkpoint is written when asked to stop. Modules are imported when needed: they pull in torch.
"""

import importlib
from typing import Any, Protocol, cast

from sage_studio.training.run import Run

METHODS = {
    "sft": "sage_studio.training.methods.sft",
    "dpo": "sage_studio.training.methods.dpo",
    "embedding": "sage_studio.training.methods.embedding",
    "kbalign": "sage_studio.training.methods.kbalign.pipeline",
}


class Method(Protocol):
    """How to train."""

    def __call__(self, run: Run[Any]) -> None:
        """Train and save. Raises `Stopped` or a `StudioError`."""


def method_for(kind: str) -> Method:
    """The method for a recipe's ``type``; imports it."""
    return cast("Method", importlib.import_module(METHODS[kind]).train)
