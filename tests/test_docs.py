"""The documentation is true: the site builds strictly, its tables are those of the code, its commands and snippets fit.

README and CONTRIBUTING count as pages. (tests/e2e runs the quick start's Python and the curl examples for real.)
"""

import ast
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys

import pytest
import yaml

from sage_studio.settings import PREFIX, PROJECT, Settings

DOCS = PROJECT / "docs"
PAGES = sorted(
    [
        *DOCS.rglob("*.md"),
        *(PROJECT / f"{name}{code}.md" for name in ("README", "CONTRIBUTING") for code in ("", ".zh")),
    ]
)
WRITTEN = [path for path in PAGES if "figures" not in path.parts and path.name != "tree.md"]
"""Pages that a person writes."""
ENGLISH_ONLY = {"decisions.md", "tree.md", "doctor.md", "gpu-rehearsal.md"}
MAKE_VARIABLES = {"ARGS", "HOST", "PORT", "SHARE", "PYTHON", "WORKERS"}


def name_of(path):
    return str(path.relative_to(PROJECT))


def blocks(path, language):
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(encoding="utf-8"), re.S | re.M)


def inline(path):
    """The words in single backticks, outside fenced blocks."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.S | re.M))


@pytest.fixture(scope="module")
def api():
    """REST operations, endpoints and verbs as they are now, described as the contract is."""
    script = PROJECT / "tests" / "contract" / "describe.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True, cwd=PROJECT)
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def builder():
    """scripts/docs.py as a module."""
    spec = importlib.util.spec_from_file_location("docs_builder", PROJECT / "scripts" / "docs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built site."""
    output = tmp_path_factory.mktemp("site")
    command = [sys.executable, "scripts/docs.py", "--output", str(output)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in (done.stdout + done.stderr).lower()
    return output


# --- the site


def test_every_page_is_in_the_site_in_both_languages(site):
    navigation = yaml.safe_load((DOCS / "site.yaml").read_text(encoding="utf-8"))
    named = [page["file"] for section in navigation["sections"] for page in section["pages"]]
    for folder in (site, site / "zh"):
        for name in named:
            built = folder / "index.html" if name == "index" else folder / name / "index.html"
            assert built.is_file(), built
            assert "generated:" not in built.read_text(encoding="utf-8")
    assert len(list(site.rglob("*.html"))) == 2 * (len(named) + 1), "beside the pages only two 404 pages"


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_tables_hold_all_that_there_is(site, api, language):
    from sage_studio.cli import SHORT
    from sage_studio.operations import operations
    from sage_studio.training.recipes import RECIPES

    folder = site if language == "en" else site / "zh"
    expected = {
        "settings": [f"{PREFIX}{name.upper()}" for name in api["settings"]],
        "recipes": {name for recipe in RECIPES.values() for name in recipe.model_fields} - {"type"},
        "rest": api["rest"],
        "client": api["endpoints"],
        "cli": [f"{each.noun} {each.verb}" for each in operations("cli")] + list(SHORT),
        "disk": [path for path in api["paths"].values() if path != "."],
    }
    for page, names in expected.items():
        text = (folder / page / "index.html").read_text(encoding="utf-8")
        assert names
        assert not [name for name in names if f"<code>{name}</code>" not in text], page


def test_a_page_with_a_broken_link_does_not_build(builder, tmp_path, monkeypatch):
    (tmp_path / "index.md").write_text("# Start\n\n[gone](gone.md)\n", encoding="utf-8")
    monkeypatch.setattr(builder, "sources", lambda: {"index.md": tmp_path / "index.md"})
    page = {"file": "index", "en": "Start", "zh": "开始"}
    navigation = {"name": "Test", "description": {"en": "t", "zh": "t"}, "sections": [{"pages": [page]}]}
    with pytest.raises(SystemExit, match=r"(?s)did not build without a warning.*gone\.md"):
        builder.build(navigation, "en", tmp_path / "staging")


def test_a_page_that_the_navigation_does_not_name_is_refused(builder, tmp_path, monkeypatch):
    monkeypatch.setattr(builder, "sources", lambda: {"lost.zh.md": tmp_path / "lost.zh.md"})
    with pytest.raises(SystemExit, match="does not name lost"):
        builder.build({"sections": []}, "en", tmp_path / "staging")


def test_broken_links_and_remote_fetches_in_the_built_site_are_found(builder, tmp_path):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "index.html").write_text('<h1 id="here">B</h1>', encoding="utf-8")
    good = '<a href="b/#here">b</a><a href="https://example.org/">out</a>'
    bad = (
        '<a href="b/#nowhere">x</a><a href="c/">x</a><img src="no.png">'
        '<script src="https://cdn.example/x.js"></script><link rel="stylesheet" href="//fonts.example/f.css">'
    )
    (tmp_path / "index.html").write_text(good, encoding="utf-8")
    assert not list(builder.broken(tmp_path))
    (tmp_path / "index.html").write_text(good + bad, encoding="utf-8")
    assert len(list(builder.broken(tmp_path))) == 5


