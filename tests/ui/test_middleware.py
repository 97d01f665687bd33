"""What stands before every route: origins, the login before the body, sizes, failed logins, response headers.

The letters and numbers are those of the security review: C1, H1, M2, M7, M8, L3, L5, L6.
"""

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable, Iterator

import httpx
import pytest
from fastapi.testclient import TestClient
from gradio.routes import App
from rest_app import LOGIN, app_of
from starlette.requests import HTTPConnection
from starlette.routing import Mount, Route
from waiting import patient

from sage_studio import launch
from sage_studio.api.guard import FAILURES, FAILURES_IN_ALL, SESSION_SECONDS, Guard, LoginThrottle
from sage_studio.api.middleware import MAX_BODY, PUBLIC_PATHS, OneOrigin
from sage_studio.settings import load_settings
from sage_studio.studio import Studio

MIB = 1 << 20
EVIL = "https://evil.example"
JSON = {"Content-Type": "application/json"}
NAVIGATION = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


@pytest.fixture(scope="module")
def one_studio(tmp_path_factory) -> Iterator[Studio]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    studio = Studio(load_settings(home=tmp_path_factory.mktemp("home"), port=port))
    studio.settings.uploads_dir.mkdir(parents=True)
    yield studio
    studio.close()


@pytest.fixture(scope="module")
def launched(one_studio) -> Iterator[App]:
    """The app as ``python app.py`` serves it, with a login: page, routes, and the middleware before all of them."""
    page, close = launch.launch(one_studio, LOGIN)
    yield page.app
    close()


@pytest.fixture
def app(launched) -> App:
    """The same without failed logins before."""
    guard_of(launched)._throttle = LoginThrottle()
    return launched


def guard_of(app: App) -> Guard:
    return next(each.kwargs["guard"] for each in app.user_middleware if "guard" in each.kwargs)


@pytest.fixture
def connect(one_studio, app) -> Iterator[Callable[[], httpx.Client]]:
    """Opens a browser of its own that knows the studio as ``studio.example``."""
    with contextlib.ExitStack() as stack:
        address = f"http://127.0.0.1:{one_studio.settings.port}"

        def new() -> httpx.Client:
            client = httpx.Client(base_url=address, headers={"Host": "studio.example"}, timeout=patient())
            return stack.enter_context(client)

        yield new


@pytest.fixture
def stranger(connect) -> httpx.Client:
    return connect()


@pytest.fixture
def person(connect) -> httpx.Client:
    """Logged in by the form."""
    return logged_in(connect())


def logged_in(client: httpx.Client) -> httpx.Client:
    assert client.post("/login", data={"username": LOGIN[0], "password": LOGIN[1]}).status_code == 200
    return client


# One origin


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/datasets"),
        ("GET", "/config"),
        ("GET", "/logout"),
        ("GET", "/gradio_api/token"),
        ("GET", "/gradio_api/info"),
        ("POST", "/gradio_api/queue/join"),
        ("POST", "/gradio_api/upload"),
        ("POST", "/gradio_api/call/preview_dataset"),
    ],
)
@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": EVIL},
        {"Origin": "null"},
        {"Origin": "https://studio.example:8443"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {**NAVIGATION, "Sec-Fetch-Dest": "iframe"},
    ],
)
def test_a_page_of_another_origin_gets_nothing_even_with_the_cookie(person, method, path, headers):
    """C1, M8: a logged-in person's studio was open to every page that the person visited."""
    answer = person.request(method, path, headers=headers)
    assert answer.status_code == 403
    assert answer.json()["detail"]["code"] == "not_allowed"


def test_without_a_login_another_page_cannot_fill_the_disk(one_studio):
    """M7: gradio's upload is multipart, for which a browser asks no leave first. Here the route need not be there."""
    client = TestClient(app_of(one_studio), base_url="http://127.0.0.1")
    files = {"files": ("a.csv", b"a,b")}
    for origin in (EVIL, "http://localhost:3000", "http://127.0.0.1:3000"):
        assert client.post("/gradio_api/upload", files=files, headers={"Origin": origin}).status_code == 403
    assert client.post("/gradio_api/upload", files=files, headers={"Origin": "http://127.0.0.1"}).status_code == 404


