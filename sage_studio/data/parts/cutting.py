"""Which files are read in parts, and where they are cut.

Knows the begin of a file and its size. Knows nothing of what stands in its rows.
"""

import codecs
from pathlib import Path

from sage_studio.data.files.content import MIB, Content
from sage_studio.data.files.encoding import encoding_at_begin
from sage_studio.data.files.json_records import MAX_RECORD, is_jsonl

LEAST = 32 * MIB
"""Smaller files are read sooner than other processes have started."""
PART = 4 * MIB


def is_large(path: Path) -> bool:
    """Whether a file is there that is large enough to be read in parts."""
    return path.is_file() and path.stat().st_size >= LEAST


def cuts_of(content: Content) -> list[tuple[int, int]]:
    """Begin and end in bytes of the parts of a JSONL file in UTF-8, each of whole lines; none for any other file."""
    if content.is_packed:
        return []
    encoding = encoding_at_begin(content)
    if not encoding.startswith("utf-8") or not is_jsonl(content, encoding):
        return []
    return _cuts(content.path, len(codecs.BOM_UTF8) if encoding == "utf-8-sig" else 0)


def _cuts(path: Path, begin: int) -> list[tuple[int, int]]:
    cuts, size = [], path.stat().st_size
    with path.open("rb") as file:
        while begin < size:
            file.seek(min(begin + PART, size))
            line = file.readline(MAX_RECORD)
            end = file.tell()
            if len(line) == MAX_RECORD:
                return []
            cuts.append((begin, end))
            begin = end
    return cuts
