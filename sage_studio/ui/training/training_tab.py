"""The Train tab: the recipe's form on the left, the run under way on the right."""

from collections.abc import Mapping
from typing import Any

import gradio as gr
from markupsafe import Markup

from sage_studio.catalog import ModelEntry
from sage_studio.services.presets import Recommendation
from sage_studio.studio import Studio
from sage_studio.tasks.task import Task
from sage_studio.text import Language, Text, multilingual
from sage_studio.training.recipes import RECIPES
from sage_studio.training.recipes.base import field_group
from sage_studio.ui.components.dialogs import Dialog
from sage_studio.ui.components.events import follow, on
from sage_studio.ui.components.format import compact, count, joined
from sage_studio.ui.components.html import FIRST_DATASET, Lead, empty, html
from sage_studio.ui.components.page_context import PageContext, go_to
from sage_studio.ui.components.picker import Picker
from sage_studio.ui.components.table import picked_key
from sage_studio.ui.status_bar import running_task
from sage_studio.ui.tasks.run_view import RunView
from sage_studio.ui.training.estimate_panel import EstimatePanel
from sage_studio.ui.training.form import fields_in, form_updates, given, inputs_for
from sage_studio.ui.training.model_search import ModelSearch
from sage_studio.ui.training.presets_panel import PresetsPanel

METHOD = "sft"
STOP = Text("Stop")
STOP_TITLE = Text("Stop training")
STOP_QUESTION = Text("Stop this training? It writes a checkpoint first and can be resumed from there.")
NO_RUN = Text("Nothing has been trained yet")
START_ONE = Text("Choose a dataset and a model, then press Start. Progress, plots and the log appear here.")
START = Lead(Text("Go to the start button"), "train-start train-missing")
PARAMETERS = Text("{} parameters")
FROM_GB = Text("LoRA needs about {} GB")
ROWS = Text("rows")
HERE = Text("recommended here")
GATED = Text("its terms must be accepted on Hugging Face first")


