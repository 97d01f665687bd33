"""HTML of a dataset: the list, the report and the preview."""

import re
from collections.abc import Collection, Sequence
from typing import Any

import gradio as gr
from markupsafe import Markup

from sage_studio.data.dataset import Dataset, DatasetStats
from sage_studio.data.quality import origin_text
from sage_studio.data.rows import DataRow
from sage_studio.data.store import Preview
from sage_studio.text import Language, Text
from sage_studio.training.recipes import methods_for
from sage_studio.ui.components.format import ago, compact, count, joined, size
from sage_studio.ui.components.html import FIRST_DATASET, Lead, empty, leading, tiles
from sage_studio.ui.components.plots import histogram
from sage_studio.ui.components.table import Column, Row, table

MINE = Text("My datasets")
NONE_YET = Text("No dataset yet")
LISTED = Text("What you bring in is listed here.")
GET_ONE = Text(
    "A dataset is what a model learns from: questions with answers, or documents that the studio makes some of. Choose "
    "where the data comes from; what became of it is shown here."
)
NAME, VERSION = Text("Name"), Text("Version")
ROWS, SIZE, MADE = Text("Rows"), Text("Size"), Text("Made")
CHECKED = Text("Checked")
DROPPED, TOKENS = Text("Left out"), Text("Tokens")
ESTIMATED = Text("Tokens, estimated")
AVERAGE, LONGEST = Text("Characters, average"), Text("Longest")
CHARS = Text("{} chars")
SAMPLED = Text("Languages, by a sample")
LANGUAGES, DUPLICATES = Text("Languages"), Text("Exact copies")
ROWS_N = Text("{} rows")
WHY = Text("{} rows were left out – why?")
COMMIT = Text("commit {}")
NUMBER = Text("Row")
INSTRUCTION, OUTPUT = Text("Instruction"), Text("Output")
ORIGIN = Text("File › heading")
PREVIEW = Text("Preview")
RANGE = Text("{}–{} of {}")
NO_ROWS = Text("No rows to look at yet")
LOOK = Text(
    "Here you read a dataset row by row, as it is and as the model sees it, and change or leave out single rows."
)
NOTHING_FOUND = Text("No row matches.")
SEARCH_AGAIN = Lead(Text("Change the search"), "dataset-search")
TOLD_BY = Text("told by {}")
NOT_READ = Text("columns not read: {}")
TRAINS = Text("trains: {}")
NAMES = {"zh": Text("Chinese"), "en": Text("English")}
CELL_CHARS = 1200

UNFOLD_JS = """
element.addEventListener('click', (event) => {
  const cell = event.target.closest('td .clamp');
  if (cell && !String(window.getSelection())) cell.closest('tr').classList.toggle('open');
});
"""
"""A click unfolds a row's texts."""


def datasets_table(
    datasets: Sequence[Dataset], picked: str, language: Language, checked: Collection[str] = ()
) -> Markup:
    """All datasets, the picked one marked; ``checked`` are the ids of those that were looked at closely."""
    heading = Markup("<h2 class=minor>{}</h2>").format(MINE.in_(language))
    if not datasets:
        return heading + Markup('<p class="quiet">{}</p>').format(LISTED.in_(language))
    figures = [Column(title, figures=True) for title in (ROWS, SIZE, MADE)]
    columns = [Column(NAME), *figures, Column(CHECKED)]
    rows = [
        Row(
            (
                joined(item.name, f"v{item.version}"),
                count(item.stats.total_samples),
                size(item.size_bytes),
                ago(item.created_at, language),
                "✓" if item.id in checked else "–",
            ),
            key=item.id,
        )
        for item in datasets
    ]
    return heading + table(columns, rows, language, MINE, picked)


def report(datasets: Sequence[Dataset], language: Language) -> tuple[Any, Any]:
    """Figures and histogram, for one dataset or none."""
    if not datasets:
        return empty(NONE_YET.in_(language), GET_ONE.in_(language), FIRST_DATASET, language), gr.update(visible=False)
    stats = datasets[0].stats
    bins = {**histogram(stats.token_histogram), "visible": bool(stats.token_histogram)}
    return headline(datasets[0], language) + read_as(datasets[0], language) + figures(stats, language), bins


def headline(dataset: Dataset, language: Language) -> Markup:
    """``sage-docs v3 · 5,412 rows · commit 307ab85`` and where it came from."""
    commit = COMMIT.in_(language).format(dataset.commit[:7]) if dataset.commit else ""
    rows = ROWS_N.in_(language).format(count(dataset.stats.total_samples))
    return Markup('<div class="title"><h2>{} v{}</h2><span class="quiet">{}</span></div>').format(
        dataset.name, dataset.version, joined(rows, commit, dataset.source)
    )


