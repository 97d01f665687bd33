"""Markdown that a formatter or a merge broke: mended where it can be, left out and counted where it cannot."""

import importlib.util
from pathlib import Path

import pytest

from sage_studio.data.chunking import MAX_BYTES, chunk_document, utf8_size
from sage_studio.data.documents.markdown import clean_text, mend_fences, parse_markdown
from sage_studio.data.documents.questions import BROKEN, questions_from
from sage_studio.data.sources.sage_docs import SAGEDocsProcessor
from sage_studio.settings import PROJECT, load_settings

SAID = "This is said in so many words that it is worth a row of its own."
OTHER = "A window gathers what a stream brings within a span of time, and hands it on as one batch."
INSIDE_OUT = f"""# Guide

bootstrap_servers self.topic = topic

````

### Sinks

{SAID}

```python
class Sink: ...
````

## After

{SAID} And more.
"""
HALF_CLOSED = f"""# Guide

````python
names = registry.names()
# a comment
print(names

---

## Example

```python
factory = registry.create()
````

## After

{SAID}
"""
CUT_SHORT = f"""# SAGE

> A framework.

\\[![CI](https://github.com/x/y/actions/workflows/ci.yml/badge.svg?branch=main)\\](ht#
{SAID}

````m/intellistream/SAGE/actions/workflows/ci.yml)
[![License](https://img.shields.io/badge/License-MIT-blue.svg)](https://github.com/x/y/blob/main/LICENSE)

**SAGE** is a framework.

## Start

```python
run()
````

{SAID}
"""


