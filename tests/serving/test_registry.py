"""The registry's rules, against a small real server process in the engine's place."""

import logging
import os
import signal
import subprocess
import sys
import threading

import httpx
import psutil
import pytest
from serving_files import FAKE, NARROW, write_adapter
from waiting import wait_until

from sage_studio.errors import Conflict, EngineUnavailable, InvalidInput, InvalidModel, NotFound
from sage_studio.serving.types import EngineState
from sage_studio.settings import PROJECT


def ask(text):
    return [{"role": "user", "content": text}]


def identity(registry, text="who", **options):
    """Who answered, as the server said it."""
    return list(registry.stream(ask(text), **options))[-1].model


def pid_of(registry):
    return registry._components.engines.recorded().record.pid


def with_two(home):
    """A registry that knows a base and two adapters, the first current."""
    registry = home.registry()
    for name in ("one", "two"):
        registry.register_model(name, str(home.adapter(name)), {"base": str(home.base())})
    registry.switch_model("one")
    return registry


def test_a_tuned_model_answers_after_the_switch(home, caplog):
    registry = home.registry()
    folder = home.adapter()
    with caplog.at_level(logging.INFO, "sage_studio"):
        registered = registry.register_model("tuned", str(folder), {"kind": "adapter", "base": str(home.base())})
        current = registry.switch_model("tuned")

    assert (registered.current, registered.loaded, registered.base) == (False, False, str(home.base()))
    assert current.current
    assert current.loaded
    for line in ("Registered model: tuned", f"Loading model from {folder}", "Switched to model: tuned"):
        assert line in caplog.messages
    chunks = list(registry.stream(ask("hello there")))
    assert "".join(chunk.text for chunk in chunks).endswith("hello there ")
    assert {chunk.model for chunk in chunks} == {"tuned"}
    assert chunks[-1].done
    assert chunks[-1].completion_tokens == 3
    assert chunks[-1].first_token_seconds > 0
    assert [model.name for model in registry.models()] == ["small", "tuned"]
    assert registry.base_name() == "small"


def test_a_switch_on_the_same_base_keeps_the_engine_and_never_reuses_a_name_or_path(home):
    registry = with_two(home)
    pid = pid_of(registry)
    for name in ("two", "small", "one", "two"):
        assert registry.switch_model(name).name == name
        assert identity(registry) == name
    assert pid_of(registry) == pid
    assert len(home.seen("load")) == 2, "what is loaded already is not loaded again"

    write = home.adapter("two", r=4)
    os.utime(write / "adapter_model.safetensors", ns=(1, 1))
    registry.switch_model("two")
    assert len(set(home.seen("load"))) == len(set(home.seen("path"))) == 3
    assert home.seen("unload") == [home.seen("load")[1]]


def test_any_registered_model_of_the_same_base_answers_by_name(home):
    registry = with_two(home)
    assert identity(registry, model="two") == "two"
    assert identity(registry, model="small") == "small"
    assert registry.current_model.name == "one"
    assert registry.generate("hello", model="two").endswith("hello ")


def test_a_chat_under_way_finishes_on_its_model(home):
    registry = with_two(home)
    answer = registry.stream(ask("slow " * 10))
    next(answer)
    registry.switch_model("two")
    rest = list(answer)
    assert rest[-1].done
    assert {chunk.model for chunk in rest} == {"one"}
    assert identity(registry) == "two"


def test_a_refused_adapter_leaves_the_old_model_answering(home):
    registry = with_two(home)
    registry.register_model("refused", str(home.adapter("three")), {"base": str(home.base())})
    with pytest.raises(InvalidModel, match="the fake refuses it"):
        registry.switch_model("refused")
    registry.register_model("mute", str(home.adapter("four")), {"base": str(home.base())})
    with pytest.raises(EngineUnavailable):
        registry.switch_model("mute")
    assert registry.current_model.name == "one"
    assert identity(registry) == "one"
    assert registry.status().state is EngineState.READY
    assert home.seen("unload"), "what failed its trial is taken down again"


def test_another_base_takes_over_and_a_failed_one_brings_the_old_engine_back(home):
    registry = with_two(home)
    registry.switch_model("two")
    other = home.adapter("other", base="large")
    registry.register_model("other", str(other), {"base": str(home.base("large"))})
    home.fail = "large"
    with pytest.raises(EngineUnavailable, match="out of memory") as caught:
        registry.switch_model("other")
    assert "内存或显存不足" in caught.value.say("zh")
    assert registry.current_model.name == "two"
    assert [model.name for model in registry.models() if model.loaded] == ["one", "small", "two"]
    assert identity(registry) == "two"

    home.fail = ""
    old = pid_of(registry)
    assert registry.switch_model("other").loaded
    wait_until(lambda: not psutil.pid_exists(old))
    assert identity(registry) == "other"
    with pytest.raises(Conflict, match="the engine runs"):
        list(registry.stream(ask("x"), model="one"))