def test_a_link_on_another_page_leads_here(person, stranger):
    assert person.get("/", headers=NAVIGATION).status_code == 200
    assert stranger.get("/?task=finetune-1", headers=NAVIGATION).status_code == 200
    assert person.get("/docs", headers=NAVIGATION).status_code == 403


def test_the_own_page_and_scripts_pass(person):
    assert person.get("/api/health", headers={"Origin": "https://studio.example"}).status_code == 200
    assert person.get("/api/health", headers={"Origin": "https://studio.example:443"}).status_code == 200
    assert person.get("/api/health", headers={"Sec-Fetch-Site": "same-origin"}).status_code == 200
    assert person.get("/api/health", headers={"Sec-Fetch-Site": "none"}).status_code == 200
    assert person.get("/api/health").status_code == 200


def test_a_named_proxy_may_change_the_host(one_studio):
    settings = one_studio.settings.model_copy(update={"public_names": "studio.example.org, other.example:8443"})
    client = TestClient(app_of(Studio(settings)), base_url="http://127.0.0.1")
    for origin in ("https://studio.example.org", "https://other.example:8443"):
        assert client.get("/api/health", headers={"Origin": origin}).status_code == 200
    for origin in ("https://studio.example.org:8443", "https://other.example", EVIL):
        assert client.get("/api/health", headers={"Origin": origin}).status_code == 403


@pytest.mark.parametrize(("in_hub_frame", "expected"), [(True, 200), (False, 403)])
def test_only_on_a_space_may_the_page_be_in_the_hubs_frame(in_hub_frame, expected):
    async def page(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    client = TestClient(OneOrigin(page, in_hub_frame=in_hub_frame))
    assert client.get("/", headers={**NAVIGATION, "Sec-Fetch-Dest": "iframe"}).status_code == expected
    assert client.get("/login/callback?code=1", headers=NAVIGATION).status_code == expected


# The login, before the body


@pytest.fixture
def send(one_studio):
    """Sends a body piece by piece; gives the status, the answer's headers and the bytes that were read."""
    app = app_of(one_studio, LOGIN)

    def request(method: str, path: str, pieces: Iterator[bytes], **headers: str):
        given = {"host": "studio.example", "content-type": "application/json", **headers}
        raw = [(name.replace("_", "-").encode(), value.encode()) for name, value in given.items()]
        scope = {
            **{"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http"},
            **{"path": path, "raw_path": path.encode(), "root_path": "", "query_string": b"", "headers": raw},
            **{"client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80)},
        }
        read, sent = [], []

        async def receive():
            piece = next(pieces, None)
            read.append(len(piece or b""))
            return {"type": "http.request", "body": piece or b"", "more_body": piece is not None}

        async def answer(message):
            sent.append(message)

        asyncio.run(app(scope, receive, answer))
        return sent[0]["status"], dict(sent[0]["headers"]), sum(read)

    return request


def large() -> Iterator[bytes]:
    for _ in range(300):
        yield b" " * MIB


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/chat"),
        ("POST", "/api/datasets"),
        ("PUT", "/api/finetune/tasks/finetune-1/files/a.jsonl"),
        ("POST", "/gradio_api/upload"),
        ("POST", "/v1/chat/completions"),
        ("POST", "/nowhere"),
    ],
)
def test_a_stranger_cannot_fill_the_memory(send, method, path):
    """H1: 300 MB were read before the login was looked at."""
    status, headers, read = send(method, path, large())
    assert (status, read) == (401, 0)
    assert headers[b"connection"] == b"close"


def test_a_strangers_login_form_is_bounded(send):
    status, _, read = send("POST", "/login", large(), content_type="application/x-www-form-urlencoded")
    assert status in (404, 413)  # 404: this app has no page, and so no form
    assert read <= MAX_BODY + MIB


