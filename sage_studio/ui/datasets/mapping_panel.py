"""Asks which column of a file is which, when the file is of no known format."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from markupsafe import Markup

from sage_studio.data.column_mapping import ColumnMapping
from sage_studio.data.formats import BY_NAME, FORMATS
from sage_studio.data.sources.local import FileInspection
from sage_studio.text import NOTHING, Language, Text, verbatim
from sage_studio.ui.components.events import on
from sage_studio.ui.components.html import html
from sage_studio.ui.components.page_context import PageContext
from sage_studio.ui.components.table import Column, Row, table

TITLE = Text("Which column is which?")
REMEMBERED = Text("As you said for the last file with these columns.")
GUESSED = Text("Filled in as the names suggest: please check.")
SAMPLE = Text("First rows")
NONE = "—"
KEYS = max(len(each.needs) + len(each.takes) for each in FORMATS)
USUAL = "Alpaca"
CELL_CHARS = 160


class MappingPanel:
    """A format, a column for each of its keys, and the file's first rows to judge by."""

    def __init__(self, context: PageContext) -> None:
        self.studio, self.words = context.studio, context.words
        self.path, self.columns = gr.State(""), gr.State([])
        with gr.Column(visible=False, elem_id="mapping") as self.box:
            self.sample = html("mapping-sample")
            self.format = self.words(
                gr.Dropdown,
                label=Text("Format"),
                choices=list(BY_NAME),
                value=USUAL,
                elem_id="mapping-format",
            )
            with gr.Row():
                self.keys = [
                    gr.Dropdown(choices=[], value=None, visible=False, min_width=140, elem_id=f"mapping-key-{number}")
                    for number in range(KEYS)
                ]
            self.use = self.words(gr.Button, value=Text("Use these columns"), variant="primary", elem_id="mapping-use")

    @property
    def asked(self) -> list[Any]:
        """What `ask` and `done` write."""
        return [self.path, self.columns, self.box, self.sample, self.format, *self.keys]

    def wire(self, answered: Callable[..., Any], outputs: list[Any], options: Mapping[str, Any]) -> None:
        """Hang the handlers on; ``answered`` gets the path, the format and a column for each key."""
        on(self.format.input, keys_of, [self.format, self.columns], self.keys)
        on(self.use.click, answered, [self.path, self.format, *self.keys], [*outputs, *self.asked], **options)

    def ask(self, language: Language, path: str) -> list[Any]:
        """Show the question for a file, answered as for the last one with the same columns, or as it seems to be."""
        found = self.studio.datasets.inspect_file(Path(path))
        columns, known = list(found.columns), found.remembered or found.guess
        name = known.format if known is not None else USUAL
        return [
            path,
            columns,
            gr.update(visible=True),
            _sample(found, language),
            name,
            *keys_of(language, name, columns, known.columns if known is not None else {}),
        ]

    def done(self) -> list[Any]:
        """Put the question away."""
        return ["", [], gr.update(visible=False), "", USUAL, *(gr.update(visible=False) for _ in self.keys)]

    def chosen(self, name: str, columns: Sequence[str]) -> ColumnMapping:
        """The answer."""
        named = zip(_keys(name), columns, strict=False)
        return ColumnMapping(format=name, columns={key: column for key, column in named if column and column != NONE})


def keys_of(_: Language, name: str, columns: Sequence[str], known: Mapping[str, str] | None = None) -> list[Any]:
    """A dropdown for each key of a format; a column of the key's own name is chosen already."""
    keys, needs = _keys(name), BY_NAME[name].needs
    found = known or {key: key for key in keys if key in columns}
    shown = [
        gr.update(
            visible=True,
            label=f"{key} *" if key in needs else key,
            choices=[NONE, *columns],
            value=found.get(key, NONE),
        )
        for key in keys
    ]
    return shown + [gr.update(visible=False, value=None) for _ in range(KEYS - len(shown))]


def _keys(name: str) -> tuple[str, ...]:
    return (*BY_NAME[name].needs, *BY_NAME[name].takes)


def _sample(found: FileInspection, language: Language) -> Markup:
    fault = found.fault.message.in_(language) if found.fault is not None else ""
    note = REMEMBERED if found.remembered is not None else GUESSED if found.guess is not None else NOTHING
    rows = [Row([str(row.get(column, ""))[:CELL_CHARS] for column in found.columns]) for row in found.sample]
    columns = [Column(verbatim(column)) for column in found.columns]
    head = Markup('<h2 class=minor>{}</h2><p class="quiet">{} {}</p>').format(
        TITLE.in_(language), fault, note.in_(language)
    )
    return head + table(columns, rows, language, SAMPLE)
