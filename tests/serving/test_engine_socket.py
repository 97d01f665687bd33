"""H6 and H8: the engine answers its own user alone, and nobody else can become the engine.

The fake engine is a real process at a real socket; the tests with the marker ``engine`` ask vLLM itself.
"""

import asyncio
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
import pytest
from serving_files import FAKE
from waiting import ENGINE, patient, wait_until

from sage_studio.database import Database
from sage_studio.errors import EngineUnavailable
from sage_studio.serving.client import EngineClient
from sage_studio.serving.engine_server import KeyOnEveryPath, bind
from sage_studio.serving.registry import VLLMRegistry
from sage_studio.serving.sockets import HOST, address_of, new_socket, open_client, remove_socket, socket_of
from sage_studio.serving.types import EngineState
from sage_studio.serving.vllm import GPU_SERVER, vllm_installed
from sage_studio.settings import load_settings

NOBODY = 65534
AS_NOBODY = f"import os, socket, sys; os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
root_only = pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")


@pytest.fixture
def path():
    made = new_socket()
    yield made
    remove_socket(made)


@pytest.fixture
def started(home):
    registry = home.registry()
    registry.register_model("small", str(home.base()), {"kind": "base"})
    registry.switch_model("small")
    return registry


def record_of(registry):
    return registry._components.engines.recorded().record


def as_nobody(code: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-IS", "-c", AS_NOBODY + code, *arguments],
        capture_output=True, text=True, cwd="/", timeout=patient(),
    )  # fmt: skip


# The socket


def test_the_engine_listens_at_a_socket_of_its_user_and_at_no_port(started):
    """H6."""
    record = record_of(started)
    where = socket_of(record.url)
    assert stat.S_ISSOCK(where.lstat().st_mode)
    assert stat.S_IMODE(where.parent.stat().st_mode) == 0o700
    assert psutil.Process(record.pid).net_connections("inet") == []
    assert started.generate("hello") == "small: hello "
    assert started.status().url == record.url == address_of(where)
    assert started.metrics()["vllm:num_requests_running"] == 0
    assert started.metrics_endpoint().key == record.key


@root_only
def test_another_user_of_the_machine_cannot_ask_the_engine(started):
    """H6, H7: whoever it is, ``curl`` of another user gets no connection."""
    where = str(socket_of(record_of(started).url))
    said = as_nobody("socket.socket(socket.AF_UNIX).connect(sys.argv[1])", where)
    assert "PermissionError" in said.stderr


@root_only
def test_another_user_cannot_sit_where_the_engine_will_listen(home):
    """H8: the path stands in ``ps`` while the engine starts; of no use to a squatter."""
    registry = home.registry()
    registry.register_model("sluggish", str(home.base("sluggish")), {"kind": "base"})
    with ThreadPoolExecutor(1) as threads:
        switch = threads.submit(registry.switch_model, "sluggish")
        record = wait_until(lambda: registry._components.engines.recorded()).record
        where = str(socket_of(record.url))
        assert where in psutil.Process(record.pid).cmdline()
        said = as_nobody("socket.socket(socket.AF_UNIX).bind(sys.argv[1])", where)
        assert "PermissionError" in said.stderr
        assert registry.status().state is EngineState.STARTING
        os.kill(record.pid, signal.SIGKILL)
        with pytest.raises(EngineUnavailable):
            switch.result(patient())


SQUATTER = """
import os, socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
{drop}
listener.listen()
print("listening", flush=True)
connection, _ = listener.accept()
print(connection.recv(65536), flush=True)
"""


