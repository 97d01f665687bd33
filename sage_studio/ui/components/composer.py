"""The text box for a chat message, with its buttons."""

from dataclasses import dataclass

import gradio as gr

from sage_studio.text import Text
from sage_studio.ui.components.localization import LabelRegistry


@dataclass(frozen=True)
class Composer:
    """A message and the buttons that send it and stop the answer."""

    message: gr.Textbox
    send: gr.Button
    stop: gr.Button


def composer(words: LabelRegistry, prefix: str, label: Text) -> Composer:
    """Make one within a row; its parts' ``elem_id`` are ``<prefix>-message``, ``-send`` and ``-stop``."""
    return Composer(
        message=words(
            gr.Textbox,
            value="",
            label=label,
            lines=1,
            max_lines=8,
            scale=8,
            min_width=200,
            elem_id=f"{prefix}-message",
            placeholder=Text("Enter sends, Shift+Enter breaks the line"),
        ),
        send=words(gr.Button, value=Text("Send"), variant="primary", scale=0, min_width=90, elem_id=f"{prefix}-send"),
        stop=words(gr.Button, value=Text("Stop"), scale=0, min_width=90, elem_id=f"{prefix}-stop"),
    )
