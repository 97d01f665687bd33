"""Settings: the file, the environment over it, and what is said of a wrong value."""

from pathlib import Path

import pytest

from sage_studio.errors import InvalidSetting
from sage_studio.settings import Settings, load_settings


def test_the_environment_wins_over_the_file(tmp_path, monkeypatch):
    config = tmp_path / "studio.yaml"
    config.write_text("port: 7000\nmax_running: 3\n", encoding="utf-8")
    monkeypatch.setenv("SAGE_STUDIO_CONFIG", str(config))
    monkeypatch.setenv("SAGE_STUDIO_PORT", "7001")
    settings = load_settings()
    assert (settings.port, settings.max_running) == (7001, 3)


def test_an_empty_variable_is_no_value(monkeypatch):
    monkeypatch.setenv("SAGE_STUDIO_HOST", "")
    assert load_settings().host == "127.0.0.1"


@pytest.mark.parametrize(
    ("name", "value"), [("PORT", "abc"), ("PORT", "70000"), ("ENGINE", "llama"), ("MAX_RUNNING", "-1")]
)
def test_a_wrong_value_is_named_with_its_remedy(monkeypatch, name, value):
    monkeypatch.setenv(f"SAGE_STUDIO_{name}", value)
    with pytest.raises(InvalidSetting) as caught:
        load_settings()
    for language in ("en", "zh"):
        assert value in caught.value.say(language)
        assert f"SAGE_STUDIO_{name}" in caught.value.say(language)


def test_an_unknown_key_in_the_file_is_refused(tmp_path, monkeypatch):
    config = tmp_path / "studio.yaml"
    config.write_text("prot: 7000\n", encoding="utf-8")
    monkeypatch.setenv("SAGE_STUDIO_CONFIG", str(config))
    with pytest.raises(InvalidSetting, match="prot"):
        load_settings()


@pytest.mark.parametrize("content", ["port: [", "\x00"])
def test_a_broken_file_is_named(tmp_path, monkeypatch, content):
    config = tmp_path / "studio.yaml"
    config.write_text(content, encoding="utf-8")
    monkeypatch.setenv("SAGE_STUDIO_CONFIG", str(config))
    with pytest.raises(InvalidSetting, match=r"studio\.yaml"):
        load_settings()


def test_login_is_needed_wherever_others_could_come_in():
    assert not load_settings().needs_login
    assert load_settings(share=True).needs_login
    assert load_settings(host="0.0.0.0").needs_login
    assert load_settings(auth="a:b").needs_login


def test_everything_lies_under_the_home(tmp_path):
    settings = load_settings(home=tmp_path)
    places = [getattr(settings, name) for name in dir(Settings) if name.endswith(("_dir", "_path"))]
    assert len(places) >= 7
    assert all(Path(place).is_relative_to(tmp_path) for place in places)
