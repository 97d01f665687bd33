"""Markdown as sections: which lines are headings, and what is left of the site generator's marks."""

import re
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage_studio.data.documents import markdown, markup
from sage_studio.data.documents.markdown import clean_heading, clean_html, clean_text, parse_markdown
from sage_studio.data.documents.sections import Section, file_title, join_spans
from sage_studio.data.language import detect_language, estimate_tokens, prose_of, useful_chars

TARGET = r"\(\s*(?:<[^>\n]*>|(?:[^()\s]|\([^()\s]*\))*)(?:\s+(?:\"[^\"]*\"|'[^']*'))?\s*\)"
GRAMMAR = re.compile(
    rf"""
    (?:
      (?P<code>(?P<ticks>`+)(?!`).+?(?<!`)(?P=ticks)(?!`))
    | (?P<comment><!--.*?-->)
    | (?P<cut>(?<![\w\\])\\?\[(?P<cut_words>(?:!\[[^\[\]\n]*\]{TARGET}|[^\[\]\\\n])*)\\?\]\([^()\s]*$)
    | (?P<remains>\\?\]\((?:[a-z]+:/|\.{{0,2}}/|\#)[^()\s]*\))
    | (?P<image>!\[(?P<alt>[^\]]*)\](?P<picture>{TARGET}|\[[^\]\n]*\]))
    | (?P<link>(?<!\\)\[(?P<words>(?:\\.|[^\[\]\\]|\[[^\[\]]*\])*)\](?:{TARGET}|\[[^\]\n]*\]))
    | <(?P<auto>(?:https?|mailto|ftp):[^>\s]+)>
    | (?P<break><br\s*/?>)
    | (?P<tag></?(?:{markup.HTML_TAGS})(?=[\s/>])(?:[^<>"']|"[^"]*"|'[^']*')*>)
    | (?P<icon>:(?:material|octicons|fontawesome|simple|twemoji)-[\w-]+:)
    | (?P<attributes>\{{:?\s*[.\#][^{{}}\n]*\}}|\{{:[^{{}}\n]*\}})
    | (?P<snippet>^[ \t]*-{{1,3}}8<-{{1,3}}[^\n]*$)
    | (?P<directive>^[ \t]*:::[ \t]+[\w.]+[^\n]*(?:\n[ \t]+[^\n]+)*)
    )""",
    re.VERBOSE | re.DOTALL | re.MULTILINE | re.IGNORECASE,
)
"""All markup as one regular expression: it says what is meant, and takes the square of a text's length."""
WORDS = (
    'a 词 ` `` ![x](y) [x](y) \\[ [ ] ( ) <br> <div> <b > " <!-- --> <http://x> {.a} { } :octicons-x: : ::: --8<-- - '
    "](./x) [x](h"
)
MARKED = st.lists(st.sampled_from([*WORDS.split(" "), " ", "\t", "\n", "{: b }", "::: a.b"]), max_size=24).map("".join)


def outline(section: Section, above: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], int]]:
    path = (*above, section.heading)
    return [(path, section.line)] + [each for child in section.children for each in outline(child, path)]


def text_of(section: Section) -> str:
    return "\n\n".join([join_spans(section.spans), *map(text_of, section.children)])


def test_headings_make_a_tree_with_paths_and_lines():
    document = parse_markdown("# A\n\ntext\n\n## B\n\n### C\nx\n\n## D\n\nSetext\n------\n\n# E\n", "a.md")
    assert outline(document) == [
        (("A",), 1),
        (("A", "B"), 5),
        (("A", "B", "C"), 7),
        (("A", "D"), 10),
        (("A", "Setext"), 12),
        (("A", "E"), 15),
    ]
    assert join_spans(document.spans) == "text"


