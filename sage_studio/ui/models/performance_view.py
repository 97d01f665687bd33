"""Live engine metrics: the newest as tiles, the last ten minutes as plots."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr
from markupsafe import Markup

from sage_studio.serving.metrics import Sample, downsample
from sage_studio.studio import Studio
from sage_studio.text import Language, Text
from sage_studio.ui.components.format import EMPTY
from sage_studio.ui.components.html import Lead, empty, html, tiles
from sage_studio.ui.components.localization import LabelRegistry
from sage_studio.ui.components.plots import time_plot, timeline

SPAN_SECONDS = 6.0
"""A point of a plot: finer ones would be sent to every viewer at every tick."""
TITLE = Text("Performance")
NOTHING = Text("No figures yet")
WAIT = Text("They are measured while the engine is ready: speed, load, latency, cache and GPU memory.")
ASK = Lead(Text("Ask something in the chat →"), "chat-message", "chat")
SPEED = Text("Tokens per second")
REQUESTS = Text("Running (green), waiting (orange)")
FIRST = Text("Time to first token (s)")
LATENCY = Text("Latency (s): p50 green, p95 orange")
CACHE, MEMORY = Text("KV cache"), Text("GPU memory (GB)")
LOAD = Text("GPU load")
RUNNING, WAITING = Text("running"), Text("waiting")
SECONDS = Text("{:.2f} s")
NOW = Text("Speed now")
IN_USE = Text("Running · waiting")
FIRST_NOW = Text("First token p50")
P50, P95 = Text("Latency p50"), Text("Latency p95")
MEMORY_NOW = Text("GPU memory")


@dataclass(frozen=True, slots=True)
class MetricsPlot:
    """One plot: the names of its figures, each with what its line is called."""

    elem_id: str
    label: Text
    y_format: str
    lines: tuple[tuple[str, Text], ...]
    needs_gpu: bool = False
    percent: bool = False


ONE = Text("now")
PLOTS = (
    MetricsPlot("metrics-speed", SPEED, ".3~s", (("tokens_per_second", ONE),)),
    MetricsPlot("metrics-requests", REQUESTS, ".3~g", (("requests_running", RUNNING), ("requests_waiting", WAITING))),
    MetricsPlot("metrics-first-token", FIRST, ".3~g", (("first_token_seconds", ONE),)),
    MetricsPlot(
        "metrics-latency",
        LATENCY,
        ".3~g",
        (("latency_p50", Text("p50")), ("latency_p95", Text("p95"))),
    ),
    MetricsPlot("metrics-cache", CACHE, ".2~%", (("kv_cache", ONE),)),
    MetricsPlot("metrics-gpu-memory", MEMORY, ".3~g", (("gpu_memory_gb", ONE),), needs_gpu=True),
    MetricsPlot("metrics-gpu-load", LOAD, ".2~%", (("gpu_percent", ONE),), needs_gpu=True, percent=True),
)


class PerformanceView:
    """Tiles and plots; those of a GPU only where there is one."""

    def __init__(self, studio: Studio, words: LabelRegistry) -> None:
        self.studio = studio
        self.figures = html("metrics-figures")
        self.plots: list[gr.LinePlot] = []
        with gr.Row(elem_classes="plot-grid", elem_id="metrics-plots", visible=False) as self.box:
            for plot in PLOTS:
                self.plots.append(
                    time_plot(words, plot.label, plot.elem_id, plot.y_format, [label for _, label in plot.lines])
                )

    @property
    def outputs(self) -> list[gr.components.Component]:
        """What `render` fills, in its order."""
        return [self.figures, self.box, *self.plots]

    def render(self, language: Language) -> tuple[Any, ...]:
        """The last ten minutes."""
        samples = self.studio.serving.metrics()
        spans = downsample(samples, SPAN_SECONDS)
        has_gpu = any(one.gpu_memory_gb is not None for one in spans)
        drawn = [
            gr.update(value=_points(plot, spans, language), visible=has_gpu or not plot.needs_gpu) for plot in PLOTS
        ]
        return (figures(samples, language), gr.update(visible=len(spans) > 1), *drawn)


def figures(samples: Sequence[Sample], language: Language) -> Markup:
    """The newest figures, each with its unit."""
    heading = Markup("<h2 class=minor>{}</h2>").format(TITLE.in_(language))
    if not samples:
        return heading + empty(NOTHING.in_(language), WAIT.in_(language), ASK, language)
    now = samples[-1]
    shown = [
        (NOW, _formatted("{:.1f} tok/s", now.tokens_per_second)),
        (IN_USE, f"{_formatted('{:.0f}', now.requests_running)} · {_formatted('{:.0f}', now.requests_waiting)}"),
        (FIRST_NOW, _formatted(SECONDS.in_(language), now.first_token_seconds)),
        (P50, _formatted(SECONDS.in_(language), now.latency_p50)),
        (P95, _formatted(SECONDS.in_(language), now.latency_p95)),
        (CACHE, _formatted("{:.1%}", now.kv_cache)),
    ]
    if now.gpu_memory_gb is not None:
        shown += [
            (MEMORY_NOW, f"{now.gpu_memory_gb:.1f} / {now.gpu_total_gb:.0f} GB"),
            (LOAD, _formatted("{:.0f} %", now.gpu_percent)),
        ]
    return heading + tiles([(label.in_(language), value) for label, value in shown], css="metrics")


def _formatted(form: str, value: float | None) -> str:
    return EMPTY if value is None else form.format(value)


def _points(plot: MetricsPlot, spans: Sequence[Sample], language: Language) -> dict[str, Any] | None:
    scale = 0.01 if plot.percent else 1.0
    lines = {
        label.in_(language): [
            None if value is None else scale * value for value in (getattr(one, name) for one in spans)
        ]
        for name, label in plot.lines
    }
    return timeline([one.time for one in spans], lines)
