"""The launch: ports, logins, and what a person is told when it cannot start."""

import os
import socket
import subprocess
import sys

import pytest
from waiting import patient

from sage_studio import launch
from sage_studio.errors import Conflict
from sage_studio.settings import PROJECT, load_settings


def start(home, **variables):
    """Run app.py until it ends by itself."""
    environment = {**os.environ, "SAGE_STUDIO_HOME": str(home), "LC_ALL": "C.UTF-8", **variables}
    return subprocess.run(
        [sys.executable, "app.py"],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=patient(),
        check=False,
    )


@pytest.fixture
def taken_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


@pytest.mark.parametrize(("locale", "word"), [("C.UTF-8", "Choose another"), ("zh_CN.UTF-8", "请换一个端口")])
def test_a_taken_port_is_named_with_the_remedy(tmp_path, taken_port, locale, word):
    done = start(tmp_path, SAGE_STUDIO_PORT=str(taken_port), LC_ALL=locale)
    assert done.returncode == 2
    assert str(taken_port) in done.stderr
    assert word in done.stderr
    assert "Traceback" not in done.stderr


def test_a_wrong_setting_is_named(tmp_path):
    done = start(tmp_path, SAGE_STUDIO_PORT="abc")
    assert done.returncode == 2
    assert "SAGE_STUDIO_PORT" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_login_is_generated_where_others_could_come_in_and_none_was_set():
    first, second = (launch.credentials(load_settings(host="0.0.0.0")) for _ in range(2))
    assert first is not None
    assert second is not None
    assert first[1] != second[1]
    assert len(first[1]) >= 12


def test_the_operators_login_is_used():
    assert launch.credentials(load_settings(auth="ada:pass:word")) == ("ada", "pass:word")


def test_no_login_on_loopback():
    assert launch.credentials(load_settings()) is None


@pytest.mark.parametrize("auth", ["ada", "ada:", ":secret"])
def test_half_a_login_is_refused(auth):
    with pytest.raises(Conflict, match="user:password"):
        launch.credentials(load_settings(auth=auth))
