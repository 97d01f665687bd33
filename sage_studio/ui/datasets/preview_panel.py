"""The Dataset tab's preview: rows by page and search, a row as tokens, edits to rows."""

import re
from typing import Any

import gradio as gr
from markupsafe import Markup

from sage_studio.data.rows import DataRow, Example, Passage, Preference, Retrieval
from sage_studio.errors import InvalidInput, StudioError
from sage_studio.text import Language, Text
from sage_studio.training.preview import RowPreview, TokenUse
from sage_studio.ui.components.events import follow, on
from sage_studio.ui.components.format import count
from sage_studio.ui.components.html import html, notice, quiet
from sage_studio.ui.components.model_picker import reader
from sage_studio.ui.components.page_context import PageContext, dataset_or_newest
from sage_studio.ui.components.table import PICK_JS, picked_key
from sage_studio.ui.datasets.dataset_report import UNFOLD_JS, no_rows, preview_table

PAGE_ROWS = 20
PICK_ROW = Text("Choose a row to see it as the model does, to change it or to leave it out.")
ROW_N = Text("Row {}")
FATES: dict[TokenUse, Text] = {
    "learned": Text("learned"),
    "read": Text("only read"),
    "cut": Text("cut off"),
}
LEFT_OUT = Text("This row is left out of the training: nothing is left to learn.")
PENDING = Text("{} rows changed, {} left out, not saved yet")


