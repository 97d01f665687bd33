"""Cleans Markdown and parses it into sections by markdown-it-py's block tokens.

A ``#`` inside a code fence is no heading. `without_markup` turns links, images, HTML and mkdocs-material's own marks
into plain text.
`mend_fences` corrects unbalanced code fences before the document is parsed, and `clean_text` drops the remains of cut
links. Code blocks never reach `clean_text`; code spans are kept.
"""

import gc
import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

from sage_studio.data.documents.markup import without_markup
from sage_studio.data.documents.sections import Section, TextSpan, file_title, nest

if TYPE_CHECKING:
    from markdown_it import MarkdownIt
    from markdown_it.token import Token

import html

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


# Cleaning

MARKS = re.compile(r"[`<\[\]{]|:[a-z:]", re.IGNORECASE)
LINK_CUT_OFF = re.compile(r"\]\([^()\s]*$", re.MULTILINE)
ESCAPED_BOLD_END = re.compile(r"(?<=\w)\*\\\*(?=\s|$)")
FOLDED_CODE = re.compile(r"[ \t]*(?:\*\*[^*\n]+\*\*[ \t]+)?(?:\\`){3}\w")
LONG_RULE = re.compile(r"^[ \t]*_{10,}$", re.MULTILINE)
INVISIBLE = re.compile(r"<(script|style|template|noscript)\b.*?(?:</\1\s*>|\Z)", re.DOTALL | re.IGNORECASE)
EMPTY_ITEM = re.compile(r"^[ \t]*(?:[-*+]|\d+[.)])[ \t]*(?:\n|\Z)", re.MULTILINE)
BLANK_LINES = re.compile(r"\n{3,}")
EMPHASIS = {mark: re.compile(rf"(?<=\S)(?={re.escape(mark)})") for mark in ("**", "__", "*", "~~")}
"""Where each mark may close."""
EMPHASIS_MARK = re.compile(r"[*_~]")
BEFORE_TITLE, AFTER_TITLE = "([<\"'《“「【（`.", ")]>\"'》”」】）`%+#?？!！."
"""Marks that may begin or end a heading."""

ADMONITION = re.compile(
    r"""(?P<indent>[ \t]*)(?:!!!|\?\?\?\+?|===!?\+?)[ \t]+
    (?P<kind>[\w-]+(?:[ \t]+inline(?:[ \t]+end)?)?)?[ \t]*(?:"(?P<title>[^"\n]*)")?(?P<rest>.*)$""",
    re.VERBOSE,
)
FENCE = re.compile(r"^[ \t]*(?P<marks>`{3,}+|~{3,}+)(?P<info>[^`\n]*+)$")
NESTED = re.compile(r"^[ \t>]*(?:(?:[-*+]|\d+[.)])[ \t]+)*(?P<marks>`{3,}+|~{3,}+)(?P<info>[^`\n]*+)$")
"""A fence inside a list or a quote."""
LANGUAGE = re.compile(r"[\w+#.-]+")
MARKDOWN = ("markdown", "md")
NO_CODE = re.compile(r"-{3,}[ \t]*$|#{2,6}[ \t]")
"""Ends an unclosed code fence: a rule or a heading (``# `` may be a comment)."""
HEADING = re.compile(r"^#{1,6}[ \t]", re.MULTILINE)
ADMONITION_START = re.compile(r"^[ \t]*(?:!!!|\?\?\?|===!?\+?[ \t]+\")", re.MULTILINE)


def clean_text(text: str) -> str:
    """Clean lines of Markdown that hold no code block.

    Example:
        >>> clean_text("See [the guide](guide.md){ .md-button } and `a[0](x)` <br>")
        'See the guide and `a[0](x)`'
    """
    if MARKS.search(text):
        text = EMPTY_ITEM.sub("", without_markup(text, clean_text))
    text = ESCAPED_BOLD_END.sub("**", text) if "*\\*" in text else text
    text = LONG_RULE.sub("", text) if "__________" in text else text
    text = text.expandtabs(4) if "\t" in text else text
    text = "\n".join(line.rstrip(" ") for line in text.split("\n")) if " \n" in text or text.endswith(" ") else text
    return (BLANK_LINES.sub("\n\n", text) if "\n\n\n" in text else text).strip("\n")


