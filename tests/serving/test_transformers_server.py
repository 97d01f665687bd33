"""The parts of the fallback engine that need no real model."""

import asyncio

import pytest

from sage_studio.serving.metrics import parse_metrics
from sage_studio.serving.transformers_server import CompletionRequest, ServerMetrics, stop_at


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
        return "".join([piece async for piece in stop_at(texts(), stops)])

    assert asyncio.run(collect()) == text


def test_figures_are_read_back_as_they_were_written():
    figures = ServerMetrics()
    figures.add(num_requests_running=1, generation_tokens_total=2.5)
    figures.add(num_requests_running=1)
    read = parse_metrics(figures.text(), 0.0).values
    assert read["vllm:num_requests_running"] == 2
    assert read["vllm:generation_tokens_total"] == 2.5


class Endless:
    """A model that talks for five seconds, unless it is told to stop."""

    tokenizer = None
    context = 2048

    def generate(self, request, prompt, streamer, cancelled):
        try:
            for _ in range(500):
                streamer.on_finalized_text("word ")
                if cancelled.event.wait(0.01):
                    return "cancelled"
            return "went on"
        finally:
            streamer.end()


def test_a_client_that_leaves_ends_the_generation_itself():
    """Not only the count of requests: the model is free for the next one."""
    import torch

    from sage_studio.serving.transformers_server import Generation

    async def leave():
        request = CompletionRequest(model="m", messages=[{"role": "user", "content": "Tell a story."}], stream=True)
        answer = Generation(Endless(), ServerMetrics(), request, torch.ones(1, 3))
        pieces = answer.pieces()
        assert await anext(pieces) == "word "
        await pieces.aclose()
        return await asyncio.wrap_future(answer._work)

    assert asyncio.run(leave()) == "cancelled"
