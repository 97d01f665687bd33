"""A person's own presets: save the form's values, load YAML, copy, compare and delete."""

from typing import Any

import gradio as gr
from markupsafe import Markup

from sage_studio.text import Language, Text, multilingual
from sage_studio.training.presets import NOT_KEPT, as_yaml
from sage_studio.training.recipes import RECIPES
from sage_studio.ui.components.events import on
from sage_studio.ui.components.html import html
from sage_studio.ui.components.page_context import PageContext
from sage_studio.ui.components.table import Column, Row, table
from sage_studio.ui.tasks.runs_panel import label_of, shown
from sage_studio.ui.training.form import given

TITLE = Text("My templates")
NAME = Text("Name")
YAML = Text("As YAML")
YAML_HELP = Text("The chosen preset; or paste one and press Load.")
SAVE, LOAD = Text("Save the form"), Text("Load the YAML")
COPY, DELETE = Text("Duplicate"), Text("Delete")
FIELD, CHOSEN, FORM = Text("Setting"), Text("Preset"), Text("Form")
DIFFERENCE = Text("What the form changes in the preset")


class PresetsPanel:
    """Stands below the preset picker; ``preset`` is that picker, ``inputs`` are the form's by field."""

    def __init__(self, context: PageContext, method: gr.Radio, preset: gr.Dropdown, inputs: dict[str, Any]) -> None:
        self.studio, self.names, words = context.studio, list(inputs), context.words
        with words(gr.Accordion, label=TITLE, open=False, elem_id="train-templates"):
            self.title = words(gr.Textbox, label=NAME, max_lines=1, elem_id="template-title")
            with gr.Row(elem_classes="actions"):
                self.save = words(gr.Button, value=SAVE, elem_id="template-save")
                self.copy = words(gr.Button, value=COPY, elem_id="template-copy")
                self.load = words(gr.Button, value=LOAD, elem_id="template-load")
                self.delete = words(gr.Button, value=DELETE, elem_id="template-delete", elem_classes="quiet-button")
            self.yaml = words(gr.Textbox, label=YAML, info=YAML_HELP, lines=6, max_lines=14, elem_id="template-yaml")
            self.changed = html("template-difference")
        self._wire(method, preset, [inputs[name] for name in self.names])

    def _wire(self, method: gr.Radio, preset: gr.Dropdown, fields: list[Any]) -> None:
        on(self.save.click, self.keep, [self.title, method, *fields], preset)
        on(self.copy.click, self.duplicate, [preset, self.title, method], preset)
        on(self.load.click, self.take, [self.yaml, self.title], [method, preset])
        on(self.delete.click, self.remove, [preset, method], preset)
        on(preset.change, self.show, preset, self.yaml, queue=False)
        changes = [preset.change, *(field.change for field in fields)]
        on(changes, self.compare, [preset, method, *fields], self.changed, queue=False)

    def keep(self, language: Language, title: str, method: str, *values: Any) -> Any:
        """Keep what the form holds."""
        saved = self.studio.presets.store.save(title, {"type": method, **given(RECIPES[method], self.names, values)})
        return self._choices(language, method, saved.id)

    def duplicate(self, language: Language, chosen: str | None, title: str, method: str) -> Any:
        """Keep a copy of the chosen preset under the name given."""
        return self._choices(language, method, self.studio.presets.store.duplicate(chosen or "", title).id)

    def take(self, language: Language, text: str, title: str) -> tuple[str, Any]:
        """Keep what the YAML holds and show it in the form."""
        loaded = self.studio.presets.store.load(text, title)
        return loaded.type, self._choices(language, loaded.type, loaded.id)

    def remove(self, language: Language, chosen: str | None, method: str) -> Any:
        """Delete the chosen one."""
        self.studio.presets.store.delete(chosen or "")
        return self._choices(language, method, None)

    def show(self, _: Language, chosen: str | None) -> str:
        """The chosen preset as YAML."""
        return as_yaml(self.studio.presets.store.get(chosen)) if chosen else ""

    def compare(self, language: Language, chosen: str | None, method: str, *values: Any) -> Markup:
        """The fields in which the form differs from the chosen preset."""
        if not chosen:
            return Markup()
        filled = given(RECIPES[method], self.names, values)
        preset, fields = self.studio.presets.store.get(chosen), RECIPES[method].model_fields
        pairs = {
            name: (preset.values.get(name, fields[name].default), value)
            for name, value in filled.items()
            if name not in NOT_KEPT and name != "model_name_or_path"
        }
        rows = [
            Row((label_of(name, language), shown(before), shown(after)))
            for name, (before, after) in pairs.items()
            if before != after
        ]
        columns = [Column(FIELD), Column(CHOSEN, figures=True), Column(FORM, figures=True)]
        return table(columns, rows, language, DIFFERENCE) if rows else Markup()

    def _choices(self, language: Language, method: str, chosen: str | None) -> Any:
        """The picker with one chosen."""
        presets = [each for each in self.studio.presets.all() if each.type == method]
        return gr.update(choices=[(multilingual(each.title).in_(language), each.id) for each in presets], value=chosen)