def clean_html(text: str) -> str:
    """The text of an HTML block, without scripts, styles and comments."""
    lines = (line.strip() for line in clean_text(INVISIBLE.sub("", text)).split("\n"))
    return html.unescape("\n".join(line for line in lines if line))


def clean_heading(text: str) -> str:
    """A heading as a title: no emphasis, no code marks, no icon in front.

    Example:
        >>> clean_heading("🚀 **Quick** `start` {#quick}")
        'Quick start'
    """
    plain = _without_emphasis(clean_text(text))
    plain = html.unescape(plain.replace("`", "").replace("\\", ""))
    words = " ".join(plain.split())
    return _without_edges(words).strip() or words


def _without_emphasis(text: str) -> str:
    """Leave out the marks around ``*words*``; those inside the words stay."""
    if not EMPHASIS_MARK.search(text):
        return text
    closings = {mark: [found.start() for found in pattern.finditer(text)] for mark, pattern in EMPHASIS.items()}
    line_ends = [*(found.start() for found in re.finditer("\n", text)), len(text)]
    kept, at = list[str](), 0
    begin = EMPHASIS_MARK.search(text)
    while begin is not None:
        end = begin.end()
        for mark, places in closings.items():
            first = begin.start() + len(mark)
            closing = bisect_left(places, first + 1)
            if closing == len(places) or not text.startswith(mark, begin.start()) or text[first].isspace():
                continue
            if places[closing] < line_ends[bisect_left(line_ends, first)]:
                kept += (text[at : begin.start()], text[first : places[closing]])
                at = end = places[closing] + len(mark)
                break
        begin = EMPHASIS_MARK.search(text, end)
    return "".join((*kept, text[at:]))


def _without_edges(title: str) -> str:
    """Leave out what is neither a word nor a mark that belongs to one, in front and behind."""
    first, last = 0, len(title)
    while first < last and not (title[first].isalnum() or title[first] == "_" or title[first] in BEFORE_TITLE):
        first += 1
    while first < last and not (title[last - 1].isalnum() or title[last - 1] == "_" or title[last - 1] in AFTER_TITLE):
        last -= 1
    return title[first:last]


def is_broken(first: str) -> bool:
    """Whether a paragraph with this first line is what is left of a table or of code.

    Rows without the line that makes a table of them, or code behind a fence that a formatter escaped: its lines were
    filled up as if they were prose.
    """
    is_table = first.lstrip().startswith("|") and first.count("|") > 2 and " | " in first
    return is_table or FOLDED_CODE.match(first) is not None


def mend_fences(text: str) -> tuple[str, list[int]]:
    """Put right the code fences that turn text into code.

    - A document that as a whole stands in a fence marked as Markdown is the document.
    - A fence around nothing but another fence is one too many.
    - A long fence whose body leaves a shorter one open was set by a formatter around text: of the two marks one is
      stray, and the other belongs to the shorter fence.
    - An empty fence is none.

    Returns:
        The text with as many lines as before, and the line, from 1, of each fence of which a mark was left out.
    """
    if "```" not in text and "~~~" not in text:
        return text, []
    lines, stray = text.split("\n"), list[int]()
    _unwrap_document(lines, stray)
    for begin, end in _fenced(lines):
        opening, body = FENCE.match(lines[begin]), range(begin + 1, end)
        assert opening is not None
        inner = [at for at in body if NESTED.match(lines[at])]
        if not any(lines[at].strip() for at in body):
            _blank(lines, stray, begin, end)
        elif opening["marks"].startswith("````") and inner and end < len(lines):
            _mend_long_fence(lines, stray, (begin, end), inner)
    return "\n".join(lines), sorted(stray)


