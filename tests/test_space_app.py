"""A real studio in a Space's environment: who is let in, what strangers see, and what the log gives away."""

import base64
import importlib.util
import json
import re
from collections.abc import Iterator

import pytest
from hub_provider import HubProvider
from running_space import HOST, RunningSpace

from sage_studio.space import OAUTH_PACKAGES

LOGIN = "ada:a pass:word"
PATHS = ["/config", "/api/health", "/api/datasets", "/v1/models", "/docs", "/openapi.json", "/gradio_api/info"]


@pytest.fixture(scope="module")
def hub() -> Iterator[HubProvider]:
    provider = HubProvider()
    yield provider
    provider.close()


@pytest.fixture(scope="module")
def secret_space(tmp_path_factory) -> Iterator[RunningSpace]:
    with RunningSpace(tmp_path_factory.mktemp("secret"), SAGE_STUDIO_AUTH=LOGIN) as space:
        yield space


@pytest.fixture(scope="module")
def signing_in(tmp_path_factory, hub) -> Iterator[RunningSpace]:
    if not all(map(importlib.util.find_spec, OAUTH_PACKAGES)):
        pytest.skip("NO AUTHLIB: signing in on the hub was not tried (it is in requirements-dev.txt)")
    home = tmp_path_factory.mktemp("oauth")
    more = {"SAGE_STUDIO_ALLOWED_USERS": "Grace, edsger", "SAGE_STUDIO_AUTH": LOGIN}
    with RunningSpace(home, **hub.variables, **more) as space:
        yield space


@pytest.mark.parametrize(("language", "words"), [("en", "New secret"), ("zh-CN", "用户名:密码")])
def test_without_any_login_it_says_how_to_set_one_and_refuses_all_else(tmp_path, language, words):
    with RunningSpace(tmp_path) as space, space.client(language) as browser:
        page = browser.get("/")
        assert page.status_code == 200
        assert words in page.text
        assert "SAGE_STUDIO_AUTH" in page.text
        for path in PATHS:
            answer = browser.get(path)
            assert answer.status_code == 503
            assert answer.json()["detail"]["code"] == "conflict"
        assert browser.post("/api/chat", json={}).status_code == 503
    assert space.process.returncode == 0
    assert "Traceback" not in space.log
    assert "Login:" not in space.log
    assert not (tmp_path / ".sage").exists()


def test_a_secret_that_is_no_login_is_named_on_the_page(tmp_path):
    with RunningSpace(tmp_path, SAGE_STUDIO_AUTH="hunter2") as space, space.client() as browser:
        page = browser.get("/").text
    assert "user:password" in page
    assert "hunter2" not in page + space.log


def test_a_space_with_a_secret_asks_for_it(secret_space):
    with secret_space.client() as stranger:
        page = stranger.get("/")
        assert page.status_code == 200
        assert '"auth_required":true' in page.text.replace(" ", "")
        assert f"https://{HOST}" in page.text  # Safari refuses the cookie in the hub's frame
        assert "Safari" in page.text
        for path in PATHS:
            assert stranger.get(path).status_code == 401, path
        assert stranger.post("/login", data={"username": "ada", "password": "wrong"}).status_code == 400
        assert stranger.get("/api/health", auth=("ada", "a pass:word")).status_code == 200
        assert stranger.post("/login", data={"username": "ada", "password": "a pass:word"}).status_code == 200
        assert stranger.get("/config").status_code == 200
    assert "pass:word" not in secret_space.log


@pytest.mark.parametrize(
    ("language", "lost", "out"), [("en", "are gone", "in its own tab"), ("zh-CN", "都会丢失", "单独的标签页")]
)
def test_the_page_says_what_a_restart_takes_away_and_leads_out_of_the_frame(secret_space, language, lost, out):
    with secret_space.client(language) as browser:
        browser.post("/login", data={"username": "ada", "password": "a pass:word"})
        note = next(part["props"]["value"] for part in shown(browser) if part["props"].get("elem_id") == "space-note")
    assert lost in note
    assert out in note
    assert f'href="https://{HOST}"' in note


def test_things_lie_in_the_containers_home_where_there_is_no_storage(secret_space):
    assert (secret_space.home / ".sage" / "studio_finetune" / "studio.db").is_file()


def test_a_stranger_is_asked_to_sign_in(signing_in):
    with signing_in.client() as stranger:
        page = stranger.get("/")
        assert "Sign in with Hugging Face" in page.text
        assert f"https://{HOST}" in page.text
        assert "gradio" not in page.text.lower()
        for path in PATHS:
            assert stranger.get(path).status_code == 401, path
        assert stranger.post("/gradio_api/upload", files={"files": b"x"}).status_code == 401
        assert stranger.post("/login", data={"username": "ada", "password": "a pass:word"}).status_code == 302
        assert stranger.get("/config").status_code == 401


