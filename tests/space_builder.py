"""What the builder of a Hugging Face Space runs for this repository, told from the header of the README."""

from typing import Any

import yaml

from sage_studio.settings import PROJECT

BASE = ["datasets", "huggingface-hub>=0.30", "hf-transfer", "protobuf<4", "click<8.1"]
"""Installed before the Space's own requirements, by a command of its own: the next may replace what it brought."""

BESIDE = ["uvicorn>=0.14.0", "websockets>=10.4", "spaces"]
"""Installed by the same command as ``requirements.txt``, beside gradio: one resolution for all of them."""


def header() -> dict[str, Any]:
    """The YAML block on top of the README, which is a Space's configuration."""
    read: dict[str, Any] = yaml.safe_load((PROJECT / "README.md").read_text(encoding="utf-8").split("---")[1])
    return read


def gradio() -> str:
    """The gradio that the builder asks for."""
    return f"gradio[oauth,mcp]=={header()['sdk_version']}"


def python() -> str:
    """The Python of the Space's image, as ``3.11``."""
    return str(header()["python_version"])


def installs() -> list[list[str]]:
    """The arguments of each ``pip install``, in order."""
    return [["-U", "pip"], BASE, ["-r", "requirements.txt", gradio(), *BESIDE]]