class PreviewPanel:
    """Rows, the chosen one, and what is to become of it."""

    def __init__(self, context: PageContext) -> None:
        self.context, self.studio, self.words = context, context.studio, context.words
        self.offset, self.row, self.changes = gr.State(0), gr.State(0), gr.State([])
        self._toolbar()
        self.rows = html("dataset-preview", PICK_JS + UNFOLD_JS)
        with gr.Column(visible=False, elem_id="row-box") as self.box:
            self._seen()
            self._edit()
        with gr.Row(visible=False, elem_classes="actions notice-row") as self.pending_box:
            self.pending = html("row-pending")
            self.save = self.words(
                gr.Button, value=Text("Save as a new version"), variant="primary", elem_id="row-save"
            )
            self.discard = self.words(gr.Button, value=Text("Discard"), elem_id="row-discard")
        self._wire()

    def _toolbar(self) -> None:
        words = self.words
        with gr.Row(visible=False, elem_classes="toolbar") as self.toolbar:
            self.search = words(
                gr.Textbox,
                value="",
                label=Text("Search the rows"),
                placeholder=Text("a word or a path"),
                max_lines=1,
                elem_id="dataset-search",
                scale=3,
                min_width=160,
            )
            self.number = words(  # not a gr.Number: one without a value shows 0, and is wrong before it was touched
                gr.Textbox,
                value="",
                label=Text("Go to row"),
                placeholder=Text("a number"),
                max_lines=1,
                elem_id="dataset-goto",
                scale=1,
                min_width=110,
            )
            self.back = words(gr.Button, value=Text("‹ Back"), elem_id="dataset-prev", scale=0, min_width=90)
            self.next = words(gr.Button, value=Text("Next ›"), elem_id="dataset-next", scale=0, min_width=90)

    def _seen(self) -> None:
        with gr.Row(elem_classes="toolbar"):
            self.model, self.max_length = reader(self.words, self.studio, "row", Text("As seen by"))
        self.seen = html("row-seen")

    def _edit(self) -> None:
        words = self.words
        with words(gr.Accordion, label=Text("Change this row"), open=False, elem_id="row-edit"):
            self.question = words(gr.Textbox, label=Text("Question"), lines=2, max_lines=8, elem_id="row-question")
            self.answer = words(gr.Textbox, label=Text("Answer"), lines=4, max_lines=16, elem_id="row-answer")
            self.rejected = words(gr.Textbox, label=Text("Worse answer"), lines=4, max_lines=16, elem_id="row-rejected")
            with gr.Row(elem_classes="actions"):
                self.change = words(gr.Button, value=Text("Change", context="verb"), elem_id="row-change")
                self.exclude = words(
                    gr.Button,
                    value=Text("Leave this row out"),
                    elem_id="row-exclude",
                    elem_classes="quiet-button",
                )

    def _wire(self) -> None:
        context, chosen = self.context, self.context.dataset
        texts = [self.question, self.answer, self.rejected]
        on(self.search.input, first_page, None, self.offset)
        on(self.back.click, page_back, self.offset, self.offset, fills="dataset-preview")
        on(self.next.click, self.page_on, [chosen, self.offset, self.search], self.offset, fills="dataset-preview")
        on(self.number.submit, self.go_to, [chosen, self.number], [self.search, self.offset, self.row])
        on(self.rows.select, pick_row, None, self.row, fills="row-box")
        on(chosen.change, forget, None, [self.offset, self.row, self.changes])
        follow(
            [
                context.page.load,
                chosen.change,
                context.revision.change,
                self.offset.change,
                self.search.change,
                self.row.change,
            ],
            self.show_rows,
            [chosen, self.offset, self.search, self.row],
            [self.rows, self.toolbar],
            trigger_mode="always_last",
        )
        on(self.row.change, self.fill, [chosen, self.row], [self.box, *texts], queue=False)
        follow(
            [self.row.change, self.model.change, self.max_length.change],
            self.show_seen,
            [chosen, self.row, self.model, self.max_length],
            [self.seen],
            trigger_mode="always_last",
        )
        on(self.change.click, self.add_change, [chosen, self.row, self.changes, *texts], self.changes)
        on(self.exclude.click, add_exclusion, [self.row, self.changes], self.changes)
        on(self.discard.click, nothing_pending, None, self.changes)
        on(self.changes.change, show_pending, self.changes, [self.pending_box, self.pending], queue=False)
        on(self.save.click, self.keep, [chosen, self.changes], [chosen, self.changes])

    # Handlers

    def show_rows(self, language: Language, chosen: str, offset: int, search: str, row: int) -> tuple[Any, ...]:
        """A page of rows."""
        dataset_id = dataset_or_newest(self.studio, chosen)
        if not dataset_id:
            return no_rows(language), gr.update(visible=False)
        page = self.studio.datasets.preview(dataset_id, offset=offset, limit=PAGE_ROWS, search=search)
        hint = quiet(PICK_ROW.in_(language)) if page.rows and not row else Markup()
        return preview_table(page, language, row) + hint, gr.update(visible=True)

    def page_on(self, _: Language, chosen: str, offset: int, search: str) -> int:
        """The rows after, if there are any."""
        dataset_id = dataset_or_newest(self.studio, chosen)
        page = self.studio.datasets.preview(dataset_id, offset=offset + PAGE_ROWS, limit=1, search=search)
        return offset + PAGE_ROWS if page.rows else offset

    def go_to(self, _: Language, chosen: str, number: str) -> tuple[Any, Any, Any]:
        """The page on which a row stands, with the row picked; of all rows, whatever was searched for.

        Raises:
            InvalidInput: no number, or one that no row has; nothing moves.
        """
        if not number.strip():
            return gr.skip(), gr.skip(), gr.skip()
        last = self.studio.datasets.get(dataset_or_newest(self.studio, chosen)).stats.total_samples
        row = row_number(number, last)
        return "", (row - 1) // PAGE_ROWS * PAGE_ROWS, row

    def show_seen(self, language: Language, chosen: str, row: int, model: str, max_length: float) -> tuple[Any]:
        """The chosen row as the model sees it; why not, where it cannot be shown."""
        if not row:
            return ("",)
        try:
            seen = self.studio.datasets.tokenized_row(
                dataset_or_newest(self.studio, chosen), row, model or "", int(max_length or 1024)
            )
        except StudioError as error:
            return (notice("failed", error.message.in_(language), error.hint.in_(language)),)
        title = Markup("<h2 class=minor>{}</h2>").format(ROW_N.in_(language).format(count(row)))
        return (title + Markup().join(coloured(each, language) for each in seen),)

    def fill(self, _: Language, chosen: str, row: int) -> tuple[Any, ...]:
        """The chosen row's texts, to be changed."""
        if not row:
            return gr.update(visible=False), gr.skip(), gr.skip(), gr.skip()
        question, answer, rejected = self._texts(chosen, row)
        return (
            gr.update(visible=True),
            gr.update(value=question, visible=question is not None),
            answer,
            gr.update(value=rejected, visible=rejected is not None),
        )

    def add_change(
        self, _: Language, chosen: str, row: int, changes: list[dict[str, Any]], *texts: str
    ) -> list[dict[str, Any]]:
        """Remember what was changed in the row."""
        before = self._texts(chosen, row)
        names = ("question", "answer", "rejected")
        new = {name: text for name, text, old in zip(names, texts, before, strict=True) if old not in (None, text)}
        others = [change for change in changes if change["row"] != row]
        return [*others, {"row": row, **new}] if new else others

    def keep(self, _: Language, chosen: str, changes: list[dict[str, Any]]) -> tuple[str, list[Any]]:
        """Save the changes as a new version, and look at it."""
        return self.studio.datasets.edit(dataset_or_newest(self.studio, chosen), changes).id, []

    def _texts(self, chosen: str, row: int) -> tuple[str | None, str, str | None]:
        page = self.studio.datasets.preview(dataset_or_newest(self.studio, chosen), offset=row - 1, limit=1)
        return texts_of(page.rows[0])