@pytest.mark.parametrize("name", ["ada", "grace", "Edsger"])
def test_the_owner_and_those_on_the_list_come_in(signing_in, hub, name):
    hub.name, hub.lasts_seconds = name, 28800
    with signing_in.client() as browser:
        page = signing_in.sign_in(browser)
        assert page.status_code == 200
        assert '"auth_required":true' not in page.text.replace(" ", "")
        assert [path for path in PATHS if browser.get(path).status_code != 200] == []
        assert any(part["props"].get("elem_id") == "space-sign-out" for part in shown(browser))
        signing_in.keep_cookies(browser, browser.get("/logout"))
        assert browser.get("/config").status_code == 401


@pytest.mark.parametrize(("language", "words"), [("en", "not on this Space"), ("zh-CN", "不在此 Space 的允许名单中")])
def test_anybody_else_is_told_that_they_are_not_on_the_list(signing_in, hub, language, words):
    hub.name, hub.lasts_seconds = "mallory", 28800
    with signing_in.client(language) as browser:
        page = signing_in.sign_in(browser)
        assert "mallory" in page.text
        assert words in page.text
        assert "grace" not in page.text.lower()
        answer = browser.get("/api/datasets")
        assert answer.status_code == 403
        assert words in answer.json()["detail"]["message"]
        assert browser.get("/config").status_code == 401
        assert browser.get("/gradio_api/info").status_code == 401


def test_a_sign_in_that_ran_out_is_none(signing_in, hub):
    hub.name, hub.lasts_seconds = "ada", -1
    with signing_in.client() as browser:
        assert "Sign in with Hugging Face" in signing_in.sign_in(browser).text
        assert browser.get("/api/health").status_code == 401


def test_a_forged_session_is_none(signing_in):
    forged = {"oauth_info": {"expires_at": 9999999999, "userinfo": {"preferred_username": "ada"}}}
    with signing_in.client() as browser:
        browser.headers["Cookie"] = f"session={base64.b64encode(json.dumps(forged).encode()).decode()}.x.y"
        assert browser.get("/api/health").status_code == 401
        assert browser.get("/config").status_code == 401


def test_scripts_come_in_by_the_secret_where_people_sign_in(signing_in):
    with signing_in.client() as script:
        assert script.get("/api/health", auth=("ada", "a pass:word")).status_code == 200
        assert script.get("/config", auth=("ada", "a pass:word")).status_code == 200
        assert script.get("/api/health", auth=("ada", "no")).status_code == 401


def test_the_button_to_sign_out_is_nobodys_endpoint(signing_in, secret_space):
    with signing_in.client() as one, secret_space.client() as other:
        other.post("/login", data={"username": "ada", "password": "a pass:word"})
        names = [
            set(browser.get("/gradio_api/info", auth=("ada", "a pass:word")).json()["named_endpoints"])
            for browser in (one, other)
        ]
    assert names[0] == names[1]


def test_gradio_client_comes_in_by_the_secret_too(signing_in):
    from gradio_client import Client

    secret = base64.b64encode(LOGIN.encode()).decode()
    client = Client(signing_in.url, headers={"Authorization": f"Basic {secret}"}, verbose=False)
    assert client.predict(api_name="/list_tasks") == []


def test_things_lie_on_the_spaces_own_storage(tmp_path):
    """With a folder of the test's in place of ``/data``, which only root could make."""
    (tmp_path / "data").mkdir()
    script = (
        "import functools, pathlib, sys, app\n"
        "from sage_studio import launch\n"
        "launch.space_settings = functools.partial(launch.space_settings, pathlib.Path(sys.argv[1]))\n"
        "sys.exit(app.main())"
    )
    command = ["-c", script, str(tmp_path / "data")]
    with RunningSpace(tmp_path, command=command, SAGE_STUDIO_AUTH=LOGIN) as space, space.client() as browser:
        assert browser.get("/api/health", auth=("ada", "a pass:word")).status_code == 200
    assert (tmp_path / "data" / "sage" / "studio_finetune" / "studio.db").is_file()
    assert not (tmp_path / ".sage").exists()


def shown(browser) -> list[dict]:
    """The page's components, as this browser gets them."""
    page = browser.get("/").text
    config = re.search(r"window\.gradio_config = (\{.*?\});\s*(?:</script>|window)", page, re.S)
    assert config is not None
    return json.loads(config[1])["components"]
