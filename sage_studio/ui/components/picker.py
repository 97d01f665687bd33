"""A dropdown whose choices change while a page is open."""

from typing import Any

import gradio as gr


class Picker(gr.Dropdown):
    """As `gr.Dropdown`, but a value that is not offered any more counts as none.

    When a handler changes the choices, the browser sends the old value until it has drawn the new ones. Gradio refuses
    such a value with an error, which nobody could do anything about.
    """

    is_template = True  # the browser draws the parent class

    def preprocess(self, payload: Any) -> Any:
        """What a handler gets: the value, or None where it is not offered."""
        offered = [value for _, value in self.choices]
        if isinstance(payload, list):
            payload = [value for value in payload if value in offered]
        elif payload not in offered:
            payload = None
        return super().preprocess(payload)
