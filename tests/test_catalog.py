"""Which names mean a model, and what is said of those that do not."""

import importlib.metadata
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx2
import pytest
import yaml
from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError

from sage_studio.catalog import BUILT_IN, STAND_IN, Catalog, ModelRef
from sage_studio.errors import HubUnavailable, InvalidModel, InvalidName
from sage_studio.models.chat_template import tokenizer_of
from sage_studio.settings import PROJECT, load_settings


@pytest.fixture
def catalog(settings):
    return Catalog(settings)


def model_folder(folder):
    folder.mkdir()
    (folder / "config.json").write_text("{}", encoding="utf-8")
    (folder / "model.safetensors").write_bytes(b"")
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    return folder


def test_the_built_in_model_needs_no_network(catalog):
    ref = catalog.resolve(BUILT_IN)
    assert ref.packed is not None
    assert ref.packed.is_file()
    assert ref.is_local


def test_without_a_gpu_the_built_in_model_is_offered_first(catalog):
    assert catalog.default(has_gpu=False) == BUILT_IN
    assert catalog.default(has_gpu=True) == "Qwen/Qwen2.5-Coder-1.5B-Instruct"


def test_a_gpu_too_small_for_the_recommended_model_is_offered_the_largest_that_suits_it(catalog):
    small = catalog.default(has_gpu=True, suits=lambda entry: entry.parameters < 1_400_000_000)
    assert small == "Qwen/Qwen3-0.6B", "larger ones are gated"
    assert catalog.default(has_gpu=True, suits=lambda entry: False) == BUILT_IN


def test_the_operator_chooses_the_default(tmp_path):
    assert (
        Catalog(load_settings(home=tmp_path, default_model="Qwen/Qwen3-4B")).default(has_gpu=False) == "Qwen/Qwen3-4B"
    )


