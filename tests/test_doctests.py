"""The examples in the docstrings are true: each runs that does not say ``+SKIP`` for want of a model."""

import doctest
import importlib
import re
import subprocess
import sys

import pytest

from sage_studio.settings import PROJECT

PACKAGE = PROJECT / "sage_studio"
EXAMPLE = re.compile(r"^\s*>>> ", re.MULTILINE)
WITH_EXAMPLES = [path for path in sorted(PACKAGE.rglob("*.py")) if EXAMPLE.search(path.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_the_examples_of_a_module_are_true(path):
    name = ".".join(path.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__")
    if path.is_relative_to(PACKAGE / "ui"):  # in a process of its own: Gradio leaves event loops open
        code = f"import doctest, sys, {name}; sys.exit(doctest.testmod({name}).failed)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=PROJECT)
        assert done.returncode == 0, done.stdout + done.stderr
        return
    module = importlib.import_module(name)
    found = [example for test in doctest.DocTestFinder().find(module) for example in test.examples]
    assert found, "its examples are where doctest does not look: outside of docstrings"
    assert doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE).failed == 0


def test_a_false_example_is_found():
    module = type(importlib)("false")
    module.__doc__ = ">>> 1 + 1\n3\n"
    assert doctest.testmod(module).failed == 1
