"""Dialog that names object and consequence before something is deleted, switched or stopped.

The browser's own ``<dialog>``: Esc cancels, focus stays inside and returns where it was. What is confirmed is checked
again by the verb that follows.
"""

import itertools
from collections.abc import Callable
from typing import Any

from markupsafe import Markup

from sage_studio.text import Language, Text
from sage_studio.ui.components.events import on
from sage_studio.ui.components.html import html

FOCUS = Markup(" autofocus")
CANCEL = Text("Cancel")

DIALOG_JS = """
const dialog = () => element.querySelector('dialog');
watch('value', () => { const box = dialog(); if (box && !box.open) box.showModal(); });
element.addEventListener('click', (event) => {
  const button = event.target.closest('dialog button');
  if (!button) return;
  const key = dialog().dataset.key;
  dialog().close();
  if (button.dataset.answer === 'ok') trigger('submit', {key});
});
"""

_asked = itertools.count()


class Dialog:
    """One question with two answers. `ask` is the value that opens it; `confirmed` hangs up what follows a yes."""

    def __init__(self, elem_id: str, title: Text, question: Text, answer: Text, *, danger: bool = False) -> None:
        self.elem_id = elem_id
        self.title, self.question, self.answer = title, question, answer
        self.danger = danger
        self.html = html(elem_id, DIALOG_JS, elem_classes="dialog-host")

    def ask(self, language: Language, key: str, name: str, question: Text | None = None) -> str:
        """The dialog, open, about the object ``key``, which a person knows as ``name``; with a question of its own."""
        return Markup(
            '<dialog data-key="{key}" data-asked="{asked}" aria-labelledby="{id}-title">'
            '<h2 id="{id}-title">{title}</h2><p class="object">{name}</p><p>{question}</p><div class="answers">'
            '<button type="button" data-answer="cancel"{on_cancel}>{cancel}</button>'
            '<button type="button" data-answer="ok" class="{kind}"{on_ok}>{ok}</button></div></dialog>'
        ).format(
            key=key,
            asked=next(_asked),
            id=self.elem_id,
            title=self.title.in_(language),
            name=name,
            question=(question or self.question).in_(language),
            cancel=CANCEL.in_(language),
            ok=self.answer.in_(language),
            kind="danger" if self.danger else "primary",
            on_cancel=FOCUS if self.danger else "",
            on_ok="" if self.danger else FOCUS,
        )

    def confirmed(self, handler: Callable[..., Any], inputs: Any = None, outputs: Any = None, **options: Any) -> Any:
        """Call the handler after a yes, with ``gr.EventData`` whose ``key`` is what was asked about."""
        return on(self.html.submit, handler, inputs, outputs, concurrency_limit=None, **options)
