"""Build the documentation site: ``docs/*.md`` in English and Chinese -> ``site/`` and ``site/zh/``.

    python scripts/docs.py              what `make docs` runs; any warning or broken link is an error

Pages are written by hand; a line ``<!-- generated: NAME -->`` in one is replaced by a table made from the code
(`GENERATED`), so the tables cannot go stale. `docs/site.yaml` is the navigation. The site needs no network, neither to
build nor to read: no remote fonts, scripts or styles.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

import yaml

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))

DOCS = PROJECT / "docs"
SITE = PROJECT / "site"
Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = ("en", "zh")
MARKER = re.compile(r"^<!-- generated: ([\w-]+) -->$", re.M)
OTHER_LANGUAGE = re.compile(r"^\[(?:中文|English)\]\([^)]+\)\n+", re.M)
"""The link to the other language for readers on GitHub; the site has a selector."""
AT_THE_ROOT = {"CONTRIBUTING.md": "contributing.md", "CONTRIBUTING.zh.md": "contributing.zh.md"}
"""Pages that lie in the root of the repository, and their names in the site."""
ENGLISH_ONLY = "!!! note\n    本页只有英文。\n\n"
EXTENSIONS: dict[str, dict[str, Any]] = {
    "admonition": {},
    "attr_list": {},
    "md_in_html": {},
    "tables": {},
    "toc": {"permalink": True, "slugify": {"object": "pymdownx.slugs.slugify", "kwds": {"case": "lower"}}},
    "pymdownx.highlight": {"anchor_linenums": True, "pygments_lang_class": True},
    "pymdownx.superfences": {},
}


def main() -> None:
    """Build both languages into ``site/``, or into the folder of ``--output``."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    arguments.add_argument("--output", type=Path, default=SITE, help="folder of the built site; it is replaced")
    output = arguments.parse_args().output
    navigation = yaml.safe_load((DOCS / "site.yaml").read_text(encoding="utf-8"))
    shutil.rmtree(output, ignore_errors=True)
    with tempfile.TemporaryDirectory() as staging:
        for language in LANGUAGES:
            built = build(navigation, language, Path(staging) / language)
            shutil.copytree(built, output if language == "en" else output / language, dirs_exist_ok=True)
    if faults := list(broken(output)):
        sys.exit("\n".join(faults))
    print(f"{len(list(output.rglob('*.html')))} pages in {output}")


# --- pages


def sources() -> dict[str, Path]:
    """Every page by its name in the site, ``NAME.md`` or ``NAME.zh.md``."""
    found = {path.relative_to(DOCS).as_posix(): path for path in sorted(DOCS.rglob("*.md"))}
    return found | {name: PROJECT / path for path, name in AT_THE_ROOT.items()}


def build(navigation: dict[str, Any], language: Language, folder: Path) -> Path:
    """Stage the pages of one language in an empty folder and build them strictly. Returns the folder of the site."""
    pages = folder / "docs"
    named = {each["file"] for section in navigation["sections"] for each in section["pages"]}
    found = sources()
    unlisted = {name.removesuffix(".md").removesuffix(".zh") for name in found} - named
    if unlisted:
        sys.exit(f"docs/site.yaml does not name {', '.join(sorted(unlisted))}")
    for name in named:
        target = pages / f"{name}.md"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(page(found, name, language), encoding="utf-8")
    for picture in sorted(DOCS.rglob("*.png")):
        target = pages / picture.relative_to(DOCS)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(picture, target)
    (folder / "zensical.toml").write_text(toml(configuration(navigation, language)), encoding="utf-8")
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean", "-f", str(folder / "zensical.toml")]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env={**os.environ, "NO_COLOR": "1"})
    said = re.sub(r"\x1b\[[\d;]*m", "", done.stdout + done.stderr)
    if done.returncode or "Warning" in said:
        sys.exit(f"The {language} pages did not build without a warning:\n{said}")
    return folder / "site"