BASIC = "Basic YWRhOnNlY3JldA=="


def test_a_body_without_a_length_is_broken_off_at_the_limit(send):
    status, headers, read = send("POST", "/api/chat", large(), authorization=BASIC)
    assert (status, read) == (413, MAX_BODY + MIB)
    assert headers[b"connection"] == b"close"


def test_a_declared_length_over_the_limit_is_refused_unread(send):
    status, _, read = send("POST", "/api/chat", large(), authorization=BASIC, content_length=str(300 * MIB))
    assert (status, read) == (413, 0)


def test_a_body_at_the_limit_is_read(one_studio):
    client = TestClient(app_of(one_studio), base_url="http://127.0.0.1")
    body = json.dumps({"nothing": "x" * (MAX_BODY - 100)})
    assert client.post("/api/finetune/estimate", content=body, headers=JSON).status_code == 422
    assert client.post("/api/finetune/estimate", content=body + " " * 200, headers=JSON).status_code == 413


# The matrix, read from the running app


def paths_of(app: App) -> Iterator[tuple[str, str]]:
    for route in app.routes:
        if isinstance(route, Route):
            path = route.path.replace("{path:path}", "x")
            for name in ("{", "}"):
                path = path.replace(name, "")
            for method in route.methods or ():
                yield method, path.replace(":path", "")
        elif isinstance(route, Mount):
            yield "GET", f"{route.path}/x"


@pytest.mark.parametrize("credentials", ["none", "wrong cookie", "wrong Basic", "wrong Bearer"])
def test_every_route_is_behind_the_login_unless_it_is_named_public(app, connect, credentials):
    """Read from the app, not from a list: a route that is added later, by a new gradio too, is behind the login."""
    routes = sorted(set(paths_of(app)))
    assert len(routes) > 150
    client, opened = connect(), set()
    headers = {"wrong Basic": {"Authorization": "Basic YTpi"}, "wrong Bearer": {"Authorization": "Bearer x"}}
    if credentials == "wrong cookie":
        client.cookies.set(f"access-token-unsecure-{app.cookie_id}", "guessed")
    for method, path in routes:
        answer = client.request(method, path, headers=headers.get(credentials, {}))
        assert answer.status_code < 500, (method, path)
        if answer.status_code not in (401, 429):
            opened.add(path)
    private = {path for path in opened if not PUBLIC_PATHS.fullmatch(path.rstrip("/") or "/")}
    assert private <= CLOSED, private
    assert opened & {"/", "/login", "/theme.css"}


CLOSED = {"/gradio_api/token", "/gradio_api/token/", "/logout"}
"""404 for everybody, and a logout, which does nothing for a stranger."""


def test_the_public_routes_hold_no_data(stranger):
    assert '"components":[]' in stranger.get("/").text
    assert "After 10 failed logins" in stranger.get("/").text
    assert stranger.get("/config").status_code == 401
    assert stranger.get("/gradio_api/heartbeat/x").status_code == 401
    assert stranger.post("/gradio_api/cancel", json={}).status_code == 401
    assert stranger.get("/gradio_api/user").json() is None


# Sessions


def test_the_cookie_is_for_this_site_alone(stranger):
    """C1: gradio sets SameSite=None, with which a browser sends it along with every other site's requests."""
    answer = stranger.post("/login", data={"username": LOGIN[0], "password": LOGIN[1]})
    cookies = answer.headers.get_list("set-cookie")
    assert len(cookies) == 2
    for cookie in cookies:
        assert "samesite=lax" in cookie.lower()
        assert "httponly" in cookie.lower()


def test_no_script_gets_the_cookies_value(person):
    assert person.get("/gradio_api/token").status_code == 404


