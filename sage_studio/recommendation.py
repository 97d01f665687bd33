"""Which ready preset suits this machine, a model and a dataset, and how many rows of it: a verb of `Studio`.

Knows presets, memory and a budget of time. Knows nothing of forms.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sage_studio.catalog import Catalog, ModelEntry
from sage_studio.errors import NotFound
from sage_studio.forecast import Forecasts
from sage_studio.hardware import detect_hardware
from sage_studio.text import Text
from sage_studio.training.duration import TEXTS, Duration
from sage_studio.training.recipe import Preset, parse_recipe
from sage_studio.training.templates import TemplateBook

BUDGET_SECONDS = 300.0
"""On a CPU: what a first run may take, so that somebody waits for it."""
FEWEST_ROWS = 32
BITS = ("none", "8bit", "4bit")
"""From the best answers to the least memory."""
UNPACKING = Text(
    "Unpacking the built-in model, once: about a minute. Then time and memory are known.",
    "正在解包内置模型（仅一次，约一分钟），随后给出耗时与内存。",
)
READING = Text(
    "Measuring time and memory of this model, once: some seconds.", "正在测算此模型的耗时与内存（仅一次，数秒）。"
)
FETCHING = Text(
    "Not downloaded yet: asking the hub for the model's sizes, some seconds.",
    "模型尚未下载：正在向模型站点查询其大小，需数秒。",
)
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


class Recommendations(Forecasts):
    """The part of the house that says where to begin."""

    catalog: Catalog
    templates: TemplateBook
    presets: Any
    default_model: Callable[[], str]

    def offered_presets(self, method: str) -> list[Preset]:
        """The presets of a method that make sense on this machine, a person's own last."""
        here = ("gpu", "any") if detect_hardware().has_gpu else ("cpu", "any")
        mine = [preset for preset in self.presets if preset.type == method]
        return [preset for preset in mine if preset.machine in here or preset not in self.templates.ready]

    def recommended(self, method: str, model: str = "", dataset_id: str = "") -> Recommendation | None:
        """The preset to begin with; on a CPU with so many rows as are trained on in some minutes.

        Args:
            model: as in the recipe; empty: unknown yet.
            dataset_id: empty: unknown yet.
        """
        hardware, entry = detect_hardware(), self.catalog.find(model) if model else None
        ready = [preset for preset in self.offered_presets(method) if preset in self.templates.ready]
        made_for = [preset for preset in ready if preset.dataset_kind and preset.dataset_kind == self._kind(dataset_id)]
        if made_for:
            return Recommendation(made_for[0])
        ready = [preset for preset in ready if not preset.dataset_kind]
        lora = [preset for preset in ready if preset.values.get("use_lora", True)]
        lora.sort(key=lambda preset: BITS.index(preset.values.get("quantization", "none")))
        if not lora:
            return None
        if hardware.has_gpu:
            room = max(card.memory_gb for card in hardware.cards)
            fitting = [preset for preset in lora if _needs(preset, entry) <= room]
            return Recommendation((fitting or lora[-1:])[0])
        preset = next((preset for preset in lora if preset.machine == "cpu"), lora[0])
        return Recommendation(preset, self._rows(preset, model, dataset_id, entry))

    def glance(self, values: Mapping[str, Any]) -> tuple[Duration | None, Text]:
        """What can be said while `known_estimate` knows nothing: a rough time on a CPU, and what it waits for.

        Raises:
            InvalidRecipe: naming what to correct. InvalidModel, HubUnavailable: why there will be no estimate.
        """
        recipe = parse_recipe(values)
        entry, model = self.catalog.find(recipe.model_name_or_path), self.catalog.resolve(recipe.model_name_or_path)
        why = UNPACKING if model.packed is not None else READING if model.is_local else FETCHING
        if detect_hardware().has_gpu:
            return None, why
        try:
            return self.first_guess(recipe, entry.parameters if entry else None), why
        except NotFound:
            return None, why

    def epoch_guess(self, dataset_id: str, model: str, max_length: int) -> float | None:
        """Seconds of one pass of an SFT over a dataset on a CPU, by what is known already; None where nothing is."""
        entry = self.catalog.find(model)
        if detect_hardware().has_gpu:
            return None
        asked = {"model_name_or_path": model, "dataset_id": dataset_id, "max_length": max_length, "num_train_epochs": 1}
        guess = self.first_guess(parse_recipe(asked), entry.parameters if entry else None)
        return None if guess is None else guess.seconds

    def _kind(self, dataset_id: str) -> str:
        try:
            return self.get_dataset(dataset_id).kind if dataset_id else ""
        except NotFound:
            return ""

    def _rows(self, preset: Preset, model: str, dataset_id: str, entry: ModelEntry | None) -> dict[str, Any]:
        """How many rows fit into the budget; nothing where that cannot be told."""
        if preset.type not in TEXTS or not dataset_id or not model:
            return {}
        try:
            total = self.get_dataset(dataset_id).stats.total_samples
        except NotFound:
            return {}

        def seconds(rows: int) -> float | None:
            values = {**preset.values, "max_samples": rows}
            asked: Mapping[str, Any] = {"type": preset.type, "model_name_or_path": model, "dataset_id": dataset_id}
            guess = self.first_guess(parse_recipe({**asked, **values}), entry.parameters if entry else None)
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
