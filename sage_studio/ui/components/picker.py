"""A dropdown whose choices change while a page is open."""

from abc import ABCMeta
from typing import Any

import gradio as gr


def _preprocess(self: gr.Dropdown, payload: Any) -> Any:
    """What a handler gets: the value, or None where it is not offered any more."""
    offered = [value for _, value in self.choices]
    if isinstance(payload, list):
        payload = [value for value in payload if value in offered]
    elif payload not in offered:
        payload = None
    return gr.Dropdown.preprocess(self, payload)


Picker: type[gr.Dropdown] = ABCMeta.__new__(  # Gradio's own metaclass would write a .pyi file beside this one
    type(gr.Dropdown),
    "Picker",
    (gr.Dropdown,),
    {"preprocess": _preprocess, "is_template": True, "__module__": __name__, "__doc__": __doc__},
)
"""As `gr.Dropdown`, but a value that is not offered any more counts as none.

When a handler changes the choices, the browser sends the old value until it has drawn the new ones. Gradio refuses such
a value with an error, which nobody could do anything about.
"""