def test_without_its_wheel_an_open_model_of_the_hub_stands_in_for_the_built_in_one(catalog, monkeypatch):
    """As on a Space, whose builder reads requirements.txt alone."""

    def none(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", none)
    assert catalog.default(has_gpu=False) == "Qwen/Qwen2.5-0.5B-Instruct"
    assert catalog.default(has_gpu=False, task="embedding") == "intfloat/multilingual-e5-small"
    assert not any(catalog.find(name).gated for name in STAND_IN.values())
    assert not catalog.is_at_hand(catalog.find(BUILT_IN))
    unpacked = catalog._settings.models_dir / BUILT_IN
    unpacked.mkdir(parents=True)
    (unpacked / "config.json").write_text("{}", encoding="utf-8")
    assert catalog.default(has_gpu=False) == BUILT_IN


def test_a_local_folder_is_taken(catalog, tmp_path):
    folder = model_folder(tmp_path / "mine")
    assert catalog.resolve(str(folder)).location == str(folder)


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors", "tokenizer.json"])
def test_an_incomplete_folder_is_refused_naming_what_is_missing(catalog, tmp_path, missing):
    folder = model_folder(tmp_path / "mine")
    (folder / missing).unlink()
    with pytest.raises(InvalidModel, match="missing"):
        catalog.resolve(str(folder))


def test_a_broken_config_is_named(catalog, tmp_path):
    folder = model_folder(tmp_path / "mine")
    (folder / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(InvalidModel, match=r"config\.json"):
        catalog.resolve(str(folder))


@pytest.mark.parametrize("name", ["", "no-such", "a/b/c", "rm -rf /", "ümlaut/x", "/nowhere/at/all"])
def test_a_name_that_cannot_be_a_model_is_refused(catalog, name):
    with pytest.raises(InvalidModel):
        catalog.resolve(name)


@pytest.mark.parametrize("name", ["../models/x", "/tmp/../etc", "a/.."])
def test_a_name_that_climbs_is_refused(catalog, name):
    with pytest.raises(InvalidName):
        catalog.resolve(name)


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", "http://no-such-host.invalid", "no-address", "http://[a"])
def test_a_hub_that_does_not_answer_is_said_with_the_remedy(catalog, monkeypatch, endpoint):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
    with pytest.raises(HubUnavailable) as caught:
        catalog.resolve("someone/some-model")
    assert "HF_ENDPOINT" in caught.value.say("zh")
    assert BUILT_IN in caught.value.say("en")


class Page(BaseHTTPRequestHandler):
    """What a proxy or a half-made mirror answers."""

    def do_GET(self):
        self.send_response(int(self.server.status))
        self.send_header("Content-Length", str(len(self.server.content)))
        self.end_headers()
        self.wfile.write(self.server.content)

    do_HEAD = do_GET

    def log_message(self, *_):
        pass


@pytest.mark.parametrize(
    ("status", "content"),
    [(200, b"<html>log in</html>"), (200, b"[]"), (200, b"{}"), (200, b"null"), (302, b""), (401, b"x"), (500, b"")],
)
def test_what_is_no_hub_is_told_as_one_that_does_not_answer(catalog, monkeypatch, status, content):
    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        server.status, server.content = status, content
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", endpoint)
        for ask in (catalog.resolve, lambda name: tokenizer_of(ModelRef(name, name, False, None))):
            with pytest.raises(HubUnavailable):
                ask("someone/some-model")
        server.shutdown()


def test_a_model_that_the_hub_does_not_have_is_refused(catalog, monkeypatch):
    def unknown(*_, **__):
        response = httpx2.Response(404, request=httpx2.Request("GET", "http://localhost"))
        raise RepositoryNotFoundError("404", response=response)

    monkeypatch.setattr(HfApi, "model_info", unknown)
    with pytest.raises(InvalidModel, match="someone/no-model"):
        catalog.resolve("someone/no-model")


def test_code_of_typed_models_runs_only_where_the_operator_allows_it(tmp_path):
    folder = model_folder(tmp_path / "mine")
    assert not Catalog(load_settings(home=tmp_path)).resolve(str(folder)).trust_remote_code
    assert Catalog(load_settings(home=tmp_path, trust_remote_code=True)).resolve(str(folder)).trust_remote_code


def test_unpacking_gives_a_model_folder_that_is_taken(built_in_model):
    assert json.loads((built_in_model / "config.json").read_text())["model_type"] == "llama"
    home = built_in_model.parents[2]
    assert Catalog(load_settings(home=home)).resolve(BUILT_IN).packed is None


def registry_of_transformers():
    from transformers.models.auto import modeling_auto

    found = set()
    for name in dir(modeling_auto):
        if name.endswith("MAPPING_NAMES"):
            for value in getattr(modeling_auto, name).values():
                found |= {value} if isinstance(value, str) else set(value)
    return found


def registry_of_vllm():
    """Read, not imported: that takes half a minute."""
    import ast
    import importlib.util
    from pathlib import Path

    spec = importlib.util.find_spec("vllm")
    if spec is None or spec.origin is None:
        pytest.skip("vLLM is not installed here")
    path = Path(spec.origin).parent / "model_executor" / "models" / "registry.py"
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}


@pytest.mark.parametrize("registry", [registry_of_transformers, registry_of_vllm])
def test_trainer_and_engine_hold_every_model_of_the_catalogue(catalog, registry):
    known = registry()
    assert {entry.id: entry.architecture for entry in catalog.entries if entry.architecture not in known} == {}


def test_the_catalogue_is_whole(catalog):
    ids = [entry.id for entry in catalog.entries]
    assert len(ids) == len(set(ids)) > 25
    for entry in catalog.entries:
        assert min(entry.context, entry.parameters) > 0
        assert entry.wheel is not None or entry.id.count("/") == 1
        assert {"lora", "8bit", "4bit"} == set(entry.vram_gb) or entry.task == "embedding"


def test_a_model_of_the_catalogue_needs_no_look_at_the_hub_for_a_click(catalog, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert catalog.resolve("Qwen/Qwen3-4B", ask_hub=False).task == "generative"
    with pytest.raises(HubUnavailable):
        catalog.resolve("Qwen/Qwen3-4B")


def test_what_the_hub_said_is_kept_for_a_while(catalog, monkeypatch):
    asked = []

    def info(*arguments, **_):
        asked.append(arguments)
        return type("Info", (), {"pipeline_tag": "text-generation"})

    monkeypatch.setattr(HfApi, "model_info", info)
    assert [catalog.resolve("someone/known").task for _ in range(3)] == ["generative"] * 3
    assert len(asked) == 1


def test_the_stand_ins_are_open_models_of_the_catalogue_and_a_space_preloads_the_first(catalog):
    for built_in, stand_in in STAND_IN.items():
        assert catalog.find(stand_in).task == catalog.find(built_in).task
        assert not catalog.find(stand_in).gated
    header = (PROJECT / "README.md").read_text(encoding="utf-8").split("---")[1]
    assert STAND_IN[BUILT_IN] in yaml.safe_load(header)["preload_from_hub"]
