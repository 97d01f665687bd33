"""Large JSONL files read in parts: whatever is in them, the dataset and the error are those of reading row by row."""

import json
import os
import random
import re
import subprocess
import sys
import threading
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
import test_format_matrix as matrix
from fuzzing import written
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import binary, characters, lists, one_of, sampled_from, text
from test_upload import BROKEN, READ
from waiting import patient

from sage_studio.data import language, statistics
from sage_studio.data.column_mapping import ColumnMapping
from sage_studio.data.language import ADDRESS, CODE
from sage_studio.data.readers import fast_jsonl
from sage_studio.data.readers.fast_jsonl import PartLines, PartSpec, serve
from sage_studio.data.sources import local
from sage_studio.data.sources.local import UploadSource
from sage_studio.data.statistics import TextBatch, is_utf8, row_language
from sage_studio.data.store import DatasetStore
from sage_studio.database import Database
from sage_studio.errors import StorageFull, StudioError
from sage_studio.settings import PROJECT

LIMIT = 64 << 20
PLAIN, ASK, SAY = matrix.PLAIN, matrix.ASK, matrix.SAY
ODD = {
    "surrogate": b'{"instruction": "a", "output": "\\ud83d"}',
    "surrogate aside": b'{"instruction": "a", "output": "b", "id": "\\ud83d"}',
    "no number": b'{"instruction": "a", "output": "b", "id": NaN}',
    "long number": b'{"instruction": "a", "output": "b", "id": 123456789012345678901234567890}',
    "escapes": b'{"instruction": "\\u4f60\\/", "output": "\\u0041\\n\\t\\u0001\\"\\\\u"}',
    "key twice": b'{"instruction": "a", "output": "b", "output": "c"}',
    "bad byte": b'{"instruction": "a", "output": "b\xff"}',
    "blank": b"  \t",
    "two behind a blank": b'\n{"instruction": "a", "output": "b"}{"instruction": "a", "output": "b"}',
    "carriage return": b'{"instruction": "a", "output": "b"}\r',
    "empty answer": b'{"instruction": "a", "output": " "}',
    "null answer": b'{"instruction": "a", "output": null}',
    "only an input": b'{"instruction": " ", "input": "x", "output": "b"}',
    "blank input": b'{"instruction": "a ", "input": " \\n", "output": "b"}',
    "no history": b'{"instruction": "a", "input": null, "history": [], "system": "", "output": "b"}',
    "system of no kind": b'{"instruction": "a", "system": 0, "output": "b"}',
    "a number": b'{"instruction": "a", "output": 5}',
    "of another kind": b'{"prompt": "a", "chosen": "b", "rejected": "c"}',
    "unknown": b'{"foo": 1}',
    "deep without end": b'[{"instruction": ' + b"[" * 700,
    "deep, of a comma": b'{"instruction": "a", "output": "b", "id": ' + b"[" * 400 + b"]" * 400 + b"},",
    "deep aside": b'{"instruction": "a", "output": "b", "id": ' + b"[" * 900 + b"]" * 900 + b"}",
    "deeper aside": b'{"instruction": "a", "output": "b", "id": ' + b"[" * 5000 + b"]" * 5000 + b"}",
    "brackets in a text": b'{"instruction": "a", "output": "' + b"[{" * 300 + b'", "id": NaN}',
    "broken": b'{"instruction": "a"',
    "messages": json.dumps(matrix.MESSAGES).encode(),
    "content first": b'{"messages": [{"content": "a", "role": "user"}, {"role": "assistant", "content": "b"}]}',
    "turn with a name": json.dumps({"messages": [{**ASK, "name": "x"}, SAY]}).encode(),
    "ends with a question": json.dumps({"messages": [ASK, SAY, ASK]}).encode(),
    "no question": json.dumps({"messages": [SAY, SAY]}).encode(),
    "empty content": json.dumps({"messages": [{"role": "system", "content": None}, ASK, SAY]}).encode(),
    "pair": json.dumps(matrix.QUESTION, ensure_ascii=False).encode(),
    "pair of turns": json.dumps(matrix.COMPLETION_TURNS).encode(),
    "only text": b'"Rain falls."',
}


