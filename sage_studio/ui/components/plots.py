"""Live plots: points in, values of ``gr.LinePlot`` and ``gr.BarPlot`` out.

The plots are given in Gradio's plain column form, so that no data frame library is loaded for them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from operator import itemgetter
from typing import Any

import gradio as gr

from sage_studio.tasks.task import Curve
from sage_studio.text import Language, Text
from sage_studio.training.recipes.base import Plot
from sage_studio.ui.components.localization import LabelRegistry

STEP, VALUE, TOKENS, ROWS = "step", "value", "tokens", "rows"
TIME, LINE = "time", "line"
FIRST_COLOUR, SECOND_COLOUR, THIRD_COLOUR = "#2f7d6a", "#d97706", "#5b7fd6"
"""Stand out on white and on black."""
RUN_COLOURS = (FIRST_COLOUR, SECOND_COLOUR, THIRD_COLOUR, "#c2417d", "#7a5cc4", "#3b93b5", "#8a6d3b", "#7f8f2a")
"""Of runs beside each other, in their order."""
NAMES = {
    FIRST_COLOUR: Text("(green)"),
    SECOND_COLOUR: Text("(orange)"),
    THIRD_COLOUR: Text("(blue)"),
}


def line_plot(words: LabelRegistry, label: Text, elem_id: str, y_format: str, lines: Sequence[Plot]) -> gr.LinePlot:
    """A plot over the steps of a training, hidden until it has points; ``lines`` are all that it may come to show."""
    colours = {
        name: colour
        for plot in lines
        for text, colour in _coloured(plot.lines.values())
        for name in text.translations().values()
    }
    return words(
        gr.LinePlot,
        label=label,
        x=STEP,
        y=VALUE,
        color=LINE,
        color_map=colours or None,
        colors_in_legend=[],
        x_title=" ",
        y_title=" ",
        height=190,
        min_width=240,
        y_axis_format=y_format,
        elem_id=elem_id,
        visible=False,
        buttons=["fullscreen"],
    )


def line(steps: Sequence[int], values: Sequence[float | None]) -> Any:
    """An update that draws one line; steps without a value are left out. Without any the plot is hidden."""
    value = curves(steps, {"": values})
    return gr.update(value=value, visible=value is not None)


def curves(steps: Sequence[int], lines: Mapping[str, Sequence[float | None]]) -> dict[str, Any] | None:
    """Points of some lines over the steps; steps without a value are left out. None while there is nothing to draw."""
    return _drawn(STEP, "quantitative", {name: (steps, values) for name, values in lines.items()})


def plotted(plot: Plot, curve: Curve, language: Language) -> Any:
    """An update that draws a plot of a method; one of several lines says in its label which is which."""
    shown = {name: words for name, words in plot.lines.items() if any(value is not None for value in curve.of(name))}
    none = (None,) * len(curve.steps)
    value = curves(curve.steps, {words.in_(language): curve.of(name) or none for name, words in plot.lines.items()})
    label = plot.title.in_(language)
    if len(shown) > 1:
        names = (NAMES[colour].in_(language) for _, colour in _coloured(plot.lines.values()))
        which = dict(zip(plot.lines, names, strict=True))
        label += ": " + ", ".join(f"{words.in_(language)} {which[name]}" for name, words in shown.items())
    return gr.update(value=value, label=label, visible=value is not None)


def _coloured(names: Iterable[Text]) -> Iterator[tuple[Text, str]]:
    yield from zip(names, NAMES, strict=False)


def time_plot(words: LabelRegistry, label: Text, elem_id: str, y_format: str, lines: Sequence[Text]) -> gr.LinePlot:
    """An empty plot over the time of day with one or two lines, green and orange; the label says which is which."""
    colours = zip(lines, (FIRST_COLOUR, SECOND_COLOUR), strict=False)
    return words(
        gr.LinePlot,
        label=label,
        x=TIME,
        y=VALUE,
        color=LINE,
        color_map={name: colour for text, colour in colours for name in text.translations().values()},
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
    milliseconds = [1000 * time for time in times]
    return _drawn(TIME, "temporal", {name: (milliseconds, values) for name, values in lines.items()})


def histogram(bins: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """An update of a bar plot from ``(upper bound, rows)`` pairs, the bounds in their order.

    The plot sorts the names as text, hence the spaces. Given ``sort`` in an update it draws the bars of the one before.
    """
    width = max((len(str(bound)) for bound, _ in bins), default=0)
    names = [f"≤{bound:{width}}" for bound, _ in bins]
    value = {
        "columns": [TOKENS, ROWS],
        "data": [[name, rows] for name, (_, rows) in zip(names, bins, strict=True)],
        "datatypes": {TOKENS: "nominal", ROWS: "quantitative"},
        "mark": "bar",
    }
    return gr.update(value=value)


def runs_plot(words: LabelRegistry, label: Text, elem_id: str, **options: Any) -> gr.LinePlot:
    """An empty plot over the steps of several runs, each in its one of `RUN_COLOURS`."""
    return words(
        gr.LinePlot,
        label=label,
        x=STEP,
        y=VALUE,
        color=LINE,
        color_map={str(number): colour for number, colour in enumerate(RUN_COLOURS, 1)},
        colors_in_legend=[],
        x_title=" ",
        y_title=" ",
        height=260,
        y_axis_format="~g",
        elem_id=elem_id,
        buttons=["fullscreen"],
        **options,
    )


def loss_of_runs(shown: Sequence[tuple[Sequence[int], Sequence[float | None]]]) -> dict[str, Any] | None:
    """Points of several runs, steps and values of each; None while there is nothing to draw."""
    numbers = range(1, len(RUN_COLOURS) + 1)
    lines = zip_longest(numbers, shown, fillvalue=((), ()))
    return _drawn(STEP, "quantitative", {str(number): line for number, line in lines})


def _drawn(
    x: str, kind: str, lines: Mapping[str, tuple[Sequence[float], Sequence[float | None]]]
) -> dict[str, Any] | None:
    """A line without a value stands in it all the same: what a plot has not begun with, it never draws."""
    points = [
        [at, value, name]
        for name, (places, values) in lines.items()
        for at, value in zip(places, values, strict=True)
        if value is not None
    ]
    if not points:
        return None
    awaited = [[points[0][0], None, name] for name in lines.keys() - {name for _, _, name in points}]
    return {
        "columns": [x, VALUE, LINE],
        "data": points + sorted(awaited, key=itemgetter(2)),
        "datatypes": {x: kind, VALUE: "quantitative", LINE: "nominal"},
        "mark": "line",
    }
