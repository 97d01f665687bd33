"""Seconds and resident memory to the first HTTP 200: the studio against a bare Gradio app, in one run.

    python -m benchmarks.startup [rounds]

Both are started alternately, the first pair is thrown away (cold disk), the medians are compared.
"""

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import psutil

PROJECT = Path(__file__).resolve().parent.parent
BARE = (
    "import os, gradio as gr\n"
    "with gr.Blocks() as demo:\n    gr.Markdown('hello')\n"
    "demo.launch(server_port=int(os.environ['SAGE_STUDIO_PORT']), quiet=True, ssr_mode=False)\n"
)
LIMIT_SECONDS = 120.0


def measure(command: list[str]) -> tuple[float, float]:
    """Start a command that serves on ``SAGE_STUDIO_PORT``.

    Returns:
        Seconds to the first 200 and MiB resident then; the process is ended.
    """
    with socket.socket() as free, tempfile.TemporaryDirectory() as home:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        environment = {**os.environ, "SAGE_STUDIO_PORT": str(port), "SAGE_STUDIO_HOME": home}
        environment["GRADIO_ANALYTICS_ENABLED"] = "False"
        begun = time.monotonic()
        with subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=subprocess.DEVNULL) as process:
            try:
                seconds = first_answer(f"http://127.0.0.1:{port}/", begun)
                return seconds, psutil.Process(process.pid).memory_info().rss / 2**20
            finally:
                process.terminate()


def first_answer(url: str, begun: float) -> float:
    """Seconds until the page answers 200."""
    while time.monotonic() - begun < LIMIT_SECONDS:
        try:
            if httpx.get(url, timeout=5).status_code == 200:
                return time.monotonic() - begun
        except httpx.TransportError:
            time.sleep(0.02)
    raise TimeoutError(url)


def main() -> None:
    """Print both medians and their ratios."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    pairs = [(measure([sys.executable, "-c", BARE]), measure([sys.executable, "app.py"])) for _ in range(rounds + 1)][
        1:
    ]
    bare, ours = ([statistics.median(value) for value in zip(*side, strict=True)] for side in zip(*pairs, strict=True))
    print(f"{'':14}{'seconds':>10}{'MiB':>10}")
    print(f"{'bare gradio':14}{bare[0]:>10.2f}{bare[1]:>10.0f}")
    print(f"{'SAGE Studio':14}{ours[0]:>10.2f}{ours[1]:>10.0f}")
    print(f"{'ratio':14}{ours[0] / bare[0]:>10.2f}{ours[1] / bare[1]:>10.2f}")


if __name__ == "__main__":
    main()
