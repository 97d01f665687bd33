"""Server-sent events, written and read back."""

import pytest

from sage_studio.sse import DONE, sse_data, sse_event


@pytest.mark.parametrize(
    ("data", "options", "text"),
    [
        ({"text": "你好"}, {}, 'data: {"text": "你好"}\n\n'),
        ('{"step":1}', {"event": "progress", "id": 0}, 'id: 0\nevent: progress\ndata: {"step":1}\n\n'),
    ],
)
def test_an_event_is_written_as_the_protocol_has_it(data, options, text):
    assert sse_event(data, **options) == text


def test_data_is_read_back_and_everything_else_is_passed_over():
    stream = sse_event({"a": 1}, event="x", id=3) + ": a comment\n\ndata:{}\n\n" + DONE
    assert list(sse_data(stream.splitlines())) == ['{"a": 1}', "{}", "[DONE]"]
