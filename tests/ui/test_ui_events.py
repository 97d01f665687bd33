"""Handlers hear the request's language, and a fault of the house becomes one toast in it."""

import inspect
from types import SimpleNamespace

import gradio as gr
import pytest

from sage_studio.errors import Conflict
from sage_studio.text import Language, verbatim
from sage_studio.ui.components.events import follow, localized_handler

ZH = SimpleNamespace(cookies={}, headers={"accept-language": "zh-CN"})
EN = SimpleNamespace(cookies={"sage_studio_language": "en"}, headers={"accept-language": "zh-CN"})


def fail(_: Language, value: int) -> int:
    raise Conflict(verbatim("It is running.", "它正在运行。"), verbatim("Stop it.", "请先停止。"))


def stream(language: Language, value: int):
    yield language
    raise Conflict(verbatim("It is running.", "它正在运行。"))


@pytest.mark.parametrize(("request_", "said"), [(ZH, "它正在运行。 请先停止。"), (EN, "It is running. Stop it.")])
def test_a_fault_is_a_toast_in_the_requests_language(request_, said):
    with pytest.raises(gr.Error) as toast:
        localized_handler(fail)(request_, 1)
    assert toast.value.message == said
    assert not toast.value.print_exception


def test_a_fault_in_a_stream_is_a_toast_too():
    said = localized_handler(stream)(ZH, 1)
    assert next(said) == "zh"
    with pytest.raises(gr.Error, match="它正在运行"):
        next(said)


def test_gradio_sees_the_request_and_the_handlers_own_parameters():
    assert list(inspect.signature(localized_handler(fail)).parameters) == ["request", "value"]
    assert localized_handler(fail).__annotations__["request"] is gr.Request
    assert inspect.isgeneratorfunction(localized_handler(stream))


def test_a_fault_that_is_nobodys_is_not_swallowed():
    def broken(_: Language) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        localized_handler(broken)(ZH)


def test_only_what_changed_is_sent_again():
    with gr.Blocks() as page:
        first, second = gr.HTML(), gr.HTML()
        shown = iter([("a", "b"), ("a", "c"), ("a", "c")])
        follow([page.load], lambda language: next(shown), [], [first, second])
    tick = next(iter(page.fns.values())).fn
    marks, *sent = tick(ZH, [])
    assert sent == ["a", "b"]
    marks, *sent = tick(ZH, marks)
    assert sent == [gr.skip(), "c"]
    marks, *sent = tick(ZH, marks)
    assert sent == [gr.skip(), gr.skip()]
