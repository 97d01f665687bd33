"""Models, adapters and engines for the tests of serving."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from serving_files import FAKE, ROOMY, write_adapter, write_safetensors
from waiting import patient

from sage_studio.database import Database
from sage_studio.serving.engine import LaunchSpec
from sage_studio.serving.engine_factory import EngineSpec
from sage_studio.serving.registry import VLLMRegistry
from sage_studio.settings import Settings, load_settings


class FakeSpec(EngineSpec):
    """The fake engine, as if it were vLLM on a CPU."""

    kind = "vllm"

    def __init__(self, home: "Home") -> None:
        self.home, self.max_rank = home, home.max_rank

    def launch(self, base, socket):
        command = [sys.executable, "-S", str(FAKE), "--model", base.location, "--served-model-name", base.name]
        command += ["--uds", str(socket), "--journal", str(self.home.journal), "--fail", self.home.fail]
        return LaunchSpec(command, {})

    def rank_for(self, rank):
        return max(16, rank)

    def adapters_kept(self, base):
        return self.home.adapters


class Home:
    """A home with a fake engine, and what that engine saw."""

    def __init__(self, folder: Path, **overrides) -> None:
        self.folder = folder
        self.settings: Settings = load_settings(home=folder / "home", engine_start_seconds=patient(), **overrides)
        self.settings.outputs_dir.mkdir(parents=True, exist_ok=True)
        self.journal = folder / "journal.jsonl"
        self.fail = ""
        self.max_rank = 64
        self.adapters = 16
        self.hardware = ROOMY

    def choice(self) -> EngineSpec:
        return FakeSpec(self)

    def registry(self) -> VLLMRegistry:
        registry = VLLMRegistry()
        registry.configure(self.settings, Database(self.settings.database_path), self.choice, lambda: self.hardware)
        return registry

    def events(self) -> list[dict]:
        lines = self.journal.read_text().splitlines() if self.journal.exists() else []
        return [json.loads(line) for line in lines]

    def seen(self, what: str) -> list:
        return [event[what] for event in self.events() if what in event]

    def full(self, name: str) -> Path:
        folder = self.settings.outputs_dir / name
        folder.mkdir()
        for file in ("config.json", "tokenizer.json"):
            (folder / file).write_text("{}")
        write_safetensors(folder / "model.safetensors", {"w": np.ones(3, np.float32)})
        return folder

    def base(self, name: str = "small") -> Path:
        folder = self.folder / "bases" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text("{}")
        return folder

    def adapter(self, name: str = "tuned", base: str = "small", **config) -> Path:
        folder = self.settings.outputs_dir / name
        folder.mkdir(exist_ok=True)
        write_adapter(folder, str(self.base(base)), **config)
        return folder


@pytest.fixture
def home(tmp_path: Path):
    """A home with a fake engine; whatever engine is left at the end is stopped."""
    home = Home(tmp_path)
    yield home
    if home.settings.database_path.exists():
        registry = home.registry()
        registry._components.engines.stop()
        registry._components.engines.stop_others()
