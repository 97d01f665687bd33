"""The table of guards fits the code: each text stands where it says, the rest is Python, and its tests exist."""

import ast
import importlib.util
import sys

import pytest

from sage_studio.settings import PROJECT

SPEC = importlib.util.spec_from_file_location("guards", PROJECT / "scripts" / "guards.py")
guards = importlib.util.module_from_spec(SPEC)
sys.modules["guards"] = guards  # dataclasses look their module up
SPEC.loader.exec_module(guards)
TABLE = guards.load(guards.TABLE)


@pytest.mark.parametrize("guard", TABLE, ids=lambda guard: f"{guard.bad}: {guard.name}")
def test_a_row_fits_the_code(guard):
    sources = {cut.file: (PROJECT / cut.file).read_text(encoding="utf-8") for cut in guard.cuts}
    for cut in guard.cuts:
        without = cut.taken_from(sources[cut.file])
        assert without != sources[cut.file]
        compile(without, cut.file, "exec")  # a file that cannot be read would fail every test, and prove nothing
    for test in guard.tests:
        file, name = test.split("::")
        tree = ast.parse((PROJECT / file).read_text(encoding="utf-8"))
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert name.split("[")[0] in functions, test


def test_a_text_that_does_not_stand_there_once_is_refused():
    cut = guards.Cut("x.py", "if bad:", "if False:")
    assert cut.taken_from("if bad: ...") == "if False: ..."
    for source in ("", "if bad: ...\nif bad: ..."):
        with pytest.raises(ValueError, match=r"x\.py"):
            cut.taken_from(source)


def test_a_test_counts_only_if_it_failed_in_each_of_its_cases():
    outcome = guards.Outcome({"a.py::t[1]": "failed", "a.py::t[2]": "passed", "a.py::tt": "error"})
    assert outcome.of("a.py::t") == {"failed", "passed"}
    assert outcome.of("a.py::t[1]") == {"failed"}
    assert outcome.of("a.py::tt") == {"error"}
    assert outcome.of("a.py::gone") == {"not run"}
