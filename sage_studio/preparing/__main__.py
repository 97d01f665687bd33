"""``python -m sage_studio.preparing TASK_DIR``: the child that makes a task ready.

Knows only how to begin: a stop is heard before anything else is imported.
"""

import io
import sys
from pathlib import Path

from sage_studio.training.stopping import StopRequest


def main(arguments: list[str]) -> int:
    """Prepare the task in the folder named. Returns 0 when it is ready or was stopped, 1 when it cannot be trained."""
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        print("usage: python -m sage_studio.preparing TASK_DIR", file=sys.stderr)
        return 2
    stop = StopRequest()
    stop.listen()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", line_buffering=True)
    from sage_studio.preparing.child import prepare

    return prepare(Path(arguments[0]).absolute(), stop)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