@pytest.mark.parametrize(
    "text",
    [
        "# A\n\n```bash\n# not a heading\npip install x\n```\n",
        "# A\n\n~~~~\n```\n# not a heading\n~~~\n# nor this\n~~~~\n",
        "# A\n\n- item\n\n  ```python\n  # not a heading\n  ```\n",
        "# A\n\n1. item\n   ```python\n# not a heading? it ends the list\n",
        "# A\n\n    # indented code, not a heading\n",
        "# A\n\n> # a quoted heading is no section\n",
        "# A\n\n!!! note\n    ```\n    # not a heading\n    ```\n",
        "# A\n\n<!--\n# not a heading\n-->\n\ntext\n",
        "# A\n\n```\n# not a heading, in a fence that never ends\n",
    ],
)
def test_no_heading_inside_a_fence_a_list_a_quote_or_a_comment(text):
    headings = [path[-1] for path, _ in outline(parse_markdown(text, "a.md"))]
    assert headings == ["A"] or headings == ["A", "not a heading? it ends the list"]
    assert "# not a heading" not in " ".join(headings)


def test_code_is_kept_verbatim_and_a_fence_left_open_is_closed():
    code = "```python\nx = '[a](b) <br> {.c}'  # :material-x:\n\n\n\ny = `1`\n```"
    assert text_of(parse_markdown(f"# A\n\nSee [b](c).\n\n{code}\n", "a.md")).startswith(f"See b.\n\n{code}")
    assert text_of(parse_markdown("# A\n\n````\ncode\n```\n", "a.md")).strip() == "````\ncode\n```\n````"
    nested = parse_markdown("# A\n\n- one\n\n  ```sh\n  [a](b)\n", "a.md")
    assert text_of(nested).rstrip() == "- one\n\n  ```sh\n  [a](b)\n  ```"


def test_front_matter_is_no_text_and_a_rule_is_no_front_matter():
    document = parse_markdown("---\ntitle: x\nhide:\n  - toc\n---\n# A\nb\n", "a.md")
    assert outline(document) == [(("A",), 6)]
    assert join_spans(document.spans) == "b"
    assert "kept" in text_of(parse_markdown("---\n\nThis is kept: yes\nNot yaml at all\n\n---\n", "a.md"))


def test_text_before_the_first_heading_and_files_without_heading_belong_to_the_title():
    assert outline(parse_markdown("just text", "docs/my_first-file.md")) == [(("my first file",), 1)]
    assert outline(parse_markdown("## Only\nx", "docs/tools/README.md"))[1][0] == ("tools", "Only")
    assert join_spans(parse_markdown("before\n\n# T\n\nafter", "a.md").spans) == "before\n\nafter"
    assert file_title("README.md") == "README"
    assert file_title("a/index.md") == "a"


@pytest.mark.parametrize(
    ("marked", "plain"),
    [
        ("[text](url)", "text"),
        ("[text](<a b> 'title')", "text"),
        ("[text](a_(b)_c)", "text"),
        ("[text][ref] and [text][]", "text and text"),
        ("[![badge](i.svg)](url)", "badge"),
        ("![](pic.png)after", "after"),
        ("![a picture](pic.png)", "a picture"),
        ("[`code[0]`](url)", "`code[0]`"),
        ("`[kept](in code)` and ``a ` [b](c)``", "`[kept](in code)` and ``a ` [b](c)``"),
        (r"\[kept](not a link)", r"\[kept](not a link)"),
        ("- [ ] task [1]", "- [ ] task [1]"),
        ("<https://a.b/c> and <me@x>", "https://a.b/c and <me@x>"),
        ("<b>bold</b> <your-name> a < b > c <T>", "bold <your-name> a < b > c <T>"),
        ('<a href="x>y">z</a>', "z"),
        ("one<br/>two<!-- gone -->", "one\ntwo"),
        ("<!-- a\nb -->c", "c"),
        ("[Go](x){ .md-button } :material-rocket: done", "Go  done"),
        ("## Head {#anchor}", "## Head"),
        ("a ${VAR} {x: 1} {% raw %}", "a ${VAR} {x: 1} {% raw %}"),
        ('--8<-- "file.md"\nx', "x"),
        ("::: sage.common.config\n    options:\n      members: true\n\nx", "x"),
        ("- <!-- [a](b) -->\n- c", "- c"),
        ("a :smile: 10:30:00", "a :smile: 10:30:00"),
    ],
)
def test_marks_become_text(marked, plain):
    assert clean_text(marked) == plain


