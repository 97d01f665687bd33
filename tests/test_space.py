"""A Space's environment and storage: what is read from them, and what follows for the settings."""

import os
from pathlib import Path

import pytest

from sage_studio import launch
from sage_studio.api.hub_login import HubLogin
from sage_studio.errors import Conflict, InvalidSetting
from sage_studio.settings import load_settings
from sage_studio.space import (
    OAUTH,
    Space,
    adopt_preloaded,
    can_hold_a_studio,
    outlives_a_restart,
    space_settings,
)

IDENTITY = {"SPACE_ID": "ada/studio", "SPACE_HOST": "ada-studio.hf.space,studio.example", "SPACE_AUTHOR_NAME": "ada"}
MOUNTS = [
    "overlay / overlay rw 0 0",
    "tmpfs /dev/shm tmpfs rw 0 0",
    "/dev/nvme1 /data ext4 rw 0 0",
    "bucket /mnt/bucket fuse rw 0 0",
]


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch, tmp_path):
    for name in ("HF_HOME", *IDENTITY, *OAUTH):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    yield
    monkeypatch.delenv("HF_HOME", raising=False)


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    return folder


@pytest.fixture
def oauth(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    return IDENTITY | dict.fromkeys(OAUTH, "x")


def test_anywhere_else_there_is_no_space():
    assert Space.here({}) is None
    assert Space.here({"SPACE_ID": "", "SPACE_HOST": "x"}) is None


def test_a_space_says_who_and_where_it_is():
    space = Space.here(IDENTITY)
    assert space == Space("ada/studio", "ada", ("ada-studio.hf.space", "studio.example"), False)
    assert space.address == "https://ada-studio.hf.space"
    assert Space.here({"SPACE_ID": "ada/studio"}) == Space("ada/studio", "ada", (), False)


def test_signing_in_needs_all_that_the_hub_gives_for_it(oauth):
    assert Space.here(oauth).has_oauth
    for name in OAUTH:
        assert not Space.here({**oauth, name: ""}).has_oauth


def test_signing_in_needs_the_packages_of_the_builder(oauth, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "authlib" else object())
    assert not Space.here(oauth).has_oauth


def test_the_spaces_storage_is_the_home_and_the_hubs_cache(data):
    settings = space_settings(data)
    assert settings.home == data / "sage"
    assert settings.host == "0.0.0.0"
    assert os.environ["HF_HOME"] == str(data / ".huggingface")
    assert list(data.glob("*.db*")) == list(data.glob(".sage*")) == []


def test_a_home_of_the_operators_choice_is_left_alone(data, monkeypatch, tmp_path):
    monkeypatch.setenv("SAGE_STUDIO_HOME", str(tmp_path / "mine"))
    monkeypatch.setenv("SAGE_STUDIO_HOST", "127.0.0.1")
    settings = space_settings(data)
    assert (settings.home, settings.host) == (tmp_path / "mine", "127.0.0.1")
    assert "HF_HOME" not in os.environ


def test_a_cache_of_the_operators_choice_is_left_alone(data, monkeypatch):
    monkeypatch.setenv("HF_HOME", "/elsewhere")
    assert space_settings(data).home == data / "sage"
    assert os.environ["HF_HOME"] == "/elsewhere"


def test_without_storage_the_home_is_the_containers(tmp_path):
    assert space_settings(tmp_path / "none").root == tmp_path / ".sage" / "studio_finetune"
    assert "HF_HOME" not in os.environ


def test_storage_that_holds_no_database_is_not_used(data, monkeypatch):
    assert can_hold_a_studio(data)
    monkeypatch.setattr("os.access", lambda *_: False)
    assert not can_hold_a_studio(data)
    monkeypatch.undo()

    def broken(path):
        raise __import__("sqlite3").OperationalError("disk I/O error")

    monkeypatch.setattr("sqlite3.connect", broken)
    assert not can_hold_a_studio(data)


def test_what_the_image_brings_is_found_from_the_storage(tmp_path):
    image, cache = tmp_path / "image", tmp_path / "cache"
    for name in ("models--a--new", "models--a--kept"):
        (image / name).mkdir(parents=True)
    (cache / "models--a--kept").mkdir(parents=True)
    (cache / "models--a--gone").symlink_to(tmp_path / "nowhere")
    adopt_preloaded(image, cache)
    adopt_preloaded(image, cache)
    assert {path.name for path in cache.iterdir()} == {"models--a--new", "models--a--kept"}
    assert (cache / "models--a--new").resolve() == image / "models--a--new"
    assert not (cache / "models--a--kept").is_symlink()


def test_a_preloaded_model_is_found_without_a_network(data, tmp_path):
    """As huggingface_hub itself looks for it, through the link."""
    from huggingface_hub import try_to_load_from_cache

    repo = tmp_path / ".cache/huggingface/hub/models--Qwen--Qwen2.5-0.5B-Instruct"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs/main").write_text("abc", encoding="utf-8")
    (repo / "snapshots/abc").mkdir(parents=True)
    (repo / "snapshots/abc/config.json").write_text("{}", encoding="utf-8")
    space_settings(data)
    hub = data / ".huggingface" / "hub"
    assert try_to_load_from_cache("Qwen/Qwen2.5-0.5B-Instruct", "config.json", cache_dir=hub) is not None


@pytest.mark.parametrize(
    ("home", "lasts"),
    [
        ("~/.sage", False),
        ("/data/sage", True),
        ("/mnt/bucket/sage", True),
        ("/dev/shm/sage", False),
        ("/database/sage", False),
    ],
)
def test_only_a_mounted_disk_outlives_the_container(home, lasts):
    assert outlives_a_restart(load_settings(home=home), MOUNTS) is lasts


def test_no_password_is_made_up_on_a_space():
    space = Space("ada/studio", "ada", (), False)
    with pytest.raises(Conflict, match="no login yet"):
        launch.space_credentials(load_settings(host="0.0.0.0"), space)
    assert launch.space_credentials(load_settings(auth="ada:secret"), space) == ("ada", "secret")
    assert launch.space_credentials(load_settings(), Space("ada/studio", "ada", (), True)) is None


def test_the_owner_and_the_named_are_on_the_list():
    hub = HubLogin.on(Space("Ada/studio", "Ada", (), True), load_settings(allowed_users="grace, Edsger-W"))
    assert all(hub.admits(name) for name in ("ada", "Ada", "GRACE", "edsger-w"))
    assert not any(hub.admits(name) for name in (None, "", "mallory", "grac"))


@pytest.mark.parametrize("value", ["ada;grace", "ada@example", "../x", "“ada”"])
def test_a_list_of_users_that_is_none_is_named(value, monkeypatch):
    monkeypatch.setenv("SAGE_STUDIO_ALLOWED_USERS", value)
    with pytest.raises(InvalidSetting, match="allowed_users") as caught:
        load_settings()
    assert "SAGE_STUDIO_ALLOWED_USERS" in caught.value.say("en")


def test_the_header_is_complete():
    """Every key is one that a Space's configuration knows, and the models that the studio offers first are fetched."""
    import space_builder

    from sage_studio.catalog import Catalog

    known = {
        *("title", "emoji", "colorFrom", "colorTo", "sdk", "sdk_version", "python_version", "app_file", "license"),
        *("pinned", "short_description", "fullWidth", "header", "tags", "models", "datasets", "thumbnail"),
        *("suggested_hardware", "suggested_storage", "startup_duration_timeout", "preload_from_hub"),
        *("hf_oauth", "hf_oauth_scopes", "hf_oauth_expiration_minutes", "hf_oauth_authorized_org"),
        *("disable_embedding", "custom_headers", "app_port", "base_path"),
    }
    header = space_builder.header()
    assert set(header) <= known
    assert {"hf_oauth", "suggested_hardware", "startup_duration_timeout", "preload_from_hub"} <= set(header)
    assert len(header.get("short_description", "")) <= 60
    offered = Catalog(load_settings(home=Path("/nowhere")))
    offered.is_at_hand = lambda entry: entry.wheel is None
    assert offered.default(False) in [name.split()[0] for name in header["preload_from_hub"]]