def test_logging_out_ends_every_session_and_is_no_get(connect, person):
    """L3: a picture's address ended all sessions."""
    other = logged_in(connect())
    assert person.get("/logout", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert person.get("/logout").status_code == 405
    assert other.get("/api/health").status_code == 200
    assert person.post("/logout").status_code == 303
    assert person.get("/api/health").status_code == 401
    assert other.get("/api/health").status_code == 401


def test_a_session_ends_by_itself(app):
    now = 0.0
    guard = Guard(LOGIN, clock=lambda: now)
    app.tokens["token"] = "ada"
    cookie = f"access-token-unsecure-{app.cookie_id}=token".encode()
    scope = {"type": "http", "app": app, "headers": [(b"cookie", cookie)], "client": ("127.0.0.1", 1)}

    assert guard.user_of(HTTPConnection(dict(scope))) == "ada"
    now = SESSION_SECONDS - 1
    assert guard.user_of(HTTPConnection(dict(scope))) == "ada"
    now = SESSION_SECONDS + 1
    assert guard.user_of(HTTPConnection(dict(scope))) is None
    assert "token" not in app.tokens


# Failed logins


@pytest.mark.parametrize("way", ["form", "Basic", "Bearer"])
def test_a_password_cannot_be_tried_without_limit(stranger, way):
    """M2: 1,000 passwords a second were tried, over cookie, Basic and Bearer alike."""

    def attempt(password: str):
        if way == "form":
            return stranger.post("/login", data={"username": "ada", "password": password})
        if way == "Basic":
            return stranger.get("/api/health", auth=("ada", password))
        return stranger.get("/api/health", headers={"Authorization": f"Bearer ada:{password}"})

    refused = [attempt(f"wrong{number}").status_code for number in range(FAILURES)]
    assert set(refused) == {400 if way == "form" else 401}
    answer = attempt("secret")
    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) > 0


def test_who_is_logged_in_does_not_wait_for_the_strangers(person, stranger):
    for _ in range(FAILURES + 1):
        stranger.get("/api/health", auth=("ada", "wrong"))
    assert stranger.get("/api/health", auth=("ada", "wrong")).status_code == 429
    assert person.get("/api/health").status_code == 200


def test_many_addresses_share_a_bucket():
    throttle = LoginThrottle(lambda: 0.0)
    for number in range(FAILURES_IN_ALL):
        throttle.count_failure(f"203.0.113.{number}")
    assert throttle.seconds_to_wait("198.51.100.1") > 0


def test_failed_logins_are_logged(stranger, caplog):
    with caplog.at_level("WARNING", "sage_studio"):
        stranger.get("/api/health", auth=("ada", "wrong"))
    assert "A login from 127.0.0.1 failed" in caplog.text
    assert "wrong" not in caplog.text


# Headers


@pytest.mark.parametrize("path", ["/", "/api/health", "/docs", "/nowhere", "/gradio_api/info"])
def test_every_answer_keeps_the_browser_from_framing_sniffing_and_sending_away(person, path):
    """M7, L4."""
    headers = person.get(path).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "SAMEORIGIN"
    assert "frame-ancestors 'self'" in headers["Content-Security-Policy"]
    assert "img-src 'self' data: blob:;" in headers["Content-Security-Policy"]


@pytest.mark.parametrize("path", ["/gradio_api/custom_component/x%0aforged", "/a%00b", "/a%1b[31m"])
def test_a_path_with_control_characters_is_refused(person, capsys, path):
    """L5: gradio printed it, and with it a forged line of the log."""
    assert person.get(path).status_code == 400
    assert "forged" not in capsys.readouterr().out


def test_too_many_headers_are_refused(person):
    assert person.get("/api/health", headers={f"X-{n}": "x" * 1000 for n in range(70)}).status_code == 400


def test_a_stranger_cannot_rename_the_studio(person):
    """L6: the page's own address came from a header that everybody can send."""
    for header in ("X-Forwarded-Host", "X-Gradio-Server"):
        assert "evil.example" not in person.get("/config", headers={header: "evil.example"}).text
