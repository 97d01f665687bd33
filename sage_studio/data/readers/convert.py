"""Converts PDF, DOCX and HTML to text in a child process, which may crash or hang.

The child may also run out of memory.
"""

import json
import re
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from sage_studio.child_environment import Needs, child_environment
from sage_studio.data.readers.file_type import FileType

ROOT = Path(__file__).resolve().parents[3]
SECONDS = 120.0
LONGEST_CAUSE = 200
EXCEPTION = re.compile(r"^[\w.]+\.(?=\w+: )")


class ConversionFailed(Exception):
    """The reason, in one line."""


class Converter:
    """Runs one child process, started on first use and again after a failure; a context manager."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._process: subprocess.Popen[bytes] | None = None
        self._complaints: IO[bytes] | None = None

    def convert(self, kind: FileType, content: bytes) -> dict[str, Any]:
        """Convert a document in the child.

        Raises:
            ConversionFailed: the child ended over it, or took too long.
        """
        process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        timer = threading.Timer(self._seconds, process.kill)
        timer.start()
        try:
            process.stdin.write(json.dumps({"kind": str(kind), "size": len(content)}).encode() + b"\n" + content)
            process.stdin.flush()
            answer = process.stdout.readline()
        except BrokenPipeError:
            answer = b""
        finally:
            in_time = timer.is_alive()
            timer.cancel()
        if answer.endswith(b"\n"):
            found: dict[str, Any] = json.loads(answer)
            return found
        cause = self._last_words() if in_time else f"no end after {self._seconds:.0f} s"
        self._end()
        raise ConversionFailed(cause)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _start(self) -> "subprocess.Popen[bytes]":
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the child
        self._process = subprocess.Popen(
            [sys.executable, "-m", "sage_studio.data.readers.convert_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            cwd=ROOT,
            env=child_environment(Needs.SYSTEM),
        )
        return self._process

    def _last_words(self) -> str:
        assert self._process is not None
        assert self._complaints is not None
        status = self._process.wait()
        self._complaints.seek(0)
        lines = self._complaints.read().decode(errors="replace").strip().splitlines()
        return EXCEPTION.sub("", lines[-1])[:LONGEST_CAUSE] if lines else f"its reader ended with status {status}"

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        for stream in (process.stdin, process.stdout, self._complaints):
            if stream is not None:
                _close(stream)
        process.wait()


def _close(stream: IO[bytes]) -> None:
    try:
        stream.close()
    except BrokenPipeError:
        return  # what was still to be written has no reader any more
