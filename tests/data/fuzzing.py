"""Files that nobody wrote: good and broken ones cut, spliced and garbled, and records of every shape under known keys.

Whatever a file is, reading it ends: with rows, or with a `StudioError` in both languages. Anything else is a fault.
"""

import gzip
import json
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import test_format_matrix as matrix
from hypothesis import strategies as st

from sage_studio.data.formats import FORMATS
from sage_studio.data.readers.content import FileContent
from sage_studio.data.sources.local import inspect_file, source_of_file
from sage_studio.errors import StudioError

LIMIT = 16 << 20
SMALL = 1 << 18
SEEDS = [content for _, content, *_ in (*matrix.GOOD.values(), *matrix.BROKEN.values()) if len(content) < SMALL]
NAMES = ["a.json", "a.jsonl", "a.csv", "a.tsv", "a.parquet", "a.json.gz", "a.md", "a.txt", "a.html", "a.pdf", "a.docx"]
KEYS = sorted({key for each in FORMATS for key in (*each.needs, *each.takes)} | {"role", "content", "from", "value"})
MARKS = [
    b"\0",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b'"',
    b"\\",
    b"\n",
    b",",
    b"[",
    b"{",
    b"}",
    b"]",
    b"\xed\xa0\x80",
    b"PK\x03\x04",
]


@dataclass
class Tally:
    """What became of the files so far."""

    files: int = 0
    read: int = 0
    rows: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    slowest: float = 0.0
    in_parts: int = 0
    """Files that were read in parts, at least in the beginning."""
    readers: int = 0


def read(path: Path, tally: Tally) -> None:
    """Read a file to its end, and look at it. Anything but rows and a `StudioError` is raised."""
    began = monotonic()
    tally.files += 1
    try:
        rows = sum(1 for row in source_of_file(path, LIMIT).examples() if row.to_json())
        tally.read += 1
        tally.rows += rows
    except StudioError as error:
        assert all(error.message.pair()), error  # noqa: PT017  # said in both languages
        tally.refused[error.code] = tally.refused.get(error.code, 0) + 1
    try:
        inspect_file(FileContent(path, LIMIT))
    except StudioError as error:
        assert error.say("zh")  # noqa: PT017
    tally.slowest = max(tally.slowest, monotonic() - began)


@st.composite
def garbled(draw: st.DrawFn) -> bytes:
    """A file of the matrix with some of it cut, doubled, replaced, or followed by a part of another."""
    content = draw(st.sampled_from(SEEDS))
    for _ in range(draw(st.integers(0, 4))):
        at = int(draw(st.floats(0, 1)) * len(content))
        length = draw(st.integers(0, 64))
        new = draw(st.one_of(st.just(b""), st.binary(max_size=8), st.sampled_from(MARKS)))
        content = draw(
            st.sampled_from(
                [
                    content[:at],
                    content[at:],
                    content[:at] + new + content[at + length :],
                    content[: at + length] + content[at:],
                    content[:at] + draw(st.sampled_from(SEEDS))[at:],
                ]
            )
        )
    return gzip.compress(content, 1) if draw(st.integers(0, 9)) == 0 else content


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=2)
WILD = st.lists(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=5), min_size=1, max_size=4)
TAME = st.sampled_from(matrix.RECORDS).flatmap(
    lambda good: st.lists(st.one_of(st.just(good), FIELDS.map(lambda other: {**good, **other})), min_size=1, max_size=4)
)


@st.composite
def written(draw: st.DrawFn) -> bytes:
    """Records of any shape under the formats' keys, as an array or as lines, in any encoding."""
    records = draw(st.one_of(WILD, TAME))
    plain = draw(st.booleans())
    text = json.dumps(records, ensure_ascii=plain) if draw(st.booleans()) else _lines(records, plain)
    encoding = draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "gb18030"]))
    return text.encode(encoding, errors="surrogatepass" if "utf" in encoding else "replace")


def _lines(records: list[dict[str, object]], plain: bool) -> str:
    return "\n".join(json.dumps(record, ensure_ascii=plain) for record in records)


FILES = st.tuples(st.sampled_from(NAMES), st.one_of(garbled(), written()))
