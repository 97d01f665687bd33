"""vLLM that does not start: the transformers engine serves in its place, says why, and vLLM is tried when asked."""

import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest
from serving_files import FAKE

from sage_studio.database import Database
from sage_studio.errors import EngineUnavailable
from sage_studio.migrations import tables_of_0_1
from sage_studio.operations.serving import EngineView
from sage_studio.serving.engine import LaunchSpec
from sage_studio.serving.engine_factory import EngineSpec
from sage_studio.serving.registry import VLLMRegistry
from sage_studio.serving.state import ServingState
from sage_studio.serving.types import EngineState
from sage_studio.settings import load_settings

NVCC = "RuntimeError: Could not find nvcc and default cuda_home='/usr/local/cuda' doesn't exist"
REFUSED = (
    "ValueError: Free memory on device cuda:0 (4.1/5.77 GiB) on startup is less than desired GPU memory utilization "
    "(0.8, 4.62 GiB). Decrease GPU memory utilization or reduce GPU memory used by other processes."
)


class WorkingSpec(EngineSpec):
    """The fake engine in the transformers engine's place."""

    kind = "transformers"

    def __init__(self, broken: "Broken") -> None:
        self.broken = broken

    def launch(self, base, socket):
        command = [sys.executable, "-S", str(FAKE), "--model", base.location, "--served-model-name", base.name]
        command += ["--uds", str(socket), "--journal", str(self.broken.home.journal), "--fail", "hopeless"]
        return LaunchSpec(command, {})


class BrokenSpec(EngineSpec):
    """vLLM that does not start while the file ``words`` is there."""

    kind = "vllm"
    max_rank = 64
    python = "/opt/vllm/python"

    def __init__(self, broken: "Broken") -> None:
        self.broken, self.fallback = broken, WorkingSpec(broken)

    def launch(self, base, socket):
        if not self.broken.words.exists():
            return self.fallback.launch(base, socket)
        code = "import sys; open(sys.argv[1], 'a').write(sys.argv[2] + '\\n'); sys.exit(sys.argv[3])"
        journal, name = str(self.broken.journal), Path(base.location).name
        return LaunchSpec([sys.executable, "-c", code, journal, name, self.broken.words.read_text()], {})


class Broken:
    """A home whose vLLM fails with some words, as often as the file ``words`` is there, and whose other engine works.

    Attributes:
        tries: the bases that vLLM was started with.
    """

    def __init__(self, home, words: str) -> None:
        self.home = home
        self.words = home.folder / "words"
        self.words.write_text(words)
        self.journal = home.folder / "vllm.jsonl"
        home.choice = self.choice

    @property
    def tries(self) -> list[str]:
        return self.journal.read_text().split() if self.journal.exists() else []

    def choice(self) -> EngineSpec:
        return BrokenSpec(self)

    def registry(self, *names: str) -> VLLMRegistry:
        registry = self.home.registry()
        for name in names:
            registry.register_model(name, str(self.home.base(name)), {"kind": "base"})
        return registry


@pytest.mark.parametrize("words", [NVCC, REFUSED], ids=["nvcc", "memory"])
def test_another_engine_serves_and_says_why(home, words):
    broken = Broken(home, words)
    registry = broken.registry("small")
    registry.switch_model("small")
    assert registry.generate("hello") == "small: hello "
    status = registry.status()
    assert (status.state, status.engine, status.vllm_refused) == (EngineState.READY, "transformers", True)
    assert words[:60] in status.message.en
    assert "transformers 引擎" in status.message.zh
    assert EngineView.of(status, "zh").message == status.message.zh
    assert NVCC[:30] in (home.settings.root / "engine-refused.log").read_text() or words == REFUSED


def test_a_studio_that_starts_again_does_not_try_what_failed(home):
    broken = Broken(home, NVCC)
    registry = broken.registry("small", "other")
    registry.switch_model("small")
    registry.close()
    again = broken.registry()
    again.adopt()
    again.switch_model("small")
    again.switch_model("other")
    assert broken.tries == ["small"], "the machine's software is at fault: no other model would start either"
    again.close()


def test_memory_that_was_lacking_for_one_model_speaks_against_no_other(home):
    broken = Broken(home, REFUSED)
    registry = broken.registry("small", "other")
    registry.switch_model("small")
    registry.switch_model("other")
    registry.switch_model("small")
    assert broken.tries == ["small", "other"]


