"""Who may use the routes: login, other sites, other names. `tests/ui/test_middleware.py` asks every route there is."""

import pytest
from fastapi.testclient import TestClient
from rest_app import LOGIN, app_of

ROUTES = [
    ("GET", "/api/health"),
    ("GET", "/api/finetune/tasks"),
    ("GET", "/api/datasets"),
    ("GET", "/api/models"),
    ("GET", "/api/metrics"),
    ("GET", "/api/compare/votes"),
    ("GET", "/v1/models"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/api/compare"),
    ("GET", "/docs"),
    ("GET", "/openapi.json"),
    ("POST", "/api/chat"),
    ("POST", "/api/finetune/start"),
    ("DELETE", "/api/datasets/x"),
    ("GET", "/api/finetune/tasks/x/download"),
]


@pytest.fixture
def guarded(studio):
    return TestClient(app_of(studio, LOGIN), base_url="http://studio.example")


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_every_route_asks_for_the_login(guarded, method, path):
    answer = guarded.request(method, path)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Basic")
    assert answer.json()["detail"]["code"] == "not_logged_in"


@pytest.mark.parametrize("login", [("ada", "wrong"), ("eve", "secret"), ("", "")])
def test_a_wrong_login_stays_outside(guarded, login):
    assert guarded.get("/api/health", auth=login).status_code == 401


@pytest.mark.parametrize(
    "header", ["Basic", "Basic !!!", "Bearer x", "Basic YWRh", "Bearer", "Bearer ada:wrong", "Digest ada:secret"]
)
def test_a_broken_login_stays_outside(guarded, header):
    assert guarded.get("/api/health", headers={"Authorization": header}).status_code == 401


def test_the_right_login_comes_in(guarded):
    assert guarded.get("/api/health", auth=LOGIN).status_code == 200
    assert guarded.get("/v1/models", headers={"Authorization": "Bearer ada:secret"}).status_code == 200


def test_the_cookie_of_the_login_page_comes_in(studio):
    app = app_of(studio, LOGIN)
    app.tokens["token"] = "ada"
    cookies = {"access-token-unsecure-test": "token"}
    assert TestClient(app, cookies=cookies, base_url="http://studio.example").get("/api/health").status_code == 200
    stranger = {"access-token-unsecure-test": "other"}
    assert TestClient(app, cookies=stranger, base_url="http://studio.example").get("/api/health").status_code == 401


@pytest.mark.parametrize("header", [{"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}])
def test_a_page_of_another_site_changes_nothing(client, header):
    answer = client.post("/api/datasets", files={"file": ("a.json", b"[]")}, headers=header)
    assert answer.status_code == 403
    assert answer.json()["detail"]["code"] == "not_allowed"


def test_the_own_page_may(client):
    answer = client.post("/api/datasets", files={"file": ("a.json", b"[]")}, headers={"Origin": "http://127.0.0.1"})
    assert answer.status_code == 422


def test_a_proxy_that_changes_the_host_does_not_make_the_own_page_a_stranger(client):
    """The browser itself says that page and studio are of one origin; nginx's default sends another Host on."""
    headers = {"Origin": "https://studio.example", "Sec-Fetch-Site": "same-origin"}
    answer = client.post("/api/datasets", files={"file": ("a.json", b"[]")}, headers=headers)
    assert answer.status_code == 422


def test_a_foreign_name_for_this_machine_is_refused(studio):
    """DNS rebinding: a page whose own name points at 127.0.0.1 would otherwise pass for this machine's user."""
    rebound = TestClient(app_of(studio), base_url="http://evil.example")
    assert rebound.get("/api/health").status_code == 400
