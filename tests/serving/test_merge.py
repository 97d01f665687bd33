"""An adapter that no engine holds is merged once, beside its task, and served whole. With a stand-in for the child."""

import hashlib
import json
import os
import shutil
import sys
import threading
from pathlib import Path

import pytest
from serving_files import FAKE
from waiting import wait_until

from sage_studio.errors import Conflict, EngineUnavailable, InvalidModel, StorageFull
from sage_studio.serving import merge
from sage_studio.serving.capacity import needs_own_template
from sage_studio.serving.merge import merge_command
from sage_studio.serving.types import EngineState
from sage_studio.settings import PROJECT

MERGE = FAKE.with_name("fake_merge.py")


@pytest.fixture
def registry(home, monkeypatch):
    """A plain adapter that answers; `runs` counts the children that merge."""
    monkeypatch.setenv("PYTHONPATH", f"{MERGE.parent}{os.pathsep}{PROJECT}")
    registry = home.registry()
    registry.runs = []

    def command(adapter, base, dest, progress):
        registry.runs.append(adapter.name)
        return [sys.executable, str(MERGE), *merge_command(adapter, base, dest, progress)[3:]]

    registry._components.merger._command = command
    registry.register_model("plain", str(home.adapter("plain")), {"base": str(home.base())})
    registry.switch_model("plain")
    return registry


def register(home, registry, name, **config):
    config = config or {"use_dora": True}
    return registry.register_model(name, str(home.adapter(name, **config)), {"base": str(home.base())})


def identity(registry, **options):
    return list(registry.stream([{"role": "user", "content": "who"}], **options))[-1].model


def test_what_the_engine_cannot_hold_is_merged_once_and_served_whole(home, registry):
    model = register(home, registry, "dora")
    registry.switch_model("dora")
    merged = Path(model.path) / "merged"
    assert home.seen("start") == [str(home.base()), str(merged)]
    assert identity(registry) == "dora"
    assert registry.current_model.loaded
    assert registry.current_model.config["merged"] == str(merged)
    assert registry.base_name() == "small"
    registry.switch_model("plain")
    register(home, registry, "dora")
    registry.switch_model("dora")
    assert registry.runs == ["dora"], "the second time it is there already"
    assert not list(Path(model.path).glob("*.part"))


def test_an_adapter_that_changed_or_a_merge_that_was_cut_off_is_merged_again(home, registry):
    model = register(home, registry, "dora")
    for change in ("weights", "manifest", "gone"):
        registry.switch_model("dora")
        registry.switch_model("plain")
        if change == "weights":
            register(home, registry, "dora", use_dora=True, lora_alpha=64)
        elif change == "manifest":
            (Path(model.path) / "merged" / "merged.json").unlink()
        else:
            shutil.rmtree(Path(model.path) / "merged")
    registry.switch_model("dora")
    assert registry.runs == ["dora"] * 4


def test_an_adapter_from_elsewhere_is_merged_in_the_home(home, registry, tmp_path):
    folder = tmp_path / "elsewhere"
    shutil.move(home.adapter("dora", use_dora=True), folder)
    registry.register_model("dora", str(folder), {"base": str(home.base())})
    registry.switch_model("dora")
    assert Path(registry.current_model.config["merged"]).is_relative_to(home.settings.root)
    assert not (folder / "merged").exists()


def test_a_failed_merge_names_the_reason_and_leaves_the_old_model_answering(home, registry):
    register(home, registry, "broken")
    with pytest.raises(InvalidModel, match=r"DoRA.*the shapes do not match") as caught:
        registry.switch_model("broken")
    assert "merge.log" in caught.value.hint.en
    assert (registry.current_model.name, identity(registry)) == ("plain", "plain")
    assert registry.status().state is EngineState.READY


def test_the_status_tells_how_far_it_is_and_closing_ends_it(home, registry):
    register(home, registry, "endless")
    errors = []

    def switch():
        try:
            registry.switch_model("endless")
        except EngineUnavailable as error:
            errors.append(error)

    thread = threading.Thread(target=switch)
    thread.start()
    wait_until(lambda: "40%" in registry.status().message.en)
    status = registry.status()
    assert status.state is EngineState.SWITCHING
    assert "DoRA" in status.message.zh
    assert identity(registry) == "plain", "the chat goes on meanwhile"
    registry.close()
    thread.join()
    assert "not merged" in errors[0].message.en
    assert registry.status().state is EngineState.DOWN


def test_a_merge_that_takes_too_long_is_ended(home, registry):
    register(home, registry, "endless")
    registry._components.merger._seconds = 0.2
    with pytest.raises(EngineUnavailable, match="not merged"):
        registry.switch_model("endless")


def test_no_room_on_the_disk_is_said_before_it_is_filled(home, registry, monkeypatch):
    register(home, registry, "dora")
    monkeypatch.setattr(merge.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 0))
    with pytest.raises(StorageFull):
        registry.switch_model("dora")
    assert registry.runs == []


def test_a_base_that_is_stored_quantized_is_refused(home, registry):
    register(home, registry, "dora")
    (home.base() / "config.json").write_text(json.dumps({"quantization_config": {"load_in_4bit": True}}))
    with pytest.raises(InvalidModel, match="is quantized") as caught:
        registry.switch_model("dora")
    assert "bf16" in caught.value.hint.en


def test_naming_it_in_a_chat_merges_nothing(home, registry):
    register(home, registry, "dora")
    with pytest.raises(Conflict, match="needs the base model"):
        identity(registry, model="dora")
    assert registry.runs == []


def template(folder, text):
    (folder / "chat_template.jinja").write_text(text)
    return hashlib.sha256(text.encode()).hexdigest()


def test_a_model_is_served_with_the_template_that_it_was_trained_with(home, registry):
    folder, base = home.adapter("tuned"), home.base()
    trained = template(base, "then")
    (folder / "training_args.json").write_text(json.dumps({"chat_template_sha256": trained}))
    registry.register_model("tuned", str(folder), {"base": str(base)})
    registry.switch_model("tuned")
    assert registry.runs == [], "the base has the same one"

    now = template(base, "now")
    with pytest.raises(InvalidModel) as caught:
        registry.switch_model("tuned")
    for said in (trained[:12], now[:12], "chat_template.jinja"):
        assert said in caught.value.say("en")
        assert said in caught.value.say("zh")
    assert identity(registry) == "tuned", "what was current answers on"

    template(folder, "then")
    registry.switch_model("tuned")
    assert registry.runs == ["tuned"], "its own folder has it: it is served whole, with that"


def test_a_template_inside_the_tokenizers_settings_counts_too(home):
    folder, base = home.adapter("tuned"), home.base()
    (base / "tokenizer_config.json").write_text(json.dumps({"chat_template": "then"}))
    trained = hashlib.sha256(b"then").hexdigest()
    (folder / "training_args.json").write_text(json.dumps({"chat_template_sha256": trained}))
    assert not needs_own_template(folder, str(base))
    template(base, "now")  # the file of its own comes first
    with pytest.raises(InvalidModel):
        needs_own_template(folder, str(base))
