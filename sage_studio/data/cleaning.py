"""Markdown made readable as an answer: links, images, HTML and the site generator's own marks become plain text.

Knows the inline syntax of Markdown and of mkdocs-material. Knows nothing of headings or sections; blocks of code never
reach it, and spans of code within a sentence are kept.
"""

import html
import re

HTML_TAGS = (
    "a|abbr|address|article|aside|audio|b|big|blockquote|body|br|button|center|cite|col|colgroup|dd|del|details|dfn|div|dl|dt|"
    "em|figcaption|figure|font|footer|form|h[1-6]|head|header|hr|html|i|iframe|img|input|ins|kbd|label|li|link|main|mark|meta|nav|"
    "ol|option|p|picture|pre|s|samp|section|select|small|source|span|strike|strong|sub|summary|sup|svg|path|rect|circle|line|"
    "table|tbody|td|tfoot|th|thead|tr|u|ul|video|wbr"
)
TARGET = r"\(\s*(?:<[^>\n]*>|(?:[^()\s]|\([^()\s]*\))*)(?:\s+(?:\"[^\"]*\"|'[^']*'))?\s*\)"
MARKUP = re.compile(
    rf"""
    (?=[`<!\[:{{]|^[ \t]*[:-])(?:
      (?P<code>(?P<ticks>`+)(?!`).+?(?<!`)(?P=ticks)(?!`))
    | (?P<comment><!--.*?-->)
    | (?P<image>!\[(?P<alt>[^\]]*)\](?:{TARGET}|\[[^\]\n]*\]))
    | (?P<link>(?<!\\)\[(?P<words>(?:\\.|[^\[\]\\]|\[[^\[\]]*\])*)\](?:{TARGET}|\[[^\]\n]*\]))
    | <(?P<auto>(?:https?|mailto|ftp):[^>\s]+)>
    | (?P<break><br\s*/?>)
    | (?P<tag></?(?:{HTML_TAGS})(?=[\s/>])(?:[^<>"']|"[^"]*"|'[^']*')*>)
    | (?P<icon>:(?:material|octicons|fontawesome|simple|twemoji)-[\w-]+:)
    | (?P<attributes>\{{:?\s*[.\#][^{{}}\n]*\}}|\{{:[^{{}}\n]*\}})
    | (?P<snippet>^[ \t]*-{{1,3}}8<-{{1,3}}[^\n]*$)
    | (?P<directive>^[ \t]*:::[ \t]+[\w.]+[^\n]*(?:\n[ \t]+[^\n]+)*)
    )""",
    re.VERBOSE | re.DOTALL | re.MULTILINE | re.IGNORECASE,
)
MARKS = re.compile(r"[`<\[{]|:[a-z:]", re.IGNORECASE)
INVISIBLE = re.compile(r"<(script|style|template|noscript)\b.*?(?:</\1\s*>|\Z)", re.DOTALL | re.IGNORECASE)
TRAILING = re.compile(r"[ \t]+$", re.MULTILINE)
EMPTY_ITEM = re.compile(r"^[ \t]*(?:[-*+]|\d+[.)])[ \t]*(?:\n|\Z)", re.MULTILINE)
BLANK_LINES = re.compile(r"\n{3,}")
EMPHASIS = re.compile(r"(\*\*|__|\*|~~)(?=\S)(.+?)(?<=\S)\1")
EDGES = re.compile(r"""^[^\w(\[<"'《“「【（`.]+|[^\w)\]>"'》”」】）`%+\#?？!！.]+$""")

ADMONITION = re.compile(
    r"""(?P<indent>[ \t]*)(?:!!!|\?\?\?\+?|===!?\+?)[ \t]+
    (?P<kind>[\w-]+(?:[ \t]+inline(?:[ \t]+end)?)?)?[ \t]*(?:"(?P<title>[^"\n]*)")?(?P<rest>.*)$""",
    re.VERBOSE,
)
FENCE = re.compile(r"^[ \t]*(?P<marks>`{3,}|~{3,})(?P<info>[^`\n]*)$")
ADMONITION_START = re.compile(r"^[ \t]*(?:!!!|\?\?\?|===!?\+?[ \t]+\")", re.MULTILINE)


def clean_text(text: str) -> str:
    """Clean lines of Markdown that hold no code block.

    Example:
        >>> clean_text("See [the guide](guide.md){ .md-button } and `a[0](x)` <br>")
        'See the guide and `a[0](x)`'
    """
    if MARKS.search(text):
        text = EMPTY_ITEM.sub("", MARKUP.sub(_plain, text))
    text = text.expandtabs(4) if "\t" in text else text
    text = TRAILING.sub("", text) if " \n" in text or text.endswith(" ") else text
    return (BLANK_LINES.sub("\n\n", text) if "\n\n\n" in text else text).strip("\n")


def clean_html(text: str) -> str:
    """The words of an HTML block; scripts, styles and comments are no words."""
    lines = (line.strip() for line in clean_text(INVISIBLE.sub("", text)).split("\n"))
    return html.unescape("\n".join(line for line in lines if line))


def clean_heading(text: str) -> str:
    """A heading as a title: no emphasis, no code marks, no icon in front.

    Example:
        >>> clean_heading("🚀 **Quick** `start` {#quick}")
        'Quick start'
    """
    plain = EMPHASIS.sub(r"\2", clean_text(text))
    plain = html.unescape(plain.replace("`", "").replace("\\", ""))
    words = " ".join(plain.split())
    return EDGES.sub("", words).strip() or words


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


def _plain(found: re.Match[str]) -> str:
    if found["code"] is not None:
        return found["code"]
    if found["image"] is not None:
        return found["alt"].strip()
    if found["link"] is not None:
        return clean_text(found["words"]).strip()
    if found["auto"] is not None:
        return found["auto"]
    return "\n" if found["break"] is not None else ""


def _bold_title(opened: re.Match[str]) -> str:
    title = opened["title"] if opened["title"] is not None else (opened["kind"] or "").split(" ")[0].capitalize()
    rest = opened["rest"].strip()
    return f"{opened['indent']}{f'**{title}**' if title else ''}{' ' if title and rest else ''}{rest}"
