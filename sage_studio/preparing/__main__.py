"""``python -m sage_studio.preparing FOLDER``: prepares a task, or downloads a model.

A stop is heard before anything else is imported.
"""

import io
import sys
from pathlib import Path

from sage_studio.training.run import StopRequest


def main(arguments: list[str]) -> int:
    """Prepare the task, or do the download, that the folder holds. Returns 0 when it is done or stopped, 1 if not."""
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        print("usage: python -m sage_studio.preparing FOLDER", file=sys.stderr)
        return 2
    stop = StopRequest()
    stop.listen()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", line_buffering=True)
    from sage_studio.preparing.child import download, prepare

    folder = Path(arguments[0]).absolute()
    return (download if (folder / "download.json").is_file() else prepare)(folder, stop)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