def page(found: dict[str, Path], name: str, language: Language) -> str:
    """A page's Markdown, ready for the site: generated tables put in, links made to fit."""
    own = found.get(f"{name}.zh.md") if language == "zh" else None
    text = (own or found[f"{name}.md"]).read_text(encoding="utf-8")
    text = OTHER_LANGUAGE.sub("", text, count=1)
    text = MARKER.sub(lambda match: GENERATED[match[1]](language), text)
    if name == "contributing":
        text = text.replace("](docs/", "](")
    if language == "zh" and own is None:
        head, _, rest = text.partition("\n\n")
        text = f"{head}\n\n{ENGLISH_ONLY}{rest}"
    return re.sub(r"(\]\([^)\s:]+)\.zh\.md", r"\1.md", text)


def configuration(navigation: dict[str, Any], language: Language) -> dict[str, Any]:
    """What Zensical reads, of one language."""
    nav: list[Any] = []
    for section in navigation["sections"]:
        entries = [{each[language]: f"{each['file']}.md"} for each in section["pages"]]
        nav += [{section[language]: entries}] if language in section else entries
    here, there = ("./", "zh/") if language == "en" else ("../", "./")
    palette = [
        {"scheme": "default", "toggle": {"icon": "lucide/sun", "name": "Dark / 深色"}},
        {"scheme": "slate", "toggle": {"icon": "lucide/moon", "name": "Light / 浅色"}},
    ]
    return {
        "project": {
            "site_name": navigation["name"],
            "site_description": navigation["description"][language],
            "docs_dir": "docs",
            "site_dir": "site",
            "nav": nav,
            "markdown_extensions": EXTENSIONS,
            "extra": {
                "generator": False,
                "alternate": [
                    {"name": "English", "link": here, "lang": "en"},
                    {"name": "中文", "link": there, "lang": "zh"},
                ],
            },
            "theme": {
                "language": language,
                "font": False,
                "features": ["navigation.sections", "navigation.top", "navigation.footer", "content.code.copy"],
                "palette": palette,
            },
        }
    }


def toml(value: dict[str, Any]) -> str:
    """A TOML document with one inline table or value per key of the first table."""
    return "".join(
        f"[{name}]\n" + "".join(f"{json.dumps(key)} = {_inline(inner)}\n" for key, inner in table.items())
        for name, table in value.items()
    )


