"""Parses Markdown into sections by markdown-it-py's block tokens, so a ``#`` inside a code fence is no heading."""

import gc
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

from sage_studio.data.documents.cleaning import (
    FENCE,
    LINK_CUT_OFF,
    clean_heading,
    clean_html,
    clean_text,
    is_broken,
    mend_fences,
    unwrap_admonitions,
)
from sage_studio.data.documents.sections import Section, TextSpan, file_title, nest

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token


FRONT_MATTER_LINE = re.compile(r"[\w.-]+[ \t]*:|[ \t#-]|$")
FRONT_MATTER_LINES = 200


def parse_markdown(text: str, file: str) -> Section:
    """Read a document.

    Args:
        text: its content.
        file: its path with forward slashes; gives the title where no first-level heading does.

    Returns:
        The document as the section at the root, named by its title. Further first-level headings are its children.
    """
    text = _without_front_matter(text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "\ufffd"))
    text, broken = mend_fences(unwrap_admonitions(text))
    with _without_collector():
        flat = list(_flat_sections(_parser().parse(text), text.split("\n"), broken))
    before, headed = flat[0], flat[1:]
    if headed and headed[0].level == 1:
        first = headed.pop(0)
        before = replace(first, level=0, spans=before.spans + first.spans)
    else:
        before = replace(before, heading=file_title(file))
    return replace(before, children=nest(headed), broken=tuple(sorted(broken)))


@contextmanager
def _without_collector() -> Iterator[None]:
    """Pause the garbage collector: tokens hold no cycles, and looking for some costs a tenth of the time."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


@cache
def _parser() -> "MarkdownIt":
    from markdown_it import MarkdownIt

    parser = MarkdownIt("commonmark").enable("table")
    parser.core.ruler.enableOnly(["block"])
    return parser


def _without_front_matter(text: str) -> str:
    """Blank the lines of a YAML head between two ``---``; a rule that only opens with them stays."""
    if not text.startswith("---"):
        return text
    lines = text.split("\n", FRONT_MATTER_LINES)
    for index, line in enumerate(lines[1:], 1):
        if line.rstrip() in ("---", "..."):
            return "\n".join([""] * (index + 1) + lines[index + 1 :])
        if not FRONT_MATTER_LINE.match(line):
            break
    return text


def _flat_sections(tokens: Sequence["Token"], lines: Sequence[str], broken: list[int]) -> Iterator[Section]:
    """The text before the first heading, then one section a heading, in order and without children.

    Args:
        broken: takes the lines where something is left out that is broken off.
    """
    section, spans = Section("", 0, 1), list[TextSpan]()
    for block in _top_level(tokens):
        first = block[0]
        if first.type == "heading_open":
            heading = clean_heading(block[1].content)
            if not heading:
                continue
            yield replace(section, spans=tuple(spans))
            section, spans = Section(heading, int(first.tag[1]), (first.map or [0])[0] + 1), []
        elif first.type != "hr":
            spans.extend(_spans(block, lines, broken))
    yield replace(section, spans=tuple(spans))


def _top_level(tokens: Sequence["Token"]) -> Iterator[Sequence["Token"]]:
    start = 0
    for index, token in enumerate(tokens):
        if token.level == 0 and token.nesting <= 0:
            yield tokens[start : index + 1]
            start = index + 1


def _spans(block: Sequence["Token"], lines: Sequence[str], broken: list[int]) -> Iterator[TextSpan]:
    """Cut one top-level block where it may be split: at list items and around the code inside it."""
    begin, stop = block[0].map or (0, 0)
    if block[0].type == "paragraph_open" and is_broken(lines[begin]):
        broken.append(begin + 1)
        return
    marks: dict[int, str] = {begin: "table" if block[0].type == "table_open" else "text"}
    for token in block:
        if token.map is None:
            continue
        if token.type in ("fence", "code_block", "html_block"):
            marks[token.map[0]] = token.type
            marks.setdefault(token.map[1], "text")
        elif token.type == "list_item_open":
            marks.setdefault(token.map[0], "text")
    starts = sorted(line for line in marks if line < stop)
    glue = "\n\n"
    for start, end in zip(starts, [*starts[1:], stop], strict=True):
        span = _span(lines[start:end], marks[start], glue)
        if span.kind != "code" and _has_cut_link(lines[start:end], span.text):
            broken.append(start + 1)
        if span.text.strip():
            yield span
            glue = "\n" if lines[end - 1].strip() else "\n\n"


def _span(lines: Sequence[str], mark: str, glue: str) -> TextSpan:
    text = "\n".join(lines)
    if mark == "fence":
        return TextSpan(_closed_fence(text.rstrip()), "code", glue)
    if mark == "code_block":
        return TextSpan(text.rstrip(), "code", glue)
    if mark == "html_block":
        return TextSpan(clean_html(text), "text", glue)
    if mark == "table":  # a line break inside a cell must not end its row
        return TextSpan("\n".join(clean_text(line).replace("\n", " ") for line in lines).strip("\n"), "table", glue)
    return TextSpan(clean_text(text), "text", glue)


def _has_cut_link(lines: Sequence[str], cleaned: str) -> bool:
    """Whether an unterminated link was removed."""
    return len(LINK_CUT_OFF.findall("\n".join(lines))) > len(LINK_CUT_OFF.findall(cleaned))


def _closed_fence(text: str) -> str:
    """Close a fence that runs to the end of the document."""
    first, *rest = text.split("\n")
    marks = re.search(r"`{3,}|~{3,}", first)
    last = FENCE.match(rest[-1].lstrip("> \t")) if rest else None
    if marks is None or (last and last["marks"].startswith(marks[0]) and not last["info"].strip()):
        return text
    return f"{text}\n{re.sub(r'[^>]', ' ', first[: marks.start()])}{marks[0]}"
