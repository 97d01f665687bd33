"""One real studio for all walks, with the default engine, and a real browser."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from running_studio import RunningStudio

from sage_studio.catalog import BUILT_IN


@pytest.fixture(scope="session")
def new_home(built_in_model: Path, tmp_path_factory: pytest.TempPathFactory):
    """Makes homes in which the built-in model is unpacked already."""

    def make(name: str) -> Path:
        home = tmp_path_factory.mktemp(name)
        target = home / "studio_finetune" / "models" / BUILT_IN
        shutil.copytree(built_in_model, target, copy_function=os.link)
        return home

    return make


@pytest.fixture(scope="session")
def studio(new_home, docs_repository: str) -> Iterator[RunningStudio]:
    """One studio with the default engine (vLLM where it is installed) for all walks."""
    running = RunningStudio(new_home("studio"), SAGE_STUDIO_DOCS_REPO=docs_repository).start()
    yield running
    running.stop()
