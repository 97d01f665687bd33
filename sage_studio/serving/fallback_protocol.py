"""What the fallback engine says and hears: requests, figures and where an answer is cut.

Knows the protocol only; imports no torch, so it is tested without one.
"""

import threading
from collections.abc import AsyncIterator, Sequence
from typing import Any

from pydantic import BaseModel, Field


class ChatRequest(BaseModel):
    """The part of OpenAI's request that this server honours; the rest is ignored."""

    model: str
    messages: list[dict[str, Any]] = Field(min_length=1)
    stream: bool = False
    temperature: float = Field(0.7, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int | None = Field(None, ge=1)
    seed: int | None = None
    stop: str | list[str] | None = None


class AdapterRequest(BaseModel):
    """Which adapter; the path is needed to load one."""

    lora_name: str = Field(min_length=1)
    lora_path: str = ""


class Figures:
    """What ``/metrics`` tells, under vLLM's names."""

    def __init__(self) -> None:
        self.values = dict.fromkeys(
            (
                "vllm:num_requests_running",
                "vllm:prompt_tokens_total",
                "vllm:generation_tokens_total",
                "vllm:time_to_first_token_seconds_sum",
                "vllm:time_to_first_token_seconds_count",
                "vllm:e2e_request_latency_seconds_sum",
                "vllm:e2e_request_latency_seconds_count",
            ),
            0.0,
        )
        self._lock = threading.Lock()

    def add(self, **changes: float) -> None:
        """Add to figures, named without ``vllm:``."""
        with self._lock:
            for name, change in changes.items():
                self.values[f"vllm:{name}"] += change

    def text(self) -> str:
        """Prometheus text."""
        return "".join(f"{name} {value}\n" for name, value in self.values.items())


async def cut_at(texts: AsyncIterator[str], stops: Sequence[str]) -> AsyncIterator[str]:
    """Pass text on up to the first of ``stops``, holding back what may be the beginning of one."""
    held = ""
    async for text in texts:
        held += text
        found = [place for place in (held.find(stop) for stop in stops) if place >= 0]
        if found:
            yield held[: min(found)]
            return
        keep = max((n for stop in stops for n in range(len(stop)) if held.endswith(stop[:n])), default=0)
        if len(held) > keep:
            yield held[: len(held) - keep]
            held = held[len(held) - keep :]
    if held:
        yield held
