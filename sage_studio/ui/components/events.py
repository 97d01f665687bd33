"""Event handlers: in the person's language, private to the page, errors shown as a toast.

The one place of the UI where a `StudioError` is turned into something a person sees, where a page that polls sends
only what changed, and where a button learns to look busy until it is answered (``clicks.js``).
"""

import functools
import inspect
import json
import typing
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr

from sage_studio.errors import StudioError
from sage_studio.text import Language
from sage_studio.ui.components.labels import in_labels
from sage_studio.ui.components.localization import requested_language

TOAST_SECONDS = 20
TICK_SECONDS = 2.0
HEAD = f"<script>{(Path(__file__).parent / 'clicks.js').read_text(encoding='utf-8')}</script>"
"""What the page's head must hold for clicks to answer at once."""
ANSWERS = "answers"
FILLS = "fills--"
CLICKED = {gr.Button: ("click",), gr.HTML: ("select", "submit")}
"""Events by which a person asks for something with a click."""


def on(
    triggers: Any,
    handler: Callable[..., Any],
    inputs: Any = None,
    outputs: Any = None,
    *,
    fills: str = "",
    reveals: str = "",
    **options: Any,
) -> Any:
    """Call a handler when any of the triggers fires; what was clicked for it is busy until it has returned.

    Args:
        triggers: an event of a component, or a list of them.
        handler: takes the `Language` first, then the inputs; may ask for ``gr.EventData`` or ``gr.Progress`` as usual.
        fills: ``elem_id`` of the place that the answer fills: it looks busy too.
        reveals: ``elem_id`` of what the answer makes: the page scrolls there.
        options: as of Gradio's listeners. ``queue=False`` spares a round trip, but Gradio then tells nobody that a
            ``gr.State`` among the outputs has changed.
    """
    if options.setdefault("show_progress", "hidden") == "hidden":
        options.setdefault("show_progress_on", [])  # else a browser tells every output at each event that none is shown
    fn = localized_handler(handler)
    asking = _asking(triggers if isinstance(triggers, list) else [triggers])
    if any(isinstance(component, gr.HTML) for component in asking):
        # A second pick while the first is answered must count. "once" drops it, and Gradio 6.31's "always_last" sends
        # the first one's data again; so both run, in their order.
        options.setdefault("trigger_mode", "multiple")
    if isinstance(triggers, list):
        made = gr.on(triggers, fn, inputs, outputs, api_visibility="private", **options)
    else:
        made = triggers(fn, inputs, outputs, api_visibility="private", **options)
    _answered(made, asking, options.get("cancels") or [], fills, reveals)
    return made


def _asking(triggers: list[Any]) -> list[Any]:
    """The components among the triggers that a person clicks."""
    return [
        trigger.__self__
        for trigger in triggers
        for kind, events in CLICKED.items()
        if isinstance(getattr(trigger, "__self__", None), kind) and trigger.event_name in events
    ]


def _answered(made: Any, asking: list[Any], cancels: list[Any], fills: str, reveals: str) -> None:
    """Let the browser mark what was clicked, and take the mark off when the event is over, however it ends."""
    for component in asking:
        classes = [ANSWERS, *([f"{FILLS}{fills}"] if fills else [])]
        component.elem_classes = [*dict.fromkeys([*(component.elem_classes or []), *classes])]
    hosts = [component.elem_id or f"component-{component._id}" for component in asking]
    made.hosts = [*hosts, *(host for other in cancels for host in getattr(other, "hosts", ()))]
    if not made.hosts:
        return
    places = json.dumps([fills] if fills else [])
    ids, quietly = json.dumps(made.hosts), {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    made.failure(None, js=f"() => studioClicks.failed({ids}, {places})", **quietly)
    if reveals:
        made.success(None, js=f"() => studioClicks.over({ids}, {places}, {json.dumps(reveals)})", **quietly)
    else:
        made.then(None, js=f"() => studioClicks.over({ids}, {places})", **quietly)


@dataclass(frozen=True, slots=True)
class Followed:
    """Outputs that `follow` keeps true, for a handler that is to show them at once as part of its own answer.

    Attributes:
        outputs: to be added to the handler's own.
    """

    outputs: list[Any]
    _render: Callable[..., Sequence[Any]]

    def now(self, language: Language, *values: Any) -> list[Any]:
        """Values for `outputs`, as ``render`` shows them now."""
        shown = self._render(language, *values)
        return [[hash(repr(value)) for value in shown], *shown]


def follow(
    triggers: list[Any], render: Callable[..., Sequence[Any]], inputs: Any, outputs: list[Any], **options: Any
) -> Followed:
    """Show what ``render`` returns, one value an output, again at each trigger; what did not change is not sent.

    Options are as of `on`.

    The outputs belong to this alone: nothing else may write them but through what is returned.
    """
    sent = gr.State([])

    def tick(language: Language, last: list[int], *values: Any) -> list[Any]:
        shown = render(language, *values)
        marks = [hash(repr(value)) for value in shown]
        known: Sequence[int | None] = last or [None] * len(marks)
        return [
            marks,
            *(gr.skip() if mark == old else value for value, mark, old in zip(shown, marks, known, strict=True)),
        ]

    on(triggers, tick, [sent, *inputs], [sent, *outputs], queue=False, **options)
    return Followed([sent, *outputs], render)


def localized_handler(handler: Callable[..., Any]) -> Callable[..., Any]:
    """A function for Gradio: finds the request's language, and shows a `StudioError` as a toast in it."""
    if inspect.isgeneratorfunction(handler):

        @functools.wraps(handler)
        def stream(request: gr.Request, *values: Any) -> Iterator[Any]:
            language = language_in(request)
            try:
                yield from handler(language, *values)
            except StudioError as error:
                raise toast(error, language) from error

        return _as_gradio_reads_it(stream, handler)

    @functools.wraps(handler)
    def call(request: gr.Request, *values: Any) -> Any:
        language = language_in(request)
        try:
            return handler(language, *values)
        except StudioError as error:
            raise toast(error, language) from error

    return _as_gradio_reads_it(call, handler)


def language_in(request: gr.Request) -> Language:
    """The language that a request asks for."""
    return requested_language(request.cookies, request.headers)


def toast(error: StudioError, language: Language) -> gr.Error:
    """A fault as a person sees it: what, why, what to do."""
    return gr.Error(in_labels(error.say_at_form(language), language), TOAST_SECONDS, print_exception=False)


def _as_gradio_reads_it(function: Callable[..., Any], handler: Callable[..., Any]) -> Callable[..., Any]:
    """Give the function the handler's parameters, with the request in place of the language."""
    hints = typing.get_type_hints(handler)
    parameters = list(inspect.signature(handler).parameters.values())
    request = parameters[0].replace(name="request", annotation=gr.Request)
    described: Any = function
    described.__signature__ = inspect.Signature([request, *parameters[1:]])
    described.__annotations__ = {"request": gr.Request} | {p.name: hints.get(p.name, Any) for p in parameters[1:]}
    described.__name__ = f"ui_{handler.__name__}"  # keeps clear of the named endpoints' names
    return function
