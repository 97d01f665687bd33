"""The theme looks the same in the dark but for its colours."""

import inspect

import gradio as gr
import pytest

from sage_studio.ui.theme import COLOURS, ONCE, PAIRS, SHAPES, VALUES, StudioTheme

KNOWN = set(inspect.signature(gr.themes.Base.set).parameters)


def test_every_variable_that_gradio_has_twice_is_set_twice():
    light = {name for name in VALUES if not name.endswith("_dark")}
    dark = {name.removesuffix("_dark") for name in VALUES if name.endswith("_dark")}
    assert {name for name in light if f"{name}_dark" in KNOWN} == dark
    assert {name for name in ONCE if f"{name}_dark" in KNOWN} == set()
    assert set(VALUES) <= KNOWN
    assert not set(COLOURS) & set(SHAPES)


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_is_the_same_in_the_dark(name):
    theme = StudioTheme()
    assert getattr(theme, name) == getattr(theme, f"{name}_dark")


def test_what_is_set_is_what_the_browser_gets():
    css = StudioTheme()._get_theme_css()
    before, dark = css.split(".dark", 1)
    for name in PAIRS:
        assert f"--{name.replace('_', '-')}:" in before
        assert f"--{name.replace('_', '-')}:" in dark
