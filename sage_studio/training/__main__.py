"""``python -m sage_studio.training TASK_DIR``: the training child process.

Listens for SIGTERM before it imports anything slow, then hands over to `sage_studio.training.runner`.
"""

import io
import sys
from pathlib import Path

from sage_studio.training.run import StopRequest


def main(arguments: list[str]) -> int:
    """Follow the recipe in the folder named. Returns 0 when it completed or was stopped, 1 when it failed."""
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        print("usage: python -m sage_studio.training TASK_DIR", file=sys.stderr)
        return 2
    stop = StopRequest()
    stop.listen()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", line_buffering=True)
    from sage_studio.training.runner import follow

    return follow(Path(arguments[0]).absolute(), stop)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
