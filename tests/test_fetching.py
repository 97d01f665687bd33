"""Fetching a hub model from a hub on a real socket: what is fetched, broken off and gone on with, and each fault."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hub_server import COMMIT, HubServer, serving
from model_folder import write_model
from safetensors.numpy import save_file
from waiting import wait_until

from sage_studio import fetching, hub
from sage_studio.errors import HubUnavailable, InvalidModel, StorageFull, StudioError
from sage_studio.fetching import Transfer, fetch
from sage_studio.hub import needed
from sage_studio.models.model_folder import cache_entry, cache_folder, snapshot

NAME = "lab/tiny"
BYTES = 4 << 20


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model whose weights are large enough to be broken off."""
    folder = write_model(tmp_path / "model")
    save_file({"lm_head.weight": np.arange(BYTES // 4, dtype=np.float32)}, folder / "model.safetensors")
    return folder


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, folder: Path) -> Iterator[HubServer]:
    """The hub that this process asks, and an empty cache."""
    from huggingface_hub import constants

    with serving() as server:
        server.add(NAME, folder)
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
        for name in ("HF_TOKEN", "HF_HUB_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
        yield server


@pytest.fixture
def told() -> list[Transfer]:
    return []


def refused(kind: type[StudioError], name: str = NAME) -> StudioError:
    with pytest.raises(kind) as caught:
        fetch(name)
    assert all((*caught.value.message.pair(), *caught.value.hint.pair()))
    return caught.value


def test_a_model_is_fetched_whole_into_the_cache_that_all_libraries_share(server, folder, told):
    assert snapshot(NAME) is None
    place = fetch(NAME, tell=told.append)
    assert place == snapshot(NAME)
    assert place.name == COMMIT
    for path in folder.iterdir():
        assert (place / path.name).read_bytes() == path.read_bytes()
    total = sum(path.stat().st_size for path in folder.iterdir())
    assert (told[0].done, told[-1].done, told[-1].total) == (0, total, total)
    asked = len(server.asked)
    assert fetch(NAME) == place
    assert len(server.asked) == asked, "what is here needs no hub"


def test_transformers_finds_it_without_the_hub(server, monkeypatch):
    from huggingface_hub import hf_hub_download, snapshot_download

    fetch(NAME)
    server.models.clear()
    assert Path(hf_hub_download(NAME, "config.json", local_files_only=True)).is_file()
    assert Path(snapshot_download(NAME, local_files_only=True)) == snapshot(NAME)


def test_what_was_broken_off_goes_on_and_no_byte_is_fetched_twice(server, folder, monkeypatch, told):
    monkeypatch.setattr(fetching, "CHUNK", 64 << 10)

    class StoppedInBetween(BaseException):
        pass

    def stop(transfer: Transfer) -> None:
        if transfer.done > BYTES // 2:
            raise StoppedInBetween

    monkeypatch.setattr(fetching, "TELL_SECONDS", 0.0)
    with pytest.raises(StoppedInBetween):
        fetch(NAME, tell=stop)
    assert snapshot(NAME) is None
    (part,) = (cache_entry(NAME) / "blobs").glob(f"*{fetching.UNFINISHED}")
    kept = part.stat().st_size
    assert kept > 0
    wait_until(lambda: not server.sending)  # what was under way when the client left still counts as sent
    server.sent.clear()
    fetch(NAME, tell=told.append)
    assert told[0].done >= kept
    size = (folder / "model.safetensors").stat().st_size
    assert server.sent["model.safetensors"] == size - kept
    assert ("GET", f"/storage/{NAME}/model.safetensors", f"bytes={kept}-") in server.asked
    assert (snapshot(NAME) / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def test_a_connection_that_breaks_is_taken_up_again(server, folder):
    server.cut_after = 1 << 20
    place = fetch(NAME)
    assert (place / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert any(asked.startswith("bytes=") for _, _, asked in server.asked)


def test_what_arrives_damaged_is_not_kept(server):
    server.damage = True
    assert "damaged" in refused(HubUnavailable).message.en
    assert snapshot(NAME) is None
    assert not list((cache_entry(NAME) / "blobs").glob(f"*{fetching.UNFINISHED}"))
    server.damage = False
    assert fetch(NAME) == snapshot(NAME)


def test_another_process_is_waited_for_with_its_progress(server, monkeypatch, told):
    from filelock import FileLock

    monkeypatch.setattr(fetching, "TELL_SECONDS", 0.01)
    place = cache_folder() / ".locks" / cache_entry(NAME).name
    place.mkdir(parents=True)
    other = FileLock(place / fetching.LOCK)
    other.acquire()

    def tell(transfer: Transfer) -> None:
        told.append(transfer)
        if len(told) == 3:
            other.release()

    assert fetch(NAME, tell=tell) == snapshot(NAME)
    assert told[0].total > BYTES


# What is said of each fault


def test_a_gated_model_says_where_to_accept_its_terms(server, monkeypatch):
    server.gated.add(NAME)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    error = refused(InvalidModel)
    assert f"{server.url}/{NAME}" in error.hint.en
    assert "HF_TOKEN" in error.hint.zh
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "hf_x")
    with pytest.raises(InvalidModel, match="may not use it yet"):
        fetch(NAME)


def test_a_missing_model_is_named(server):
    assert "lab/none" in refused(InvalidModel, "lab/none").message.en


def test_a_repository_without_weights_is_refused(server, folder):
    (folder / "model.safetensors").rename(folder / "model.gguf")
    assert "no weights" in refused(InvalidModel).message.en


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [("http://127.0.0.1:9", "cannot be reached"), ("http://no-such-host.invalid", "cannot be reached")],
)
def test_no_network(server, monkeypatch, endpoint, said):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
    error = refused(HubUnavailable)
    assert (said in error.message.en, "HF_ENDPOINT" in error.hint.en) == (True, True)


def test_a_wrong_endpoint(server, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"{server.url}/storage/lab/tiny/config.json?")
    assert "HF_ENDPOINT" in refused(HubUnavailable).hint.en


def test_offline_mode_is_named(server, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    from huggingface_hub.utils import _http

    _http.close_session()
    try:
        assert "HF_HUB_OFFLINE" in refused(HubUnavailable).hint.en
    finally:
        monkeypatch.undo()
        _http.close_session()


def test_a_disk_without_room_is_said_before_anything_is_fetched(server, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Any and shutil._ntuple_diskusage(10, 9, 1000))
    error = refused(StorageFull)
    assert "HF_HOME" in error.hint.en
    assert not server.sent


# Which files are needed


def test_one_copy_of_the_weights_and_what_is_small():
    paths = [
        ".gitattributes",
        "README.md",
        "LICENSE.txt",
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer.model",
        "chat_template.jinja",
        "additional_chat_templates/tool.jinja",
        "model.safetensors.index.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "consolidated.safetensors",
        "pytorch_model.bin",
        "training_args.bin",
        "model.onnx",
        "onnx/model.onnx",
        "original/consolidated.00.pth",
        "original/params.json",
        "model-Q4_K_M.gguf",
        "modeling_own.py",
        "figures/loss.json",
    ]
    assert needed(paths) == [
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer.model",
        "chat_template.jinja",
        "additional_chat_templates/tool.jinja",
        "model.safetensors.index.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ]
    assert "modeling_own.py" in needed(paths, trust_remote_code=True)


def test_an_embedder_with_its_parts_and_pytorch_weights_alone():
    paths = ["config.json", "modules.json", "1_Pooling/config.json", "2_Dense/model.safetensors", "2_Dense/config.json"]
    paths += ["pytorch_model.bin", "sparse_linear.pt", "tokenizer.json", "imgs/bm25.jpg", "onnx/config.json"]
    left_out = {"sparse_linear.pt", "imgs/bm25.jpg", "onnx/config.json"}
    assert sorted(needed(paths)) == sorted(set(paths) - left_out)


def test_models_are_searched(server):
    server.add("lab/other", server.models[NAME])
    server.add("lab/tiny-embedder", server.models[NAME], "feature-extraction")
    server.gated.add(NAME)
    assert [(each.name, each.gated) for each in hub.search("TINY")] == [(NAME, True)]
    assert [each.name for each in hub.search("tiny", "embedding")] == ["lab/tiny-embedder"]
    assert hub.search("t") == []
    asked = len(server.asked)
    assert hub.search(" ") == []
    assert len(server.asked) == asked


def test_a_search_does_not_wait_for_a_hub_that_is_silent(server, monkeypatch):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(HubUnavailable):
            hub.search("tiny", seconds=0.2)


def test_an_error_of_our_own_is_not_told_as_a_hub_that_does_not_answer(server, monkeypatch):
    """It was: every ValueError, KeyError and TypeError beside a call of the library counted as the library's."""

    def broken(*_: Any) -> None:
        raise TypeError("our own")

    for name, ask in (("needed", lambda: hub.plan(NAME)), ("_found", lambda: hub.search("tiny"))):
        with monkeypatch.context() as patch:
            patch.setattr(hub, name, broken)
            with pytest.raises(TypeError, match="our own"):
                ask()
    monkeypatch.setattr(fetching, "_check_content", broken)
    with pytest.raises(TypeError, match="our own"):
        fetch(NAME)
