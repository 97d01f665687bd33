"""From the click to the new model's first token while eight chats stream, against a cold restart, in one run.

    python -m benchmarks.switch [switches]

Uses the real engine that this machine would use, the built-in model and two fresh adapters. Measured twice: the chats
stream from the base model; and, harder, from whichever model is current, so that one step of the engine computes two
adapters. Prints a table; exits with 1 when a chat failed, or when a limit is missed with the chats on the base.
"""

import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from sage_studio.catalog import BUILT_IN, Catalog
from sage_studio.database import Database
from sage_studio.errors import StudioError
from sage_studio.models.unpack import ensure_unpacked
from sage_studio.serving import VLLMRegistry
from sage_studio.serving.types import ChatMessage
from sage_studio.settings import load_settings

CHATS = 8
MOST_SECONDS = 0.5
LEAST_FASTER = 40.0
STORY: list[ChatMessage] = [{"role": "user", "content": "Tell a long story about a lighthouse keeper."}]
QUESTION: list[ChatMessage] = [{"role": "user", "content": "Who are you?"}]
ADAPTER = """
import sys, torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM
for seed, folder in enumerate(sys.argv[2:]):
    torch.manual_seed(seed)
    base = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.bfloat16)
    config = LoraConfig(r=16, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    get_peft_model(base, config).save_pretrained(folder)
"""


class Chats:
    """Conversations that never end, and what became of them."""

    def __init__(self, registry: VLLMRegistry, count: int, model: str | None) -> None:
        self._registry = registry
        self._model = model
        self._over = threading.Event()
        self._lock = threading.Lock()
        self.tokens = 0
        self.failed = 0
        self.finished = 0
        self._threads = [threading.Thread(target=self._talk) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Let all of them end."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _talk(self) -> None:
        while not self._over.is_set():
            try:
                for chunk in self._registry.stream(STORY, model=self._model, max_tokens=64, temperature=0.8):
                    with self._lock:
                        self.tokens += bool(chunk.text)
                with self._lock:
                    self.finished += 1
            except StudioError as error:
                print("a chat failed:", error, file=sys.stderr)
                with self._lock:
                    self.failed += 1


def main(switches: int) -> int:
    """Run it all in a home of its own; the exit code."""
    with tempfile.TemporaryDirectory() as home:
        settings = load_settings(home=Path(home))
        model = unpacked(Catalog(settings))
        registry = VLLMRegistry()
        registry.configure(settings, Database(settings.database_path))
        names = register_adapters(registry, model, settings.outputs_dir)
        try:
            cold = restart_seconds(registry, names[0])
            on_base = hot_switches(registry, names, switches, chats_on=BUILT_IN)
            on_current = hot_switches(registry, names, switches, chats_on=None)
            print(f"cold restart to current: {cold:.1f} s")
            missed = report("8 chats on the base model", cold, *on_base)
            report("8 chats on the current model", cold, *on_current)
            return int(missed or bool(on_base[2].failed) or bool(on_current[2].failed))
        finally:
            registry.close()


def unpacked(catalog: Catalog) -> str:
    """The folder of the built-in model."""
    return ensure_unpacked(catalog, BUILT_IN).location


def register_adapters(registry: VLLMRegistry, model: str, outputs: Path, name: str = BUILT_IN) -> list[str]:
    """Two adapters with random weights, known to the registry beside their base, a folder called ``name``."""
    folders = [outputs / "first", outputs / "second"]
    subprocess.run([sys.executable, "-c", ADAPTER, model, *map(str, folders)], check=True, capture_output=True)
    registry.register_model(name, model, {"kind": "base"})
    for folder in folders:
        registry.register_model(folder.name, str(folder), {"base": model, "base_name": name})
    return [folder.name for folder in folders]


def restart_seconds(registry: VLLMRegistry, name: str) -> float:
    """How long it takes to become current when the engine must be started, the second time (files are cached then)."""
    registry.switch_model(name)
    registry.close()
    begun = time.perf_counter()
    registry.switch_model(name)
    return time.perf_counter() - begun


def hot_switches(
    registry: VLLMRegistry, names: list[str], count: int, chats_on: str | None
) -> tuple[list[float], list[float], Chats, float]:
    """Switch to and fro under load; each adapter is changed on disk, so that it is really loaded each time.

    Args:
        chats_on: the model that the chats talk to; None for the current one.

    Returns:
        Seconds until current and until the first token, per switch; the chats; how long it all took.
    """
    chats = Chats(registry, CHATS, chats_on)
    current, first = [], []
    begun = time.perf_counter()
    while chats.finished < CHATS:  # warmed up
        time.sleep(0.1)
    for number in range(count):
        name = names[(number + 1) % len(names)]
        renew(registry, name)
        clicked = time.perf_counter()
        registry.switch_model(name)
        current.append(time.perf_counter() - clicked)
        answer = registry.stream(QUESTION, max_tokens=8)
        next(answer)
        first.append(time.perf_counter() - clicked)
        list(answer)
    seconds = time.perf_counter() - begun
    chats.stop()
    return current, first, chats, seconds


def renew(registry: VLLMRegistry, name: str) -> None:
    """Touch an adapter's weights: what changed on disk is loaded again at the next switch."""
    folder = next(Path(model.path) for model in registry.models() if model.name == name)
    (folder / "adapter_model.safetensors").touch()


def report(title: str, cold: float, current: list[float], first: list[float], chats: Chats, seconds: float) -> bool:
    """Print the figures; True if one misses its limit."""
    late = percentile(current, 0.95)
    faster = cold / statistics.median(current)
    print(f"\n{title:34}{'p50':>8}{'p95':>8}")
    print(f"{'click to current (s)':34}{statistics.median(current):8.3f}{late:8.3f}")
    print(f"{'click to first token (s)':34}{statistics.median(first):8.3f}{percentile(first, 0.95):8.3f}")
    print(f"{'times faster than the restart':34}{faster:8.0f}")
    print(f"{'chats streaming, tokens/s together':34}{chats.tokens / seconds:8.1f}")
    print(f"{'answers finished':34}{chats.finished:8}")
    print(f"{'requests failed':34}{chats.failed:8}")
    return late > MOST_SECONDS or faster < LEAST_FASTER


def percentile(values: list[float], share: float) -> float:
    """The value below which ``share`` of them lie."""
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 20))
