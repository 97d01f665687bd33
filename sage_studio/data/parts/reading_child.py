"""The process that reads parts of a JSONL file: it answers orders until there are no more.

For each order it says how many rows and lines the part has, is told how many come before, gives what was counted, is
told where in the file the rows belong, and writes them there: so no row ever goes through a pipe. Knows nothing of the
other parts.
"""

import errno
import gc
import pickle
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import BinaryIO

from sage_studio.data.parts.part import Lines, read_part


def main() -> None:
    """Serve the parent until it closes the pipe."""
    gc.freeze()
    gc.disable()  # what a part leaves behind has no cycles
    serve(sys.stdin.buffer, sys.stdout.buffer)


def serve(orders: BinaryIO, answers: BinaryIO) -> None:
    """Answer orders until the parent closes the pipe, in the midst of one if it likes."""
    longest = 0
    with suppress(EOFError, BrokenPipeError):
        while True:
            order = pickle.load(orders)
            given = Lines(order)
            _say((given.rows, len(given.split)), answers)
            rows, lines_before = pickle.load(orders)
            part = read_part(order, given, rows, lines_before, longest)
            longest = part.tally.longest
            lines, part.lines = part.lines, []
            _say(part, answers)
            _say(_write(lines, order.into, pickle.load(orders)), answers)


def _write(lines: Sequence[bytes], path: str, place: int) -> int:
    """Returns the number of the error, or 0."""
    try:
        with open(path, "r+b") as file:
            file.seek(place)
            file.writelines(lines)
    except OSError as error:
        return error.errno or errno.EIO
    return 0


def _say(answer: object, answers: BinaryIO) -> None:
    pickle.dump(answer, answers, protocol=5)
    answers.flush()


if __name__ == "__main__":
    main()
