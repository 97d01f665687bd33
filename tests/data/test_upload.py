"""Files as people bring them: each kind read, each broken one refused with its place."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import patient

from sage_studio.data.readers import content
from sage_studio.data.readers.file_type import FileType, first_records
from sage_studio.data.sources.local import UploadSource
from sage_studio.errors import InvalidDataset
from sage_studio.settings import PROJECT

ROW = {"instruction": "你好吗？", "input": "", "output": "我很好，谢谢。"}
PLAIN = b'{"instruction": "a", "output": "b"}'
MANY = json.dumps([{"instruction": f"q{i}", "input": "", "output": "a" * 500} for i in range(5000)], indent=1)
DAMAGED = b"[\n" + json.dumps(ROW, ensure_ascii=False).encode()[:-5] + b'\xff"}]'
READ = {
    "array": (json.dumps([ROW, ROW]).encode(), 2),
    "array, named jsonl": (json.dumps([ROW, ROW], indent=2).encode(), 2),
    "jsonl": (PLAIN + b"\n\n" + PLAIN + b"\n", 2),
    "jsonl with windows line ends": (PLAIN + b"\r\n" + PLAIN + b"\r\n", 2),
    "jsonl with commas": (PLAIN + b",\n" + PLAIN, 2),
    "one object": (PLAIN, 1),
    "objects over several lines": (json.dumps(ROW, indent=2).encode() * 3, 3),
    "utf-8 with mark": (json.dumps([ROW], ensure_ascii=False).encode("utf-8-sig"), 1),
    "jsonl, utf-8 with mark": (b"\xef\xbb\xbf" + PLAIN + b"\n" + PLAIN, 2),
    "utf-16": (json.dumps([ROW], ensure_ascii=False).encode("utf-16"), 1),
    "utf-16 big end first": (b"\xfe\xff" + json.dumps([ROW], ensure_ascii=False).encode("utf-16-be"), 1),
    "gbk": (json.dumps([ROW], ensure_ascii=False).encode("gbk"), 1),
    "gb18030 jsonl": ("\n".join([json.dumps(ROW, ensure_ascii=False)] * 4).encode("gb18030"), 4),
    "longer than one reading": (MANY.encode(), 5000),
    "one row longer than one reading": (json.dumps([{"instruction": "a", "output": "b" * (5 << 20)}]).encode(), 1),
}
BROKEN = {
    "empty": (b"", None, "is empty"),
    "blank": (b" \n\t\n", None, "is empty"),
    "no json": (b"hello", 1, "begins with 'hello'"),
    "a comma missing": (b"[" + PLAIN + b" " + PLAIN + b"]", 1, "line 1 of the file: ',' or ']' expected"),
    "a comma too many": (b"[" + PLAIN + b",\n]", 1, "line 2 of the file: a comma after the last row"),
    "cut off": (MANY[:-5000].encode(), 4992, "the file ends within the row"),
    "closing bracket missing": (b"[" + PLAIN, 2, "before the closing ]"),
    "more after the array": (b"[" + PLAIN + b"] x", 1, "more text after the closing ]"),
    "a quote missing": (MANY.replace('"q3210"', '"q3210').encode(), 3211, "line 16053 of the file"),
    "jsonl, second row": (PLAIN + b"\n\n" + b'{"instruction": "a" "output": "b"}', 2, "line 3 of the file"),
    "jsonl, first row": (b'{"instruction": "a" "output": "b"}\n' + PLAIN, 1, "line 1 of the file"),
    "objects with semicolons": (PLAIN + b";\n" + PLAIN, 2, "line 1 of the file: "),
    "a newline in a string": (b'{"instruction": "a\nb", "output": "c"}', 1, "Invalid control character"),
    "wrong keys": (b"[" + PLAIN + b', {"sentence": "a"}]', 2, "(sentence)"),
    "no object": (b"[1, 2]", 1, "a number, not an object"),
    "endless nesting": (b"[" * 200_000, 1, "nested too deeply"),
    "endless nesting in jsonl": (b'{"a":' * 200_000, 1, "nested too deeply"),
    "an endless number": (b'[{"a": ' + b"9" * 5000 + b"}]", 1, "too many digits"),
    "an endless number in jsonl": (b'{"a": ' + b"9" * 5000 + b"}\n", 1, "too many digits"),
    "pickle": (b"\x80\x04\x95\x10\x00\x00", None, "a pickle file"),
    "zip": (b"PK\x03\x04aaaa", None, "a zip file"),
    "gzip": (b"\x1f\x8b\x08aaaa", None, "its gzip data is truncated"),
    "null bytes": (b'[{"a": "\x00"}]', None, "a binary file"),
    "damaged utf-8": (DAMAGED, None, "bytes that are not UTF-8: 1"),
    "half of utf-16": (json.dumps([ROW]).encode("utf-16") + b"\x00", 1, "bytes that are not utf-16-le"),
    "no usable row": (b'[{"instruction": "a", "output": ""}]', None, "0 usable rows of 1 (empty answer: 1)"),
    "no row": (b"[]", None, "0 usable rows of 0"),
}


def source_of(path: Path) -> UploadSource:
    return UploadSource(path, max_bytes=1 << 30)


@pytest.mark.parametrize("name", READ)
def test_a_good_file_is_read(tmp_path, name):
    content, rows = READ[name]
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    examples = list(source_of(path).examples())
    assert len(examples) == rows
    assert [example.origin.row for example in examples] == list(range(1, rows + 1))
    assert examples[0].completion in (ROW["output"], "b", "a" * 500, "b" * (5 << 20))


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_refused_with_its_place(tmp_path, name):
    content, row, words = BROKEN[name]
    path = tmp_path / "rows.json"
    path.write_bytes(content)
    with pytest.raises(InvalidDataset) as caught:
        list(source_of(path).examples())
    assert words in caught.value.message.en
    assert caught.value.row == row
    assert caught.value.message.zh != caught.value.message.en
    assert caught.value.hint


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(InvalidDataset, match="is a folder"):
        list(source_of(tmp_path).examples())


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InvalidDataset, match=r"There is no file .*nothing\.json"):
        list(source_of(tmp_path / "nothing.json").examples())


def test_a_file_over_the_limit_is_refused_naming_both_sizes(tmp_path):
    path = tmp_path / "rows.json"
    path.write_bytes(b" " * (3 << 20))
    with pytest.raises(InvalidDataset, match=r"3\.0 MiB; the limit is 2\.0 MiB"):
        list(UploadSource(path, max_bytes=2 << 20).examples())


def test_dropped_rows_are_counted_and_the_rest_is_used(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\n".join([PLAIN, b'{"instruction": "a", "output": ""}', PLAIN]))
    source = source_of(path)
    assert [example.origin.row for example in source.examples()] == [1, 3]
    assert [(each.count, each.rows) for each in source.dropped] == [(1, ("2",))]
    assert len(list(source.examples())) == 2
    assert source.dropped[0].count == 1


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of a process is read from /proc")
def test_a_file_of_200_mb_needs_little_memory(tmp_path):
    """In a process of its own, as a peak is never given back. Both shapes; the limit is far below the file's size."""
    row = json.dumps({"instruction": "What is this?", "output": "词" * 30_000}, ensure_ascii=False)
    array, lines = tmp_path / "array.json", tmp_path / "lines.jsonl"
    with array.open("w", encoding="utf-8") as file:
        file.writelines(["[", *[f"{row},\n"] * 2299, row, "]"])
    with lines.open("w", encoding="utf-8") as file:
        file.writelines([f"{row}\n"] * 2300)
    assert array.stat().st_size > 200e6
    script = """
import sys
from pathlib import Path
from sage_studio.data.sources.local import UploadSource
def peak():  # of this process alone: getrusage() would begin with that of pytest, which started it
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
before = peak()
for path in map(Path, sys.argv[1:]):
    assert sum(1 for _ in UploadSource(path, 1 << 30).examples()) == 2300
print((peak() - before) // 1024)
"""
    command = [sys.executable, "-c", script, str(array), str(lines)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=PROJECT, timeout=patient())
    assert int(done.stdout) < 60, f"{done.stdout.strip()} MiB more than before"


@pytest.mark.parametrize("encoding", ["utf-8", "gb18030", "utf-16"])
def test_the_first_records_are_had_without_the_rest(tmp_path, monkeypatch, encoding):
    monkeypatch.setattr(content, "BEGINNING", 1000)
    path = tmp_path / "rows.jsonl"
    path.write_bytes(((json.dumps(ROW, ensure_ascii=False) + "\n") * 200 + '{"broken').encode(encoding))
    found = list(first_records(content.FileContent(path, 1 << 20), FileType.JSON))
    assert found == [ROW] * len(found)
    assert 5 < len(found) < 20
