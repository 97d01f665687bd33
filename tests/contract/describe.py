"""What others rely on, as one JSON document: REST, ``gradio_client``, command line, settings, log lines, files.

    python tests/contract/describe.py > tests/contract/contract.json

``contract.json`` was written by 0.1. `test_contract.py` holds the code against it: more is welcome, less is a break.
"""

import argparse
import ast
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

PROJECT = Path.cwd()


def describe(home: Path) -> dict[str, Any]:
    """The whole contract of the code in the working folder; ``home`` is an empty folder to work in."""
    from sage_studio.settings import Settings, load_settings
    from sage_studio.studio import Studio

    studio = Studio(load_settings(home=home))
    try:
        return {
            "rest": rest(studio),
            "endpoints": endpoints(studio),
            "command_line": command_line(),
            "settings": {name: _plain(field.get_default()) for name, field in Settings.model_fields.items()},
            "log_lines": sorted(log_lines()),
            "paths": paths(home),
            "tables": tables(studio),
        }
    finally:
        studio.close()


def rest(studio: Any) -> dict[str, Any]:
    """Method and path -> parameters, fields of the request, fields of the answer."""
    from fastapi import FastAPI
    from fastapi.openapi.utils import get_openapi

    from sage_studio.api.app import app_arguments

    app = FastAPI(**app_arguments(studio, None))
    schema = get_openapi(
        title="contract", version="0", routes=[each for each in app.routes if getattr(each, "include_in_schema", False)]
    )
    return {
        f"{method.upper()} {path}": {
            "parameters": {each["name"]: each.get("required", False) for each in operation.get("parameters", [])},
            "request": _fields(operation.get("requestBody", {}), schema),
            "response": _fields(next(iter(operation["responses"].values())), schema),
        }
        for path, methods in schema["paths"].items()
        for method, operation in methods.items()
    }


def endpoints(studio: Any) -> dict[str, Any]:
    """Name of a ``gradio_client`` endpoint -> its parameters, each with its default or "required"."""
    from sage_studio.ui.page import build_page

    api = build_page(studio).get_api_info()["named_endpoints"]
    return {
        name: {
            each["parameter_name"]: _plain(each["parameter_default"]) if each["parameter_has_default"] else "required"
            for each in info["parameters"]
        }
        for name, info in api.items()
    }


def command_line() -> dict[str, list[str]]:
    """Verb -> its words and options."""
    from sage_studio.cli import parser

    verbs = next(each for each in parser()._actions if isinstance(each, argparse._SubParsersAction))
    return {
        name: sorted(option for action in verb._actions for option in action.option_strings or [action.dest])
        for name, verb in verbs.choices.items()
    }


def log_lines() -> set[str]:
    """The formats of ``logger.info(…)`` and its like: what people look for in ``studio.log``."""
    found = set()
    for path in sorted((PROJECT / "sage_studio").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in ("info", "warning", "error")
                and getattr(node.func.value, "id", "") == "logger"
                and isinstance(node.args[0], ast.Constant)
            ):
                found.add(str(node.args[0].value))
    return found


def paths(home: Path) -> dict[str, str]:
    """Setting -> where it lies in the home."""
    from sage_studio.settings import Settings, load_settings

    settings = load_settings(home=home)
    found = {name: getattr(settings, name) for name, value in vars(Settings).items() if isinstance(value, property)}
    return {name: str(path.relative_to(home)) for name, path in found.items() if isinstance(path, Path)}


def tables(studio: Any) -> dict[str, list[str]]:
    """Table -> its columns."""
    names = [row["name"] for row in studio.database.rows("SELECT name FROM sqlite_master WHERE type = 'table'")]
    return {
        name: [row["name"] for row in studio.database.rows(f"PRAGMA table_info({name})")]
        for name in sorted(names)
        if not name.startswith("sqlite_")
    }


def _fields(holder: dict[str, Any], schema: dict[str, Any]) -> dict[str, bool]:
    """Every field of a body, nested ones as ``outer.inner``, with whether it is required."""
    content = holder.get("content", {})
    found: dict[str, bool] = {}
    for media in content.values():
        _collect(media.get("schema", {}), schema, "", found, ())
    return dict(sorted(found.items()))


def _collect(node: Any, schema: dict[str, Any], prefix: str, found: dict[str, bool], seen: tuple[str, ...]) -> None:
    if not isinstance(node, dict):
        return
    reference = node.get("$ref", "")
    if reference:
        name = reference.rpartition("/")[2]
        if name not in seen:
            _collect(schema["components"]["schemas"][name], schema, prefix, found, (*seen, name))
        return
    for key in ("anyOf", "allOf", "oneOf"):
        for option in node.get(key, []):
            _collect(option, schema, prefix, found, seen)
    _collect(node.get("items"), schema, prefix, found, seen)
    for name, inner in node.get("properties", {}).items():
        path = f"{prefix}.{name}".lstrip(".")
        found[path] = name in node.get("required", [])
        _collect(inner, schema, path, found, seen)


def _plain(value: Any) -> Any:
    return value if isinstance(value, (str, int, float, bool, list, dict, type(None))) else str(value)


if __name__ == "__main__":
    sys.path.insert(0, str(PROJECT))
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(describe(Path(folder)), indent=1, ensure_ascii=False, sort_keys=True))
