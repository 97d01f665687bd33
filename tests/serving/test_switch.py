"""A change of the engine itself: beside the old one or in its place, failed, interrupted, hung, crowded."""

import os
import signal
import threading

import psutil
import pytest
from serving_files import NARROW
from waiting import wait_until

from sage_studio.errors import EngineUnavailable
from sage_studio.serving import client
from sage_studio.serving.types import EngineState


def ask(text):
    return [{"role": "user", "content": text}]


def identity(registry, **options):
    return list(registry.stream(ask("who"), **options))[-1].model


def pid_of(registry):
    return registry._components.engines.recorded().record.pid


@pytest.fixture
def registry(home):
    """A base and two adapters, the first current, and another base that is not loaded."""
    registry = home.registry()
    for name in ("one", "two"):
        registry.register_model(name, str(home.adapter(name)), {"base": str(home.base())})
    registry.register_model("large", str(home.base("large")), {"kind": "base"})
    registry.switch_model("one")
    return registry


def chats(registry, count, words, **options):
    """Start conversations; the list fills with who answered, or with what went wrong."""
    said = []

    def talk():
        try:
            pieces = list(registry.stream(ask("slow " * words), **options))
            said.append((pieces[-1].model, pieces[-1].completion_tokens))
        except EngineUnavailable as error:
            said.append(error)

    threads = [threading.Thread(target=talk) for _ in range(count)]
    for thread in threads:
        thread.start()
    wait_until(lambda: registry.metrics()["vllm:num_requests_running"] == count)
    return threads, said


@pytest.mark.parametrize(("target", "starts"), [("two", 1), ("large", 2)])
def test_a_switch_during_twenty_chats_loses_none(home, registry, target, starts):
    old = pid_of(registry)
    threads, said = chats(registry, 20, words=60)
    registry.switch_model(target)
    assert psutil.pid_exists(old)
    assert identity(registry) == target, "the new model answers while the old one still talks"
    assert len(said) < 20
    for thread in threads:
        thread.join()
    assert said == [("one", 61)] * 20, "every chat ended on the model that it began with"
    assert len(home.seen("start")) == starts
    if starts == 2:
        wait_until(lambda: not psutil.pid_exists(old))
        wait_until(lambda: not registry._components.state.others())


def test_a_start_beside_that_fails_never_disturbs_the_old_engine(home, registry):
    old = pid_of(registry)
    home.fail = "large"
    with pytest.raises(EngineUnavailable, match="out of memory") as caught:
        registry.switch_model("large")
    assert "engine-next.log" in caught.value.hint.en
    assert (pid_of(registry), registry.current_model.name, identity(registry)) == (old, "one", "one")
    assert registry.status().state is EngineState.READY
    assert not registry._components.state.others()


def test_an_adapter_that_fails_its_trial_on_the_new_engine_ends_that_engine_only(home, registry):
    registry.register_model("mute", str(home.adapter("mute", base="large")), {"base": str(home.base("large"))})
    old = pid_of(registry)
    with pytest.raises(EngineUnavailable):
        registry.switch_model("mute")
    assert (pid_of(registry), identity(registry)) == (old, "one")
    started = {event["pid"] for event in home.events() if "start" in event}
    assert [pid for pid in started if psutil.pid_exists(pid)] == [old]


def test_without_memory_for_two_the_old_engine_comes_back_after_a_failure(home, registry):
    home.hardware = NARROW
    old = pid_of(registry)
    home.fail = "large"
    with pytest.raises(EngineUnavailable, match="out of memory"):
        registry.switch_model("large")
    assert pid_of(registry) != old
    assert (registry.current_model.name, identity(registry)) == ("one", "one")


def test_if_the_way_back_fails_too_both_errors_are_told(home, registry):
    home.hardware = NARROW
    home.fail = "bases"
    with pytest.raises(EngineUnavailable, match=r"large\) ended|large ended.*And small, which answered before"):
        registry.switch_model("large")
    assert registry.status().state is EngineState.FAILED
    assert registry.current_model.name == "one"
    home.fail = ""
    assert registry.switch_model("one").loaded