# --- both languages


def test_every_page_has_its_counterpart():
    for path in PAGES:
        if path.name not in ENGLISH_ONLY:
            other = path.with_suffix("").with_suffix("") if path.name.endswith(".zh.md") else path.with_suffix(".zh")
            assert other.with_name(other.name + ".md").is_file(), f"{name_of(path)} has no counterpart"


@pytest.mark.parametrize(
    "path",
    [path for path in WRITTEN if not path.name.endswith(".zh.md") and path.name not in ENGLISH_ONLY],
    ids=name_of,
)
def test_both_languages_say_as_much(path):
    """As many headings of each level, table rows, pictures and list items; the same commands and generated tables."""
    other = path.with_name(path.name.removesuffix(".md") + ".zh.md")
    assert shape(path) == shape(other)
    assert blocks(path, "text") == blocks(other, "text")
    for language in ("bash", "python", "json"):
        assert [neutral(block) for block in blocks(path, language)] == [
            neutral(each) for each in blocks(other, language)
        ]


def shape(path):
    text = path.read_text(encoding="utf-8")
    return {
        what: len(re.findall(pattern, text, re.M))
        for what, pattern in {
            "#": r"^# ",
            "##": r"^## ",
            "###": r"^### ",
            "rows": r"^\|",
            "pictures": r"!\[",
            "items": r"^(?:- |\d+\. )",
            "generated": r"^<!-- generated: ",
        }.items()
    }


def neutral(code):
    """Code without what is in a language: quoted texts that hold a blank or Chinese, and comments."""
    quoted = re.sub(r'"[^"\n]*"', lambda text: "…" if re.search(r"[^\x21-\x7e]", text[0]) else text[0], code)
    return re.sub(r"# .*", "", quoted)


def test_the_chinese_words_of_the_tables_are_those_of_today(api):
    words = yaml.safe_load((DOCS / "reference.zh.yaml").read_text(encoding="utf-8"))
    assert set(words["settings"]) == set(api["settings"])
    assert set(words["paths"]) == set(api["paths"])


# --- links, names and commands


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_links_and_pictures_are_there(path):
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (path.parent / target.partition("#")[0]).exists(), target


@pytest.mark.parametrize("path", WRITTEN, ids=name_of)
def test_every_variable_is_a_setting(path):
    for name in re.findall(rf"{PREFIX}([A-Z_]+)", path.read_text(encoding="utf-8")):
        assert name.lower() in {*Settings.model_fields, "config"}, name


@pytest.mark.parametrize("path", WRITTEN, ids=name_of)
def test_every_file_named_is_there(path):
    for word in inline(path):
        named = re.fullmatch(
            r"(?:configs|tests|scripts|benchmarks|docs)/[\w./-]+|(?:requirements|CHANGELOG)[\w.-]*", word
        )
        if named and not word.endswith("build/"):
            assert (PROJECT / word).exists(), word


def test_the_tests_and_settings_of_the_security_page_are_there():
    path = PROJECT / "SECURITY.md"
    code = "\n".join(each.read_text(encoding="utf-8") for each in (PROJECT / "tests").rglob("test_*.py"))
    for word in inline(path):
        if re.fullmatch(r"(?:tests|sage_studio)/[\w./]+", word):
            assert (PROJECT / word).is_file(), word
        elif re.fullmatch(r"test_\w+", word):
            assert f"def {word}(" in code, word
    for name in re.findall(rf"{PREFIX}([A-Z_]+)", path.read_text(encoding="utf-8")):
        assert name.lower() in Settings.model_fields, name


@pytest.mark.parametrize("path", WRITTEN, ids=name_of)
def test_every_operation_and_endpoint_named_exists(path, api):
    operations = set(api["rest"])
    paths = {operation.split()[1] for operation in operations} | {"/docs", "/api/models/downloads"}
    for word in inline(path):
        if re.match(r"(?:GET|POST|PUT|DELETE|PATCH) /", word):
            assert word in operations, word
        elif re.match(r"/(?:api|v1)/", word):
            assert word in paths, word
        elif re.fullmatch(r"/[a-z]+_[a-z_]+", word):
            assert word in api["endpoints"], word


@pytest.mark.parametrize("path", WRITTEN, ids=name_of)
def test_every_make_command_is_a_target(path):
    targets = set(re.findall(r"^([\w-]+):", (PROJECT / "Makefile").read_text(encoding="utf-8"), re.M))
    for command in [*inline(path), *"\n".join(blocks(path, "bash")).splitlines()]:
        if named := re.match(r"(?:[A-Z_]+=\S* )*make ([\w-]+)", command):
            assert named[1] in targets, command


