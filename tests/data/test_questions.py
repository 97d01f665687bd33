"""Rows of the documentation: each question and answer once, in the right language and of the right size."""

import random

from sage_studio.data.chunking import MAX_BYTES, chunk_document, utf8_size
from sage_studio.data.documents import questions
from sage_studio.data.documents.markdown import parse_markdown

LONG = "This sentence has enough letters to be worth a row of its own in the dataset. "
OTHER = "Another paragraph altogether, which tells of windows, sinks and sources in words used nowhere else here. "
CHINESE = "这一节介绍如何安装和配置框架，内容足够长，可以单独成为一行训练数据，不需要合并。"


def questions_from(documents, commit):
    return questions.questions_from([(file, parse_markdown(text, file)) for file, text in documents], commit)


def asked(*documents):
    return [example.prompt[0].content for example in questions_from(documents, "c0ffee").examples]


def answers(*documents):
    return [example.completion for example in questions_from(documents, "c0ffee").examples]


def test_the_question_names_the_path_in_the_language_of_the_section():
    assert asked(("a.md", f"# SAGE\n\n{LONG}\n\n## 安装\n\n{CHINESE}\n\n## Use\n\n{OTHER}")) == [
        "Explain SAGE in the SAGE framework.",
        "请介绍 SAGE 框架中关于 SAGE › 安装 的内容",
        "Explain SAGE › Use in the SAGE framework.",
    ]


def test_code_does_not_decide_the_language():
    code = "```python\n" + "value = compute_something(other_value)\n" * 20 + "```"
    assert asked(("a.md", f"# 运行\n\n运行下面的程序，就可以看到结果。\n\n{code}"))[0].startswith("请介绍")
    assert asked(("a.md", f"# 运行示例程序的完整步骤说明\n\n{code}"))[0].startswith("请介绍")
    assert asked(("a.md", f"# Run\n\n{code}"))[0].startswith("Explain")


def test_every_row_has_file_heading_line_and_commit():
    (example,) = questions_from([("docs/a.md", f"# A\n\n## B\n\n{LONG}")], "c0ffee").examples
    origin = example.origin
    assert (origin.file, origin.heading, origin.row, origin.commit) == ("docs/a.md", ("A", "B"), 3, "c0ffee")


def test_equal_paths_are_told_apart_by_file_and_then_by_line():
    first, second = f"# A\n\n{LONG}", f"# A\n\n{OTHER}"
    assert asked(("x.md", first), ("y.md", second)) == [
        "Explain A in the SAGE framework (x.md).",
        "Explain A in the SAGE framework (y.md).",
    ]
    twice = f"# A\n\n## B\n\n{LONG}\n\n## B\n\n{OTHER}"
    assert asked(("z.md", twice)) == [
        "Explain A › B in the SAGE framework (z.md:3).",
        "Explain A › B in the SAGE framework (z.md:7).",
    ]


def test_nearly_the_same_answer_is_kept_once_and_counted():
    words = " ".join(f"word{number}" for number in range(60))
    changed = words.replace("word59", "other")
    found = questions_from(
        [("x.md", f"# A\n\n{words}"), ("y.md", f"# B\n\n{changed}"), ("z.md", f"# C\n\n{OTHER}")], None
    )
    assert [example.origin.file for example in found.examples] == ["x.md", "z.md"]
    assert [(each.count, each.rows) for each in found.dropped] == [(1, ("y.md:1 B",))]
    assert "nearly" in found.dropped[0].reason.en


def test_the_same_answer_is_kept_once_and_counted():
    found = questions_from([("x.md", f"# A\n\n{LONG}"), ("y.md", f"# B\n\n{LONG.strip()}  ")], None)
    assert [example.origin.file for example in found.examples] == ["x.md"]
    assert [(each.count, each.rows) for each in found.dropped] == [(1, ("y.md:1 B",))]


