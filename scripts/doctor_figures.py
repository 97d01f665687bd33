"""Write ``docs/figures/doctor.md``: what the doctor says of each recorded machine of ``tests/doctor/machines.json``."""

import json
from pathlib import Path
from typing import Any

from sage_studio.doctor import Facts, diagnose, report
from sage_studio.settings import PROJECT

MACHINES = PROJECT / "tests" / "doctor" / "machines.json"
TARGET = PROJECT / "docs" / "figures" / "doctor.md"
LISTS = ("python", "pci", "cpu_flags")
HEAD = """# What `make doctor` says

Of machines recorded by their own outputs (`tests/doctor/machines.json`), written by `python -m scripts.doctor_figures`.
A ✗ is something that does not work, a · is a note, a ✓ is fine.
"""


def recorded(facts: dict[str, Any]) -> Facts:
    """The facts of a recorded machine."""
    return Facts(**{name: tuple(value) if name in LISTS else value for name, value in facts.items()})


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for machine in json.loads(MACHINES.read_text(encoding="utf-8")):
        facts = recorded(machine["facts"])
        parts.append(
            f"## {machine['name']}\n\nPackages: `{facts.kind}`\n\n```text\n{report(diagnose(facts), 'en')}\n```\n"
        )
    return "\n".join(parts)


if __name__ == "__main__":
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    TARGET.write_text(page(), encoding="utf-8")
    print(Path(TARGET).relative_to(PROJECT))