@pytest.fixture(scope="module")
def judge():
    """The benchmark's own measure, which shares no code with the converter."""
    spec = importlib.util.spec_from_file_location("docs_quality", PROJECT / "benchmarks" / "docs_quality.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows_of(text: str) -> list[str]:
    return [part.text for part in chunk_document(parse_markdown(text, "a.md"))]


def headings_of(section) -> list[str]:
    return [section.heading, *(each for child in section.children for each in headings_of(child))]


def test_a_fence_around_text_is_taken_off_and_the_code_in_it_stays_code():
    document = parse_markdown(INSIDE_OUT, "a.md")
    assert headings_of(document) == ["Guide", "Sinks", "After"]
    assert "```python\nclass Sink: ...\n```" in document.children[0].spans[-1].text
    assert not any("````" in row for row in rows_of(INSIDE_OUT))
    assert document.broken == (5,)


def test_code_that_was_never_closed_ends_before_the_next_heading():
    document = parse_markdown(HALF_CLOSED, "a.md")
    assert headings_of(document) == ["Guide", "Example", "After"]
    assert document.spans[0].text.rstrip("`").endswith("print(names\n")
    assert document.children[0].spans[0].text == "```python\nfactory = registry.create()\n```"
    assert len(document.broken) == 1


def test_a_link_a_badge_and_a_fence_cut_short_leave_the_words_only():
    rows = rows_of(CUT_SHORT)
    assert rows[0].startswith(f"> A framework.\n\n{SAID}\n\n**SAGE** is a framework.")
    assert not any(left in row for row in rows for left in ("](", "\\[", "ci.yml", "License", "````"))
    assert parse_markdown(CUT_SHORT, "a.md").broken == (5, 8)


@pytest.mark.parametrize("marks", ["```", "````"])
def test_a_document_that_stands_in_a_fence_as_a_whole_is_the_document(marks):
    inner = "" if marks == "```" else "\n```bash\nrun\n```\n"
    wrapped = f"{marks}markdown\n# Title\n\n{SAID}\n{inner}\n## Next\n\n{SAID} Again.\n{marks}\n"
    document = parse_markdown(wrapped, "a.md")
    assert headings_of(document) == ["Title", "Next"]
    assert document.broken == (1,)


@pytest.mark.parametrize(
    "kept",
    [
        "# T\n\n````markdown\n```python\nx\n```\n````\n",  # shows how to write a fence
        "# T\n\n```markdown\n# How\n```\n\nwords\n",
        "```markdown\nno heading\n```\n",
        "# T\n\n~~~\n```\n~~~\n",
        "# T\n\n````text\n```\n# x\n```\nmore\n````\n",
    ],
)
def test_fences_that_are_right_are_left_alone(kept):
    assert mend_fences(kept) == (kept, [])


def test_a_fence_in_a_fence_and_an_empty_one_are_too_many():
    assert mend_fences("````\n```python\nx\n```\n````\n") == ("\n```python\nx\n```\n\n", [1])
    assert mend_fences("a\n\n```\n```") == ("a\n\n\n", [3])
    assert mend_fences("a\n\n```\n\n```\n") == ("a\n\n\n\n\n", [3])


@pytest.mark.parametrize(
    ("broken", "left"),
    [
        (r"\[CI\](ht#", "CI"),
        ("see [the guide](https://exa", "see the guide"),
        ("the guide](https://a.b/c) says", "the guide says"),
        ("[![PyPI](https://badge.fury.io/py/x.svg)](https://badge.fury.io/py/x)", ""),
        ("**Warp A* accelerator*\\* (`a.cuh`)", "**Warp A* accelerator** (`a.cuh`)"),
        ("one\n\n  ______________________________________\n\ntwo", "one\n\ntwo"),
        ("call items[0](x", "call items[0](x"),
        ("`[x](ht`", "`[x](ht`"),
    ],
)
def test_what_is_left_of_a_link_is_no_text(broken, left):
    assert clean_text(broken) == left


def test_half_a_table_is_left_out_and_counted_with_its_line():
    half = "| A | B | |---|---| | **x** | y | |\n**z** | w | | v | u |"
    text = f"# T\n\n{SAID}\n\n## Compared\n\n{half}\n\n## Good\n\n| A | B |\n|---|---|\n| x | {OTHER} |\n"
    found = questions_from([("a.md", parse_markdown(text, "a.md"))], None)
    assert not any("|---|" in row.completion.split("\n")[0] for row in found.examples)
    assert [(each.reason, each.count, each.rows) for each in found.dropped] == [(BROKEN, 1, ("a.md:7",))]


def test_code_behind_an_escaped_fence_is_left_out_and_counted():
    text = f'# T\n\n=== "Python" \\`\\`\\`python title="A" from\nx import y\n\n{SAID}\n\nStrip \\`\\`\\` marks.\n'
    document = parse_markdown(text, "a.md")
    assert [piece.text for piece in document.spans] == [SAID, "Strip \\`\\`\\` marks."]
    assert document.broken == (3,)


def test_a_line_break_in_a_cell_does_not_end_its_row():
    (row,) = rows_of(f"# T\n\n| A | B |\n|---|---|\n| one<br>two | {SAID} |\n")
    assert f"| one two | {SAID} |" in row


def test_a_long_table_keeps_its_head_in_every_part():
    wide = f"| {'A':60} | {'B':60} |\n| {'-' * 400} | {'-' * 400} |\n"
    body = "".join(f"| {f'name {n}':60} | {SAID:60} |\n" for n in range(60))
    rows = rows_of(f"# T\n\n{wide}{body}")
    assert len(rows) > 1
    assert all(row.startswith("| A | B |\n| --- | --- |\n") for row in rows)
    assert all(utf8_size(row) <= MAX_BYTES for row in rows)


def test_a_part_neither_begins_inside_a_list_nor_ends_with_what_announces_the_next():
    item = "1. **Topic**\n\n" + "".join(f"   - {SAID} Number {n}.\n" for n in range(30))
    rows = rows_of(f"# T\n\n{item}")
    assert len(rows) > 1
    assert all(row.startswith(("1. **Topic**", f"- {SAID}")) for row in rows)
    prose, code = " ".join([SAID] * 16), "```bash\n" + "run --now\n" * 110 + "```"
    assert rows_of(f"# T\n\n{prose}\n\nThen run it:\n\n{code}\n") == [prose, f"Then run it:\n\n{code}"]


@pytest.mark.parametrize(
    "cut",
    [
        "](https://x) is it",
        "````m/x/ci.yml)\ntext\n````",
        "   - in a list",
        "| A | B |\n| x | y |",
        "```\n```",
        "text **bold",
        "**Python** \\`\\`\\`python from\nx import y",
        "text [link](ht",
        "```python\nx",
        "[![CI](https://x/badge.svg)](https://x)\n[![L](https://img.shields.io/x)](y)",
        "text\n\n```\n```",
    ],
)
def test_the_benchmarks_measure_sees_each_kind(judge, cut):
    assert judge.is_cut(cut)


def test_no_row_of_the_real_documentation_begins_or_ends_in_the_middle_of_markup(judge, settings, docs_repository):
    docs = SAGEDocsProcessor(load_settings(home=settings.home, docs_repo=docs_repository))
    rows = docs.convert_markdown_to_qa()
    assert [row["output"] for row in rows if judge.is_cut(row["output"])] == []
    if Path(docs_repository).suffix == ".bundle":
        assert next(each.count for each in docs.dropped if each.reason == BROKEN) > 20
