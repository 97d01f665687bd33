"""Inputs for the model that tokenizes a row and the length at which it cuts."""

import gradio as gr

from sage_studio.studio import Studio
from sage_studio.text import Text
from sage_studio.ui.components.localization import LabelRegistry

DEFAULT_LENGTH = 1024


def reader(words: LabelRegistry, studio: Studio, prefix: str, label: Text) -> tuple[gr.Dropdown, gr.Number]:
    """Both inputs, within a row; their ``elem_id`` are ``<prefix>-model`` and ``<prefix>-max-length``."""
    models = [entry.id for entry in studio.models.choices()]
    model = words(
        gr.Dropdown,
        label=label,
        choices=models,
        value=next(iter(models), None),
        allow_custom_value=True,
        scale=3,
        min_width=180,
        elem_id=f"{prefix}-model",
    )
    max_length = words(
        gr.Number,
        label=Text("Max sequence length"),
        value=DEFAULT_LENGTH,
        precision=0,
        minimum=16,
        scale=1,
        min_width=110,
        elem_id=f"{prefix}-max-length",
    )
    return model, max_length