@root_only
def test_the_key_is_not_sent_to_another_users_process_even_behind_our_path(path):
    """H8: the system says who listens; it is asked before the first byte."""
    squatter = subprocess.Popen(
        [sys.executable, "-IS", "-c", SQUATTER.format(drop=AS_NOBODY), str(path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert squatter.stdout.readline() == "listening\n"
        client = EngineClient(address_of(path), "the-key")
        assert client.models(quick=True) == []
        assert not client.healthy()
        client.close()
        assert squatter.stdout.readline() == "b''\n"
    finally:
        squatter.kill()
        squatter.wait()
        squatter.stdout.close()


@pytest.mark.parametrize("bits", [0o755, 0o711, 0o770])
def test_nothing_is_sent_into_a_folder_that_others_can_enter(path, bits):
    """H8: as when a cleaner removed the folder and another user made one of its name."""
    listener = bind(str(path))
    listener.listen()
    path.parent.chmod(bits)
    with pytest.raises(httpx.ConnectError, match="not for this user alone"), open_client(address_of(path), "k") as http:
        http.get("/models")
    listener.setblocking(False)
    with pytest.raises(BlockingIOError):
        listener.accept()
    listener.close()
    path.parent.chmod(0o700)


@root_only
def test_nothing_is_sent_into_a_folder_of_another_user(path):
    os.chown(path.parent, NOBODY, NOBODY)
    with pytest.raises(httpx.ConnectError, match="not for this user alone"), open_client(address_of(path), "k") as http:
        http.get("/models")
    os.chown(path.parent, 0, 0)


def test_nothing_is_sent_through_a_link(path, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(path.parent)
    with pytest.raises(httpx.ConnectError), open_client(address_of(link / path.name), "k") as http:
        http.get("/models")


def test_a_socket_is_for_its_user_alone_whatever_the_umask(path):
    before = os.umask(0)
    try:
        listener = bind(str(path))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    listener.close()


def test_a_long_folder_for_temporary_files_is_not_used(tmp_path, monkeypatch):
    """A socket's path may be 107 bytes long."""
    long = tmp_path / ("x" * 90)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    made = new_socket()
    assert made.is_relative_to("/tmp")
    assert len(bytes(made)) + 37 < 108
    assert list(long.iterdir()) == []
    remove_socket(made)
    assert not made.parent.exists()


def test_only_what_was_made_here_is_removed(tmp_path):
    kept = tmp_path / "mine" / "engine.sock"
    kept.parent.mkdir(mode=0o700)
    remove_socket(kept)
    assert kept.parent.is_dir()


def test_many_may_connect_at_once(path):
    """Unlike a port, a socket whose queue is full refuses at once; the client waits instead."""
    listener = bind(str(path))
    listener.listen(0)
    over = threading.Event()

    def answer():
        listener.settimeout(0.05)
        while not over.is_set():
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                continue
            with connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")

    def ask(_):
        with open_client(address_of(path), "k", timeout=patient()) as http:
            return http.get(f"{HOST}/health").text

    thread = threading.Thread(target=answer)
    thread.start()
    with ThreadPoolExecutor(24) as threads:
        assert list(threads.map(ask, range(48))) == ["ok"] * 48
    over.set()
    thread.join()
    listener.close()


# Its life


def test_nothing_is_left_of_a_socket_when_its_engine_has_stopped(started):
    folder = socket_of(record_of(started).url).parent
    started._components.engines.stop()
    assert not folder.exists()


def test_nothing_is_left_of_the_socket_of_an_engine_that_did_not_start(home, monkeypatch):
    made = []
    real = new_socket
    monkeypatch.setattr("sage_studio.serving.engine_manager.new_socket", lambda: made.append(real()) or made[-1])
    home.fail = "broken"
    registry = home.registry()
    registry.register_model("broken", str(home.base("broken")), {"kind": "base"})
    with pytest.raises(EngineUnavailable):
        registry.switch_model("broken")
    assert made
    assert [path for path in made if path.parent.exists()] == []


def test_a_restarted_studio_finds_the_engine_at_its_address(home, started):
    restarted = home.registry()
    restarted.adopt()
    restarted._components.watchdog.stop()
    assert record_of(restarted).url == record_of(started).url
    assert restarted.generate("hello") == "small: hello "


def test_an_engine_of_0_1_that_was_kept_answers_at_its_port(home):
    """``keep_engine``: the engine of the studio before this one listens at a port of loopback."""
    base = home.base()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-S", str(FAKE), "--model", str(base), "--served-model-name", "small"]
    command += ["--journal", str(home.journal), "--port", str(port)]
    kept = subprocess.Popen(command, env={**os.environ, "VLLM_API_KEY": "old"}, start_new_session=True)
    registry = home.registry()
    registry.register_model("small", str(base), {"kind": "base"})
    with Database(home.settings.database_path).transaction() as sql:
        sql.execute(
            "INSERT INTO engines (kind, base, base_name, trust_remote_code, rank, url, key, pid, create_time, phase,"
            " started_at, restarts, owner_pid) VALUES ('vllm', ?, 'small', 0, 16, ?, 'old', ?, ?, 'ready', 0, 0, ?)",
            (str(base), f"http://127.0.0.1:{port}/v1", kept.pid, psutil.Process(kept.pid).create_time(), os.getpid()),
        )
    client = EngineClient(f"http://127.0.0.1:{port}/v1", "old")
    wait_until(lambda: client.models(quick=True))
    client.close()
    registry.adopt()
    registry._components.watchdog.stop()
    registry.switch_model("small")
    assert registry.generate("hello") == "small: hello "
    assert record_of(registry).pid == kept.pid
    registry._components.engines.stop()
    kept.wait(patient())


# The key, on every path


def test_without_the_key_not_even_a_path_that_is_not_there_is_told():
    """H6."""

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"secret"})

    async def ask(**headers):
        transport = httpx.ASGITransport(KeyOnEveryPath(app, "k"))
        async with httpx.AsyncClient(transport=transport, base_url=HOST) as http:
            return [
                (await http.request(method, path, headers=headers)).status_code
                for path in ("/", "/v1/models", "/health", "/collective_rpc")
                for method in ("GET", "POST", "OPTIONS", "TRACE")
            ]

    assert set(asyncio.run(ask())) == {401}
    assert set(asyncio.run(ask(authorization="Bearer wrong"))) == {401}
    assert set(asyncio.run(ask(authorization="bearer k"))) == {401}
    assert set(asyncio.run(ask(authorization="Bearer k"))) == {200}


def test_a_web_socket_without_the_key_is_closed():
    async def ask():
        sent = []

        async def receive():
            return {"type": "websocket.connect"}

        async def send(message):
            sent.append(message)

        await KeyOnEveryPath(None, "k")({"type": "websocket", "headers": []}, receive, send)
        return sent

    assert asyncio.run(ask()) == [{"type": "websocket.close", "code": 1008}]


def test_a_server_without_a_key_does_not_start():
    with pytest.raises(ValueError, match="needs a key"):
        KeyOnEveryPath(None, "")


def statuses(app, headers):
    """What each route of an app answers: (method, path) -> status."""

    async def ask():
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url=HOST, headers=headers) as http:
            return {
                (method, route.path): (await http.request(method, route.path)).status_code
                for route in app.routes
                for method in sorted(getattr(route, "methods", None) or ())
            }

    return asyncio.run(ask())


def test_the_embedders_server_asks_for_its_key_on_every_route():
    from sage_studio.serving.embedding_server import EmbeddingModel, build_app

    found = statuses(build_app(EmbeddingModel(None), "k"), {})
    assert len(found) > 1
    assert set(found.values()) == {401}


def test_the_transformers_server_asks_for_its_key_on_every_route():
    from sage_studio.serving.transformers_server import build_app

    found = statuses(build_app(None, "k"), {})
    assert len(found) > 4
    assert set(found.values()) == {401}


VLLM_APP = """
import asyncio, importlib.util, json, sys
import httpx
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.entrypoints.launchers.app import build_app
from vllm.utils.argparse_utils import FlexibleArgumentParser

spec = importlib.util.spec_from_file_location("engine_server", sys.argv[1])
server = importlib.util.module_from_spec(spec)
spec.loader.exec_module(server)


async def look(*options):
    args = make_arg_parser(FlexibleArgumentParser()).parse_args(["--model", "m", *options])
    app = server.guarded(build_app, "k")(args, ("generate",), None)
    places = [(method, route.path) for route in app.routes for method in sorted(getattr(route, "methods", None) or ())]
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://engine") as http:
        bare = {f"{method} {path}": (await http.request(method, path)).status_code for method, path in places}
        key = {"Authorization": "Bearer k"}
        rpc = (await http.post("/collective_rpc", headers=key, json={"method": "get_model"})).status_code
        docs = (await http.get("/openapi.json", headers=key)).status_code
    return {"bare": bare, "rpc": rpc, "docs": docs}


print(json.dumps({"usual": asyncio.run(look()), "sleeps": asyncio.run(look("--enable-sleep-mode"))}))
"""


@pytest.mark.engine
def test_vllms_routes_all_ask_for_the_key_and_only_those_for_sleep_come_of_its_developer_mode(tmp_path):
    """H6: the app that vLLM builds for a GPU, with and without sleep; every route of it is asked without the key."""
    if not vllm_installed():
        pytest.skip("vLLM is not installed in this environment")
    done = subprocess.run(
        [sys.executable, "-P", "-c", VLLM_APP, str(GPU_SERVER)],
        capture_output=True, text=True, cwd=tmp_path, timeout=patient(ENGINE),
        env={**os.environ, "VLLM_SERVER_DEV_MODE": "0", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    said = json.loads(done.stdout.strip().splitlines()[-1])
    for app in said.values():
        assert len(app["bare"]) > 15
        assert {place: status for place, status in app["bare"].items() if status != 401} == {}
        assert (app["rpc"], app["docs"]) == (404, 200)
    assert {"GET /health", "GET /metrics", "POST /invocations"} <= said["usual"]["bare"].keys()
    more = said["sleeps"]["bare"].keys() - said["usual"]["bare"].keys()
    assert {"POST /sleep", "POST /wake_up"} <= more
    assert all("sleep" in place or place in ("POST /wake_up", "POST /release_kv_cache_memory") for place in more)


@pytest.mark.engine
def test_vllm_itself_answers_at_its_socket_and_nobody_without_the_key(built_in_model, tmp_path):
    """H6: what the review did to 0.1, against the engine as the studio starts it."""
    if not vllm_installed():
        pytest.skip("vLLM is not installed in this environment")
    settings = load_settings(home=tmp_path / "home", engine="vllm", engine_start_seconds=patient(ENGINE))
    registry = VLLMRegistry()
    registry.configure(settings, Database(settings.database_path))
    registry.register_model("base", str(built_in_model), {"kind": "base"})
    registry.switch_model("base")
    try:
        record = record_of(registry)
        assert "Paris" in registry.generate("Name the capital of France.", temperature=0, max_tokens=24)
        assert "vllm:num_requests_running" in registry.metrics()
        ours = {record.pid, *(child.pid for child in psutil.Process(record.pid).children(recursive=True))}
        listening = [at for at in psutil.net_connections("inet") if at.pid in ours and at.status == psutil.CONN_LISTEN]
        assert [at.laddr for at in listening if at.laddr.ip != "127.0.0.1"] == []  # torch.distributed's, no HTTP
        for at in listening:
            with pytest.raises(httpx.TransportError):
                httpx.get(f"http://127.0.0.1:{at.laddr.port}/v1/models", timeout=2, trust_env=False)
        with open_client(record.url, record.key) as http, open_client(record.url, "") as bare:
            paths = http.get(f"{HOST}/openapi.json").json()["paths"]
            assert "/v1/chat/completions" in paths
            for path, methods in paths.items():
                for method in methods:
                    assert bare.request(method, f"{HOST}{path}").status_code == 401, (method, path)
            for path in ("/collective_rpc", "/pause", "/sleep", "/server_info", "/reset_prefix_cache"):
                assert http.post(f"{HOST}{path}", content='{"method": "get_model"}').status_code in (404, 405), path
                assert bare.post(f"{HOST}{path}").status_code == 401
        folder = socket_of(record.url).parent
    finally:
        registry.close()
    assert not folder.exists()


# The embedder


@pytest.mark.training
def test_the_embedder_answers_at_a_socket(settings, built_in_embedder):
    """H6, H8."""
    from sage_studio.serving.retriever import Embedder, EmbedderModel

    embedder = Embedder(settings)
    try:
        assert embedder.embed(EmbedderModel(str(built_in_embedder)), ["a text"]).shape[0] == 1
        child = embedder._child
        assert stat.S_ISSOCK(child.socket.lstat().st_mode)
        assert psutil.Process(child.process.pid).net_connections("inet") == []
        with open_client(address_of(child.socket), "") as bare:
            assert bare.get(f"{HOST}/health").status_code == 401
        os.kill(child.process.pid, signal.SIGTERM)  # as when it is idle, or its studio is gone
        wait_until(lambda: not child.socket.parent.exists())
    finally:
        embedder.close()