def _unwrap_document(lines: list[str], stray: list[int]) -> None:
    filled = [at for at, line in enumerate(lines) if line.strip()]
    if len(filled) < 3:
        return
    first, last = FENCE.match(lines[filled[0]]), FENCE.match(lines[filled[-1]])
    if not first or not last or first["info"].strip().lower() not in MARKDOWN or last["marks"] != first["marks"]:
        return
    ends = [end for begin, end in _fenced(lines) if begin == filled[0]]
    is_whole = ends == [filled[-1]] or len(first["marks"]) == 3
    if is_whole and HEADING.search("\n".join(lines[filled[1] : filled[-1]])):
        _blank(lines, stray, filled[0], filled[-1])


def _mend_long_fence(lines: list[str], stray: list[int], ends: tuple[int, int], inner: list[int]) -> None:
    begin, end = ends
    opening, first = FENCE.match(lines[begin]), NESTED.match(lines[inner[0]])
    assert opening is not None
    assert first is not None
    inside = list(_fenced(lines[begin + 1 : end]))
    info = opening["info"].strip()
    if not inside or inside[-1][1] < end - begin - 1:  # no shorter fence is left open
        filled = [at for at in range(begin + 1, end) if lines[at].strip()]
        if not info and len(inside) == 1 and filled[0] == inner[0] and filled[-1] == inner[-1]:
            _blank(lines, stray, begin, end)
        return
    is_code = bool(LANGUAGE.fullmatch(info)) and info.lower() not in MARKDOWN
    if not first["info"].strip():  # it closes what the long one opens
        lines[inner[0]] = opening["marks"]
        _blank(lines, stray, end)
        return
    over = next((at for at in range(begin + 1, inner[0]) if _ends_code(lines, at)), inner[0]) if is_code else 0
    if is_code and over > begin + 1 and not lines[over - 1].strip():
        lines[over - 1] = opening["marks"]
        stray.append(over)
    else:
        _blank(lines, stray, begin)
    lines[end] = first["marks"]


def _ends_code(lines: list[str], at: int) -> bool:
    return bool(NO_CODE.match(lines[at])) and not lines[at - 1].strip()


def _fenced(lines: list[str]) -> list[tuple[int, int]]:
    """First and last line of each fence; the last one may be left open, up to the end."""
    found, begin, marks = list[tuple[int, int]](), -1, ""
    for at, line in enumerate(lines):
        fence = FENCE.match(line) if "```" in line or "~~~" in line else None
        if fence is None:
            continue
        if not marks:
            begin, marks = at, fence["marks"]
        elif fence["marks"].startswith(marks) and not fence["info"].strip():
            found.append((begin, at))
            marks = ""
    return [*found, (begin, len(lines))] if marks else found


def _blank(lines: list[str], stray: list[int], *places: int) -> None:
    """Leave out a mark, or both marks of a fence; counted once."""
    for at in places:
        if at < len(lines):
            lines[at] = ""
    stray.append(places[0] + 1)


def unwrap_admonitions(text: str) -> str:
    """Turn ``!!! note "Title"`` and its indented body into a bold title and plain Markdown; line numbers stay."""
    if not any(mark in text for mark in ("!!!", "???", "===")) or not ADMONITION_START.search(text):
        return text
    lines: list[str] = []
    open_at: list[int] = []
    fence = ""
    for line in text.split("\n"):
        indent = len(line) - len(line.lstrip(" "))
        while open_at and not fence and line.strip() and indent < open_at[-1] + 4:
            open_at.pop()
        line = line[min(indent, 4 * len(open_at)) :]
        mark = FENCE.match(line)
        if mark and (not fence or (mark["marks"].startswith(fence) and not mark["info"].strip())):
            fence = "" if fence else mark["marks"]
        opened = None if fence or mark else ADMONITION.match(line)
        if opened and ADMONITION_START.match(line):
            open_at.append(indent)
            line = _bold_title(opened)
        lines.append(line)
    return "\n".join(lines)


def _bold_title(opened: re.Match[str]) -> str:
    title = opened["title"] if opened["title"] is not None else (opened["kind"] or "").split(" ")[0].capitalize()
    rest = opened["rest"].strip()
    return f"{opened['indent']}{f'**{title}**' if title else ''}{' ' if title and rest else ''}{rest}"