class TrainingTab:
    """`inputs` holds the form's inputs by field."""

    def __init__(self, context: PageContext) -> None:
        self.context, self.studio, self.words = context, context.studio, context.words
        self.inputs: dict[str, Any] = {}
        self.suggested = gr.State({})
        self.stop_dialog = Dialog("dialog-stop-run", STOP_TITLE, STOP_QUESTION, STOP, danger=True)
        with gr.Row(elem_classes="split"):
            with gr.Column(scale=5, min_width=320):
                self._form()
            with gr.Column(scale=7, min_width=320, elem_id="train-run"):
                self._run()
        self._wire()

    def _form(self) -> None:
        words = self.words
        choices = {"model_name_or_path": self._models(METHOD), "dataset_id": []}
        self.method = words(
            gr.Radio,
            label=Text("Method"),
            choices=[(recipe.title, kind) for kind, recipe in RECIPES.items()],
            value=METHOD,
            elem_id="train-method",
        )
        self.preset = words(
            Picker,
            label=Text("Start from a preset"),
            info=Text("Fills in the form; change it as you like."),
            choices=[],
            value=None,
            elem_id="train-preset",
        )
        with gr.Group():
            self._inputs("what", choices)
        self.model_note = html("train-model-note")
        ModelSearch(self.context, self.method, self.inputs["model_name_or_path"])
        with gr.Group():
            self._inputs("common", {})
        with words(gr.Accordion, label=Text("LoRA"), open=False, elem_id="train-lora"), gr.Group():
            self._inputs("lora", {})
        with words(gr.Accordion, label=Text("More"), open=False, elem_id="train-more"), gr.Group():
            self._inputs("more", {})
            self._inputs("files", {})
        PresetsPanel(self.context, self.method, self.preset, self.inputs)
        with gr.Column(elem_classes="before"):
            self.before = EstimatePanel(self.context, self.method, self.inputs)
        self.start = self.before.start

    def _inputs(self, group: Any, choices: dict[str, list[Any]]) -> None:
        with gr.Row(elem_classes=["fields", group]):
            self.inputs |= inputs_for(self.words, RECIPES[METHOD], fields_in(RECIPES.values(), group), choices)

    def _run(self) -> None:
        words = self.words
        self.nothing = html("run-empty")
        with gr.Column(visible=False) as self.run_box:
            self.run = RunView(self.studio, words, "run")
            with gr.Row(elem_classes="actions"):
                self.open_task = words(gr.Button, value=Text("Open the task →"), elem_id="run-open")
                self.stop = words(gr.Button, value=STOP, elem_id="run-stop", elem_classes="quiet-button")

    def _wire(self) -> None:
        context, names = self.context, list(self.inputs)
        fields = [self.inputs[name] for name in names]
        model, dataset = self.inputs["model_name_or_path"], self.inputs["dataset_id"]
        on(self.preset.change, self.use_preset, [self.method, self.preset, self.suggested], fields, queue=False)
        begin = [self.suggested, self.preset, *fields]
        on(self.method.change, self.use_method, [self.method, context.draft, model, dataset], begin, queue=False)
        on(
            [context.page.load, model.change, dataset.change],
            self.suggest,
            [self.method, self.preset, self.suggested, *fields],
            begin,
            queue=False,
        )
        on(context.draft.change, self.use_draft, context.draft, [self.method, *fields])
        on(context.dataset.change, self.fit_method, [context.dataset, self.method], self.method, queue=False)
        on(
            [context.page.load, context.revision.change, context.dataset.change, self.method.change],
            self.renew_datasets,
            [context.dataset, self.method],
            dataset,
            queue=False,
        )
        on(self.method.change, self.renew_models, [self.method, model], model, queue=False)
        follow([context.page.load, model.change], self.show_model, [model], [self.model_note])
        self.followed = follow(
            [*context.ticks, context.task.change],
            self.show_run,
            [context.task],
            [self.nothing, self.run_box, self.stop, *self.run.outputs],
        )
        on(
            self.start.click,
            self.begin,
            [context.revision, self.method, *fields],
            [context.task, context.revision, *self.followed.outputs],
            fills="train-run",
            reveals="train-run",
        )
        on(self.stop.click, self.ask_stop, context.task, self.stop_dialog.html, queue=False)
        self.stop_dialog.confirmed(self.stop_run, context.revision, context.revision)
        on(self.open_task.click, self.open_run, context.task, [context.task, context.tabs])

    # Handlers

    def use_preset(self, _: Language, method: str, preset_id: str | None, suggested: Mapping[str, Any]) -> list[Any]:
        """Fill in the form; without a preset leave it."""
        if preset_id is None:
            return [gr.skip() for _ in self.inputs]
        if suggested.get("preset") == preset_id:
            return form_updates(RECIPES[method], list(self.inputs), suggested["values"])
        values = next(preset.values for preset in self.studio.presets.all() if preset.id == preset_id)
        return form_updates(RECIPES[method], list(self.inputs), values)

    def suggest(
        self, language: Language, method: str, preset: str | None, suggested: Mapping[str, Any], *values: Any
    ) -> list[Any]:
        """Begin with the preset that suits this machine, the model and the dataset, unless somebody chose otherwise."""
        filled = given(RECIPES[method], list(self.inputs), values)
        model, dataset = filled["model_name_or_path"], filled["dataset_id"]
        found = self.studio.presets.recommend(method, model, dataset)
        choices = self._presets(language, method, found)
        if found is None or (preset and not self._as_suggested(method, preset, suggested, filled)):
            return [gr.skip(), gr.update(choices=choices), *(gr.skip() for _ in self.inputs)]
        return self._begin(method, found, choices)

    def _begin(self, method: str, found: Recommendation, choices: list[tuple[str, str]]) -> list[Any]:
        return [
            {"preset": found.preset.id, "values": found.values},
            gr.update(choices=choices, value=found.preset.id),
            *form_updates(RECIPES[method], list(self.inputs), found.values),
        ]

    def _as_suggested(self, method: str, preset: str, suggested: Mapping[str, Any], filled: Mapping[str, Any]) -> bool:
        """Whether the form still holds what was suggested: then nobody's work is lost when that changes."""
        fields = RECIPES[method].model_fields
        changeable = [name for name in filled if field_group(fields[name]) not in ("what", "files")]
        return preset == suggested.get("preset") and all(
            filled[name] == suggested["values"].get(name, fields[name].default) for name in changeable
        )

    def _presets(self, language: Language, method: str, found: Recommendation | None) -> list[tuple[str, str]]:
        """What the picker offers, the recommended one first and marked."""
        offered = self.studio.presets.offered(method)
        best = found.preset.id if found is not None else ""
        offered.sort(key=lambda preset: preset.id != best)
        titles = {preset.id: multilingual(preset.title).in_(language) for preset in offered}
        return [(f"{title} · {HERE.in_(language)}" if key == best else title, key) for key, title in titles.items()]

    def use_draft(self, _: Language, draft: dict[str, Any] | None) -> list[Any]:
        """Take over the settings of a task that was run before."""
        if draft is None:
            return [gr.skip() for _ in range(1 + len(self.inputs))]
        return [draft["type"], *(gr.update(value=draft[name]) if name in draft else gr.skip() for name in self.inputs)]

    def use_method(
        self, language: Language, method: str, draft: dict[str, Any] | None, model: str, dataset: str
    ) -> list[Any]:
        """Show the method's presets and fields, these with the recommended values or a draft's."""
        found = self.studio.presets.recommend(method, model or "", dataset or "")
        choices = self._presets(language, method, found)
        if found is not None and (draft is None or draft["type"] != method):
            return self._begin(method, found, choices)
        updates = form_updates(RECIPES[method], list(self.inputs), draft or {})
        return [{}, gr.update(choices=choices, value=None), *updates]

    def fit_method(self, _: Language, chosen: str, method: str) -> str:
        """The method as it is, unless it cannot learn from the dataset just chosen."""
        kinds = [item.row_kind for item in self.studio.datasets.list() if item.id == chosen]
        if not kinds or kinds[0] in RECIPES[method].accepts:
            return method
        return next((kind for kind, recipe in RECIPES.items() if kinds[0] in recipe.accepts), method)

    def renew_datasets(self, language: Language, chosen: str, method: str) -> Any:
        """The datasets that the method can learn from, the chosen one picked."""
        choices = self._datasets(language, method)
        known = [key for _, key in choices]
        return gr.update(choices=choices, value=chosen if chosen in known else next(iter(known), None))

    def renew_models(self, _: Language, method: str, chosen: str) -> Any:
        """The models that the method can train; one typed by hand stays, one of the catalogue for others does not."""
        entry = self.studio.catalog.find(chosen)
        models = self._models(method)
        fits = entry is None or entry.id in models
        return gr.update(choices=models, value=chosen if chosen and fits else next(iter(models), None))

    def begin(self, language: Language, revision: int, method: str, *values: Any) -> tuple[Any, ...]:
        """Start a training and show it, in the same answer."""
        recipe = {"type": method, **given(RECIPES[method], list(self.inputs), values)}
        task = self.studio.training.start(recipe)
        return task.id, revision + 1, *self.followed.now(language, task.id)

    def ask_stop(self, language: Language, chosen: str) -> str:
        """Open the dialog about the run that is shown."""
        task = self.shown(chosen)[0]
        return self.stop_dialog.ask(language, task.id, task.id)

    def stop_run(self, _: Language, revision: int, event: gr.EventData) -> int:
        """Stop after a yes."""
        self.studio.tasks.stop(picked_key(event))
        return revision + 1

    def open_run(self, language: Language, chosen: str) -> tuple[str, Any]:
        """Look at the run on the Tasks tab."""
        return self.shown(chosen)[0].id, go_to("tasks")(language)

    def show_run(self, language: Language, chosen: str) -> tuple[Any, ...]:
        """The run as it stands, or what this place is for."""
        tasks = self.shown(chosen)
        if not tasks:
            lead = START if self.studio.datasets.list() else FIRST_DATASET
            nothing = empty(NO_RUN.in_(language), START_ONE.in_(language), lead, language)
            return (nothing, gr.update(visible=False), gr.skip(), *(gr.skip() for _ in self.run.outputs))
        stop = gr.update(visible=not tasks[0].status.is_over)
        return ("", gr.update(visible=True), stop, *self.run.render(language, tasks[0]))

    def show_model(self, language: Language, name: str) -> tuple[Markup]:
        """What the catalogue says of the model."""
        entry = self.studio.catalog.find(name)
        return (model_note(entry, language) if entry is not None else Markup(),)

    def shown(self, chosen: str) -> list[Task]:
        """The chosen task, else the running one, else the newest; none when there is none."""
        return chosen_or_running(self.studio, chosen)

    def _models(self, method: str) -> list[str]:
        return [entry.id for entry in self.studio.models.choices(RECIPES[method].model_task)]

    def _datasets(self, language: Language, method: str) -> list[tuple[str, str]]:
        return [
            (f"{item.name} v{item.version} · {count(item.stats.total_samples)} {ROWS.in_(language)}", item.id)
            for item in self.studio.datasets.list()
            if item.row_kind in RECIPES[method].accepts
        ]


def chosen_or_running(studio: Studio, chosen: str) -> list[Task]:
    """At most one task: the chosen one, else the running one, else the newest."""
    tasks = studio.tasks.list()
    picked = [task for task in tasks if task.id == chosen]
    running = running_task(studio)
    return picked or ([running] if running else tasks[:1])


def model_note(entry: ModelEntry, language: Language) -> Markup:
    """``1.5 B parameters · LoRA from 8 GB · apache-2.0 · recommended for an RTX 3060``."""
    parameters = PARAMETERS.in_(language).format(compact(entry.parameters).replace(" G", " B"))
    memory = FROM_GB.in_(language).format(f"{entry.vram_gb['lora']:g}")
    note = multilingual(entry.note.model_dump()).in_(language)
    gated = GATED.in_(language) if entry.gated else ""
    return Markup('<p class="quiet">{}</p>').format(joined(parameters, memory, entry.licence, gated, note))
