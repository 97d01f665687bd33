"""The live plots: points in, what ``gr.LinePlot`` and ``gr.BarPlot`` draw out.

The plots are given in Gradio's plain column form, so that no data frame library is loaded for them. Knows shapes of
data only.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from sage_studio.text import Text
from sage_studio.ui.i18n import Phrasebook

STEP, VALUE, TOKENS, ROWS = "step", "value", "tokens", "rows"
TIME, LINE = "time", "line"
FIRST_COLOUR, SECOND_COLOUR = "#2f7d6a", "#d97706"
"""Stand out on white and on black."""


def line_plot(words: Phrasebook, label: Text, elem_id: str, y_format: str) -> gr.LinePlot:
    """An empty plot over the steps of a training."""
    return words(
        gr.LinePlot,
        label=label,
        x=STEP,
        y=VALUE,
        x_title=" ",
        y_title=" ",
        height=190,
        min_width=240,
        y_axis_format=y_format,
        elem_id=elem_id,
        buttons=["fullscreen"],
    )


def line(steps: Sequence[int], values: Sequence[float | None]) -> dict[str, Any] | None:
    """Points of one line; steps without a value are left out. None while there is nothing to draw."""
    points = [[step, value] for step, value in zip(steps, values, strict=True) if value is not None]
    if not points:
        return None
    return {
        "columns": [STEP, VALUE],
        "data": points,
        "datatypes": {STEP: "quantitative", VALUE: "quantitative"},
        "mark": "line",
    }


def time_plot(words: Phrasebook, label: Text, elem_id: str, y_format: str, lines: Sequence[Text]) -> gr.LinePlot:
    """An empty plot over the time of day with one or two lines, green and orange; the label says which is which."""
    colours = zip(lines, (FIRST_COLOUR, SECOND_COLOUR), strict=False)
    return words(
        gr.LinePlot,
        label=label,
        x=TIME,
        y=VALUE,
        color=LINE,
        color_map={name: colour for said, colour in colours for name in said},
        colors_in_legend=[],  # Gradio's own legend stands half outside of a plot as low as this
        x_title=" ",
        y_title=" ",
        height=170,
        min_width=220,
        x_axis_format="%H:%M",
        y_axis_format=y_format,
        y_lim=[0, None],
        elem_id=elem_id,
        buttons=[],
    )


def timeline(times: Sequence[float], lines: Mapping[str, Sequence[float | None]]) -> dict[str, Any] | None:
    """Points of one or several lines over Unix seconds; moments without a value are left out. None without any."""
    points = [
        [1000 * time, value, name]
        for name, values in lines.items()
        for time, value in zip(times, values, strict=True)
        if value is not None
    ]
    if not points:
        return None
    return {
        "columns": [TIME, VALUE, LINE],
        "data": points,
        "datatypes": {TIME: "temporal", VALUE: "quantitative", LINE: "nominal"},
        "mark": "line",
    }


def histogram(bins: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """An update of a bar plot from ``(upper bound, rows)`` pairs, the bounds in their order."""
    names = [f"≤{bound // 1024}k" if bound % 1024 == 0 else f"≤{bound}" for bound, _ in bins]
    value = {
        "columns": [TOKENS, ROWS],
        "data": [[name, rows] for name, (_, rows) in zip(names, bins, strict=True)],
        "datatypes": {TOKENS: "nominal", ROWS: "quantitative"},
        "mark": "bar",
    }
    return gr.update(value=value, sort=names)
