"""How large the code is and how far a reader has to go: ``python -m scripts.house``.

Prints modules, lines, small modules with a single importer, the longest module, the modules of ours on three walks, and
private words that are still in the tree. Packages whose ``__init__.py`` holds only a docstring are not counted. The
walks are counted by their imports. One module imports all sources of datasets, so the upload is also really made: the
modules of `sage_studio.data` and the service whose functions are called are what its reader meets.
"""

import ast
import re
import sys
import tempfile
import threading
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from types import FrameType

PROJECT = Path(__file__).resolve().parent.parent
PACKAGE = PROJECT / "sage_studio"
SMALL = 60
WALKS = {
    "an SFT run in the child": ("training/__main__.py", "training/runner.py", "training/methods/sft.py"),
    "set as backend and chat": ("services/serving.py",),
    "an upload to a stored dataset": ("services/datasets.py",),
}
"""What a walk begins with -> followed through the imports that are made when a module is imported."""
WITHIN = {
    "set as backend and chat": ("serving", "services/serving"),
    "an upload to a stored dataset": ("data", "services/datasets"),
}
"""Of a service's walk only its own packages count: its constructor names collaborators that the walk does not enter."""
PRIVATE = """
Workshop Intake Library Curation Forecasts Forecast FootprintBook footprint paces PaceBook VoteBook TemplateBook
MappingBook House house EngineLife AdapterShelf Yielding Sharing Holder Asked LeftOut Unread Seen Tally Pair Piece
Brought Yardstick Written Writer Frame Phrasebook SpokenBlocks Calm BeforePanel NextSteps KeptPlain Unhealthy
Material QuickLinear quicken knob complaint learnable holding_out objection sieve Sieve strangers endings usable_cards
"""
"""Words of the first edition that are names for nothing any more; they are looked for in texts too."""


def main() -> None:
    """Print the table."""
    modules = {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}
    counted = counted_modules()
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in counted}
    importers: dict[Path, set[Path]] = defaultdict(set)
    for path, tree in modules.items():
        for other in imported(ast.walk(tree)):
            importers[other].add(path)
    lonely = [path for path in counted if lines[path] < SMALL and len(importers[path]) == 1]
    longest = max(counted, key=lambda path: lines[path])
    print(f"{len(counted)} modules, {sum(lines.values()):,} lines")
    print(f"{len(lonely)} modules under {SMALL} lines that one other imports")
    print(f"the longest: {name(longest)}, {lines[longest]} lines")
    for walk in WALKS:
        print(f"{len(reached(walk))} modules for {walk}")
    print(f"{len(entered_by_an_upload())} modules whose functions that upload calls")
    found = left_over(counted)
    print(f"{len(found)} private words" + (f": {', '.join(found)}" if found else ""))


def counted_modules() -> dict[Path, ast.Module]:
    """The modules of the package that hold code, parsed."""
    parsed = ((path, ast.parse(path.read_text(encoding="utf-8"))) for path in sorted(PACKAGE.rglob("*.py")))
    return {path: tree for path, tree in parsed if tree.body[1:]}


def name(path: Path) -> str:
    """As imported, without the package."""
    return str(path.relative_to(PACKAGE))


def imported(nodes: Iterable[ast.AST]) -> set[Path]:
    """The modules of ours that some nodes of a syntax tree import."""
    found = set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sage_studio"):
            base = PACKAGE.joinpath(*(node.module or "").split(".")[1:])
            for each in (base, *(base / alias.name for alias in node.names)):
                found |= {path for path in (each.with_suffix(".py"), each / "__init__.py") if path.is_file()}
    return found


def at_import(tree: ast.AST) -> list[ast.AST]:
    """The nodes that run when a module is imported."""
    found: list[ast.AST] = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        found += [node, *at_import(node)]
    return found


def reached(walk: str) -> set[Path]:
    """The modules that one of `WALKS` goes through."""
    within, counted = WITHIN.get(walk), counted_modules()
    waiting, seen = [PACKAGE / start for start in WALKS[walk]], set[Path]()
    while waiting:
        path = waiting.pop()
        if path in seen or path not in counted or (within and not name(path).startswith(within)):
            continue
        seen.add(path)
        waiting += imported(at_import(counted[path]))
    return seen


def entered_by_an_upload() -> set[Path]:
    """The modules of an upload's walk whose functions run while a file of two JSONL rows becomes a dataset."""
    from sage_studio.settings import load_settings
    from sage_studio.studio import Studio

    seen = set[Path]()

    def see(frame: FrameType, event: str, _: object) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and frame.f_code.co_name != "<module>" and path.is_relative_to(PACKAGE):
            seen.add(path)

    with tempfile.TemporaryDirectory() as home:
        studio = Studio(load_settings(home=home))
        file = Path(home) / "rows.jsonl"
        file.write_text('{"instruction": "What is 1 + 1?", "output": "2"}\n' * 2, encoding="utf-8")
        threading.setprofile(see)
        sys.setprofile(see)
        try:
            studio.datasets.upload(file, file.name)
        finally:
            sys.setprofile(None)
            threading.setprofile(None)
    within = WITHIN["an upload to a stored dataset"]
    return {path for path in seen if name(path).startswith(within)}


def left_over(counted: dict[Path, ast.Module]) -> list[str]:
    """Private words that are still names in the code."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in counted)
    return [word for word in PRIVATE.split() if re.search(rf"(?<![\w-]){word}(?![\w-])", text)]


if __name__ == "__main__":
    main()
