"""A person's own templates on the Train tab."""

import gradio as gr
import pytest
from fake_studio import FakeStudio

from sage_studio.errors import Conflict, InvalidRecipe
from sage_studio.ui.page import build_page
from sage_studio.ui.training.presets_panel import PresetsPanel


@pytest.fixture
def panel(settings, monkeypatch):
    """The panel of a page of its own."""
    made = []
    right = PresetsPanel.__init__

    def remember(self, *arguments):
        right(self, *arguments)
        made.append(self)

    monkeypatch.setattr(PresetsPanel, "__init__", remember)
    build_page(FakeStudio(settings))
    return made[0]


def form(panel, **values):
    """What the form's inputs hold; emptied ones are empty texts."""
    plain = {"model_name_or_path": "m", "dataset_id": "d", "learning_rate": 1e-3, "lora_r": 16, **values}
    from sage_studio.training.recipes import SFTRecipe

    defaults = {name: info.default for name, info in SFTRecipe.model_fields.items() if not info.is_required()}
    return [{**defaults, **plain}.get(name) for name in panel.names]


def test_the_form_is_kept_under_a_name_and_chosen(panel):
    update = panel.keep("en", "mine", "sft", *form(panel))
    assert ("mine", update["value"]) in update["choices"]
    assert panel.studio.presets.store.get(update["value"]).values["learning_rate"] == 1e-3
    assert "learning_rate: 0.001" in panel.show("en", update["value"])
    assert panel.show("en", None) == ""


def test_what_the_form_changes_in_the_preset_is_shown(panel):
    chosen = panel.keep("en", "mine", "sft", *form(panel))["value"]
    assert panel.compare("en", chosen, "sft", *form(panel)) == ""
    shown = panel.compare("zh", chosen, "sft", *form(panel, lora_r=8))
    assert "秩 r" in shown
    assert "学习率" not in shown
    assert panel.compare("en", None, "sft", *form(panel)) == ""


def test_a_template_is_copied_loaded_and_deleted(panel):
    chosen = panel.keep("en", "mine", "sft", *form(panel))["value"]
    copied = panel.duplicate("en", chosen, "a copy", "sft")
    assert copied["value"] != chosen
    method, loaded = panel.take("en", "type: sft\nlearning_rate: 0.01", "from yaml")
    assert (method, len(loaded["choices"])) == ("sft", len(copied["choices"]) + 1)
    assert panel.remove("en", chosen, "sft")["value"] is None
    with pytest.raises(Conflict, match="comes with"):
        panel.remove("en", panel.studio.presets.store.ready[0].id, "sft")
    with pytest.raises(InvalidRecipe, match="title"):
        panel.keep("en", "", "sft", *form(panel))


def test_the_page_has_the_parts(page):
    ids = {block.elem_id for block in page.blocks.values() if isinstance(block, gr.Button | gr.Textbox)}
    assert {"template-save", "template-copy", "template-load", "template-delete", "template-yaml"} <= ids
