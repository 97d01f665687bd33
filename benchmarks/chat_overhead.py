"""What the studio adds to an answer: through it (/api/chat and /v1) against straight to the engine, in one run.

    python -m benchmarks.chat_overhead [rounds]

Starts a studio of its own with the real engine that this machine would use and the built-in model. The three ways take
turns, in an order that changes from round to round, so that whatever else the machine does falls on all alike. Prints a
table; exits with 1 when a limit of the README is missed.
"""

import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from sage_studio.catalog import BUILT_IN
from sage_studio.database import Database
from sage_studio.serving.sockets import open_client
from sage_studio.serving.state import ServingState
from sage_studio.settings import PROJECT, load_settings

LEAST_RATIO = 0.97
MOST_ADDED_SECONDS = 0.020
TOKENS = 96
START_SECONDS = 300.0
MESSAGES = [{"role": "user", "content": "Tell a long story about a lighthouse keeper."}]
DIRECT, CHAT, OPENAI = "straight to the engine", "studio, /api/chat", "studio, /v1/chat/completions"

Pieces = Callable[[dict[str, Any]], str]
"""An event of a stream -> the text in it."""


@dataclass(frozen=True)
class Way:
    """One way to ask."""

    name: str
    url: str
    headers: dict[str, str]
    body: dict[str, Any]
    text: Pieces
    engine: str = ""


@dataclass(frozen=True)
class Answer:
    """Seconds to the first text, and pieces of text per second after it."""

    first: float
    speed: float


def main(rounds: int) -> int:
    """Run it in a home of its own; the exit code."""
    with tempfile.TemporaryDirectory() as home, running_studio(Path(home)) as url:
        httpx.post(f"{url}/api/models/switch", json={"model_name": BUILT_IN}, timeout=START_SECONDS).raise_for_status()
        ways = ways_to_ask(url, Path(home))
        answers: dict[str, list[Answer]] = {way.name: [] for way in ways}
        with contextlib.ExitStack() as stack:
            clients = {way.name: stack.enter_context(client_of(way)) for way in ways}
            for way in ways:  # warmed up
                ask(clients[way.name], way)
            for number in range(rounds):
                for place in range(len(ways)):
                    way = ways[(number + place) % len(ways)]
                    answers[way.name].append(ask(clients[way.name], way))
        return report(answers)


@contextlib.contextmanager
def running_studio(home: Path) -> Iterator[str]:
    """``python app.py`` on a free port; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mine = {"SAGE_STUDIO_HOME": str(home), "SAGE_STUDIO_HOST": "127.0.0.1", "SAGE_STUDIO_PORT": str(port)}
    environment = {**os.environ, **mine, "SAGE_STUDIO_SHARE": "", "SAGE_STUDIO_AUTH": ""}
    process = subprocess.Popen([sys.executable, "app.py"], cwd=PROJECT, env=environment, stdout=sys.stderr)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{url}/api/health").is_success:
                    break
            time.sleep(0.2)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=120)


def ways_to_ask(studio: str, home: Path) -> list[Way]:
    """The same question, put in three ways; all draw the likeliest tokens and so the same answer."""
    settings = load_settings(home=home)
    engine = ServingState(Database(settings.database_path)).engine()
    if engine is None:
        sys.exit("the studio started no engine")
    sampling = {"temperature": 0.0, "max_tokens": TOKENS, "stream": True}
    spoken = {"model": BUILT_IN, "messages": MESSAGES, **sampling, "stream_options": {"include_usage": True}}
    key = {"Authorization": f"Bearer {engine.key}"}
    message = {"message": MESSAGES[0]["content"], **sampling}
    return [
        Way(DIRECT, "/chat/completions", key, spoken, openai_text, engine.url),
        Way(CHAT, f"{studio}/api/chat", {}, message, lambda event: str(event["text"])),
        Way(OPENAI, f"{studio}/v1/chat/completions", {}, spoken, openai_text),
    ]


def client_of(way: Way) -> httpx.Client:
    """A client of its own for each way; the engine answers at a socket."""
    return open_client(way.engine, "", timeout=START_SECONDS) if way.engine else httpx.Client(timeout=START_SECONDS)


def openai_text(event: dict[str, Any]) -> str:
    """The text in an event of the OpenAI protocol."""
    return "".join(choice["delta"].get("content") or "" for choice in event["choices"][:1])


def ask(client: httpx.Client, way: Way) -> Answer:
    """One answer, read as it comes."""
    asked = time.perf_counter()
    times = []
    with client.stream("POST", way.url, json=way.body, headers=way.headers) as response:
        response.raise_for_status()
        for line in response.iter_lines():
            if line.startswith("data: {") and way.text(json.loads(line.removeprefix("data: "))):
                times.append(time.perf_counter())
    return Answer(times[0] - asked, (len(times) - 1) / (times[-1] - times[0]))


def report(answers: dict[str, list[Answer]]) -> int:
    """Print the figures; 1 if one misses its limit. Each answer is set against the straight one of its round."""
    print(f"{'':32}{'tokens/s':>10}{'ratio':>8}{'first token (ms)':>18}{'added (ms)':>12}")
    missed = False
    for name, mine in answers.items():
        ratio = statistics.median(way.speed / direct.speed for way, direct in zip(mine, answers[DIRECT], strict=True))
        added = statistics.median(way.first - direct.first for way, direct in zip(mine, answers[DIRECT], strict=True))
        speed, first = (statistics.median(getattr(one, what) for one in mine) for what in ("speed", "first"))
        print(f"{name:32}{speed:10.2f}{ratio:8.3f}{1000 * first:18.1f}{1000 * added:12.1f}")
        missed |= ratio < LEAST_RATIO or added > MOST_ADDED_SECONDS
    limits = f"limits: ratio {LEAST_RATIO}, {1000 * MOST_ADDED_SECONDS:.0f} ms"
    print(f"{len(answers[DIRECT])} rounds of {TOKENS} tokens; {limits}")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 20))
