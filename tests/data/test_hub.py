"""Datasets of a hub, asked of a small server with the hub's own routes."""

import gzip
import io
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sage_studio.data.column_mapping import ColumnMapping
from sage_studio.data.sources.hub import HubSource
from sage_studio.errors import HubUnavailable, InvalidDataset, InvalidInput, NotFound

LIMIT = 4 << 20
SHA = "0123456789abcdef0123456789abcdef01234567"


def parquet(*records):
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(records)), file)
    return file.getvalue()


def rows(word, count):
    return [{"question": f"{word} {n}?", "answer": f"{word} {n}."} for n in range(count)]


LINES = "".join(json.dumps(row) + "\n" for row in rows("line", 3)).encode()


def siblings(*paths):
    return json.dumps({"id": "x", "sha": SHA, "siblings": [{"rfilename": path} for path in paths]}).encode()


PARQUET = "https://huggingface.co/api/datasets/lab/qa/parquet"
ANSWERS = {
    "/api/datasets/lab/qa": siblings("README.md", "qa.py"),
    "/api/datasets/lab/qa/parquet": json.dumps(
        {
            "default": {"train": [f"{PARQUET}/default/train/0.parquet", f"{PARQUET}/default/train/1.parquet"]},
            "zh": {"test": [f"{PARQUET}/zh/test/0.parquet"]},
        }
    ).encode(),
    "/api/datasets/lab/qa/parquet/default/train/0.parquet": parquet(*rows("first", 2)),
    "/api/datasets/lab/qa/parquet/default/train/1.parquet": parquet(*rows("second", 2)),
    "/api/datasets/lab/qa/parquet/zh/test/0.parquet": parquet({"问": "为什么？", "答": "因为下雨。"}),
    "/api/datasets/lab/files": siblings(
        "README.md", "load.py", "data/train-0.jsonl.gz", "data/test-0.jsonl", ".x.json"
    ),
    f"/datasets/lab/files/resolve/{SHA}/data/train-0.jsonl.gz": gzip.compress(LINES),
    f"/datasets/lab/files/resolve/{SHA}/data/test-0.jsonl": LINES[:30],
    "/api/datasets/lab/script": siblings("README.md", "script.py", "picture.png"),
    "/api/datasets/lab/huge": siblings("data.jsonl"),
    f"/datasets/lab/huge/resolve/{SHA}/data.jsonl": b" " * (LIMIT + 1),
    "/api/datasets/lab/odd": b"[1, 2]",
}


class Answers(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append((self.path, self.headers.get("Authorization")))
        content = ANSWERS.get(self.path)
        status = 200 if content is not None else 500 if "broken" in self.path else 404
        self.send_response(status)
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        self.wfile.write(content or b"")

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    server.asked = []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}/")
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def source(tmp_path):
    def make(repo, config="", split="", max_rows=0, mapping=None):
        return HubSource(repo, config, split, max_rows, LIMIT, tmp_path / "work", mapping)

    return make


def test_the_converted_files_are_read_in_order_from_the_mirror(hub, source):
    found = source("lab/qa")
    assert [row.completion for row in found.examples()] == ["first 0.", "first 1.", "second 0.", "second 1."]
    assert (found.name, found.commit, found.container) == ("qa", SHA, "Parquet")
    assert [(each.name, each.rows) for each in found.formats] == [("question/answer", 4)]


def test_no_more_is_fetched_than_is_wanted(hub, source, tmp_path):
    assert len(list(source("lab/qa", max_rows=2).examples())) == 2
    assert not any(path.endswith("1.parquet") for path, _ in hub.asked)
    assert list((tmp_path / "work").iterdir()) == []


def test_a_configuration_is_read_by_a_mapping(hub, source):
    mapping = ColumnMapping(format="question/answer", columns={"question": "问", "answer": "答"})
    (row,) = source("lab/qa", config="zh", mapping=mapping).examples()
    assert (row.asked, row.completion) == ("为什么？", "因为下雨。")


def test_the_files_themselves_are_read_where_nothing_was_converted(hub, source):
    found = list(source("lab/files").examples())
    assert [row.origin.file for row in found] == ["data/train-0.jsonl.gz"] * 3
    assert not any(path.endswith(".py") for path, _ in hub.asked)


def test_a_token_is_sent(hub, source, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    list(source("lab/qa", max_rows=1).examples())
    assert {token for _, token in hub.asked} == {"Bearer hf_secret"}


@pytest.mark.parametrize(
    ("repo", "options", "error", "words"),
    [
        ("lab/qa", {"config": "fr"}, InvalidInput, "no configuration 'fr'"),
        ("lab/qa", {"split": "test"}, InvalidInput, "no split 'test'"),
        ("lab/files", {"split": "test"}, InvalidDataset, "Row 1: broken JSON"),
        ("lab/script", {}, InvalidInput, "no data file"),
        ("lab/huge", {}, InvalidDataset, "more than 4 MiB"),
        ("lab/nothing", {}, NotFound, "no dataset lab/nothing"),
        ("lab/broken", {}, HubUnavailable, "HTTP 500"),
        ("lab/odd", {}, HubUnavailable, "answer is list"),
        ("../etc", {}, InvalidInput, "no dataset's id"),
        ("a/b/c", {}, InvalidInput, "no dataset's id"),
    ],
)
def test_what_cannot_be_had_is_said(hub, source, repo, options, error, words):
    with pytest.raises(error) as refused:
        list(source(repo, **options).examples())
    assert words in refused.value.message.en
    assert refused.value.hint.zh


def test_offline_is_said(source, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(HubUnavailable, match=r"127\.0\.0\.1:9 does not answer") as refused:
        list(source("lab/qa").examples())
    assert "HF_ENDPOINT" in refused.value.hint.en
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(HubUnavailable, match="HF_HUB_OFFLINE is set"):
        list(source("lab/qa").examples())
