"""An upload over the limit is refused while it arrives, not after it has filled the disk."""

import asyncio
import json
from collections.abc import Iterator

import pytest
from rest_app import app_of

from sage_studio.studio import Studio

MIB = 1 << 20
BEGIN = b'--b\r\nContent-Disposition: form-data; name="file"; filename="rows.json"\r\n\r\n'
END = b"\r\n--b--\r\n"


@pytest.fixture
def send(settings):
    """Sends a body, piece by piece, to a studio that takes 1 MiB; gives status, answer and pieces read."""
    settings.uploads_dir.mkdir(parents=True)
    app = app_of(Studio(settings.model_copy(update={"max_upload_mb": 1})))

    def request(pieces: Iterator[bytes], length: int | None = None):
        headers = [(b"host", b"127.0.0.1"), (b"content-type", b"multipart/form-data; boundary=b")]
        headers += [(b"content-length", str(length).encode())] if length is not None else []
        path = "/api/datasets"
        scope = {
            **{"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http"},
            **{"path": path, "raw_path": path.encode(), "root_path": "", "query_string": b"", "headers": headers},
            **{"client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80)},
        }
        read, sent = [], []

        async def receive():
            piece = next(pieces, None)
            if piece is not None:
                read.append(len(piece))
            return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}

        async def answer(message):
            sent.append(message)

        asyncio.run(app(scope, receive, answer))
        return sent[0]["status"], json.loads(b"".join(each.get("body", b"") for each in sent)), len(read)

    return request


def without_end() -> Iterator[bytes]:
    yield BEGIN
    for _ in range(1000):
        yield b" " * MIB
    pytest.fail("it was read to its end")


def test_a_declared_length_over_the_limit_is_refused_before_a_byte_is_read(send, settings):
    status, answer, read = send(without_end(), length=3 * MIB)
    assert (status, read) == (422, 0)
    assert answer["detail"]["message"] == "The upload has 3.0 MiB; the limit is 1.0 MiB."
    assert not list(settings.uploads_dir.glob("*"))


def test_a_body_without_a_length_is_refused_once_it_is_too_large(send, settings):
    status, answer, read = send(without_end())
    assert (status, read) == (422, 3)
    assert answer["detail"]["message"] == "The upload has 2.0 MiB; the limit is 1.0 MiB."
    assert not list(settings.uploads_dir.glob("*"))


def test_a_body_within_the_limit_is_taken(send):
    rows = json.dumps([{"instruction": "Why?", "output": "So."}]).encode()
    status, dataset, _ = send(iter([BEGIN, rows, END]))
    assert (status, dataset["id"]) == (201, "rows-v1")
