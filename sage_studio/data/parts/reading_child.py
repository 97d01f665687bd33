"""The process that reads parts of a JSONL file: it answers orders until there are no more.

For each order it says how many rows and lines the part has, is told how many come before, and gives the part, with its
rows behind it as they are: to pickle them would copy them twice. Knows nothing of the other parts.
"""

import gc
import pickle
import sys
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
    with suppress(EOFError, BrokenPipeError):
        while True:
            order = pickle.load(orders)
            lines = Lines(order)
            _say((lines.rows, lines.count), answers)
            part = read_part(order, lines, *pickle.load(orders))
            rows, part.lines = part.lines, b""
            _say(part, answers)
            answers.write(rows)
            answers.flush()


def _say(answer: object, answers: BinaryIO) -> None:
    pickle.dump(answer, answers, protocol=5)
    answers.flush()


if __name__ == "__main__":
    main()
