"""How a handler is hung on an event: in the person's language, private to the page, its faults shown as a toast.

The one place of the UI where a `StudioError` is turned into something a person sees, and where a page that polls sends
only what changed. Knows nothing of tabs or of the domain.
"""

import functools
import inspect
import typing
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gradio as gr

from sage_studio.errors import StudioError
from sage_studio.text import Language
from sage_studio.ui.i18n import requested_language

TOAST_SECONDS = 20
TICK_SECONDS = 2.0


def on(triggers: Any, handler: Callable[..., Any], inputs: Any = None, outputs: Any = None, **options: Any) -> Any:
    """Call a handler when any of the triggers fires.

    Args:
        triggers: an event of a component, or a list of them.
        handler: takes the `Language` first, then the inputs; may ask for ``gr.EventData`` or ``gr.Progress`` as usual.
        options: as of Gradio's listeners. ``queue=False`` spares a round trip, but Gradio then tells nobody that a
            ``gr.State`` among the outputs has changed.
    """
    if options.setdefault("show_progress", "hidden") == "hidden":
        options.setdefault("show_progress_on", [])  # else a browser tells every output at each event that none is shown
    fn = spoken(handler)
    if isinstance(triggers, list):
        return gr.on(triggers, fn, inputs, outputs, api_visibility="private", **options)
    return triggers(fn, inputs, outputs, api_visibility="private", **options)


def follow(
    triggers: list[Any], render: Callable[..., Sequence[Any]], inputs: Any, outputs: list[Any], **options: Any
) -> None:
    """Show what ``render`` returns, one value an output, again at each trigger; what did not change is not sent.

    Options are as of `on`.

    The outputs belong to this alone: nothing else may write them.
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


def spoken(handler: Callable[..., Any]) -> Callable[..., Any]:
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
    return gr.Error(error.say(language), TOAST_SECONDS, print_exception=False)


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
