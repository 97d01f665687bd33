"""Models, adapters and engines for the tests of serving."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from sage_studio.database import Database
from sage_studio.serving.choice import EngineChoice
from sage_studio.serving.engine import Launch
from sage_studio.serving.registry import VLLMRegistry
from sage_studio.settings import Settings, load_settings

FAKE = Path(__file__).with_name("fake_engine.py")


class Home:
    """A home with a fake engine, and what that engine saw."""

    def __init__(self, folder: Path, **overrides) -> None:
        self.folder = folder
        self.settings: Settings = load_settings(home=folder / "home", engine_start_seconds=20, **overrides)
        self.settings.outputs_dir.mkdir(parents=True, exist_ok=True)
        self.journal = folder / "journal.jsonl"
        self.fail = ""
        self.max_rank = 64

    def choice(self) -> EngineChoice:
        def make(base, port):
            command = [sys.executable, "-S", str(FAKE), "--model", base.location, "--served-model-name", base.name]
            command += ["--port", str(port), "--journal", str(self.journal), "--fail", self.fail]
            return Launch(command, {})

        return EngineChoice("vllm", make, self.max_rank, lambda rank: max(16, rank))

    def registry(self) -> VLLMRegistry:
        registry = VLLMRegistry()
        registry.configure(self.settings, Database(self.settings.database_path), self.choice)
        return registry

    def seen(self, what: str) -> list:
        lines = self.journal.read_text().splitlines() if self.journal.exists() else []
        return [event[what] for event in map(json.loads, lines) if what in event]

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


def write_adapter(folder: Path, base: str, values: np.ndarray | None = None, **config) -> None:
    settings = {"peft_type": "LORA", "r": 8, "bias": "none", "base_model_name_or_path": base, **config}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    data = np.ones(16, dtype=np.float32) if values is None else values
    write_safetensors(folder / "adapter_model.safetensors", {"layer.lora_A.weight": data})


def write_safetensors(path: Path, tensors: dict[str, np.ndarray], dtype: str = "") -> None:
    """A safetensors file; ``dtype`` overrides the type's name, as for BF16, which numpy does not have."""
    header, data = {}, b""
    names = {"float32": "F32", "float16": "F16", "float64": "F64", "int64": "I64"}
    for name, values in tensors.items():
        raw = values.tobytes()
        kind = dtype or names[str(values.dtype)]
        header[name] = {"dtype": kind, "shape": list(values.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    head = json.dumps(header).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + data)


@pytest.fixture
def home(tmp_path: Path):
    """A home with a fake engine; whatever engine is left at the end is stopped."""
    home = Home(tmp_path)
    yield home
    if home.settings.database_path.exists():
        registry = home.registry()
        if (engine := registry._house.life.recorded()) is not None:
            engine.stop()
