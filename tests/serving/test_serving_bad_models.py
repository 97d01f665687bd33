"""A model that went bad after it was registered, and changes that meet: the old model keeps answering."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from serving_files import write_adapter

from sage_studio.errors import Conflict, InvalidModel, InvalidName
from sage_studio.serving.types import EngineState


def identity(registry):
    return list(registry.stream([{"role": "user", "content": "who"}]))[-1].model


def delete(folder):
    shutil.rmtree(folder)


def cut_off(folder):
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])


def without_weights(folder):
    (folder / "adapter_model.safetensors").unlink()


def without_config(folder):
    (folder / "adapter_config.json").unlink()


def half_a_config(folder):
    (folder / "adapter_config.json").write_text('{"peft_type": "LO')


def not_a_number(folder):
    base = json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"]
    write_adapter(folder, base, np.array([1, np.nan], np.float32))


def of_another_base(folder):
    write_adapter(folder, "/models/large")


def link_out(folder):
    outside = folder.parents[2] / "elsewhere"
    folder.rename(outside)
    folder.symlink_to(outside)


WENT_BAD = {
    delete: (InvalidModel, "does not exist", "不存在"),
    cut_off: (InvalidModel, "adapter_model.safetensors is cut off or damaged", "不完整或已损坏"),
    without_weights: (InvalidModel, "adapter_model.safetensors are missing", "缺少权重文件"),
    without_config: (InvalidModel, "adapter_config.json cannot be read", "无法读取"),
    half_a_config: (InvalidModel, "adapter_config.json cannot be read", "无法读取"),
    not_a_number: (InvalidModel, "NaN or infinite weights (first in layer.lora_A.weight)", "含有 NaN 或无穷大的权重"),
    of_another_base: (InvalidModel, "was trained on /models/large, not on", "的基座是 /models/large"),
    link_out: (InvalidName, "points outside", "之外"),
}


@pytest.fixture
def registry(home):
    """An adapter that is current, and one that is registered but not loaded yet."""
    registry = home.registry()
    for name in ("one", "two"):
        registry.register_model(name, str(home.adapter(name)), {"base": str(home.base())})
    registry.switch_model("one")
    return registry


@pytest.mark.parametrize("go_bad", WENT_BAD, ids=lambda go_bad: go_bad.__name__)
def test_an_adapter_that_went_bad_is_refused_before_the_engine_hears_of_it(home, registry, go_bad):
    kind, english, chinese = WENT_BAD[go_bad]
    go_bad(home.settings.outputs_dir / "two")
    before = home.events()
    with pytest.raises(kind) as caught:
        registry.switch_model("two")
    assert english in caught.value.message.en
    assert chinese in caught.value.message.zh
    assert caught.value.hint.en
    assert caught.value.hint.zh
    assert home.events() == before, "the engine was asked to do something"
    assert (registry.current_model.name, identity(registry)) == ("one", "one")
    assert registry.status().state is EngineState.READY


def test_an_adapter_that_is_deleted_while_it_answers_goes_on(home, registry):
    """Its weights were copied: vLLM reads them again when it swaps adapters."""
    delete(home.settings.outputs_dir / "one")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert Path(home.seen("path")[0], name).is_file(), "what the engine reads went with the folder"
    assert identity(registry) == "one"
    with pytest.raises(InvalidModel, match="does not exist"):
        registry.switch_model("one")
    assert identity(registry) == "one"


@pytest.mark.parametrize("where", ["in this process", "in another process"])
def test_while_one_switch_is_under_way_a_second_one_waits_its_turn(home, registry, where):
    other = home.registry() if where == "in another process" else registry
    other._components.switch_lock._seconds = 0.1
    with registry._components.switch_lock.hold():
        with pytest.raises(Conflict, match="Another model switch is in progress") as caught:
            other.switch_model("two")
        assert "另一个模型切换正在进行" in caught.value.say("zh")
        assert (registry.current_model.name, identity(registry)) == ("one", "one")
    assert other.switch_model("two").current, "once it is over, the next one is let in"
