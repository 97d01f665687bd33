"""Bad adapters and bad names: each is refused before anything changes, naming what and how to mend it."""

import json
import shutil

import numpy as np
import pytest
from serving_files import write_adapter, write_safetensors

from sage_studio.errors import InvalidModel, InvalidName
from sage_studio.serving.adapter_compat import check_adapter, check_full_model

BASE = "/models/small"


@pytest.fixture
def adapter(tmp_path):
    folder = tmp_path / "adapter"
    folder.mkdir()
    write_adapter(folder, BASE)
    return folder


def check(folder, engine="vllm", base=BASE):
    return check_adapter(folder, base, engine, 64)


def test_a_good_adapter_passes_and_tells_its_largest_rank(adapter):
    write_adapter(adapter, BASE, r=8, rank_pattern={"q_proj": 24})
    assert check(adapter).rank == 24


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"use_dora": True}, "DoRA"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "all"}, "bias"),
        ({"lora_bias": True}, "lora_bias"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices"),
        ({"r": 128}, "rank 128"),
        ({"rank_pattern": {"q_proj": 65}}, "rank 65"),
    ],
)
def test_what_vllm_cannot_hold_as_an_adapter_is_to_be_merged(adapter, config, named):
    write_adapter(adapter, BASE, **config)
    assert named in check(adapter).merge
    assert check(adapter, engine="transformers").merge == ""


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_inits_that_can_be_repeated_are_to_be_merged_for_any_engine(adapter, init):
    write_adapter(adapter, BASE, init_lora_weights=init)
    for engine in ("vllm", "transformers"):
        assert init in check(adapter, engine).merge


@pytest.mark.parametrize("name", ["alora_invocation_tokens", "layer_replication", "use_qalora"])
def test_what_a_merge_would_change_names_the_other_engine(adapter, name):
    write_adapter(adapter, BASE, **{name: [1]})
    with pytest.raises(InvalidModel) as caught:
        check(adapter)
    assert "SAGE_STUDIO_ENGINE=transformers" in caught.value.say("zh")
    assert check(adapter, engine="transformers").merge == ""


def test_a_resized_vocabulary_is_to_be_merged_for_any_engine(adapter, tmp_path):
    base = tmp_path / "small"
    base.mkdir()
    (base / "config.json").write_text(json.dumps({"vocab_size": 4}))
    weights = {"model.embed_tokens.weight": np.ones((6, 2), np.float32)}
    write_safetensors(adapter / "adapter_model.safetensors", weights)
    for engine in ("vllm", "transformers"):
        assert "6 in place of 4" in check(adapter, engine, str(base)).merge


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"init_lora_weights": "pissa_niter_4"}, "pissa_niter_4"),
        ({"init_lora_weights": "corda"}, "corda"),
        ({"init_lora_weights": "loftq"}, "loftq"),
        ({"peft_type": "IA3"}, "IA3"),
        ({"r": 0}, "rank 0"),
        ({"base_model_name_or_path": "/models/large"}, "/models/large"),
    ],
)
def test_what_no_engine_can_serve(adapter, config, named):
    write_adapter(adapter, BASE, **config)
    for engine in ("vllm", "transformers"):
        with pytest.raises(InvalidModel, match=named):
            check(adapter, engine)


def test_retrained_embeddings_are_seen_in_the_weights(adapter):
    write_safetensors(adapter / "adapter_model.safetensors", {"model.embed_tokens.weight": np.ones(4, np.float32)})
    assert "embeddings" in check(adapter).merge


def test_a_moved_base_of_the_same_name_is_the_same_base(adapter):
    check(adapter, base="/elsewhere/small")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_numbers_that_are_none_are_found(adapter, bad, dtype):
    write_adapter(adapter, BASE, np.array([1, bad, 1], dtype=dtype))
    with pytest.raises(InvalidModel, match=r"layer\.lora_A\.weight"):
        check(adapter)


def test_a_half_written_adapter(adapter):
    weights = adapter / "adapter_model.safetensors"
    whole = weights.read_bytes()
    for part in (
        b"",
        whole[:5],
        whole[:20],
        whole[:-1],
        whole + b"\0",
        b"\xff" * 40,
        (2).to_bytes(8, "little") + b"[]",
    ):
        weights.write_bytes(part)
        with pytest.raises(InvalidModel, match="cut off or damaged"):
            check(adapter)
    weights.unlink()
    with pytest.raises(InvalidModel, match="missing"):
        check(adapter)


@pytest.mark.parametrize("content", ["", "{", "[]", "null"])
def test_a_broken_config(adapter, content):
    (adapter / "adapter_config.json").write_text(content)
    with pytest.raises(InvalidModel, match=r"adapter_config\.json"):
        check(adapter)


def test_a_deleted_folder(adapter):
    shutil.rmtree(adapter)
    with pytest.raises(InvalidModel, match="does not exist"):
        check(adapter)


def test_a_full_model_must_be_whole_and_finite(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer.json").write_text("{}")
    weights = tmp_path / "model.safetensors"
    with pytest.raises(InvalidModel, match="safetensors"):
        check_full_model(tmp_path)
    write_safetensors(weights, {"w": np.ones(3, np.float32)})
    check_full_model(tmp_path)
    write_safetensors(weights, {"w": np.array([np.nan], np.float32)})
    with pytest.raises(InvalidModel, match="NaN"):
        check_full_model(tmp_path)


@pytest.mark.parametrize("path", ["relative/path", "/a/../b", ""])
def test_a_tuned_model_needs_a_full_path(home, path):
    with pytest.raises(InvalidName):
        home.registry().register_model("x", path, {"kind": "adapter", "base": BASE})


def test_a_link_out_of_the_outputs_is_refused(home, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    link = home.settings.outputs_dir / "link"
    link.symlink_to(outside)
    with pytest.raises(InvalidName, match="points outside"):
        home.registry().register_model("x", str(link), {"kind": "adapter", "base": BASE})


@pytest.mark.parametrize("name", ["", " ", "a\nb", "../x", "x" * 513])
def test_names_that_are_none(home, name):
    with pytest.raises(InvalidName):
        home.registry().register_model(name, str(home.adapter()), {"base": BASE})


def test_an_unknown_kind_and_a_missing_folder(home):
    registry = home.registry()
    with pytest.raises(InvalidModel, match="'gguf'"):
        registry.register_model("x", str(home.adapter()), {"kind": "gguf"})
    with pytest.raises(InvalidModel, match="does not exist"):
        registry.register_model("x", "/nowhere/at/all", {"kind": "full"})


def test_what_is_left_out_is_read_from_the_folder(home):
    folder = home.adapter()
    model = home.registry().register_model("x", str(folder))
    assert (model.kind, model.base, model.config["base_name"]) == ("adapter", str(home.base()), "small")
    assert model.size_bytes == sum(file.stat().st_size for file in folder.iterdir())
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    with pytest.raises(InvalidModel, match="name its base model"):
        home.registry().register_model("y", str(folder))
