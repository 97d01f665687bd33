"""The studio as a Hugging Face Space runs it: ``python app.py`` with a Space's environment, on loopback."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from waiting import ENGINE, patient, wait_until

from sage_studio.settings import PREFIX, PROJECT

HOST = "ada-sage-studio.hf.space"
SPACE = {
    "SPACE_ID": "ada/sage-studio",
    "SPACE_HOST": HOST,
    "SPACE_AUTHOR_NAME": "ada",
    "SPACE_REPO_NAME": "sage-studio",
    "SYSTEM": "spaces",
    "GRADIO_SERVER_NAME": "0.0.0.0",
    "GRADIO_NUM_PORTS": "1",
    "GRADIO_THEME": "huggingface",
    "PYTHONUNBUFFERED": "1",
}


class RunningSpace:
    """A process with a person's home of its own.

    Args:
        home: the container's ``HOME``.
        python: of the environment to run in.
        app: the folder of the app.
        command: what Python is given.
        user: id of the system's user to run as; None for the one that runs the test.
        variables: of the Space, beside what each has.
    """

    def __init__(
        self,
        home: Path,
        python: str = sys.executable,
        app: Path = PROJECT,
        user: int | None = None,
        command: Sequence[str] = ("app.py",),
        **variables: str,
    ) -> None:
        self.home, self.command, self.app, self.user = home, [python, *command], app, user
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        kept = {name: value for name, value in os.environ.items() if not name.startswith((PREFIX, "OAUTH_", "HF_"))}
        mine = {f"{PREFIX}HOST": "127.0.0.1", f"{PREFIX}PORT": str(self.port), "HOME": str(home)}
        self.environment = {**kept, **SPACE, **mine, **variables}

    def __enter__(self) -> "RunningSpace":
        self.output = (self.home / "container.log").open("ab")
        self.process = subprocess.Popen(
            self.command,
            cwd=self.app,
            env=self.environment,
            stdout=self.output,
            stderr=self.output,
            user=self.user,
            group=self.user,
            extra_groups=[] if self.user is not None else None,
        )
        wait_until(self._answers, ENGINE)
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(patient())
        self.output.close()

    @property
    def log(self) -> str:
        """What everyone who may see the container's log can read."""
        return (self.home / "container.log").read_text(encoding="utf-8")

    def client(self, language: str = "en") -> httpx.Client:
        """A browser that has not logged in."""
        return httpx.Client(base_url=self.url, headers={"Accept-Language": language}, timeout=patient())

    def sign_in(self, browser: httpx.Client) -> httpx.Response:
        """Go through the hub's sign-in as a browser would; returns the page that it ends on."""
        answer = browser.get("/login/huggingface", params={"_target_url": "/"})
        for _ in range(10):
            self.keep_cookies(browser, answer)
            if not answer.is_redirect:
                return answer
            answer = browser.get(self.inside(str(answer.headers["location"])))
        raise AssertionError(f"still redirected: {answer.headers['location']}")

    def inside(self, url: str) -> str:
        """A public address of this Space as the one on loopback."""
        parts = urlsplit(url)
        return self.url + f"{parts.path}?{parts.query}" if parts.netloc == HOST else url

    def keep_cookies(self, browser: httpx.Client, answer: httpx.Response) -> None:
        """Cookies for https only are sent by a browser to loopback, but not by httpx."""
        for header in answer.headers.get_list("set-cookie"):
            found = re.match(r"(session|access-token[^=]*)=([^;]*)", header)
            if found:
                browser.headers["Cookie"] = f"{found[1]}={found[2]}"

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.log
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/", timeout=patient()).status_code < 500
        return False
