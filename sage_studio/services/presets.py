"""Which ready preset suits this machine, a model and a dataset, and with how many rows."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sage_studio.catalog import Catalog, ModelEntry
from sage_studio.data.store import DatasetStore
from sage_studio.errors import NotFound
from sage_studio.hardware import detect_hardware
from sage_studio.services.estimates import EstimateService
from sage_studio.training.duration import TEXTS
from sage_studio.training.presets import Preset, PresetStore
from sage_studio.training.recipes import parse_recipe

BUDGET_SECONDS = 300.0
"""On a CPU: what a first run may take, so that somebody waits for it."""
FEWEST_ROWS = 32
BITS = ("none", "8bit", "4bit")
"""From the best answers to the least memory."""
VRAM_KEYS = {"none": "lora", "8bit": "8bit", "4bit": "4bit"}


@dataclass(frozen=True, slots=True)
class Recommendation:
    """A preset, and what of it is changed for this machine and this dataset."""

    preset: Preset
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def values(self) -> dict[str, Any]:
        """The fields as they are recommended."""
        return {**self.preset.values, **self.changes}


class PresetService:
    """The ready presets and a person's own, and which one suits this machine."""

    def __init__(
        self, catalog: Catalog, store: PresetStore, datasets: DatasetStore, estimates: EstimateService
    ) -> None:
        self._catalog = catalog
        self.store = store
        self._datasets = datasets
        self._estimates = estimates

    def all(self) -> list[Preset]:
        """The ready presets and a person's own."""
        return self.store.all()

    def offered(self, method: str) -> list[Preset]:
        """The presets of a method that make sense on this machine, a person's own last."""
        here = ("gpu", "any") if detect_hardware().has_gpu else ("cpu", "any")
        mine = [preset for preset in self.all() if preset.type == method]
        return [preset for preset in mine if preset.machine in here or preset not in self.store.ready]

    def recommend(self, method: str, model: str = "", dataset_id: str = "") -> Recommendation | None:
        """The preset to begin with; on a CPU with so many rows as are trained on in some minutes.

        Args:
            model: as in the recipe; empty: unknown yet.
            dataset_id: empty: unknown yet.
        """
        hardware, entry = detect_hardware(), self._catalog.find(model) if model else None
        ready = [preset for preset in self.offered(method) if preset in self.store.ready]
        made_for = [preset for preset in ready if preset.dataset_kind and preset.dataset_kind == self._kind(dataset_id)]
        if made_for:
            return Recommendation(made_for[0])
        ready = [preset for preset in ready if not preset.dataset_kind]
        lora = [preset for preset in ready if preset.values.get("use_lora", True)]
        lora.sort(key=lambda preset: BITS.index(preset.values.get("quantization", "none")))
        if not lora:
            return None
        if hardware.has_gpu:
            available = max(gpu.memory_gb for gpu in hardware.gpus)
            fitting = [preset for preset in lora if _needs(preset, entry) <= available]
            return Recommendation((fitting or lora[-1:])[0])
        preset = next((preset for preset in lora if preset.machine == "cpu"), lora[0])
        return Recommendation(preset, self._rows(preset, model, dataset_id, entry))

    def _kind(self, dataset_id: str) -> str:
        try:
            return self._datasets.get(dataset_id).kind if dataset_id else ""
        except NotFound:
            return ""

    def _rows(self, preset: Preset, model: str, dataset_id: str, entry: ModelEntry | None) -> dict[str, Any]:
        """How many rows fit into the budget; nothing where that cannot be told."""
        if preset.type not in TEXTS or not dataset_id or not model:
            return {}
        try:
            total = self._datasets.get(dataset_id).stats.total_samples
        except NotFound:
            return {}

        def seconds(rows: int) -> float | None:
            values = {**preset.values, "max_samples": rows}
            asked: Mapping[str, Any] = {"type": preset.type, "model_name_or_path": model, "dataset_id": dataset_id}
            guess = self._estimates.first_guess(parse_recipe({**asked, **values}), entry.parameters if entry else None)
            return None if guess is None else guess.seconds

        whole = seconds(0)
        if whole is None:
            return {}
        if whole <= BUDGET_SECONDS:
            return {"max_samples": 0}
        rows = FEWEST_ROWS
        while 2 * rows < total and (seconds(2 * rows) or 0.0) <= BUDGET_SECONDS:
            rows *= 2
        return {"max_samples": min(rows, total) if rows < total else 0}


def _needs(preset: Preset, entry: ModelEntry | None) -> float:
    """GB of GPU memory by the catalogue; nothing is known of other models."""
    if entry is None:
        return 0.0
    sizes: Mapping[str, float] = {str(name): size for name, size in entry.vram_gb.items()}
    return sizes.get(VRAM_KEYS[preset.values.get("quantization", "none")], 0.0)