def test_a_chat_that_comes_during_a_change_in_place_is_answered_by_the_new_model(home, registry):
    home.hardware = NARROW
    threads, _ = chats(registry, 1, words=20)
    switch = threading.Thread(target=registry.switch_model, args=("large",))
    switch.start()
    wait_until(lambda: registry._components.engines.recorded().record.phase == "draining")
    assert identity(registry) == "large"
    for thread in (*threads, switch):
        thread.join()


@pytest.mark.parametrize("hardware", ["roomy", "narrow"])
def test_closing_during_a_start_ends_it_and_leaves_nothing_behind(home, registry, hardware):
    home.hardware = NARROW if hardware == "narrow" else home.hardware
    registry.register_model("sluggish", str(home.base("sluggish")), {"kind": "base"})
    errors = []

    def switch():
        try:
            registry.switch_model("sluggish")
        except EngineUnavailable as error:
            errors.append(error)

    thread = threading.Thread(target=switch)
    thread.start()
    wait_until(lambda: len(home.seen("start")) == 2)
    registry.close()
    thread.join()
    assert errors
    assert registry._components.engines.recorded() is None
    assert not any(psutil.pid_exists(event["pid"]) for event in home.events() if "start" in event)


def test_what_a_killed_studio_left_in_the_middle_of_a_change_is_ended_at_the_next_start(home, registry):
    engines = registry._components.engines
    beside = engines.start_beside(registry._components.adapters.check(registry._components.state.model("large"))[1])
    restarted = home.registry()
    restarted.adopt()
    assert not psutil.pid_exists(beside.record.pid)
    beside.client.close()
    assert identity(restarted) == "small"
    restarted.close()


def test_after_adoption_the_base_is_current_even_if_the_engine_runs_another_model(home, registry):
    full = home.full("whole")
    registry.register_model("whole", str(full), {"kind": "full", "base": str(home.base()), "base_name": "small"})
    registry.switch_model("whole")
    restarted = home.registry()
    restarted.adopt()
    assert restarted.current_model.name == "small"
    assert identity(restarted) == "small"
    restarted.close()


def test_a_hung_engine_is_ended_and_started_again_with_its_adapters(home, registry, monkeypatch):
    registry.switch_model("two")
    watchdog, old = registry._components.watchdog, pid_of(registry)
    watchdog.check()
    os.kill(old, signal.SIGSTOP)
    wait_until(lambda: psutil.Process(old).status() == psutil.STATUS_STOPPED)  # on a busy machine it answers until then
    monkeypatch.setattr(client, "HEALTH_SECONDS", 0.2)  # not before: a busy machine may take longer to say it is well
    watchdog.check()
    watchdog.check()
    assert pid_of(registry) == old, "two misses may be chance"
    watchdog.check()
    assert pid_of(registry) != old
    assert not psutil.pid_exists(old)
    assert identity(registry) == "two"
    assert {model.name for model in registry.models() if model.loaded} == {"one", "two", "small"}


def test_a_dead_engine_is_started_again_before_anybody_asks_and_only_once(home, registry):
    watchdog = registry._components.watchdog
    os.kill(pid_of(registry), signal.SIGKILL)
    wait_until(lambda: registry.status().state is EngineState.FAILED)
    watchdog.check()
    assert registry.status().state is EngineState.READY
    os.kill(pid_of(registry), signal.SIGKILL)
    wait_until(lambda: registry.status().state is EngineState.FAILED)
    with pytest.raises(EngineUnavailable, match="exited unexpectedly"):
        watchdog.check()
    watchdog.check()
    assert len(home.seen("start")) == 2
    assert registry.status().state is EngineState.FAILED


def test_the_longest_unused_adapter_goes_when_there_is_no_room_for_more(home, registry):
    home.adapters = 3
    registry.switch_model("two")
    for name in ("three", "four"):
        registry.register_model(name, str(home.adapter(name)), {"base": str(home.base())})
    registry.switch_model("three")
    identity(registry, model="one")
    registry.switch_model("four")
    assert {model.name for model in registry.models() if model.loaded} == {"small", "one", "three", "four"}
    assert home.seen("unload") == ["two@2"]
    assert identity(registry, model="two") == "two", "asked for, it is loaded again"