def row_number(typed: str, last: int) -> int:
    """The number of a row that a person typed, with or without separators.

    Raises:
        InvalidInput: it is none of 1 to ``last``.
    """
    digits = re.sub(r"[\s,，_]", "", typed)
    if not re.fullmatch(r"[0-9]{1,12}", digits) or not 1 <= int(digits) <= last:
        raise InvalidInput(
            Text("There is no row {strip!r}.", strip=typed.strip()),
            Text("Type a number from 1 to {last}.", last=count(last)),
        )
    return int(digits)


def texts_of(row: DataRow) -> tuple[str | None, str, str | None]:
    """The texts of a row that can be changed: question, answer and worse answer; None for one that it has not."""
    if isinstance(row, Example):
        return row.prompt[-1].content, row.completion, None
    if isinstance(row, Preference):
        return row.prompt[-1].content, row.chosen, row.rejected
    if isinstance(row, Retrieval):
        return row.query, row.pos[0], None
    assert isinstance(row, Passage)
    return None, row.text, None


def coloured(seen: RowPreview, language: Language) -> Markup:
    """A rendered text, its pieces coloured by their fate, and how many tokens there are of each."""
    sums = {fate: sum(piece.tokens for piece in seen.pieces if piece.fate == fate) for fate in FATES}
    legend = Markup().join(
        Markup('<span class="token {}">{} {}</span> ').format(fate, FATES[fate].in_(language), count(tokens))
        for fate, tokens in sums.items()
        if tokens
    )
    pieces = Markup().join(
        Markup('<span class="token {}" title="{}">{}</span>').format(piece.fate, piece.tokens, piece.text)
        for piece in seen.pieces
    )
    side = Markup('<span class="quiet">{} </span>').format(seen.side) if seen.side != "completion" else Markup()
    missing = notice("failed", LEFT_OUT.in_(language)) if seen.left_out else Markup()
    return missing + Markup('<p class="legend">{}{}</p><pre class="seen" tabindex="0">{}</pre>').format(
        side, legend, pieces
    )


def show_pending(language: Language, changes: list[dict[str, Any]]) -> tuple[Any, Any]:
    """What is to be saved."""
    out = sum(bool(change.get("exclude")) for change in changes)
    message = PENDING.in_(language).format(len(changes) - out, out) if changes else ""
    return gr.update(visible=bool(changes)), notice("waiting", message) if message else ""


def add_exclusion(_: Language, row: int, changes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Remember that the row is to be left out."""
    return [*(change for change in changes if change["row"] != row), {"row": row, "exclude": True}]


def nothing_pending(_: Language) -> list[Any]:
    """Forget the changes."""
    return []


def forget(_: Language) -> tuple[int, int, list[Any]]:
    """Another dataset: its first page, no row, no changes."""
    return 0, 0, []


def pick_row(_: Language, event: gr.EventData) -> int:
    """The number of the row that was picked."""
    return int(picked_key(event))


def first_page(_: Language) -> int:
    """A new search begins at the top."""
    return 0


def page_back(_: Language, offset: int) -> int:
    """The rows before."""
    return max(offset - PAGE_ROWS, 0)
