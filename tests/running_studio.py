"""A real studio as a person starts it: ``python app.py``, in a home of its own."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
from waiting import ENGINE, patient, wait_until

from sage_studio.settings import PROJECT


class RunningStudio:
    """A studio process and its address; ``project`` is the checkout whose ``app.py`` it is."""

    def __init__(self, home: Path, project: Path = PROJECT, **variables: str) -> None:
        self.home = home
        self.project = project
        self.variables = variables
        self.url = ""
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> "RunningStudio":
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        mine = {"SAGE_STUDIO_HOME": str(self.home), "SAGE_STUDIO_PORT": str(port), **self.variables}
        self.output = (self.home / "app.out").open("ab")
        streams = {"stdout": self.output, "stderr": self.output}
        self.process = subprocess.Popen(
            [sys.executable, "app.py"], cwd=self.project, env={**os.environ, **mine}, **streams
        )
        self.url = f"http://127.0.0.1:{port}"
        wait_until(self._answers, ENGINE)
        return self

    def kill(self) -> None:
        """As a crash would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(patient())
        self.output.close()

    def stop(self) -> None:
        """As Ctrl-C would."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            assert self.process.wait(patient()) == 0
        self.output.close()

    def get(self, path: str, **parameters: Any) -> Any:
        answer = httpx.get(self.url + path, params=parameters, timeout=patient())
        assert answer.is_success, answer.text
        return answer.json()

    def post(self, path: str, **options: Any) -> Any:
        answer = httpx.post(self.url + path, timeout=patient(ENGINE), **options)
        assert answer.is_success, answer.text
        return answer.json()

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.home / "app.out").read_text(encoding="utf-8")
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/api/health").is_success
        return False
