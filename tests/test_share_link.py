"""The public link: what is said and in which order, where its parts lie, and that nothing of it outlives the studio."""

import os
import platform
import signal
import socket
import sys
import threading
from pathlib import Path

import httpx
import pytest
from gradio import networking
from running_studio import RunningStudio
from waiting import wait_until

from sage_studio.settings import load_settings
from sage_studio.ui import share_link

CERTIFICATE = "-----BEGIN CERTIFICATE-----"


@pytest.fixture
def nowhere():
    """An address that refuses every connection."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def printed(studio: RunningStudio) -> str:
    return (studio.home / "app.out").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("locale", "words"), [("C.UTF-8", "No public link"), ("zh_CN.UTF-8", "未能打开公开链接")], ids=["en", "zh"]
)
def test_without_a_network_the_local_address_comes_first_and_the_studio_runs_on(tmp_path, nowhere, locale, words):
    proxies = {"HTTPS_PROXY": nowhere, "https_proxy": nowhere, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    variables = {"SAGE_STUDIO_SHARE": "1", "SAGE_STUDIO_AUTH": "ada:secret", "LC_ALL": locale, **proxies}
    studio = Guarded(tmp_path, **variables)
    studio.start()
    try:
        said = wait_until(lambda: printed(studio) if words in printed(studio) else "", 90)
        assert said.index("SAGE Studio: http://127.0.0.1:") < said.index(words)
        assert httpx.get(f"{studio.url}/api/health", auth=("ada", "secret")).status_code == 200
        assert httpx.get(f"{studio.url}/robots.txt").text.endswith("Disallow: /")
    finally:
        studio.stop()
    assert "Traceback" not in printed(studio)


class Guarded(RunningStudio):
    """A studio that asks for a login."""

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, printed(self)
        try:
            return httpx.get(f"{self.url}/api/health").status_code == 401
        except httpx.TransportError:
            return False


@pytest.mark.skipif(sys.platform != "linux" or platform.machine() != "x86_64", reason="the tunnel's name is Linux's")
def test_the_link_is_printed_and_its_tunnel_ends_with_the_studio(tmp_path):
    tunnel = tmp_path / "hub" / "gradio" / "frpc" / "frpc_linux_amd64_v0.3"
    tunnel.parent.mkdir(parents=True)
    script = "#!/bin/sh\nenv > {0}.told\necho $$ > {0}\necho 'start proxy success: http://made-up.gradio.live'\n"
    tunnel.write_text(f"{script}exec sleep 600\n".format(tmp_path / "pid"), encoding="utf-8")
    tunnel.chmod(0o755)
    hub = {"HF_HOME": str(tmp_path / "hub"), "GRADIO_SHARE_SERVER_ADDRESS": "127.0.0.1:1"}
    studio = Guarded(tmp_path, SAGE_STUDIO_SHARE="1", SAGE_STUDIO_AUTH="ada:secret", LC_ALL="C.UTF-8", **hub)
    studio.start()
    said = wait_until(lambda: printed(studio) if "Public link" in printed(studio) else "", 90)
    assert "Public link: https://made-up.gradio.live\n" in said
    page = httpx.get(studio.url).text
    assert "amazonaws" not in page  # the page's files come through the tunnel, not from outside
    process = int((tmp_path / "pid").read_text())
    assert "ada:secret" not in (tmp_path / "pid.told").read_text()  # M12
    studio.stop()
    wait_until(lambda: gone(process))


def gone(process: int) -> bool:
    state = Path(f"/proc/{process}/stat")
    return not state.exists() or state.read_text().split()[2] == "Z"


def test_the_certificate_is_kept_in_the_home_not_in_the_working_folder(tmp_path, monkeypatch):
    """Gradio's own place is the working folder, which may be read-only."""
    answer = httpx.Response(200, json=[{"host": "x", "port": 1, "root_ca": CERTIFICATE}])
    monkeypatch.setattr(networking.httpx, "get", lambda *_, **__: answer)

    class Tunnel:
        def __init__(self, *arguments):
            assert Path(arguments[-1]).read_text() == CERTIFICATE

        def start_tunnel(self):
            return "http://x.gradio.live"

    monkeypatch.setattr(networking, "Tunnel", Tunnel)
    monkeypatch.setattr(networking, "CERTIFICATE_PATH", ".gradio/certificate.pem")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    settings = load_settings(home=tmp_path / "home", share=True)
    assert share_link.open_share_link(settings, "token", threading.Event(), "en") == "https://x.gradio.live"
    assert list((tmp_path / "here").iterdir()) == []
    assert (settings.root / "share-certificate.pem").is_file()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_wait_for_the_link(settings, monkeypatch, number):
    before = signal.getsignal(number)

    def never(*_):
        os.kill(os.getpid(), number)
        threading.Event().wait(60)

    monkeypatch.setattr(networking, "setup_tunnel", never)
    monkeypatch.setattr(networking, "CERTIFICATE_PATH", "")
    stopping = threading.Event()
    assert share_link.open_share_link(settings, "token", stopping, "en") is None
    assert stopping.is_set()
    assert signal.getsignal(number) is before


@pytest.mark.parametrize(
    "fault",
    [
        RuntimeError("Could not get share link"),
        OSError(30, "Read-only file system"),
        httpx.ConnectTimeout(""),
        ValueError(),
    ],
)
def test_whatever_fails_is_one_line(settings, monkeypatch, capsys, fault):
    def fails(*_):
        raise fault

    monkeypatch.setattr(networking, "setup_tunnel", fails)
    monkeypatch.setattr(networking, "CERTIFICATE_PATH", "")
    assert share_link.open_share_link(settings, "token", threading.Event(), "en") is None
    said = capsys.readouterr()
    assert said.err.count("\n") == 1
    assert "HOST=0.0.0.0 make run" in said.err
