"""The run that the form describes as a command, a gradio_client script and a curl call."""

import json
import shlex
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from sage_studio.settings import LOOPBACK, Settings

PLACE = "finetune-…"


def chosen(recipe: type[BaseModel], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that are not the defaults, whole numbers as such."""
    fields = recipe.model_fields
    kept = {name: value for name, value in values.items() if name in fields and value not in (None, "")}
    return {name: _plain(value) for name, value in kept.items() if value != fields[name].default}


def command(kind: str, values: Mapping[str, Any], settings: Settings) -> str:
    """What queues the run from a shell, and the trainer that the studio then starts."""
    fields = " ".join(shlex.quote(f"{name}={_yaml(value)}") for name, value in {"type": kind, **values}.items())
    gpus = str(values.get("gpu_vis", ""))
    trainer = "python -m sage_studio.training"
    if "," in gpus:
        trainer = f"accelerate launch --multi_gpu --num_processes {gpus.count(',') + 1} -m sage_studio.training"
    pinned = f"CUDA_VISIBLE_DEVICES={gpus} " if gpus else ""
    return (
        f"python -m sage_studio.cli train {fields}\n"
        f"# {pinned}{trainer} {shlex.quote(str(settings.outputs_dir))}/{PLACE}"
    )


def client_script(kind: str, values: Mapping[str, Any], address: str) -> str:
    """The same through ``gradio_client``."""
    lines = "".join(f"    {name}={value!r},\n" for name, value in {"type": kind, **values}.items())
    return (
        f"from gradio_client import Client\n\nstudio = Client({address!r})\n"
        f'task = studio.predict(\n{lines}    api_name="/start_finetune",\n)'
    )


def curl(kind: str, values: Mapping[str, Any], address: str) -> str:
    """The same by REST."""
    body = json.dumps({"type": kind, "config": dict(values)}, ensure_ascii=False)
    return (
        f"curl -s -X POST {address}/api/finetune/start -H 'Content-Type: application/json' \\\n  -d {shlex.quote(body)}"
    )


def address_of(settings: Settings) -> str:
    """Where this studio answers, seen from this machine."""
    host = settings.host if settings.host in LOOPBACK else "127.0.0.1"
    return f"http://{host}:{settings.port}"


def _plain(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _yaml(value: Any) -> str:
    return json.dumps(value) if isinstance(value, bool) else str(value)