def read_as(dataset: Dataset, language: Language) -> Markup:
    """What the rows were read from, as which format and why, and what they can train."""
    formats = "; ".join(
        f"{each.name} ({TOLD_BY.in_(language).format(', '.join(each.keys))}) × {count(each.rows)}"
        for each in dataset.formats
    )
    names = dict.fromkeys(name for each in dataset.formats for name in each.unread)
    unread = NOT_READ.in_(language).format(", ".join(names)) if names else ""
    trains = TRAINS.in_(language).format(", ".join(method.upper() for method in methods_for(dataset.row_kind)) or "—")
    return Markup('<p class="quiet" data-read-as>{}</p>').format(joined(dataset.container, formats, unread, trains))


def figures(stats: DatasetStats, language: Language) -> Markup:
    """The counts, and why rows were left out."""
    dropped = sum(item.count for item in stats.dropped)
    tokens = TOKENS if stats.tokens_are_exact else ESTIMATED
    shown = tiles(
        [
            (ROWS.in_(language), count(stats.total_samples)),
            (DROPPED.in_(language), count(dropped)),
            (DUPLICATES.in_(language), count(stats.duplicates)),
            (tokens.in_(language), compact(stats.estimated_tokens)),
            (AVERAGE.in_(language), count(round(stats.avg_chars_per_sample))),
            (LONGEST.in_(language), CHARS.in_(language).format(count(stats.longest_chars))),
            ((LANGUAGES if stats.languages_are_exact else SAMPLED).in_(language), languages_of(stats, language)),
        ]
    )
    return shown + (why_dropped(stats, dropped, language) if dropped else Markup())


def languages_of(stats: DatasetStats, language: Language) -> str:
    """Rows of each language, a line each; of a sample their share, which it cannot tell more finely."""
    total = max(1, sum(stats.languages.values()))
    return "\n".join(
        f"{NAMES[key].in_(language) if key in NAMES else key} "
        f"{count(rows) if stats.languages_are_exact else f'{rows / total:.0%}'}"
        for key, rows in stats.languages.items()
    )


def why_dropped(stats: DatasetStats, dropped: int, language: Language) -> Markup:
    """The reasons, each with how many rows and where the first of them stood."""
    reasons = Markup().join(
        Markup('<li><b class="num">{}</b> {} <span class="quiet">{}</span></li>').format(
            count(item.count), item.reason.in_(language), ", ".join(item.rows[:3])
        )
        for item in stats.dropped
    )
    return Markup('<details class="why"><summary>{}</summary><ul>{}</ul></details>').format(
        WHY.in_(language).format(count(dropped)), reasons
    )


def no_rows(language: Language) -> Markup:
    """What the preview is for, before there is a dataset."""
    return empty(NO_ROWS.in_(language), LOOK.in_(language), FIRST_DATASET, language)


def preview_table(page: Preview, language: Language, picked: int = 0) -> Markup:
    """Some rows, and which of how many they are; the picked one marked."""
    if not page.rows:
        return Markup('<p class="quiet">{} {}</p>').format(NOTHING_FOUND.in_(language), leading(SEARCH_AGAIN, language))
    shown = RANGE.in_(language).format(count(page.offset + 1), count(page.offset + len(page.rows)), count(page.total))
    columns = [
        Column(NUMBER, figures=True),
        Column(INSTRUCTION, css="w30"),
        Column(OUTPUT, css="w45"),
        Column(ORIGIN, css="w25"),
    ]
    rows = [
        Row((count(number), _clamp(row.asked), _clamp(row.answer), _clamp(_origin(row), "quiet")), key=str(number))
        for row, number in zip(page.rows, page.numbers, strict=True)
    ]
    return Markup('<p class="range">{}</p>').format(shown) + table(columns, rows, language, PREVIEW, str(picked))


def _origin(row: DataRow) -> str:
    taken = f"{row.origin.dataset}:{row.origin.dataset_row}" if row.origin.dataset else ""
    evidence = f"“{row.origin.evidence}”" if row.origin.evidence else ""
    return "\n".join(part for part in (origin_text(row), taken, row.origin.made or "", evidence) if part)


def _clamp(text: str, css: str = "") -> Markup:
    text = re.sub(r"\n\s*\n", "\n", text)
    cut = text if len(text) <= CELL_CHARS else f"{text[:CELL_CHARS]} …"
    return Markup('<div class="clamp {}">{}</div>').format(css, cut)
