"""Messages of the code and their translations: ``python scripts/translations.py [--check] [--add LANGUAGE]``.

Collects every ``Text("…")`` of the package, brings the catalogues of ``sage_studio/locale`` up to date and compiles
them. With ``--check`` it changes nothing and ends with 1 if a message is not translated, a translation is not used any
more, a value is named that the message does not have, or a compiled catalogue is old.
"""

import argparse
import ast
import io
import string
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from babel.messages.catalog import Catalog
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

PROJECT = Path(__file__).resolve().parent.parent
LOCALE = PROJECT / "sage_studio" / "locale"
SOURCES = ("sage_studio", "scripts")
MADE = ("Text",)
"""What makes a message of its first argument."""
DAY = datetime(2026, 1, 1, tzinfo=UTC)
"""In place of the days that Babel writes into a catalogue, so that the same messages give the same file."""


def main(arguments: list[str] | None = None) -> int:
    """Check or renew the catalogues; 1 if something is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; 1 if a catalogue is not complete")
    parser.add_argument("--add", metavar="LANGUAGE", help="begin a catalogue, such as de")
    chosen = parser.parse_args(arguments)
    if chosen.add:
        (LOCALE / chosen.add / "LC_MESSAGES").mkdir(parents=True, exist_ok=True)
        (LOCALE / chosen.add / "LC_MESSAGES" / "sage_studio.po").touch()
    wanted = messages()
    faults = []
    for path in sorted(LOCALE.glob("*/LC_MESSAGES/sage_studio.po")):
        was = path.read_bytes()
        catalog = renewed(was, wanted, path.parent.parent.name)
        faults += [f"{path.relative_to(PROJECT)}: {fault}" for fault in faults_of(catalog, wanted)]
        written = {
            path: _bytes(write_po, catalog, width=0, omit_header=True),
            path.with_suffix(".mo"): _bytes(write_mo, catalog),
        }
        if chosen.check:
            old = [each for each, data in written.items() if not each.is_file() or each.read_bytes() != data]
            faults += [f"{each.relative_to(PROJECT)} is old: run `make translations`" for each in old]
        else:
            for each, data in written.items():
                each.write_bytes(data)
    print("\n".join(faults) or f"{len(wanted)} messages, each translated")
    return 1 if faults else 0


def messages() -> dict[tuple[str, str], set[str]]:
    """(Context, English message) -> the values that the code gives with it."""
    found: dict[tuple[str, str], set[str]] = {}
    for folder in SOURCES:
        for path in sorted((PROJECT / folder).rglob("*.py")):
            for context, message, values in _calls(path):
                found.setdefault((context, message), set(values))
    return found


def _calls(path: Path) -> Iterator[tuple[str, str, list[str]]]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in MADE and node.args:
            if not (isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str)):
                sys.exit(f"{path.relative_to(PROJECT)}:{node.lineno}: a message is a literal, its values are arguments")
            given = {each.arg: each.value for each in node.keywords if each.arg}
            context = given.pop("context", None)
            yield (context.value if isinstance(context, ast.Constant) else ""), node.args[0].value, list(given)


def renewed(was: bytes, wanted: dict[tuple[str, str], set[str]], language: str) -> Catalog:
    """The catalogue with the messages of today and the translations that it had for them."""
    before = read_po(io.BytesIO(was), locale=language)
    catalog = Catalog(locale=language, project="sage_studio", fuzzy=False, creation_date=DAY, revision_date=DAY)
    for context, message in sorted(wanted):
        known = before.get(message, context or None)
        catalog.add(message, known.string if known else "", context=context or None)
    return catalog


def faults_of(catalog: Catalog, wanted: dict[tuple[str, str], set[str]]) -> Iterator[str]:
    """Messages without a translation, and translations that name a value which the message does not have."""
    for (context, message), values in wanted.items():
        found = catalog.get(message, context or None)
        if not found or not found.string:
            yield f"not translated: {message!r}"
        elif values:
            try:
                unknown = {name for _, name, _, _ in string.Formatter().parse(str(found.string)) if name} - values
            except ValueError as error:
                yield f"the translation of {message!r} is no template: {error}"
            else:
                yield from (f"{message!r} has no value {name}" for name in sorted(unknown))


def _bytes(write: Callable[..., Any], catalog: Catalog, **options: Any) -> bytes:
    file = io.BytesIO()
    write(file, catalog, **options)
    return file.getvalue()


if __name__ == "__main__":
    sys.exit(main())