def test_vllm_is_tried_again_when_somebody_asks(home):
    broken = Broken(home, NVCC)
    registry = broken.registry("small")
    registry.register_model("tuned", str(home.adapter("tuned")), {"base": str(home.base("small"))})
    registry.switch_model("tuned")
    assert registry.retry_vllm().vllm_refused, "it failed again, and the other engine is back"
    assert (broken.tries, registry.generate("hi").split()[1]) == (["small", "small"], "hi")
    broken.words.unlink()
    status = registry.retry_vllm()
    assert (status.engine, status.vllm_refused, status.message.en) == ("vllm", False, "")
    assert registry.generate("hi").split(": ")[1] == "hi "
    assert registry.current_model.name == "tuned"


def test_another_python_is_worth_a_try(home):
    broken = Broken(home, NVCC)
    broken.registry("small").switch_model("small")

    class OtherPython(BrokenSpec):
        python = "/opt/other/python"

    home.choice = lambda: OtherPython(broken)
    registry = home.registry()
    registry._components.engines.stop()
    registry.switch_model("small")
    assert broken.tries == ["small", "small"]


def test_where_neither_engine_starts_both_reasons_are_told(home):
    broken = Broken(home, NVCC)
    registry = broken.registry("hopeless")
    with pytest.raises(EngineUnavailable, match=r"nvcc.*out of memory"):
        registry.switch_model("hopeless")
    status = registry.status()
    assert status.state is EngineState.FAILED
    assert status.vllm_refused
    assert "nvcc" in status.message.en
    assert "out of memory" in status.message.en


def test_an_engine_that_is_stopped_while_it_starts_is_not_refused(home):
    import threading

    from waiting import wait_until

    broken = Broken(home, NVCC)
    broken.words.unlink()
    registry = broken.registry("sluggish")
    caught: list[Exception] = []

    def switch():
        try:
            registry.switch_model("sluggish")
        except EngineUnavailable as error:
            caught.append(error)

    thread = threading.Thread(target=switch)
    thread.start()
    wait_until(lambda: registry.status().state is EngineState.STARTING)
    registry._components.engines.stop()
    thread.join()
    assert "stopped while it was starting" in str(caught[0])
    assert not registry._components.state.is_refused(str(home.base("sluggish")))


def test_a_home_of_an_earlier_studio_is_opened(tmp_path):
    with closing(sqlite3.connect(tmp_path / "studio.db", isolation_level=None)) as sql:
        tables_of_0_1(sql)
        sql.execute(
            "INSERT INTO engines (kind, base, base_name, trust_remote_code, rank, url, key, phase, started_at,"
            " restarts) VALUES ('vllm', '/m', 'm', 0, 16, '', '', 'ready', 0, 0)"
        )
    record = ServingState(Database(tmp_path / "studio.db")).engine()
    assert (record.gpus, record.memory_share, record.form) == ((), 0.0, "")


# The real thing


def failing_python(folder: Path, words: str) -> Path:
    """A Python that ends as vLLM does where it cannot start."""
    script = folder / "python"
    script.write_text(f'#!/bin/sh\necho "{words}" >&2\nexit 1\n')
    script.chmod(0o755)
    return script


@pytest.mark.engine
@pytest.mark.parametrize("words", [NVCC, REFUSED], ids=["nvcc", "memory"])
def test_the_real_fallback_answers_where_vllm_fails(built_in_model, tmp_path, words):
    """A ``vllm_python`` that fails as FlashInfer or refused memory does; then the real engine with the real model."""
    settings = load_settings(home=tmp_path / "home", vllm_python=str(failing_python(tmp_path, words)))
    registry = VLLMRegistry()
    registry.configure(settings, Database(settings.database_path))
    try:
        registry.register_model("base", str(built_in_model), {"kind": "base"})
        registry.switch_model("base")
        assert registry.generate("What is 2 + 2?", max_tokens=8, temperature=0)
        status = registry.status()
        assert (status.state, status.engine, status.vllm_refused) == (EngineState.READY, "transformers", True)
        assert words[:40] in status.message.en
    finally:
        registry.close()
        registry._components.engines.stop()
