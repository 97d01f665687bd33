"""JSONL that nobody wrote, kept by several readers and by one: the rows, the counts and the errors must be the same."""

import json
from pathlib import Path
from time import monotonic

import pytest
import test_format_matrix as matrix
from fuzzing import Tally, garbled, written
from hypothesis import strategies as st
from test_fast_jsonl import ODD, Thread, kept

from sage_studio.data.readers import fast_jsonl

LONGEST_PART = 600
ROWS = [json.dumps(record, ensure_ascii=False).encode() for record in matrix.RECORDS]
ENDS = [*[b"\n"] * 20, b"\r\n", b"\n\n", b" \n", b",\n", b""]


@st.composite
def lines(draw: st.DrawFn) -> bytes:
    """Rows of one shape, ended in any way, with up to two odd ones or scraps of other files among them."""
    usual, ends = draw(st.sampled_from(ROWS)), st.sampled_from(ENDS)
    pieces = [usual + end for end in draw(st.lists(ends, min_size=1, max_size=24))]
    odd = st.one_of(st.sampled_from([*ODD.values(), *ROWS]), scraps())
    for line, end in draw(st.lists(st.tuples(odd, ends), max_size=2)):
        pieces.insert(draw(st.integers(0, len(pieces))), line + end)
    return draw(st.sampled_from([b"", b"", b"\xef\xbb\xbf"])) + b"".join(pieces)


@st.composite
def scraps(draw: st.DrawFn) -> bytes:
    """A line of a garbled file."""
    return draw(st.sampled_from(draw(garbled()).splitlines() or [b""]))[:2000]


IN_PARTS = st.tuples(st.one_of(lines(), lines(), lines(), written(), garbled()), st.integers(1, LONGEST_PART))
"""A file's content, and the size that its parts begin with."""


def read_both(content: bytes, part: int, folder: Path, tally: Tally) -> None:
    """Keep a file in two ways. Raises `AssertionError` where they differ, and anything but a `StudioError`."""
    began, path = monotonic(), folder / "rows.jsonl"
    path.write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fast_jsonl, "LEAST", 0)
        patch.setattr(fast_jsonl, "PART", part)
        patch.setattr(fast_jsonl, "start_reader", lambda: _counted(tally))
        threads = tally.readers
        found = kept(path, folder / "parts", patch, 2)
        tally.in_parts += tally.readers > threads
        assert found == kept(path, folder / "whole", patch, 1), (content, part)
    tally.files += 1
    if isinstance(found[0], bytes):
        tally.read += 1
        tally.rows += found[0].count(b"\n")
    else:
        tally.refused[found[0].code] = tally.refused.get(found[0].code, 0) + 1
    tally.slowest = max(tally.slowest, monotonic() - began)


def _counted(tally: Tally) -> Thread:
    tally.readers += 1
    return Thread()
