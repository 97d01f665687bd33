"""Take the guard of each bad input away, in a copy, and see that its tests fail: ``python scripts/guards.py [WORD …]``.

The table is ``tests/guards/*.yaml``: bad input -> guards, each a text in a file, what stands there without it, and the
tests that must fail then. With words, only the rows that hold one of them. Ends with 1 if a test passes without its
guard, fails with it, or if a text is not found exactly once.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

PROJECT = Path(__file__).resolve().parent.parent
TABLE = PROJECT / "tests" / "guards"
SECONDS = 240
"""For one run of pytest; a test that hangs without its guard proves nothing."""
BATCH = 40
OPTIONS = ("-q", "-p", "no:cacheprovider", "--continue-on-collection-errors")
SHOWN = 90


@dataclass(frozen=True)
class Cut:
    """A text that stands once in a file, and what stands there when the guard is gone."""

    file: str
    text: str
    without: str

    def taken_from(self, source: str) -> str:
        """The file's content without the guard. Raises `ValueError` unless the text stands there exactly once."""
        found = source.count(self.text)
        if found != 1:
            raise ValueError(f"{self.file} holds this text {found} times, not once: {self.text!r}")
        return source.replace(self.text, self.without)


@dataclass(frozen=True)
class Guard:
    """A guard against a bad input, with what backs it up, and the tests that fail without them."""

    bad: str
    cuts: tuple[Cut, ...]
    tests: tuple[str, ...]

    @property
    def name(self) -> str:
        """Where it stands, and its first line."""
        first = self.cuts[0].text.strip().splitlines()[0]
        more = f" (+{len(self.cuts) - 1})" if len(self.cuts) > 1 else ""
        return f"{self.cuts[0].file.removeprefix('sage_studio/')}: {first[:SHOWN]}{more}"


@dataclass
class Outcome:
    """What pytest said of each test that ran, by its id: passed, failed, error or skipped."""

    said: dict[str, str] = field(default_factory=dict)

    def of(self, test: str) -> set[str]:
        """What was said of a test, of each of its parameters if none is named; ``not run`` if there was none."""
        return {said for name, said in self.said.items() if name == test or name.startswith(f"{test}[")} or {"not run"}


def main(words: Sequence[str]) -> int:
    """Run the table, print it, and say whether it holds."""
    guards = [each for each in load(TABLE) if not words or any(word in str(each) for word in words)]
    with tempfile.TemporaryDirectory(prefix="guards-") as folder:
        copy = Path(folder) / "studio"
        copy_tree(copy)
        tests = sorted({test for guard in guards for test in guard.tests})
        before = Outcome()
        for start in range(0, len(tests), BATCH):
            before.said |= run_tests(copy, tests[start : start + BATCH]).said
        rows = []
        for number, guard in enumerate(guards, 1):
            rows += check(copy, guard, before)
            print(f"{number}/{len(guards)} {guard.bad}: {guard.name}", file=sys.stderr, flush=True)
    print("| bad input | guard | test | passes with guard | fails without |\n|---|---|---|---|---|")
    for row in rows:
        print(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |")
    wrong = [row for row in rows if row[3:] != ("yes", "yes")]
    print(f"\n{len(rows) - len(wrong)} of {len(rows)} tests pass with their guard and fail without it.")
    return 1 if wrong else 0


def load(folder: Path) -> list[Guard]:
    """Every row of the table, in its order."""
    files = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.yaml"))]
    return [_guard(bad, row) for file in files for bad, rows in file.items() for row in rows]


def copy_tree(folder: Path) -> None:
    """The working tree as it is: what git tracks and what it does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=PROJECT, capture_output=True, text=True, check=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        source, target = PROJECT / name, folder / name
        if source.is_file() and not source.is_symlink():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)


def check(copy: Path, guard: Guard, before: Outcome) -> list[tuple[str, ...]]:
    """Take one guard away, run its tests, put it back. One row for each test."""
    kept = {cut.file: (copy / cut.file).read_text(encoding="utf-8") for cut in guard.cuts}
    try:
        for cut in guard.cuts:
            source = (copy / cut.file).read_text(encoding="utf-8")
            (copy / cut.file).write_text(cut.taken_from(source), encoding="utf-8")
        after = run_tests(copy, guard.tests)
    except ValueError as error:
        return [(guard.bad, guard.name, test, "?", str(error)) for test in guard.tests]
    finally:
        for name, source in kept.items():
            (copy / name).write_text(source, encoding="utf-8")
    return [
        (guard.bad, guard.name, test, _yes(before.of(test), "passed"), _yes(after.of(test), "failed"))
        for test in guard.tests
    ]


def run_tests(copy: Path, tests: Sequence[str]) -> Outcome:
    """Run some tests in the copy. Nothing that they start outlives them, even where the guard gone was what ends it."""
    report = copy.parent / "report.xml"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", *OPTIONS, f"--junitxml={report}", *sorted(set(tests))]
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    child = subprocess.Popen(
        command, cwd=copy, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    with suppress(subprocess.TimeoutExpired):
        child.wait(SECONDS)
    _end_all(copy)
    child.wait()
    return _read(report) if report.exists() else Outcome()


def _guard(bad: str, row: Mapping[str, Any]) -> Guard:
    cuts = tuple(Cut(each["file"], each["guard"], each["without"]) for each in (row, *row.get("also", ())))
    tests = row["fails"] if isinstance(row["fails"], list) else [row["fails"]]
    return Guard(bad, cuts, tuple(f"tests/{test}" for test in tests))


def _end_all(copy: Path) -> None:
    """End every process that works in the copy or was started from it."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            named = any(str(copy.parent) in part for part in process.cmdline())
            if process.pid != os.getpid() and (named or Path(process.cwd()).is_relative_to(copy.parent)):
                process.kill()


def _read(report: Path) -> Outcome:
    outcome = Outcome()
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name')}"
        marks = {child.tag for child in case}
        said = next((mark for mark in ("error", "failure", "skipped") if mark in marks), "passed")
        outcome.said[name] = "failed" if said == "failure" else said
    return outcome


def _yes(said: set[str], wanted: str) -> str:
    return "yes" if said == {wanted} else "NO: " + ", ".join(sorted(said))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