@pytest.mark.parametrize("path", WRITTEN, ids=name_of)
def test_every_benchmark_named_says_its_own_command(path):
    for module in re.findall(r"python -m (benchmarks\.\w+)", path.read_text(encoding="utf-8")):
        assert f"python -m {module}" in (PROJECT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", [path for path in WRITTEN if blocks(path, "bash")], ids=name_of)
def test_every_command_is_one_that_is_understood(path, api):
    """Each line of a bash block: a make target with known variables, a curl of the API, a verb or a test."""
    for block in blocks(path, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            check_command(shlex.split(line, comments=True), api)


def check_command(words, api):
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        name = words.pop(0).partition("=")[0]
        assert name in MAKE_VARIABLES or name.removeprefix(PREFIX).lower() in Settings.model_fields, name
    match words:
        case ["make", target, *variables]:
            assert re.search(rf"^{target}:", (PROJECT / "Makefile").read_text(encoding="utf-8"), re.M), target
            assert {each.partition("=")[0] for each in variables} <= MAKE_VARIABLES
        case ["curl", *rest]:
            check_curl(rest, api)
        case [".venv/bin/python", "-m", "sage_studio.cli", *rest]:
            check_verb(rest)
        case [".venv/bin/sage", *rest]:
            check_verb(rest)
        case [".venv/bin/python", "-m", "sage_studio.mcp", address]:
            assert address.startswith("http://127.0.0.1:")
        case ["python", "-m", "pytest", *rest]:
            assert all((PROJECT / word).exists() for word in rest if "/" in word), rest
        case _:
            raise AssertionError(f"a command that no rule checks: {shlex.join(words)}")


def check_verb(words):
    from sage_studio.cli import parser

    given = parser().parse_args(words)
    if given.noun == "train":
        check_recipe(dict(field.partition("=")[::2] for field in given.fields))


def check_curl(words, api):
    method, body, address = "GET", None, ""
    words = iter(words)
    for word in words:
        match word:
            case "-X":
                method = next(words)
            case "-H":
                assert next(words) == "Content-Type: application/json"
            case "-d":
                body = json.loads(next(words))
            case "-s":
                pass
            case _:
                address = word
    operation = f"{method} {re.sub(r'^http://127.0.0.1:7860', '', address)}"
    assert operation in api["rest"], operation
    assert set(body or {}) <= set(api["rest"][operation]["request"]), operation
    if "config" in (body or {}):
        check_recipe({"type": body["type"], **body["config"]})


def check_recipe(fields):
    from sage_studio.training.recipes import RECIPES

    assert set(fields) <= set(RECIPES[fields.get("type", "sft")].model_fields)


@pytest.mark.parametrize("path", [path for path in WRITTEN if blocks(path, "python")], ids=name_of)
def test_python_snippets_call_endpoints_that_take_their_arguments(path, api):
    for block in blocks(path, "python"):
        tree = ast.parse(block)
        for call in [each for each in ast.walk(tree) if isinstance(each, ast.Call)]:
            if isinstance(call.func, ast.Attribute) and call.func.attr == "predict":
                given = {each.arg: each.value for each in call.keywords}
                parameters = api["endpoints"][ast.literal_eval(given.pop("api_name"))]
                assert set(given) <= set(parameters)
                required = {name for name, default in parameters.items() if default == "required"}
                assert len(required - set(given)) <= len(call.args) <= len(parameters) - len(given)


# --- examples that run


def test_the_command_line_examples_run(tmp_path):
    """As printed, in a home of their own: the last one lists the task that the second one queued."""
    lines = [line for line in blocks(DOCS / "cli.md", "bash")[0].splitlines() if "sage_studio.cli" in line]
    answers = [json.loads(run_cli(line, tmp_path)) for line in lines]
    assert answers[0]["stats"]["total_samples"] == 336
    assert [task["id"] for task in answers[2]] == [answers[1]["id"]]


def test_the_rows_shown_are_a_dataset(tmp_path):
    for page in ("datasets.md", "datasets.zh.md"):
        (rows,) = blocks(DOCS / page, "json")
        file = tmp_path / f"{page}.json"
        file.write_text(rows, encoding="utf-8")
        made = json.loads(run_cli(f".venv/bin/python -m sage_studio.cli upload {file}", tmp_path))
        assert made["stats"]["total_samples"] == len(json.loads(rows))


def run_cli(line, home):
    words = [sys.executable if word == ".venv/bin/python" else word for word in shlex.split(line)]
    environment = {**os.environ, f"{PREFIX}HOME": str(home)}
    done = subprocess.run(words, cwd=PROJECT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout
