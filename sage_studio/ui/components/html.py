"""Small pieces of HTML that several tabs show: figures, notices, empty states, a log.

What it returns is safe: texts are escaped unless they are `Markup`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
from markupsafe import Markup

from sage_studio.text import Language, Text

LOG = Text("Log")
NO_LOG = Text("No lines yet.")

COPY_JS = """
element.addEventListener('click', (event) => {
  const copy = event.target.closest('[data-copy]');
  if (!copy) return;
  event.stopImmediatePropagation();
  navigator.clipboard?.writeText(copy.dataset.copy);
  copy.classList.add('copied');
  setTimeout(() => copy.classList.remove('copied'), 1200);
});
"""
"""Lets a `format.copyable` id be copied."""

LOG_JS = """
let follows = true;
const log = () => element.querySelector('pre');
element.addEventListener('scroll', (event) => {
  if (event.target === log()) follows = log().scrollTop + log().clientHeight > log().scrollHeight - 24;
}, true);
const down = () => { if (follows && log()) log().scrollTop = log().scrollHeight; };
watch('value', down);
new ResizeObserver(down).observe(element);
"""
"""Keeps a log's last line in view unless the person has scrolled up."""


@dataclass(frozen=True, slots=True)
class Lead:
    """The one action that an empty place offers.

    Attributes:
        label: of the button.
        targets: ids, separated by blanks; the first that is in sight is what the button leads to.
        tab: which is opened first; empty to stay.
        press: press what it leads to if it is a button; otherwise it only gets the focus.
    """

    label: Text
    targets: str
    tab: str = ""
    press: bool = False


FIRST_DATASET = Lead(Text("Get a first dataset"), "quickstart-add docs-prepare dataset-source", "dataset", press=True)
"""Presses whatever makes a dataset of the source that is chosen."""


def html(elem_id: str, js: str | None = None, **properties: Any) -> gr.HTML:
    """A place for HTML of ours, without Gradio's prose style."""
    return gr.HTML(elem_id=elem_id, js_on_load=js, apply_default_css=False, **properties)


def tiles(shown: Sequence[tuple[str, str]], css: str = "") -> Markup:
    """Figures beside each other, each under its name; ``wide`` for long ones."""
    cells = Markup().join(Markup("<div><dt>{}</dt><dd>{}</dd></div>").format(label, value) for label, value in shown)
    return Markup('<dl class="tiles {}">{}</dl>').format(css, cells)


def notice(kind: str, *lines: str) -> Markup:
    """A remark with a coloured edge; ``kind`` is ``done``, ``failed``, ``waiting`` or ``idle``."""
    paragraphs = Markup().join(Markup("<div>{}</div>").format(line) for line in lines if line)
    return Markup('<div class="notice {}" role="status">{}</div>').format(kind, paragraphs)


def empty(title: str, advice: str, lead: Lead, language: Language) -> Markup:
    """What a place says while there is nothing in it: what it is for, and the one action that fills it."""
    return Markup('<div class="empty"><p><strong>{}</strong></p><p>{}</p><p>{}</p></div>').format(
        title, advice, leading(lead, language)
    )


def leading(lead: Lead, language: Language) -> Markup:
    """The button of a `Lead`; the page's script (`tour`) follows it."""
    return Markup('<button type="button" class="lead" data-lead="{}" data-tab="{}"{}>{}</button>').format(
        lead.targets, lead.tab, Markup(" data-press") if lead.press else "", lead.label.in_(language)
    )


def strong(text: str) -> Markup:
    """Words that stand out."""
    return Markup("<strong>{}</strong>").format(text)


def quiet(text: str) -> Markup:
    """Words that stand back."""
    return Markup('<span class="quiet">{}</span>').format(text)


def log(lines: Sequence[str], language: Language) -> Markup:
    """The last lines, in their own scrolling box."""
    title = LOG.in_(language)
    return Markup('<h2 class=minor>{0}</h2><pre class="log" tabindex="0" aria-label="{0}">{1}</pre>').format(
        title, "\n".join(lines) or NO_LOG.in_(language)
    )