def test_short_sections_join_their_parent_and_short_introductions_the_next():
    assert answers(("a.md", f"# A\n\n{LONG}\n\n## B\n\nShort.\n\n## C\n\n{OTHER}")) == [
        f"{LONG.strip()}\n\n## B\n\nShort.",
        OTHER.strip(),
    ]
    assert answers(("a.md", f"# A\n\nIntro.\n\n## B\n\n{LONG}")) == [f"Intro.\n\n{LONG.strip()}"]


def test_documents_with_too_little_are_left_out_and_counted():
    found = questions_from([("a.md", "# A\n\nTiny."), ("b.md", "# B\n"), ("c.md", "")], None)
    assert not found.examples
    assert {each.reason.en: each.count for each in found.dropped} == {
        "too short, and no section beside it to join": 1,
        "document without text": 2,
    }


def test_a_long_section_is_split_at_paragraphs_and_its_parts_are_numbered():
    paragraphs = [f"{n} {LONG * 5}".strip() for n in range(20)]
    rows = questions_from([("a.md", "# A\n\n" + "\n\n".join(paragraphs))], None).examples
    assert [row.prompt[0].content for row in rows] == [
        f"Explain A in the SAGE framework (part {n} of {len(rows)})." for n in range(1, len(rows) + 1)
    ]
    assert "\n\n".join(row.completion for row in rows).split("\n\n") == paragraphs
    assert all(len(row.completion.encode()) <= MAX_BYTES for row in rows)
    lengths = [len(row.completion) for row in rows]
    assert max(lengths) < 2 * min(lengths)


def test_a_long_fence_is_split_at_line_ends_and_opened_again():
    lines = [f"line_{n} = {n}" for n in range(1000)]
    parts = answers(("a.md", "# A\n\n```python\n" + "\n".join(lines) + "\n```"))
    assert len(parts) > 3
    assert all(part.startswith("```python\n") and part.endswith("\n```") for part in parts)
    assert [line for part in parts for line in part.split("\n")[1:-1]] == lines


def test_a_long_table_repeats_its_head():
    rows = [f"| {n} | {LONG}|" for n in range(100)]
    parts = answers(("a.md", "# A\n\n| n | text |\n|---|---|\n" + "\n".join(rows)))
    assert len(parts) > 2
    assert all(part.startswith("| n | text |\n|---|---|\n| ") for part in parts)


def test_a_fence_inside_a_list_is_never_cut_by_a_split():
    item = "- item\n\n  ```sh\n" + "  # comment\n  run it\n" * 20 + "  ```\n\n"
    parts = answers(("a.md", "# A\n\n" + "".join(item.replace("run it", f"run {n}") for n in range(20))))
    assert len(parts) > 2
    assert all(part.count("```") % 2 == 0 for part in parts)


def test_no_part_is_too_long_whatever_the_document():
    chance = random.Random(7)
    blocks = [
        lambda: "word " * chance.randint(1, 1500),
        lambda: "词" * chance.randint(1, 9000),
        lambda: "```\n" + "\n".join("x" * chance.randint(0, 5000) for _ in range(9)) + "\n```",
        lambda: "\n".join(f"- {'item ' * chance.randint(1, 900)}" for _ in range(5)),
        lambda: "| a | b |\n|---|---|\n" + "\n".join(f"| {'c' * chance.randint(1, 4000)} | d |" for _ in range(5)),
        lambda: f"{'#' * chance.randint(1, 6)} {'Heading ' * chance.randint(1, 5)}{chance.random()}",
        lambda: "> " + "quoted. " * chance.randint(1, 900),
    ]
    for _ in range(60):
        text = "\n\n".join(chance.choice(blocks)() for _ in range(12))
        parts = list(chunk_document(parse_markdown(text, "a.md")))
        assert all(0 < utf8_size(part.text) <= MAX_BYTES for part in parts)
        kept = sum(part.text.count("词") for part in parts)
        assert kept == text.count("词")