class Thread:
    """A reader in this process."""

    def __init__(self) -> None:
        orders, told = os.pipe()
        heard, answers = os.pipe()
        self.stdin, self.stdout = os.fdopen(told, "wb"), os.fdopen(heard, "rb")
        ends = os.fdopen(orders, "rb"), os.fdopen(answers, "wb")
        self._thread = threading.Thread(target=self._serve, args=ends)
        self._thread.start()

    def _serve(self, orders, answers):
        with suppress(BrokenPipeError), orders, answers:
            serve(orders, answers)

    def kill(self) -> None:
        """It ends with its orders."""

    def wait(self) -> int:
        self._thread.join()
        return 0


@pytest.fixture
def small_parts(monkeypatch):
    """Any JSONL file is large, and its parts are of some lines; the readers are threads."""
    monkeypatch.setattr(fast_jsonl, "LEAST", 0)
    monkeypatch.setattr(fast_jsonl, "PART", 150)
    monkeypatch.setattr(fast_jsonl, "start_reader", Thread)


def kept(path: Path, home: Path, monkeypatch, count: int, **options) -> object:
    """What becomes of a file: all that is kept of it, or the error."""
    monkeypatch.setattr(local, "reader_count", lambda: count)
    mapping = options.pop("mapping", None)
    home.mkdir(exist_ok=True)
    store = DatasetStore(Database(home / "studio.db"), home / "datasets")
    try:
        dataset = store.add(UploadSource(path, LIMIT, mapping=mapping), **options)
    except StudioError as error:
        return type(error), error.message, error.hint, getattr(error, "row", None)
    files = [store.folder(dataset.id).joinpath(name).read_bytes() for name in ("data.jsonl", "index.u64")]
    dropped = store.folder(dataset.id).joinpath("dropped.jsonl").read_bytes()
    dataset = store.hashed(dataset)
    assert json.loads(store.folder(dataset.id).joinpath("manifest.json").read_bytes())["sha256"] == dataset.sha256
    store.delete(dataset.id)
    return *files, dropped, dataset.stats, dataset.formats, dataset.row_kind, dataset.container, dataset.sha256


def assert_same(content: bytes, folder: Path, monkeypatch, **options) -> object:
    path = folder / "rows.jsonl"
    path.write_bytes(content)
    found = kept(path, folder / "parts", monkeypatch, 2, **options)
    assert found == kept(path, folder / "whole", monkeypatch, 1, **options)
    return found


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("files", [matrix.GOOD, matrix.BROKEN, READ, BROKEN], ids=["good", "broken", "read", "refused"])
def test_every_file_of_the_matrix_becomes_the_same(tmp_path, monkeypatch, files):
    for each in files.values():
        content = next(part for part in each if isinstance(part, bytes))
        if len(content) < 1 << 20:
            assert_same(content, tmp_path, monkeypatch)


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("name", ODD)
def test_a_line_of_any_kind_becomes_the_same(tmp_path, monkeypatch, name):
    line = b'{"instruction": "%d", "output": "b"}\n'
    rows = [line % number for number in range(9)]
    for at in (0, 1, 5, 9):
        assert_same(b"".join([*rows[:at], ODD[name] + b"\n", *rows[at:]]), tmp_path, monkeypatch)
    assert_same(ODD[name] + b"\n" + ODD[name], tmp_path, monkeypatch)
    assert_same(b"\xef\xbb\xbf" + b"".join(rows) + ODD[name], tmp_path, monkeypatch)