@given(MARKED)
def test_the_scanner_finds_what_the_grammar_says(text):
    """The cure of H3 changes no text: it finds the same markup without searching anew from each place."""
    assert markup.without_markup(text, clean_text) == GRAMMAR.sub(plain_of, text)
    thorough = markdown.EMPTY_ITEM.sub("", GRAMMAR.sub(plain_of, text)).expandtabs(4)
    thorough = "\n".join(line.rstrip(" ") for line in thorough.split("\n"))
    if GRAMMAR.search(text):
        assert clean_text(text) == markdown.BLANK_LINES.sub("\n\n", thorough).strip("\n")


def plain_of(found: re.Match[str]) -> str:
    if found["code"] is not None:
        return found["code"]
    if found["cut"] is not None:
        return clean_text(found["cut_words"]).strip()
    if found["image"] is not None:
        return "" if markup.BADGE.search(found["picture"]) else found["alt"].strip()
    if found["link"] is not None:
        return clean_text(found["words"]).strip()
    if found["auto"] is not None:
        return found["auto"]
    return "\n" if found["break"] is not None else ""


def test_admonitions_and_tabs_become_bold_titles_with_their_text():
    text = '# A\n\n!!! note "Mind"\n    See [b](c).\n\n    ```\n    code\n    ```\n\n'
    text += '=== "Linux"\n\n    apt\n\n??? tip\n    more\n\nend'
    shown = text_of(parse_markdown(text, "a.md")).rstrip()
    assert shown == "**Mind**\nSee b.\n\n```\ncode\n```\n\n**Linux**\n\napt\n\n**Tip**\nmore\n\nend"


def test_html_blocks_leave_their_words_only():
    assert clean_html("<div class='x'>\n  <p>One &amp; two</p>\n<script>alert(1)\n\n</script></div>") == "One & two"
    assert clean_html("<!-- nothing -->") == ""


@pytest.mark.parametrize(
    ("heading", "title"),
    [
        ("🚀 **Quick** `start` {#quick}", "Quick start"),
        ("[API](x.md) ⭐ NEW", "API ⭐ NEW"),
        ("核心文档（原始笔记）", "核心文档（原始笔记）"),
        ("1.2 Install ✅", "1.2 Install"),
        ("C++ and C#", "C++ and C#"),
        ("为什么？", "为什么？"),
        ("🚀", "🚀"),
        ("snake_case_name", "snake_case_name"),
    ],
)
def test_headings_read_as_titles(heading, title):
    assert clean_heading(heading) == title


def test_marks_that_never_end_cost_no_time():
    begin = time.process_time()
    for mark in ("[", "`", "<a ", "![", "<!--", "[a](", "{:", "**", "[`a`"):
        clean_text(mark * 5_000)
        clean_heading(mark * 500)
    assert time.process_time() - begin < 20  # backtracking without bound would take years


def test_windows_line_ends_and_tabs_are_read():
    document = parse_markdown("# A\r\n\r\n## B\r\n\r\n- a\r\n\t- b\r\n", "a.md")
    assert outline(document)[1] == (("A", "B"), 3)
    assert "\r" not in text_of(document)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("The quick brown fox", "en"),
        ("快速开始", "zh"),
        ("SAGE 用 Pipeline 处理数据流", "zh"),
        ("The word 流 means stream in English", "en"),
        ("Быстрая коричневая лиса", "other"),
        ("これはひらがなのぶんしょうです", "other"),
        ("", "en"),
    ],
)
def test_the_language_is_told_by_the_script(text, language):
    assert detect_language(text) == language


def test_estimates_by_script():
    assert prose_of("a `b c` https://x.y/z\n```\ncode\n```\nd").split() == ["a", "d"]
    assert estimate_tokens("词" * 100) == 75
    assert estimate_tokens("a" * 100) == 25
    assert useful_chars("a-b 词") == 4
    assert all(a <= b for a, b in pairwise(estimate_tokens("x" * n) for n in range(50)))