def _inline(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_inline(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_inline, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


# --- reference tables made from the code


@cache
def studio() -> dict[str, Any]:
    """The OpenAPI schema and the ``gradio_client`` API of a studio that was made and closed again."""
    from fastapi import FastAPI
    from fastapi.openapi.utils import get_openapi

    from sage_studio.api.app import app_arguments
    from sage_studio.settings import load_settings
    from sage_studio.studio import Studio
    from sage_studio.ui.page import build_page

    with tempfile.TemporaryDirectory() as home:
        made = Studio(load_settings(home=Path(home)))
        try:
            app = FastAPI(**app_arguments(made, None))
            routes = [each for each in app.routes if getattr(each, "include_in_schema", False)]
            schema = get_openapi(title="SAGE Studio", version="0", routes=routes)
            return {"rest": schema, "endpoints": build_page(made).get_api_info()["named_endpoints"]}
        finally:
            made.close()


def settings_table(language: Language) -> str:
    """Every setting: variable, default, meaning."""
    from sage_studio.settings import PREFIX, Settings

    rows = []
    for name, field in Settings.model_fields.items():
        words = field.description if language == "en" else _chinese()["settings"][name]
        rows.append((f"`{PREFIX}{name.upper()}`", _code(field.get_default()), _allowed(field), words))
    return _table({"en": "Variable | Default | Values | Meaning", "zh": "变量 | 默认值 | 取值 | 含义"}[language], rows)


def recipe_fields(language: Language) -> str:
    """Every field of every training method, in one table per method; fields that all share come first."""
    from sage_studio.training.recipes import RECIPES, Recipe

    shared = [name for name in Recipe.model_fields if name != "type"]
    parts = [
        f"## {'Shared by all methods' if language == 'en' else '所有方法共有'}\n\n" + _fields(Recipe, shared, language)
    ]
    for kind, recipe in RECIPES.items():
        own = [
            name
            for name, field in recipe.model_fields.items()
            if name != "type" and (name not in shared or field.default != Recipe.model_fields[name].default)
        ]
        title = recipe.title.in_(language)
        parts.append(f"## {title} (`type: {kind}`)\n\n" + _fields(recipe, own, language))
    return "\n\n".join(parts)


def _fields(recipe: Any, names: list[str], language: Language) -> str:
    rows = []
    for name in names:
        field = recipe.model_fields[name]
        default = "" if field.is_required() else _code(field.default)
        extra = field.json_schema_extra
        label, words = extra["label"][language], extra["help"][language]
        named = f"**{label}.** {words}" if language == "en" else f"**{label}**：{words}"
        rows.append((f"`{name}`", default, _allowed(field), named if words else label))
    return _table({"en": "Field | Default | Values | Meaning", "zh": "字段 | 默认值 | 取值 | 含义"}[language], rows)


def presets_table(language: Language) -> str:
    """The ready recipes of ``configs/recipes``."""
    rows = []
    for path in sorted((PROJECT / "configs" / "recipes").glob("*.yaml")):
        preset = yaml.safe_load(path.read_text(encoding="utf-8"))
        rows.append((f"`{path.stem}`", f"`{preset['type']}`", preset["title"][language], preset["note"][language]))
    return _table({"en": "File | Method | Title | For", "zh": "文件 | 方法 | 标题 | 用途"}[language], rows)


def models_table(language: Language) -> str:
    """The catalogue of ``configs/models.yaml``."""
    models = yaml.safe_load((PROJECT / "configs" / "models.yaml").read_text(encoding="utf-8"))["models"]
    rows = [
        (f"`{each['id']}`", f"{each['parameters'] / 1e9:.2g} B", each.get("licence", ""), each["note"][language])
        for each in models
    ]
    return _table({"en": "Model | Parameters | Licence | Note", "zh": "模型 | 参数量 | 许可证 | 说明"}[language], rows)


def rest_table(language: Language) -> str:
    """Every REST operation by tag, with its parameters and the fields of its body."""
    schema = studio()["rest"]
    groups: dict[str, list[tuple[str, ...]]] = {}
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            named = [f"`{each['name']}`" for each in operation.get("parameters", []) if each["in"] != "path"]
            takes = ", ".join([*named, *(f"`{name}`" for name in _body(operation, schema))])
            summary = (operation.get("description") or operation.get("summary", "")).split("\n")[0]
            row = (f"`{method.upper()} {path}`", takes, _plain(summary))
            groups.setdefault(operation.get("tags", ["other"])[0], []).append(row)
    head = {"en": "Operation | Query and body | What it does", "zh": "操作 | 查询与请求体 | 作用"}[language]
    return "\n\n".join(f"## {tag}\n\n" + _table(head, rows) for tag, rows in groups.items())


def _body(operation: dict[str, Any], schema: dict[str, Any]) -> Iterator[str]:
    for media in operation.get("requestBody", {}).get("content", {}).values():
        body = media.get("schema", {})
        name = body.get("$ref", "").rpartition("/")[2]
        yield from (schema["components"]["schemas"][name] if name else body).get("properties", {})


def endpoints_table(language: Language) -> str:
    """Every named endpoint with its parameters; those that take a recipe's fields say so."""
    fields = {"en": "the fields of a recipe", "zh": "训练配置的字段"}[language]
    rows = []
    for name, info in studio()["endpoints"].items():
        parameters = [
            f"`{each['parameter_name']}`"
            + (f" = {_code(each['parameter_default'])}" if each["parameter_has_default"] else "")
            for each in info["parameters"]
        ]
        takes = fields if any("learning_rate" in each for each in parameters) else ", ".join(parameters)
        rows.append((f"`{name}`", takes, _plain(info.get("description", ""))))
    return _table({"en": "Endpoint | Parameters | What it does", "zh": "端点 | 参数 | 作用"}[language], rows)


def cli_table(language: Language) -> str:
    """Every verb of the command line."""
    from sage_studio.cli import SHORT, flag_of
    from sage_studio.operations import operations

    short = {name: verb for verb, name in SHORT.items()}
    rows = []
    for operation in operations("cli"):
        words = [
            f"`{name}`" if info.is_required() else f"`{flag_of(name)}`"
            for name, info in operation.request.model_fields.items()
        ]
        command = f"`{operation.noun} {operation.verb}`"
        if operation.name in short:
            command += f", `{short[operation.name]}`"
        takes = "`learning_rate=1e-4 …`" if operation.name == "start_finetune" else " ".join(words[:12])
        rows.append((command, takes, _plain(operation.description.splitlines()[0])))
    return _table({"en": "Command | Arguments | What it does", "zh": "命令 | 参数 | 作用"}[language], rows)


def disk_table(language: Language) -> str:
    """Where each thing lies in the studio's home."""
    from sage_studio.settings import Settings, load_settings

    settings = load_settings(home=Path("/home-of-the-studio"))
    rows = []
    for name, value in vars(Settings).items():
        path = getattr(settings, name) if isinstance(value, property) else None
        if isinstance(path, Path):
            words = (value.__doc__ or "").splitlines()[0] if language == "en" else _chinese()["paths"][name]
            rows.append((f"`{path.relative_to(settings.home)}`", _plain(words)))
    return _table({"en": "Path | What it is", "zh": "路径 | 内容"}[language], sorted(rows))


GENERATED: dict[str, Callable[[Language], str]] = {
    "settings": settings_table,
    "recipe-fields": recipe_fields,
    "presets": presets_table,
    "models": models_table,
    "rest": rest_table,
    "endpoints": endpoints_table,
    "cli": cli_table,
    "disk": disk_table,
}
"""Marker -> what makes its Markdown in a language."""


@cache
def _chinese() -> dict[str, dict[str, str]]:
    """Chinese words for what is described in English only in the code."""
    read: dict[str, dict[str, str]] = yaml.safe_load((DOCS / "reference.zh.yaml").read_text(encoding="utf-8"))
    return read


def _table(head: str, rows: list[Any]) -> str:
    names = head.split(" | ")
    lines = [names, ["---"] * len(names), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _code(value: Any) -> str:
    if value in ("", None):
        return ""
    return f"`{json.dumps(value) if isinstance(value, bool) else value}`"


def _allowed(field: Any) -> str:
    """The values that a field takes: its choices, or its bounds."""
    choices = getattr(field.annotation, "__args__", ())
    if choices and all(isinstance(each, str) for each in choices):
        return ", ".join(f"`{each}`" for each in choices)
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    bounds = ((sign, getattr(rule, name, None)) for rule in field.metadata for name, sign in signs.items())
    return ", ".join(f"{sign} {bound}" for sign, bound in bounds if bound is not None)


def _plain(words: str) -> str:
    """Words of a docstring as Markdown."""
    return words.replace("``", "`").replace("<", "&lt;")


# --- the check of the built site


class _Page(HTMLParser):
    """Collects the anchors of a page, its links, and what the browser would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag in ("script", "img", "link", "iframe", "source") and given.get("rel") not in (
            "canonical",
            "alternate",
        ):
            self.fetched += [given[name] for name in ("src", "href") if name in given]


def broken(site: Path) -> Iterator[str]:
    """Every link that leads nowhere, and everything that a page would fetch from elsewhere."""
    pages = {path: _Page(path.read_text(encoding="utf-8")) for path in sorted(site.rglob("*.html"))}
    for path, seen in pages.items():
        where = path.relative_to(site)
        if where.name == "404.html":  # its links are relative to wherever it is shown
            continue
        for target in seen.fetched:
            if urlsplit(target).netloc:
                yield f"{where}: would be fetched from elsewhere: {target}"
        for target in [*seen.links, *seen.fetched]:
            parts = urlsplit(target)
            if parts.scheme or parts.netloc:
                continue
            file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            file = file / "index.html" if file.is_dir() else file
            if not file.is_file():
                yield f"{where}: leads nowhere: {target}"
            elif parts.fragment and file in pages and unquote(parts.fragment) not in pages[file].anchors:
                yield f"{where}: no such place: {target}"


if __name__ == "__main__":
    main()
