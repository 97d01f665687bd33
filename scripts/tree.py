"""Print docs/tree.md: every file with the first sentence it says of itself. With ``--write`` it is written."""

import ast
import re
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
SHOWN = ("app.py", "benchmarks", "configs", "sage_studio", "scripts")
TARGET = PROJECT / "docs" / "tree.md"
HEAD = "# The tree\n\nWritten by `python scripts/tree.py --write`.\n\n"
WIDTH = 34
LONGEST = 90

CATALOGUES = {".po": "Translations", ".mo": "Compiled translations"}


def main() -> None:
    """Print the page, or write it."""
    page = f"{HEAD}```text\n{tree()}```\n"
    if "--write" in sys.argv:
        TARGET.write_text(page, encoding="utf-8")
    else:
        print(page, end="")


def tree() -> str:
    """One line a folder or file, indented by depth."""
    done = subprocess.run(["git", "ls-files", *SHOWN], cwd=PROJECT, capture_output=True, text=True, check=True)
    lines: list[str] = []
    seen: set[Path] = set()
    for path in sorted(
        map(Path, done.stdout.split()), key=lambda path: [(part.count("."), part) for part in path.parts]
    ):
        for folder in reversed(path.parents[:-1]):
            if folder not in seen:
                seen.add(folder)
                lines.append("  " * (len(folder.parts) - 1) + f"{folder.name}/")
        name = "  " * (len(path.parts) - 1) + path.name
        lines.append(f"{name:<{WIDTH}} {said(PROJECT / path)}")
    return "\n".join(lines) + "\n"


def said(path: Path) -> str:
    """The first sentence of a file: of its docstring, or of its leading comment."""
    if path.suffix in CATALOGUES:
        return f"{CATALOGUES[path.suffix]} of the language {path.parent.parent.name}"
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".txt":
        return f"{path.stem.capitalize()} that scripts/lock.py gives to uv"
    if path.suffix == ".py":
        text = ast.get_docstring(ast.parse(text)) or ""
    elif path.suffix == ".yaml" and not text.startswith("#"):
        text = (re.search(r'title: \{en: "(.*?)"', text) or [""] * 2)[1]
    first = re.split(r"(?<=[.?])\s|\n\n|\*/|\n#(?! )", text.strip().lstrip("#/* "))[0]
    first = re.sub(r"\s*\n[#*\s]*", " ", first).rstrip(".: ")
    return first if len(first) <= LONGEST else re.split(r"[:;,] ", first)[0]


if __name__ == "__main__":
    main()
