"""The configuration of the mutation tests: a module or a test that was renamed would be left out in silence."""

import tomllib

import pytest

from sage_studio.settings import PROJECT

CONFIG = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mutmut"]


@pytest.mark.parametrize("name", ["only_mutate", "also_copy", "pytest_add_cli_args_test_selection"])
def test_every_path_of_the_configuration_exists(name):
    assert [pattern for pattern in CONFIG[name] if not list(PROJECT.glob(pattern))] == []
