"""The OpenAPI document is true: what it says of requests is held; what it says of answers is checked in all tests."""

import pytest
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from refusing import refuse
from rest_app import Draft202012Validator, app_of

from sage_studio.api.errors import MethodNotAllowed


@pytest.fixture
def document(client):
    return client.get("/openapi.json").json()


def test_every_operation_documents_what_any_request_can_fail_with(document):
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            answers = operation["responses"]
            assert {"400", "401", "403", "422"} <= set(answers), f"{method} {path}"
            takes_json = "application/json" in operation.get("requestBody", {}).get("content", {})
            assert ("415" in answers) == takes_json, f"{method} {path}"
            for status, answer in answers.items():
                assert answer["content"], f"{method} {path} {status}"
                if not status.startswith("2"):
                    schema = answer["content"]["application/json"]["schema"]["$ref"]
                    assert schema.endswith("ErrorView"), f"{method} {path} {status}"


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/api/datasets", "GET, POST"),
        ("/api/datasets/rows-v1", "DELETE, GET"),
        ("/api/datasets/annotate", "POST"),
        ("/api/finetune/tasks/finetune-1/files/pairs.jsonl", "GET, PUT"),
        ("/api/models/downloads/owner/name", "DELETE"),
    ],
)
def test_a_method_that_a_path_does_not_take_is_refused_with_those_that_it_takes(client, path, allowed):
    answer = client.patch(path)
    refuse(answer, MethodNotAllowed.status, "PATCH")
    assert answer.headers["allow"] == allowed
    assert allowed in answer.json()["detail"]["hint"]


def test_a_path_without_a_route_is_told_in_the_shape_of_all_errors(client):
    refuse(client.get("/api/nothing"), 404, "/api/nothing")
    answer = client.get("/v1/nothing", headers={"Accept-Language": "zh"})
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"
    assert "接口" in answer.json()["error"]["message"]


def test_a_foreign_name_is_told_in_the_shape_of_all_errors(studio):
    rebound = TestClient(app_of(studio), base_url="http://evil.example:80")
    refuse(rebound.get("/api/health"), 400, "evil.example")
    assert rebound.get("/v1/models").json()["error"]["code"] == "bad_request"


@pytest.mark.parametrize("name", ["127.0.0.1:7860", "LOCALHOST", "[::1]", "[::1]:7860"])
def test_the_own_names_are_known(client, name):
    assert client.get("/api/health", headers={"Host": name}).status_code == 200


@pytest.mark.parametrize(
    "name", ["", "[", "[::1", "127.0.0.1.evil.example", "evil.example#localhost", "a@evil.example", "evil@localhost"]
)
def test_other_names_are_not(client, name):
    assert client.get("/api/health", headers={"Host": name}).status_code == 400


@pytest.mark.parametrize("body", [b"\xff", b'{"message": "\xd8"}'])
def test_a_body_that_cannot_be_decoded_is_a_bad_request(client, body):
    answer = client.post("/api/chat", content=body, headers={"Content-Type": "application/json"})
    refuse(answer, 400, ("body", "请求内容"))


@pytest.mark.parametrize("sent", ["text/plain", "application/x-www-form-urlencoded", None])
def test_a_body_that_was_not_sent_as_json_is_refused(client, sent):
    headers = {"Content-Type": sent} if sent else {}
    refuse(client.post("/api/models/switch", content=b'{"model_name": "a"}', headers=headers), 415, "JSON")


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        ("/api/chat", {"message": "a", "expand": 0}, "expand = 0"),
        ("/api/chat", {"message": "a", "temperature": True}, "temperature = True"),
        ("/api/chat", {"message": "a", "max_tokens": "5"}, "max_tokens = '5'"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "a"}], "stream": 1}, "stream = 1"),
        ("/api/datasets/d/edit", {"changes": [{"row": 1, "exclude": "yes"}]}, "changes.0.exclude = 'yes'"),
        ("/api/datasets/augment", {"dataset_id": "d", "ways": "paraphrase"}, "ways = 'paraphrase'"),
        ("/api/finetune/prepare-sage-docs", {"force_refresh": "no"}, "force_refresh = 'no'"),
    ],
)
def test_json_has_exactly_the_types_that_are_documented(client, path, body, named):
    answer = client.post(path, json=body)
    assert answer.status_code == 422
    assert named in answer.text


def test_a_whole_number_may_be_written_with_a_point(client):
    """JSON has one kind of number: 1.0 is 1, as it is for a schema."""
    body = {"dataset_id": "d", "copies": 1.0, "ways": ["paraphrase"], "temperature": 1}
    assert client.post("/api/datasets/augment", json=body).status_code == 404


@pytest.mark.parametrize("text", [r"\ud800", r"\udfff a", r"a\ud83d"])
def test_half_a_surrogate_pair_is_no_text(client, text):
    content = f'{{"title": "{text}", "type": "sft"}}'
    answer = client.post(
        "/api/finetune/templates", content=content.encode(), headers={"Content-Type": "application/json"}
    )
    refuse(answer, 422, "JSON")


def test_a_deeply_nested_body_is_refused(client):
    content = '{"type": "sft", "config": {"a": ' + "[" * 900 + "]" * 900 + "}}"
    answer = client.post("/api/finetune/start", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code in (400, 422)


def test_an_answer_that_is_not_documented_fails_the_test_that_gets_it(studio):
    app = app_of(studio)
    client = TestClient(app, base_url="http://127.0.0.1")
    route = next(each for each in app.routes if isinstance(each, APIRoute) and each.path == "/api/compare/votes")

    async def teapot(scope, receive, send):
        await send({"type": "http.response.start", "status": 418, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"short and stout"})

    route.app = teapot
    with pytest.raises(AssertionError, match="418 is not documented"):
        client.request(next(iter(route.methods)), "/api/compare/votes")


@pytest.mark.skipif(Draft202012Validator is None, reason="jsonschema comes with vLLM, which is not here")
def test_an_answer_that_breaks_its_schema_fails_the_test_that_gets_it(studio):
    app = app_of(studio)
    client = TestClient(app, base_url="http://127.0.0.1")
    route = next(each for each in app.routes if isinstance(each, APIRoute) and each.path == "/api/health")

    async def silent(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": b"{}"})

    route.app = silent
    with pytest.raises(AssertionError, match="breaks its schema"):
        client.get("/api/health")
