"""The process that reads PDF, DOCX and HTML: bounded in memory, and nothing is lost when it dies.

Reads ``{"kind", "size"}`` as a line and then the document's bytes; answers with one line of JSON. A document that it
cannot read ends it: its parent says so and starts another. Knows nothing of names, sections or rows.
"""

import json
import sys
from typing import Any

from sage_studio.data.files.markup import docx_to_markdown, html_to_markdown
from sage_studio.data.files.pdf import read_pdf

MEMORY = 3 << 30
RECURSION = 5000


def main() -> None:
    """Convert until there is no more."""
    _limit_memory()
    sys.setrecursionlimit(RECURSION)
    while line := sys.stdin.buffer.readline():
        order = json.loads(line)
        answer = convert(order["kind"], sys.stdin.buffer.read(order["size"]))
        sys.stdout.buffer.write(json.dumps(answer).encode() + b"\n")
        sys.stdout.buffer.flush()


def convert(kind: str, content: bytes) -> Any:
    """``{"pages", "outline"}`` of a PDF, ``{"markdown"}`` of the others."""
    if kind == "PDF":
        return read_pdf(content)
    if kind == "DOCX":
        return {"markdown": docx_to_markdown(content)}
    return {"markdown": html_to_markdown(content.decode())}


def _limit_memory() -> None:
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    main()
