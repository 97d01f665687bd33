"""``make doctor``: what this machine can and cannot do, and the commands that mend it. Needs nothing installed."""

import sys
from pathlib import Path

OLDEST = (3, 11)


def main() -> int:
    """Check the interpreter first: the rest cannot even be read by an older one."""
    if sys.version_info < OLDEST:
        print("This Python is too old: 3.11 or newer is needed. Try: PYTHON=python3.11 make doctor")
        return 1
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from sage_studio.doctor import main as report

    return report()


if __name__ == "__main__":
    sys.exit(main())
