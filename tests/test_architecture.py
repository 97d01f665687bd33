"""The lines between the layers, read from the imports and the syntax trees of the code itself."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from sage_studio.settings import PROJECT
from scripts.house import at_import, reached

PACKAGE = PROJECT / "sage_studio"
FILES = sorted(PACKAGE.rglob("*.py"))
HEAVY = {"torch", "transformers", "trl", "peft", "datasets", "bitsandbytes", "sentence_transformers", "vllm", "gguf"}

BOTTOM = {
    *("text", "errors", "files", "settings", "database", "migrations", "hardware", "doctor", "processes"),
    *("models", "validation_errors", "catalog", "hub", "space", "safetensors_file", "sse", "fields", "paths"),
    "child_environment",
}
LAYERS: list[set[str]] = [
    BOTTOM,
    {"data"},
    {"training", "fetching"},
    {"tasks", "serving"},
    {"evaluation", "preflight", "downloads"},
    {"services"},
    {"studio"},
    {"operations", "preparing"},
    {"ui", "api", "daemon", "mcp"},
    {"cli", "launch"},
]
HOMES = {
    "gradio": {"ui", "launch"},
    "fastapi": {"api", "serving/transformers_server.py", "serving/embedding_server.py"},
}
MOST_FOR_SFT = 26
LAST_RESORT = {"child.py", "runner.py"}
"""The trainer's last act: whatever ended it is written into result.json, for there is nobody above to tell."""


def part(path: Path) -> str:
    """The first name under the package: a folder or a top-level module."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path, *, nested: bool = True) -> set[str]:
    """Every module that a file imports; without ``nested``, only those imported when the file itself is."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = ast.walk(tree) if nested else at_import(tree)
    found: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def own(path: Path) -> set[str]:
    """The layers that a file imports."""
    names = {name.split(".")[1] for name in imports(path) if name.startswith("sage_studio.")}
    return {name for name in names if (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").exists()}


def level(name: str) -> int:
    return next(number for number, layer in enumerate(LAYERS) if name in layer)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_what_lies_below_it(path):
    here = part(path)
    if here == "__init__":
        assert own(path) == set()
        return
    for other in own(path) - {here}:
        assert level(other) < level(here) or (here in BOTTOM and other in BOTTOM), f"{here} must not import {other}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_frameworks_stay_in_their_homes(path):
    where = str(path.relative_to(PACKAGE))
    roots = {name.split(".")[0] for name in imports(path)}
    for framework, homes in HOMES.items():
        if framework in roots:
            assert part(path) in homes or where in homes, f"{where} must not import {framework}"


def test_the_web_process_never_imports_torch():
    """Import all that the web process imports, in a fresh interpreter, and look at what came along."""
    script = (
        "import sys\n"
        "import app, sage_studio.studio, sage_studio.api.app, sage_studio.ui.page\n"
        f"print(sorted({HEAVY!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=PROJECT)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("path", [*FILES, PROJECT / "app.py"], ids=lambda path: path.name)
def test_nothing_swallows_every_exception(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ExceptHandler):
            names = {name.id for name in ast.walk(node.type) if isinstance(name, ast.Name)} if node.type else {"bare"}
            reraises = any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
            assert not names & {"bare", "Exception", "BaseException"} or reraises or path.name in LAST_RESORT, (
                f"{path.name}:{node.lineno} swallows every exception"
            )


def test_one_sft_run_needs_few_modules_of_ours():
    """What a reader of a run has to know; `scripts/house.py` counts it and the other walks."""
    read = reached("an SFT run in the child")
    assert len(read) <= MOST_FOR_SFT, sorted(str(path.relative_to(PACKAGE)) for path in read)
