"""The parts of the fallback engine that need no model."""

import asyncio

import pytest

from sage_studio.serving.client import METRIC
from sage_studio.serving.fallback_protocol import Figures, cut_at


@pytest.mark.parametrize(
    ("pieces", "stops", "text"),
    [
        (["a b", " c"], [], "a b c"),
        (["one ST", "OP two"], ["STOP"], "one "),
        (["one S", "T", "ART"], ["STOP"], "one START"),
        (["a##b"], ["#", "##"], "a"),
        (["ends with ST"], ["STOP"], "ends with ST"),
        ([], ["x"], ""),
    ],
)
def test_an_answer_is_cut_at_the_first_stop(pieces, stops, text):
    async def texts():
        for piece in pieces:
            yield piece

    async def collect():
        return "".join([piece async for piece in cut_at(texts(), stops)])

    assert asyncio.run(collect()) == text


def test_figures_are_read_back_as_they_were_written():
    figures = Figures()
    figures.add(num_requests_running=1, generation_tokens_total=2.5)
    figures.add(num_requests_running=1)
    read = {name: float(value) for name, value in METRIC.findall(figures.text())}
    assert read["vllm:num_requests_running"] == 2
    assert read["vllm:generation_tokens_total"] == 2.5
