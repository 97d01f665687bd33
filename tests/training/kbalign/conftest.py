"""A run in a folder of its own, and six chunks."""

from collections.abc import Callable
from pathlib import Path

import pytest
from kbalign_parts import TOWNS

from sage_studio.training.methods.kbalign.chunks import Chunk
from sage_studio.training.progress import ProgressWriter, TrainingJob
from sage_studio.training.recipes import KBAlignRecipe
from sage_studio.training.run import Run, StopRequest


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., Run[KBAlignRecipe]]:
    """A run as the child has it; called again it is the next start in the same folder."""

    def start(**recipe: object) -> Run[KBAlignRecipe]:
        values = {
            "model_name_or_path": "m",
            "dataset_id": "d",
            "generation_batch_size": 1,
            "min_agreement": 0,
            **recipe,
        }
        folder = tmp_path / "task"
        folder.mkdir(exist_ok=True)
        return Run(
            folder=folder,
            recipe=KBAlignRecipe.model_validate(values),
            job=TrainingJob(model_location="m", data_path=str(tmp_path / "data.jsonl"), resume=True),
            progress=ProgressWriter(folder),
            stop=StopRequest(),
        )

    return start


@pytest.fixture
def towns() -> list[Chunk]:
    """Six chunks, each about a town of its own."""
    return [
        Chunk(chunk=at, file="towns.md", text=f"The town of {town} has a tower. It was built by the mason {town}us.")
        for at, town in enumerate(TOWNS)
    ]
