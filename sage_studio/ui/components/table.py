"""HTML table: figures right-aligned, rows picked by mouse or keyboard.

Gradio's own data frame loses its selection at every update and can show neither an exact time on hover nor a button
that copies an id; ``gr.HTML`` changes only the cells that differ, so a table can renew itself under a person's hands.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
from markupsafe import Markup, escape

from sage_studio.text import Language, Text
from sage_studio.ui.components.html import COPY_JS

PICK_JS = (
    COPY_JS
    + """
const row = (event) => event.target.closest('tr[data-key]');
element.addEventListener('click', (event) => {
  if (row(event)) trigger('select', {key: row(event).dataset.key});
});
element.addEventListener('keydown', (event) => {
  const here = row(event);
  if (!here || event.target !== here) return;
  const next = {ArrowDown: here.nextElementSibling, ArrowUp: here.previousElementSibling}[event.key];
  if (next) { event.preventDefault(); next.focus(); }
  if (event.key !== 'Enter' && event.key !== ' ') return;
  event.preventDefault();
  here.click();
});
"""
)
"""Reports a picked row. That it looks picked at once, before the server knows, is ``clicks.js``'s affair."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column's heading and whether figures stand in it."""

    title: Text
    figures: bool = False
    css: str = ""

    @property
    def css_class(self) -> str:
        """How its cells are laid out."""
        return " ".join(part for part in ("num" if self.figures else "", self.css) if part)


@dataclass(frozen=True, slots=True)
class Row:
    """The cells of one row; ``key`` is what picking it reports, empty for a row that cannot be picked."""

    cells: Sequence[Any]
    key: str = ""


def table(columns: Sequence[Column], rows: Sequence[Row], language: Language, label: Text, picked: str = "") -> Markup:
    """The table; ``picked`` is the key of the row that is marked."""
    head = Markup().join(
        Markup('<th scope="col" class="{}">{}</th>').format(column.css_class, column.title.in_(language))
        for column in columns
    )
    body = Markup().join(_row(columns, row, row.key != "" and row.key == picked) for row in rows)
    return Markup(
        '<div class="sheet"><table aria-label="{}"><thead><tr>{}</tr></thead><tbody>{}</tbody></table></div>'
    ).format(label.in_(language), head, body)


def picked_key(event: gr.EventData) -> str:
    """The key of the row that a person picked."""
    return str(event.key)


def _row(columns: Sequence[Column], row: Row, is_picked: bool) -> Markup:
    # not `Markup.format`, which takes ten times as long: a table has a thousand cells
    cells = Markup(
        "".join(
            f'<td class="{column.css_class}">{escape(cell)}</td>'
            for column, cell in zip(columns, row.cells, strict=True)
        )
    )
    if not row.key:
        return Markup("<tr>{}</tr>").format(cells)
    return Markup('<tr data-key="{}" tabindex="0" aria-selected="{}">{}</tr>').format(
        row.key, "true" if is_picked else "false", cells
    )