@pytest.mark.usefixtures("small_parts")
@settings(
    max_examples=150,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
@given(content=written())
def test_records_of_any_shape_become_the_same(tmp_path, monkeypatch, content):
    assert_same(content, tmp_path, monkeypatch)


@pytest.mark.usefixtures("small_parts")
def test_a_late_change_of_the_encoding_is_seen(tmp_path, monkeypatch):
    plain, chinese = json.dumps(PLAIN).encode() + b"\n", json.dumps(matrix.ALPACA, ensure_ascii=False).encode("gbk")
    found = assert_same(plain * 20 + chinese, tmp_path, monkeypatch)
    assert matrix.ALPACA["output"].encode() in found[0]


@pytest.mark.usefixtures("small_parts")
def test_a_late_byte_of_no_text_is_told_before_a_row_of_another_kind(tmp_path, monkeypatch):
    rows = matrix.lines({"query": "Why?", "pos": ["Rain."], "neg": ["Sun."]}, *[PLAIN] * 20)
    found = assert_same(rows + b"\x1f\x8b\x08\x00\xe4e\x08k\x04\xff\x8b", tmp_path, monkeypatch)
    assert "is a binary file" in found[1].en


@pytest.mark.usefixtures("small_parts")
def test_a_mapping_is_honoured(tmp_path, monkeypatch):
    mapping = ColumnMapping(format="Alpaca", columns={"instruction": "问", "output": "答"})
    rows = "".join(json.dumps({"问": f"{n}?", "答": "x"}, ensure_ascii=False) + "\n" for n in range(20))
    assert len(assert_same(rows.encode(), tmp_path, monkeypatch, mapping=mapping)[0].splitlines()) == 20


@pytest.mark.usefixtures("small_parts")
def test_tokens_are_counted_the_same(tmp_path, monkeypatch, built_in_model):
    monkeypatch.setattr(statistics, "EXACT_CHARS", 3000)
    rows = [{"instruction": f"Why {n}?", "input": "", "output": "Because. " * (n % 40 + 1)} for n in range(600)]
    found = assert_same(matrix.lines(*rows), tmp_path, monkeypatch, tokenizer=built_in_model / "tokenizer.json")
    assert found[3].tokenizer == built_in_model.name
    assert not found[3].tokens_are_exact


def test_several_processes_read_a_large_file_and_none_is_left(tmp_path, monkeypatch):
    started = []

    def start() -> fast_jsonl.ReaderProcess:
        started.append(start_reader())
        return started[-1]

    start_reader = fast_jsonl.start_reader
    monkeypatch.setattr(fast_jsonl, "LEAST", 1 << 20)
    monkeypatch.setattr(fast_jsonl, "PART", 1 << 19)
    monkeypatch.setattr(fast_jsonl, "start_reader", start)
    found = assert_same(matrix.lines(*matrix.MANY) * 12, tmp_path, monkeypatch)
    assert found[3].duplicates == 33_000
    assert [reader.wait() is not None for reader in started] == [True, True]


@pytest.mark.usefixtures("small_parts")
def test_the_sha256_of_what_the_readers_wrote_follows_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(local, "reader_count", lambda: 2)
    monkeypatch.setattr(DatasetStore, "_hash_behind", lambda *_: None)
    path, store = tmp_path / "rows.jsonl", DatasetStore(Database(tmp_path / "studio.db"), tmp_path / "datasets")
    path.write_bytes(matrix.lines(*[PLAIN] * 30))
    dataset = store.add(UploadSource(path, LIMIT))
    assert dataset.sha256 == ""
    assert len(list(store.rows(dataset.id))) == 30
    hashed = store.hashed(dataset)
    assert hashed.sha256 == sha256(store.data_path(dataset.id).read_bytes()).hexdigest()
    assert store.get(dataset.id) == store.hashed(hashed) == hashed == replace(dataset, sha256=hashed.sha256)
    assert store.add(UploadSource(path, LIMIT)) == hashed, "the same rows are the same dataset"
    path.write_bytes(matrix.lines(*[PLAIN] * 29, {**PLAIN, "output": PLAIN["output"].swapcase()}))
    assert store.add(UploadSource(path, LIMIT)).version == 2, "as many bytes are not the same rows"


@pytest.mark.usefixtures("small_parts")
def test_a_dataset_that_is_deleted_while_it_is_hashed_is_only_noted(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(local, "reader_count", lambda: 2)
    hash_behind, hashing = DatasetStore._hash_behind, threading.Event()
    monkeypatch.setattr(DatasetStore, "_hash_behind", lambda *_: hashing.set())
    path, store = tmp_path / "rows.jsonl", DatasetStore(Database(tmp_path / "studio.db"), tmp_path / "datasets")
    path.write_bytes(matrix.lines(*[PLAIN] * 30))
    dataset = store.add(UploadSource(path, LIMIT))
    assert hashing.wait(patient())
    store.delete(dataset.id)
    hash_behind(store, dataset)
    assert "its SHA-256 is left" in caplog.text
    assert store.list() == []


@pytest.mark.usefixtures("small_parts")
def test_a_disk_that_is_full_for_a_reader_is_named_and_nothing_is_kept(tmp_path, monkeypatch):
    def opened(path: str, mode: str):
        return open("/dev/full", "wb") if mode == "r+b" else open(path, mode)

    monkeypatch.setattr(fast_jsonl, "open", opened, raising=False)
    path = tmp_path / "rows.jsonl"
    path.write_bytes(matrix.lines(*[PLAIN] * 30))
    assert kept(path, tmp_path / "parts", monkeypatch, 2)[0] is StorageFull
    assert not list((tmp_path / "parts" / "datasets").iterdir())


@pytest.mark.parametrize("dying", [1, 2])
@pytest.mark.usefixtures("small_parts")
def test_a_process_that_dies_is_named_and_the_file_is_read_all_the_same(tmp_path, monkeypatch, caplog, dying):
    left = [dying]

    def start() -> fast_jsonl.ReaderProcess:
        left[0] -= 1
        if left[0] < 0:
            return Thread()
        command = [sys.executable, "-c", "import sys; sys.stdin.buffer.read(1)"]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    monkeypatch.setattr(fast_jsonl, "start_reader", start)
    assert len(assert_same(matrix.lines(*[PLAIN] * 300), tmp_path, monkeypatch)[0].splitlines()) == 300
    assert "rows.jsonl: a process that read it ended" in caplog.text


def test_a_process_that_cannot_be_started_is_named_and_the_file_is_read_all_the_same(tmp_path, monkeypatch, caplog):
    def start() -> fast_jsonl.ReaderProcess:
        raise BlockingIOError("no room for a process")

    monkeypatch.setattr(fast_jsonl, "LEAST", 0)
    monkeypatch.setattr(fast_jsonl, "start_reader", start)
    assert_same(matrix.lines(PLAIN, PLAIN), tmp_path, monkeypatch)
    assert "no room for a process" in caplog.text


def test_a_small_file_starts_no_process(tmp_path, monkeypatch):
    monkeypatch.setattr(fast_jsonl, "start_reader", lambda: pytest.fail("a process for three rows"))
    assert_same(matrix.lines(PLAIN, PLAIN, PLAIN), tmp_path, monkeypatch)


def test_a_row_of_many_megabytes_is_no_part(tmp_path, monkeypatch):
    monkeypatch.setattr(fast_jsonl, "LEAST", 0)
    monkeypatch.setattr(fast_jsonl, "PART", 150)
    monkeypatch.setattr(fast_jsonl, "MAX_RECORD", 1000)
    monkeypatch.setattr(fast_jsonl, "start_reader", lambda: pytest.fail("a row too long for a part"))
    assert_same(matrix.lines(PLAIN, {**PLAIN, "output": "x" * 2000}), tmp_path, monkeypatch)


def test_the_start_of_a_reader_is_light():
    heavy = ("pydantic", "pandas", "pyarrow", "gradio", "torch")
    code = f"import sys, sage_studio.data.readers.fast_jsonl; print([n for n in {heavy} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PROJECT)
    assert done.stdout.strip() == "[]"


PIECES = ["`", "``", "```", "````", "~~~", "\n", "\n\n", " ", ">", "  > ", "a", "word ", "词语", "。", "あ", "é", "Ж"]
PIECES += ["䷀", "豈", "﨎", "\u4dbf\u4dc0", "x`y", "```py\n", "\n```\n", "http://a.b ", "😀", "가", "\ufe70", "\u2c60"]


HAN, OTHER = re.compile(r"[\u4000-\u9fff]"), re.compile(r"[\u0340-\u1fff\u3040-\u30ff\ua000-\ud7ff]")


def test_prose_and_language_are_what_the_characters_say():
    pick = random.Random(1)
    for _ in range(20_000):
        text = "".join(pick.choices(pick.sample(PIECES, pick.randint(2, 9)), k=pick.randint(1, 40)))
        assert language.prose_of(text) == ADDRESS.sub("", CODE.sub("", text))
        han, latin, other = len(HAN.findall(text)), len(re.findall("[A-Za-z]{2,}", text)), len(OTHER.findall(text)) // 2
        expected = "other" if other > max(han, latin) else "zh" if han and han >= latin else "en"
        assert language.detect_language(text) == expected, text


@pytest.mark.parametrize(
    ("texts", "language"),
    [
        (["什么是窗口？", "A window groups records by time."], "en"),
        (["What is a window?", "窗口按时间对记录进行分组。"], "zh"),
        (["什么是窗口？", "42"], "zh"),
        (["怎么写？", "```python\n" + "stream.window(seconds=10)\n" * 100 + "```"], "zh"),
        (
            [
                "How is it written?",
                "```python\nstream.window(seconds=10)\n```\n这样就可以把流分成许多窗口，每个窗口十秒。",
            ],
            "zh",
        ),
        (["怎么写？", "Call `stream.window`, which groups records by their time."], "zh"),
        (["How?", "Вот как это делается на самом деле."], "other"),
        (["How?", "これはかなです。ひらがなとカタカナ。"], "other"),
        (["42"], "en"),
    ],
)
def test_the_language_of_a_row_is_that_of_its_answer_or_else_of_its_question(texts, language):
    assert row_language(statistics.texts_as_json(texts)) == language


def test_the_languages_of_very_many_rows_are_those_of_a_sample():
    counted, parts = statistics.RunningStats(), [statistics.RunningStats(before=number * 10_000) for number in range(4)]
    for number in range(40_000):
        texts = statistics.texts_as_json(
            (f"{number}?", "Rain falls on the hills." if number % 4 else "雨水落在山上，流入河流。")
        )
        counted.add(texts)
        parts[number // 10_000].add(texts)
    for part in parts[1:]:
        parts[0].merge(part)
    assert counted.languages == parts[0].languages
    assert counted.languages_are_exact is parts[0].languages_are_exact is False
    assert counted.languages["zh"] == pytest.approx(10_000, rel=0.1)
    assert counted.languages.total() == pytest.approx(40_000, abs=1)
    assert counted.duplicates == 0


def test_languages_of_many_rows_are_those_of_each():
    pick = random.Random(2)
    for _ in range(300):
        answers = ["".join(pick.choices(PIECES, k=pick.randint(0, 400))) for _ in range(pick.randint(1, 20))]
        rows = [statistics.texts_as_json((pick.choice(("How?", "怎么？", "7")), answer)) for answer in answers]
        assert TextBatch.of(rows).languages == Counter(map(row_language, rows))


@settings(max_examples=300, deadline=None, database=None, derandomize=True)
@given(rows=lists(lists(text(alphabet=characters(codec="utf-8")), min_size=1, max_size=3), min_size=1, max_size=5))
def test_characters_are_counted_in_json_as_in_the_text(rows):
    said = [statistics.texts_as_json(texts) for texts in rows]
    chars = [sum(map(len, texts)) for texts in rows]
    assert TextBatch.of(said).chars == sum(chars)
    assert TextBatch.of(said).longest(3) == max(3, *chars)
    assert TextBatch.of(said * 30).longest(3) == max(3, *chars), "many are counted at once"
    assert TextBatch.of(said).sizes.tolist() == [sum(map(len, texts)) for texts in said]


GARBLED = (
    b"",
    b"\xc0\x80",
    b"\xe0\x80\x80",
    b"\xed\xa0\x80",
    b"\xf0\x8f\x80\x80",
    b"\xf4\x90\x80\x80",
    b"\xf5\x80\x80\x80",
)


@settings(max_examples=2000, deadline=None, database=None, derandomize=True)
@given(begin=text(max_size=4), odd=one_of(binary(max_size=4), sampled_from(GARBLED)), rest=text(max_size=4))
def test_utf8_is_what_can_be_decoded(begin, odd, rest):
    content = begin.encode(errors="replace") + odd + rest.encode(errors="replace") + b'"'
    try:
        content.decode()
    except UnicodeDecodeError:
        assert not is_utf8(content)
    else:
        assert is_utf8(content)


@pytest.mark.parametrize(
    ("content", "rows", "lines"), [(b"\n \n{}\n\r\n{}", 2, 5), (b'{"question": "a", "answer": "b"}\n' * 3, 3, 3)]
)
def test_lines_and_records_of_a_part_are_counted(tmp_path, content, rows, lines):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    found = PartLines(PartSpec(str(path), 0, len(content), path.name))
    assert (found.rows, len(found.split)) == (rows, lines)