def test_without_memory_for_two_a_change_of_base_waits_for_the_answers_under_way(home):
    home.hardware = NARROW
    registry = with_two(home)
    registry.register_model("large", str(home.base("large")), {"kind": "base"})
    answer = registry.stream(ask("slow " * 20))
    next(answer)
    switch = threading.Thread(target=registry.switch_model, args=("large",))
    switch.start()
    wait_until(lambda: registry.status().state is EngineState.SWITCHING)
    assert list(answer)[-1].done
    switch.join()
    assert identity(registry) == "large"


def test_a_larger_rank_restarts_the_engine_once_and_keeps_what_was_loaded(home):
    registry = with_two(home)
    registry.register_model("wide", str(home.adapter("wide", r=32)), {"base": str(home.base())})
    assert registry.switch_model("wide").loaded
    assert home.seen("start") == [str(home.base())] * 2
    assert {model.name for model in registry.models() if model.loaded} == {"one", "wide", "small"}
    registry.switch_model("one")
    assert len(home.seen("start")) == 2


def test_two_switches_at_once_are_serialised_and_both_told_the_truth(home):
    registry = with_two(home)
    second = home.registry()  # as in another process: its own locks, the same database
    said = []
    threads = [
        threading.Thread(target=lambda who, name: said.append((name, who.switch_model(name))), args=pair)
        for pair in [(registry, "two"), (second, "small"), (registry, "one"), (second, "two")]
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(said) == 4
    assert all(model.name == name and model.current for name, model in said)
    assert registry.current_model.name == second.current_model.name == said[-1][0]
    assert len(home.seen("start")) == 1


def test_a_crashed_engine_is_started_again_once_with_its_adapters(home):
    registry = with_two(home)
    registry.switch_model("two")
    os.kill(pid_of(registry), signal.SIGKILL)
    wait_until(lambda: registry.status().state is EngineState.FAILED)
    assert identity(registry) == "two"
    assert {model.name for model in registry.models() if model.loaded} == {"one", "two", "small"}
    assert len(home.seen("start")) == 2

    os.kill(pid_of(registry), signal.SIGKILL)
    with pytest.raises(EngineUnavailable, match="exited unexpectedly"):
        list(registry.stream(ask("again")))
    assert len(home.seen("start")) == 2
    assert registry.status().state is EngineState.FAILED
    with pytest.raises(EngineUnavailable) as caught:
        registry.generate("and again")
    assert "Switch to a model" in caught.value.say("en")
    assert registry.switch_model("two").loaded, "a switch by hand starts it again"
    assert len(list((home.settings.root / "serving" / "adapters").iterdir())) == 1, "old copies are cleared away"


def test_an_engine_that_dies_in_mid_answer_says_so(home):
    registry = with_two(home)
    with pytest.raises(EngineUnavailable, match="middle of the answer"):
        list(registry.stream(ask("a b die c")))
    assert identity(registry) == "one", "the next message is answered"


def test_closing_the_stream_ends_the_generation(home):
    registry = with_two(home)
    answer = registry.stream(ask("slow " * 400))
    next(answer)
    answer.close()
    wait_until(lambda: home.seen("cancelled"))
    wait_until(lambda: registry.metrics()["vllm:num_requests_running"] == 0)


def test_a_second_registry_finds_the_engine_and_a_restarted_studio_adopts_it(home):
    with_two(home)
    second = home.registry()
    assert identity(second) == "one"
    restarted = home.registry()
    restarted.adopt()
    assert restarted.current_model.name == "small", "after a restart the base model is current"
    assert identity(restarted, model="one") == "one"
    assert len(home.seen("start")) == 1
    pid = pid_of(restarted)
    restarted.close()
    assert not psutil.pid_exists(pid)
    assert restarted.status().state is EngineState.DOWN


SCRIPT = """
from serving.conftest import Home
from pathlib import Path
import sys
home = Home(Path(sys.argv[1]))
registry = home.registry()
registry.register_model('large', str(home.base('large')), {'kind': 'base'})
registry.switch_model('large')
print(registry.generate('hello'))
"""


@pytest.mark.parametrize("studio", [True, False])
def test_an_engine_started_by_a_script_ends_with_it_unless_a_studio_runs(home, studio):
    registry = home.registry()
    if studio:
        registry.adopt()
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(FAKE.parent.parent), str(FAKE.parent), str(PROJECT)])}
    command = [sys.executable, "-c", SCRIPT, str(home.folder)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("large: hello")
    assert registry.status().state is (EngineState.READY if studio else EngineState.DOWN)
    registry.close()
    assert registry.status().state is EngineState.DOWN


def test_a_base_under_a_name_of_its_own_is_still_current_after_a_restart(home):
    first = home.registry()
    first.register_model("house", str(home.base()), {"kind": "base"})
    first.switch_model("house")
    restarted = home.registry()
    restarted.adopt()
    assert restarted.current_model.name == "house"
    restarted.close()
    first.close()


def test_restore_backend_keeps_the_last_model(home):
    with_two(home)
    home.settings = home.settings.model_copy(update={"restore_backend": True})
    restarted = home.registry()
    restarted.adopt()
    assert restarted.current_model.name == "one"


def test_keep_engine_leaves_it_running(home):
    home.settings = home.settings.model_copy(update={"keep_engine": True})
    registry = with_two(home)
    registry.close()
    assert psutil.pid_exists(pid_of(registry))


def test_a_script_in_another_process_gets_answers_and_leaves_the_engine_alone(home):
    registry = with_two(home)
    code = "from sage_studio.serving import vllm_registry as r; print(r.current_model.name, r.generate('hello'))"
    env = {**os.environ, "SAGE_STUDIO_HOME": str(home.settings.home)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("one one@1: hello")
    assert registry.status().state is EngineState.READY


def test_a_reused_pid_is_never_killed_nor_taken_for_the_engine(home):
    registry = with_two(home)
    stranger = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True)
    own = pid_of(registry)
    os.kill(own, signal.SIGKILL)
    wait_until(lambda: registry.status().state is EngineState.FAILED)
    with registry._components.state._database.transaction() as sql:
        sql.execute("UPDATE engines SET pid=?", (stranger.pid,))
    assert registry.status().state is EngineState.FAILED
    registry.close()
    assert stranger.poll() is None
    stranger.communicate(b"\n")


def test_a_start_that_is_too_slow_or_fails_says_why_and_leaves_nothing_behind(home):
    registry = home.registry()
    registry.register_model("small", str(home.base()), {"kind": "base"})
    home.fail = "small"
    with pytest.raises(EngineUnavailable, match="CUDA out of memory") as caught:
        registry.switch_model("small")
    assert str(home.settings.root / "engine.log") in caught.value.hint.en
    status = registry.status()
    assert status.state is EngineState.FAILED
    assert "out of memory" in status.message.en
    assert registry.current_model is None
    home.fail = ""
    assert registry.switch_model("small").current
    assert registry.status().expected_seconds > 0


def test_status_is_cheap(home, monkeypatch):
    """It asks nobody: not the engine, not another program."""
    registry = with_two(home)
    monkeypatch.setattr(httpx.Client, "send", lambda *_, **__: pytest.fail("a request"))
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a process"))
    assert registry.status().state is EngineState.READY
    monkeypatch.undo()


def test_unregister(home):
    registry = with_two(home)
    with pytest.raises(Conflict, match="is the current chat model"):
        registry.unregister_model("one")
    with pytest.raises(Conflict, match="base model of one, two"):
        registry.unregister_model("small")
    registry.switch_model("two")
    registry.unregister_model("one")
    assert [model.name for model in registry.models()] == ["small", "two"]
    assert home.seen("unload") == home.seen("load")[:1]
    with pytest.raises(NotFound, match="'one'"):
        registry.unregister_model("one")


def test_a_full_model_stays_while_an_adapter_stands_on_it(home):
    registry = home.registry()
    full = home.full("whole")
    registry.register_model("whole", str(full), {"kind": "full", "base": str(home.base()), "base_name": "small"})
    adapter = home.adapter("on-whole")
    write_adapter(adapter, str(full))
    registry.register_model("on-whole", str(adapter), {"base": str(full), "base_name": "whole"})
    with pytest.raises(Conflict, match="base model of on-whole"):
        registry.unregister_model("whole")
    registry.unregister_model("on-whole")
    registry.unregister_model("whole")
    assert "whole" not in [model.name for model in registry.models()]


def test_without_a_current_model_there_is_no_answer(home):
    registry = home.registry()
    with pytest.raises(Conflict, match="No model is selected"):
        registry.generate("hello")
    with pytest.raises(NotFound):
        registry.switch_model("nobody")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": -1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"beam": 3}, "beam"),
    ],
)
def test_options_out_of_bounds_are_refused(home, options, named):
    with pytest.raises(InvalidInput, match=named) as caught:
        home.registry().stream(ask("x"), **options)
    assert named in caught.value.message.zh


def test_an_empty_or_too_long_conversation_is_refused(home):
    registry = with_two(home)
    for messages in ([], ask("  ")):
        with pytest.raises(InvalidInput, match="empty"):
            registry.stream(messages)
    with pytest.raises(InvalidInput, match="64 tokens") as caught:
        registry.generate("long")
    assert "64 个 token" in caught.value.say("zh")


def test_the_key_is_in_no_command_line_and_the_database_is_private(home):
    registry = with_two(home)
    record = registry._components.engines.recorded().record
    assert record.key not in " ".join(psutil.Process(record.pid).cmdline())
    assert home.settings.database_path.stat().st_mode & 0o077 == 0
