"""The format matrix: files as people have them, each read right; broken ones, each refused or repaired by its row."""

import gzip
import json
from typing import Any

import pytest
from made_files import array, docx, lines, parquet, pdf, recoded, table, zipped, zipped_link
from tools_files import LEFT_BY_TOOLS, REFUSED_OF_TOOLS

from sage_studio.data.sources.local import source_of_file
from sage_studio.errors import InvalidDataset

LIMIT = 64 << 20
ALPACA = {"instruction": "你好吗？", "input": "", "output": "我很好，谢谢。"}
PLAIN = {"instruction": "Why?", "input": "", "output": "So."}
HISTORY = {**PLAIN, "system": "Be brief.", "history": [["a", "b"], ["c", "d"]]}
ASK, SAY = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}
NO = {"role": "assistant", "content": "No."}
MESSAGES = {"messages": [{"role": "system", "content": "Be brief."}, ASK, SAY]}
SHAREGPT = {"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}]}
SHAREGPT_ROLES = {"conversations": [ASK, SAY], "system": "Be brief."}
COMPLETION = {"prompt": "Why?", "completion": "So."}
QUESTION = {"question": "为什么？", "answer": "因为下雨。"}
RETRIEVED = {"query": "Why?", "retrieval_result": "Rain.", "chosen": {"text": "So."}, "rejected": {"text": "No."}}
TRL = {"prompt": "Why?", "chosen": "So.", "rejected": "No."}
TRL_LISTS = {"prompt": [ASK], "chosen": [SAY], "rejected": [NO]}
IMPLICIT = {"chosen": [ASK, SAY], "rejected": [ASK, NO]}
ANTHROPIC = {
    "chosen": "\n\nHuman: Why?\n\nAssistant: Well.\n\nHuman: And?\n\nAssistant: So.",
    "rejected": "\n\nHuman: Why?\n\nAssistant: Well.\n\nHuman: And?\n\nAssistant: No.",
}
RANKING = {"instruction": "Why?", "input": "", "chosen": "So.", "rejected": "No."}
SHAREGPT_RANKING = {
    "conversations": [{"from": "human", "value": "Why?"}],
    "chosen": {"from": "gpt", "value": "So."},
    "rejected": {"from": "gpt", "value": "No."},
}
KTO = [{**COMPLETION, "label": True}, {**COMPLETION, "label": False}]
KTO_TAG = [{**PLAIN, "kto_tag": True}, {**SHAREGPT, "kto_tag": False}]
EMBEDDING = {"query": "Why?", "pos": ["Rain.", "Clouds."], "neg": ["Sun."]}
PAIR = {"anchor": "Why?", "positive": "Rain.", "negative": "Sun."}
RECORDS = [PLAIN, HISTORY, MESSAGES, SHAREGPT, SHAREGPT_ROLES, COMPLETION, QUESTION, RETRIEVED, TRL, TRL_LISTS]
RECORDS += [IMPLICIT, ANTHROPIC, RANKING, SHAREGPT_RANKING, *KTO, *KTO_TAG, EMBEDDING, PAIR, {"text": "Rain falls."}]
SENTENCE = "These words stand here so that the section is long enough to become a row of the dataset. "

OTHER = "A second section tells of windows, sources and sinks, in words that are used nowhere else in here at all."


MANY = [{"instruction": f"question {n}", "input": "", "output": f"answer {n} " * 20} for n in range(3000)]
QUOTED = {"instruction": 'He said "no",\nthen left; why?', "input": "", "output": "Line one\nline two, with a comma"}
SPARSE = [{"instruction": "Why?", "output": "So.", "text": None}, {"instruction": None, "output": None, "text": "x"}]

EXCEL = recoded(table(ALPACA, delimiter=";", end="\r\n"), "utf-8-sig")
COMPLETION_TURNS = {"prompt": [ASK], "completion": [SAY]}
BAD_BYTE = lines(ALPACA) * 20 + b'{"instruction": "a", "output": "\xff"}'
OUTLINED = pdf([["Start", SENTENCE], ["配置", OTHER]], [("Start", 1), ("配置", 2)])
WORD = docx(("Heading1", "A"), ("", SENTENCE), ("Heading2", "B"), ("", OTHER))
ZIP = zipped({"a.md": SENTENCE, "b.pdf": pdf([[]]), "c.png": b"x"})
GOOD: dict[str, tuple[str, bytes, str, str, int, int]] = {
    # name of the file, content, container, formats, rows, left out
    "alpaca array": ("a.json", array(PLAIN, ALPACA), "JSON", "Alpaca", 2, 0),
    "alpaca jsonl": ("a.jsonl", lines(PLAIN, ALPACA, PLAIN), "JSON", "Alpaca", 3, 0),
    "alpaca jsonl, windows ends": ("a.jsonl", lines(PLAIN, ALPACA, end="\r\n\r\n"), "JSON", "Alpaca", 2, 0),
    "alpaca printed over lines": ("a.json", array(ALPACA, ALPACA, indent=4), "JSON", "Alpaca", 2, 0),
    "alpaca objects one after another": ("a.json", json.dumps(PLAIN, indent=2).encode() * 3, "JSON", "Alpaca", 3, 0),
    "alpaca with history and system": ("a.json", array(HISTORY), "JSON", "Alpaca", 1, 0),
    "alpaca with an empty answer": ("a.json", array(PLAIN, {**PLAIN, "output": " "}), "JSON", "Alpaca", 1, 1),
    "alpaca of 3,000 rows": ("a.json", array(*MANY), "JSON", "Alpaca", 3000, 0),
    "alpaca jsonl.gz": ("a.jsonl.gz", gzip.compress(lines(*MANY)), "JSON.gz", "Alpaca", 3000, 0),
    "alpaca json.gz under another name": ("a.json", gzip.compress(array(PLAIN)), "JSON.gz", "Alpaca", 1, 0),
    "alpaca, utf-8 with mark": ("a.json", recoded(array(ALPACA), "utf-8-sig"), "JSON", "Alpaca", 1, 0),
    "alpaca, utf-16": ("a.json", recoded(array(ALPACA), "utf-16"), "JSON", "Alpaca", 1, 0),
    "jsonl, utf-16 without mark": ("a.jsonl", recoded(lines(PLAIN, ALPACA), "utf-16-le"), "JSON", "Alpaca", 2, 0),
    "alpaca, gb18030": ("a.json", recoded(array(ALPACA, ALPACA), "gb18030"), "JSON", "Alpaca", 2, 0),
    "alpaca jsonl, gbk": ("a.jsonl", recoded(lines(ALPACA, PLAIN), "gbk"), "JSON", "Alpaca", 2, 0),
    "alpaca csv": ("a.csv", table(PLAIN, QUOTED, ALPACA), "CSV", "Alpaca", 3, 0),
    "alpaca csv from excel": ("a.csv", EXCEL, "CSV", "Alpaca", 1, 0),
    "csv that names its delimiter": ("a.csv", b"sep=;\n" + table(PLAIN, QUOTED, delimiter=";"), "CSV", "Alpaca", 2, 0),
    "csv that names the tab": ("a.csv", b"sep=\t\r\n" + table(PLAIN, delimiter="\t"), "CSV", "Alpaca", 1, 0),
    "alpaca tsv": ("a.tsv", table(PLAIN, QUOTED, delimiter="\t"), "CSV", "Alpaca", 2, 0),
    "alpaca csv, gbk": ("a.csv", recoded(table(ALPACA, ALPACA), "gbk"), "CSV", "Alpaca", 2, 0),
    "alpaca csv.gz": ("a.csv.gz", gzip.compress(table(*MANY)), "CSV.gz", "Alpaca", 3000, 0),
    "alpaca csv called json": ("a.json", table(PLAIN, ALPACA), "CSV", "Alpaca", 2, 0),
    "alpaca csv called txt": ("a.txt", table(PLAIN, ALPACA), "CSV", "Alpaca", 2, 0),
    "csv with an index column": ("a.csv", b",question,answer\n0,Why?,So.\n", "CSV", "question/answer", 1, 0),
    "alpaca parquet": ("a.parquet", parquet(PLAIN, ALPACA), "Parquet", "Alpaca", 2, 0),
    "alpaca parquet of row groups": ("a.parquet", parquet(*MANY, row_group_size=500), "Parquet", "Alpaca", 3000, 0),
    "alpaca parquet.gz": ("a.parquet.gz", gzip.compress(parquet(*MANY)), "Parquet.gz", "Alpaca", 3000, 0),
    "messages parquet": ("a.parquet", parquet(MESSAGES, compression="zstd"), "Parquet", "messages", 1, 0),
    "parquet with pictures": ("a.parquet", parquet({**QUESTION, "image": b"\xff"}), "Parquet", "question/answer", 1, 0),
    "parquet called json": ("a.json", parquet(EMBEDDING), "Parquet", "query/pos/neg", 1, 0),
    "messages": ("a.jsonl", lines(MESSAGES, MESSAGES), "JSON", "messages", 2, 0),
    "messages csv, as pandas writes it": ("a.csv", table(MESSAGES, MESSAGES), "CSV", "messages", 2, 0),
    "sharegpt, from and value": ("a.json", array(SHAREGPT), "JSON", "ShareGPT", 1, 0),
    "sharegpt, role and content": ("a.json", array(SHAREGPT_ROLES), "JSON", "ShareGPT", 1, 0),
    "prompt, completion": ("a.jsonl", lines(COMPLETION), "JSON", "prompt/completion", 1, 0),
    "prompt, completion as turns": ("a.jsonl", lines(COMPLETION_TURNS), "JSON", "prompt/completion", 1, 0),
    "question, answer": ("a.json", array(QUESTION, QUESTION), "JSON", "question/answer", 2, 0),
    "formats of one kind, mixed": ("a.jsonl", lines(QUESTION, PLAIN, PLAIN), "JSON", "Alpaca, question/answer", 3, 0),
    "documented preferences": ("a.json", array(RETRIEVED), "JSON", "query/retrieval_result/chosen/rejected", 1, 0),
    "trl preferences": ("a.jsonl", lines(TRL, TRL), "JSON", "prompt/chosen/rejected", 2, 0),
    "trl preferences as turns": ("a.parquet", parquet(TRL_LISTS), "Parquet", "prompt/chosen/rejected", 1, 0),
    "trl preferences without prompt": ("a.jsonl", lines(IMPLICIT), "JSON", "chosen/rejected", 1, 0),
    "anthropic preferences": ("a.jsonl.gz", gzip.compress(lines(ANTHROPIC)), "JSON.gz", "chosen/rejected", 1, 0),
    "alpaca ranking": ("a.json", array(RANKING), "JSON", "Alpaca ranking", 1, 0),
    "sharegpt ranking": ("a.json", array(SHAREGPT_RANKING), "JSON", "ShareGPT ranking", 1, 0),
    "kto": ("a.jsonl", lines(*KTO), "JSON", "KTO", 1, 1),
    "kto csv": ("a.csv", table(*KTO), "CSV", "KTO", 1, 1),
    "kto of llama-factory": ("a.json", array(*KTO_TAG), "JSON", "KTO Alpaca, KTO ShareGPT", 1, 1),
    "embedding": ("a.jsonl", lines(EMBEDDING, {**EMBEDDING, "pos": "Rain.", "neg": []}), "JSON", "query/pos/neg", 2, 0),
    "embedding triplets": ("a.csv", table(PAIR, PAIR), "CSV", "anchor/positive", 2, 0),
    "a knowledge base": ("kb.json", array("Rain falls.", "Clouds form."), "JSON", "text", 2, 0),
    "plain text": ("a.jsonl", lines({"text": "Rain falls."}), "JSON", "text", 1, 0),
    "text parquet with empty columns": ("a.parquet", parquet({"text": "x", "meta": None}), "Parquet", "text", 1, 0),
    "one bad byte among good rows": ("a.jsonl", BAD_BYTE, "JSON", "Alpaca", 20, 1),
    "markdown": ("a.md", f"# A\n\n{SENTENCE}\n\n## B\n\n{OTHER}".encode(), "Markdown", "", 2, 0),
    "html": ("a.html", f"<html><body><h1>A</h1><p>{SENTENCE}</p></body></html>".encode(), "HTML", "", 1, 0),
    "txt": ("a.txt", f"{SENTENCE}\n\n{SENTENCE}".encode(), "TXT", "", 1, 0),
    "txt, gbk": ("a.txt", ("这是一段足够长的中文文字，可以单独成为一行训练数据。" * 3).encode("gbk"), "TXT", "", 1, 0),
    "pdf with an outline": ("a.pdf", OUTLINED, "PDF", "", 2, 0),
    "docx": ("a.docx", WORD, "DOCX", "", 2, 0),
    "a zip of documents": ("a.zip", ZIP, "Markdown, PDF", "", 1, 1),
    **LEFT_BY_TOOLS,
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_a_file_is_read_for_what_it_is(tmp_path, name):
    file, content, container, formats, rows, left_out = GOOD[name]
    path = tmp_path / file
    path.write_bytes(content)
    source = source_of_file(path, LIMIT)
    found = list(source.examples())
    assert len(found) == rows
    assert sum(dropped.count for dropped in source.dropped) == left_out
    assert source.container == container
    assert ", ".join(each.name for each in source.formats) == formats
    if formats:
        assert sum(each.rows for each in source.formats) == rows + left_out
        assert [row.origin.row for row in found][: len(found)] == sorted(row.origin.row for row in found)


def mapped(*, value: Any) -> bytes:
    return array(PLAIN, {**PLAIN, "output": value})


def cut(content: bytes, share: float = 0.7) -> bytes:
    return content[: int(len(content) * share)]


GIVEN = len(MANY)
LARGE = zipped(dict.fromkeys([f"{n}.txt" for n in range(8)], b" " * (9 << 20)))
NAMELESS = bytes.fromhex(  # found by fuzzing
    "504b0304140000000800000021008316dc8c03000000010000000b0000002e2e2f2e2e2f612e747874ab0000504b01021403"
    "140000000800000021008316dc8c03000000010800000021008316dc8c03000000010000000b0000002e2f2e2e2f612e7478"
    "74504b05060000000001000100390000002c0000000000"
)
WORD_PARTS = {"[Content_Types].xml": "x"}
BROKEN: dict[str, tuple[str, bytes, int | None, str]] = {
    # name of the file, content, row named, words of the message
    "empty": ("a.json", b"", None, "is empty"),
    "blank": ("a.json", b"\n \n", None, "is empty"),
    "a mark and nothing else": ("a.json", b"\xef\xbb\xbf", None, "is empty"),
    "empty gzip": ("a.json.gz", gzip.compress(b""), None, "is empty"),
    "no json": ("a.json", b"hello there", 1, "begins with"),
    "python instead of json": ("a.json", b"[{'instruction': 'a'}]", 1, "broken JSON in line 1"),
    "a comma missing between rows": ("a.json", array(PLAIN)[:-1] + b" {}]", 1, "',' or ']' expected"),
    "a comma too many": ("a.json", array(PLAIN)[:-1] + b",]", 1, "comma after the last row"),
    "an array cut off": ("a.json", cut(array(*MANY)), 2124, "ends within the row"),
    "an array not closed": ("a.json", array(PLAIN)[:-1], 2, "before the closing ]"),
    "text after the array": ("a.json", array(PLAIN) + b"]", 1, "more text after"),
    "jsonl cut off": ("a.jsonl", cut(lines(*MANY)), 2124, "broken JSON"),
    "a broken line": ("a.jsonl", lines(PLAIN) + b'{"instruction": "a" "output": "b"}\n', 2, "line 2 of the file"),
    "a line of two objects": ("a.jsonl", lines(PLAIN) + b'{"a": 1}{"b": 2}\n', 2, "Extra data"),
    "a line with two commas": ("a.jsonl", lines(PLAIN) + lines(PLAIN, end=",,\n"), 2, "Extra data"),
    "a tab within a string": ("a.jsonl", lines(PLAIN) + b'{"question": "a\tb", "answer": "c"}', 2, "control char"),
    "nested without end": ("a.json", b'[{"instruction": ' + b"[" * 100_000, 1, "nested too deeply"),
    "a number too long": ("a.jsonl", lines(PLAIN) + b'{"instruction": ' + b"9" * 5000 + b', "output": "a"}', 2, ""),
    "a row that is a number": ("a.json", array(PLAIN, 5), 2, "a number, not an object"),
    "a row that is a list": ("a.json", array(PLAIN, [1]), 2, "a list, not an object"),
    "a row that is null": ("a.json", array(PLAIN, None), 2, "null, not an object"),
    "text among objects": ("a.json", array(PLAIN, "text"), 2, "for different training methods"),
    "unknown keys": ("a.json", array(PLAIN, {"foo": 1, "bar": 2}), 2, "(bar, foo)"),
    "unknown columns": ("a.csv", b"foo,bar\n1,2\n", 1, "(bar, foo)"),
    "unknown parquet columns": ("a.parquet", parquet({"foo": "x"}), 1, "(foo)"),
    "half of a format": ("a.json", array({"instruction": "a"}), 1, "(instruction)"),
    "kinds mixed": ("a.jsonl", lines(PLAIN, TRL), 2, "for different training methods"),
    "a number as answer": ("a.json", mapped(value=42), 2, "must be text, not a number: 42"),
    "a list as answer": ("a.json", mapped(value=["x"]), 2, "must be text"),
    "an object as answer": ("a.json", mapped(value={"x": 1}), 2, "must be text"),
    "history that is text": ("a.json", array({**PLAIN, "history": "x"}), 1, "history must be a list"),
    "history of triples": ("a.json", array({**PLAIN, "history": [["a", "b", "c"]]}), 1, "pairs"),
    "messages that are text": ("a.json", array({"messages": "x"}), 1, "must be a list of turns"),
    "messages csv, not json": ("a.csv", b'id,messages\n1,"[{role: user}]"\n', 1, "must be a list of turns"),
    "an unknown role": ("a.json", array({"messages": [{"role": "judge", "content": "x"}]}), 1, "judge"),
    "a tool's turn": ("a.json", array({"messages": [ASK, {"role": "tool", "content": "x"}]}), None, "(a tool call"),
    "a tool call": ("a.json", array({"messages": [ASK, {**SAY, "tool_calls": [{}]}]}), None, "(a tool call"),
    "a picture": ("a.json", array({"messages": [{**ASK, "content": [{"type": "image_url"}]}]}), None, "(an image"),
    "a label that is a word": ("a.json", array({**COMPLETION, "label": "good"}), 1, "label must be true or false"),
    "chosen without text": ("a.json", array({**RETRIEVED, "chosen": {"score": 1}}), 1, "chosen has no text"),
    "two answers to two questions": ("a.json", array({"chosen": [ASK, SAY], "rejected": [NO]}), 1, "same conversation"),
    "preferences without a prompt": ("a.json", array({"chosen": "So.", "rejected": "No."}), 1, "without a prompt"),
    "numbers as passages": ("a.json", array({"query": "Why?", "pos": [1]}), 1, "pos must be text"),
    "a csv row too long": ("a.csv", b"question,answer\nWhy?,So.\nWhy?,So.,And\n", 2, "3 cells, the header 2"),
    "a csv row too short": ("a.csv", table(QUESTION) * 1 + b"Why?\n", 2, "1 cells, the header 2"),
    "a csv quote not closed": ("a.csv", table(*MANY) + b'"Why?,,So.\n', GIVEN + 1, "never closes"),
    "a csv column twice": ("a.csv", b"question,answer,answer\na,b,c\n", None, "names 'answer' twice"),
    "a csv that names two delimiters": ("a.csv", b"sep=,;\nquestion,answer\nWhy?,So.\n", 1, "(;, sep=)"),
    "a csv header alone": ("a.csv", b"question,answer\n", None, "0 usable rows of 0"),
    "parquet cut off": ("a.parquet", cut(parquet(*MANY)), None, "Parquet data cannot be read"),
    "parquet with a bad page": ("a.parquet", parquet(*MANY)[:200] + b"\xff" * 99 + parquet(*MANY)[299:], 1, ""),
    "gzip cut off": ("a.jsonl.gz", cut(gzip.compress(lines(*MANY))), 2085, "truncated"),
    "gzip of rubbish": ("a.json.gz", b"\x1f\x8b\x08\x00rubbish", None, "corrupt"),
    "gzip in gzip": ("a.json.gz", gzip.compress(gzip.compress(array(PLAIN))), None, "doubly gzipped"),
    "a gzip bomb": ("a.json.gz", gzip.compress(b"[" + b" " * (60 << 20)), None, "unpacks to more"),
    "pickle": ("a.json", b"\x80\x04\x95\x00", None, "a pickle file"),
    "a picture file": ("a.json", b"\x89PNG\r\n\x1a\n", None, "a picture file"),
    "binary": ("a.bin", b"abc\x00\x01\x02", None, "a binary file"),
    "an old word file": ("a.doc", b"\xd0\xcf\x11\xe0\xa1\xb1", None, "old Office"),
    "a workbook": ("a.xlsx", zipped({"[Content_Types].xml": "", "xl/workbook.xml": ""}), None, "Office (.xlsx"),
    "latin-1 throughout": ("a.txt", "é à ü ".encode("latin-1") * 50 + b"\xff", None, "no known encoding"),
    "utf-16 cut in half": ("a.json", recoded(array(ALPACA), "utf-16")[:-1], 1, "not utf-16"),
    "prose under no known name": ("a.log", b"just some words\n", None, "neither JSON nor a table"),
    "nothing usable": ("a.json", array({**PLAIN, "output": ""}), None, "0 usable rows of 1 (empty answer: 1)"),
    "a scan": ("a.pdf", pdf([[], [], []]), None, "a scan (3)"),
    "a locked pdf": ("a.pdf", pdf([[SENTENCE]], locked=True), None, "needs a password"),
    "a damaged pdf": ("a.pdf", b"%PDF-1.7 and no more", None, "PDF cannot be read"),
    "a damaged docx": ("a.docx", zipped({**WORD_PARTS, "word/document.xml": "<w:p"}), None, "DOCX cannot be read"),
    "a markdown without text": ("a.md", b"# Title\n", None, "no section of text"),
    "a zip cut off": ("a.zip", cut(zipped({"a.md": SENTENCE})), None, "damaged zip"),
    "a zip bomb": ("a.zip", zipped({"a.txt": b" " * (100 << 20)}), None, "unpacks to more"),
    "a zip of large files": ("a.zip", LARGE, None, "unpacks to more"),
    "a zip that climbs": ("a.zip", zipped({"../../a.txt": "x"}), None, "leads out"),
    "a zip from the root": ("a.zip", zipped({"/etc/a.txt": "x"}), None, "leads out"),
    "a zip that climbs as windows does": ("a.zip", zipped({"..\\a.txt": "x"}), None, "leads out"),
    "a zip with a link": ("a.zip", zipped_link("a.txt", "/etc/passwd"), None, "is a link"),
    "a zip in a zip": ("a.zip", zipped({"a.zip": zipped({"b.md": SENTENCE})}), None, "a zip itself"),
    "a zip in a zip, disguised": ("a.zip", zipped({"a.txt": zipped({"b.md": SENTENCE})}), None, "another zip in it"),
    "a zip whose member has no name": ("a.zip", NAMELESS, None, "no section of text"),
    "a zip without documents": ("a.zip", zipped({"a.png": b"x"}), None, "no section of text"),
    "a zip of scans": ("a.zip", zipped({"a.pdf": pdf([[]]), "b.pdf": pdf([[]])}), None, "a.pdf: no text"),
    **REFUSED_OF_TOOLS,
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_refused_with_its_place(tmp_path, name):
    file, content, row, words = BROKEN[name]
    path = tmp_path / file
    path.write_bytes(content)
    with pytest.raises(InvalidDataset) as caught:
        list(source_of_file(path, LIMIT).examples())
    assert caught.value.row == row
    assert words in caught.value.message.en
    assert row is None or caught.value.message.en.startswith(f"Row {row}: ")
    assert caught.value.message.zh != caught.value.message.en
    assert caught.value.hint.zh


def test_the_matrix_is_large_enough():
    assert len(GOOD) >= 40
    assert len(BROKEN) >= 60
