"""OpenAI's own Python client against the studio, served as it would be."""

import json

import openai
import pytest
from rest_app import LOGIN
from waiting import wait_until

ASKED = [{"role": "user", "content": "one two"}]


@pytest.fixture
def client(address):
    with openai.OpenAI(base_url=f"{address}/v1", api_key=":".join(LOGIN), max_retries=0) as client:
        yield client


def test_the_current_model_answers_unless_another_is_named(client, answering):
    answer = client.chat.completions.create(model="gpt-anything", messages=ASKED)
    assert answer.model == "small"
    assert answer.choices[0].message.content == "small: one two "
    assert answer.choices[0].finish_reason == "stop"
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (3, 3, 6)
    named = client.chat.completions.create(model="tuned", messages=ASKED)
    assert named.model == "tuned"
    assert named.choices[0].message.content.startswith("tuned@")
    answering.serving.switch("other")
    assert client.chat.completions.create(model="", messages=ASKED).model == "other"


def test_a_stream_comes_word_by_word_and_ends_with_the_usage(client):
    stream = client.chat.completions.create(
        model="small", messages=ASKED, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert chunks[0].choices[0].delta.role == "assistant"
    words = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert words == ["small: ", "one ", "two "]
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage.completion_tokens == 3
    assert {chunk.model for chunk in chunks} == {"small"}
    assert len({chunk.id for chunk in chunks}) == 1


def test_without_being_asked_for_no_usage_comes(client):
    chunks = list(client.chat.completions.create(model="small", messages=ASKED, stream=True))
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)


def test_the_models_are_listed_the_current_one_first(client, answering):
    answering.serving.switch("tuned")
    models = client.models.list().data
    assert models[0].id == "tuned"
    assert {model.id for model in models} == {"small", "tuned", "other"}
    assert models[0].model_extra["parent"] == "small"


def test_the_usual_options_and_shapes_are_taken(client):
    answer = client.chat.completions.create(
        model="small",
        messages=[
            {"role": "developer", "content": "be brief"},
            {"role": "user", "content": [{"type": "text", "text": "one "}, {"type": "text", "text": "two"}]},
        ],
        max_completion_tokens=2,
        temperature=0,
        top_p=0.9,
        seed=1,
        stop=["x"],
        n=1,
        user="ada",
        presence_penalty=0,
        tools=[],
        response_format={"type": "text"},
    )
    assert answer.choices[0].message.content == "small: one "


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"temperature": 9}, "temperature = 9"),
        ({"max_tokens": 0}, "max_tokens = 0"),
        ({"n": 2}, "n = 2"),
        ({"presence_penalty": 1.5}, "presence_penalty"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"extra_body": {"best_of": 3}}, "best_of"),
        ({"extra_body": {"self": "x"}}, "self"),
        ({"extra_body": {"documents": True}}, "documents"),
        ({"extra_body": {"expand": True}}, "expand"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": " "}]}, "empty"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "robot"),
        ({"messages": [{"role": "user", "content": "long"}]}, "64"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_cannot_be_done_is_refused_by_name_before_anything_streams(client, options, said, stream):
    with pytest.raises(openai.UnprocessableEntityError) as refused:
        client.chat.completions.create(**{"model": "small", "messages": ASKED, "stream": stream, **options})
    assert said in refused.value.body["message"]
    assert refused.value.body["type"] == "invalid_input"


def test_an_engine_that_dies_in_mid_stream_is_an_error_and_no_short_answer(client):
    stream = client.chat.completions.create(
        model="small", messages=[{"role": "user", "content": "one die two"}], stream=True
    )
    with pytest.raises(openai.APIError, match="engine went away"):
        list(stream)


@pytest.mark.usefixtures("no_collector")
def test_a_client_that_leaves_ends_the_answer_in_the_engine(client, answering, tmp_path):
    stream = client.chat.completions.create(
        model="small", messages=[{"role": "user", "content": "slow " * 1000}], stream=True
    )
    next(stream)
    stream.close()

    def cancelled():
        lines = (tmp_path / "journal.jsonl").read_text().splitlines()
        return any("cancelled" in json.loads(line) for line in lines)

    wait_until(cancelled)
    wait_until(lambda: answering.serving.registry.metrics()["vllm:num_requests_running"] == 0)


@pytest.mark.parametrize("key", ["wrong", "ada:wrong", "ada"])
def test_a_wrong_key_stays_outside(address, key):
    with (
        openai.OpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0) as client,
        pytest.raises(openai.AuthenticationError),
    ):
        client.models.list()
