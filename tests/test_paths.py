"""Findings H2, L1 and L2: which files of this machine, and which addresses, a request may name."""

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from rest_app import LOGIN, app_of

from sage_studio import paths
from sage_studio.data.documents import git
from sage_studio.errors import InvalidDataset, InvalidInput
from sage_studio.paths import LocalPaths, public_host
from sage_studio.settings import Settings, load_settings
from sage_studio.studio import Studio

AUTH = ":".join(LOGIN)
ROW = json.dumps([{"instruction": "What is it?", "input": "", "output": "It is a row of a file."}])
TEXT = "# Keys\n\n" + "The key of the owner's account is written here, and nobody else is to read it. " * 4


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    """A folder of the owner's."""
    folder = tmp_path / "secrets"
    folder.mkdir()
    (folder / "rows.json").write_text(ROW)
    (folder / "keys.md").write_text(TEXT)
    (folder / "run.yaml").write_text("learning_rate: 0.001\n")
    return folder


@pytest.fixture
def shared(tmp_path: Path) -> Callable[..., Settings]:
    return lambda **more: load_settings(home=tmp_path / "home", auth=AUTH, **more)


@pytest.fixture
def behind_login(shared: Callable[..., Settings]) -> TestClient:
    client = TestClient(app_of(Studio(shared()), LOGIN), base_url="http://studio.example")
    client.auth = LOGIN
    return client


def test_the_machines_own_person_may_name_any_path(secrets: Path, tmp_path: Path, shared: Callable[..., Settings]):
    """Without a login, and at the command line, everything is as it was."""
    for alone in (
        LocalPaths(load_settings(home=tmp_path / "home")),
        LocalPaths(shared(), any_path=True),
        LocalPaths(load_settings(home=tmp_path / "home", local_roots=str(tmp_path / "other")), any_path=True),
    ):
        assert alone.resolve(str(secrets / "rows.json")) == secrets / "rows.json"
        alone.check_address(str(secrets))
        alone.check_address("git@example.org:a/b.git")
        alone.check_address("http://127.0.0.1/x.git")


def test_nothing_of_the_machine_is_for_others_unless_it_was_named(secrets: Path, shared: Callable[..., Settings]):
    """H2: whoever is logged in read the files of the machine with the owner's rights."""
    nothing, named = LocalPaths(shared()), LocalPaths(shared(local_roots=f"/nowhere,{secrets}"))
    said = []
    for path in (secrets / "rows.json", secrets / "no such file", Path("/etc/shadow")):
        with pytest.raises(InvalidInput) as refused:
            nothing.resolve(str(path), "train_data_path")
        said.append(refused.value.message.en.replace(str(path), ""))
    assert len({text[-30:] for text in said}) == 1, "the answer does not tell what is there"
    assert named.resolve(str(secrets / "rows.json")) == secrets / "rows.json"
    for outside in (secrets.parent, secrets / ".." / "x", Path("/etc/shadow"), Path("relative.json")):
        with pytest.raises(InvalidInput, match="not in a folder"):
            named.resolve(str(outside))


def test_named_folders_also_bind_where_no_login_is_needed(secrets: Path, tmp_path: Path):
    alone = LocalPaths(load_settings(home=tmp_path / "home", local_roots=f"{secrets}{os.pathsep}/nowhere"))
    alone.resolve(str(secrets / "rows.json"))
    alone.check_address("git@example.org:a/b.git")
    with pytest.raises(InvalidInput):
        alone.resolve("/etc/passwd")
    with pytest.raises(InvalidInput):
        alone.check_address("/etc")


def test_links_are_followed_before_folders_are_compared(secrets: Path, tmp_path: Path, shared: Callable[..., Settings]):
    """H2: a link in a folder that was named leads out of it."""
    root = tmp_path / "root"
    root.mkdir()
    (root / "out").symlink_to(secrets)
    (root / "circle").symlink_to(root / "circle")
    (tmp_path / "alias").symlink_to(root)
    named = LocalPaths(shared(local_roots=str(tmp_path / "alias")))
    named.resolve(str(root / "new"), "output_dir")
    for path in (root / "out" / "rows.json", root / "circle" / "x", root / "out" / ".." / "x"):
        with pytest.raises(InvalidInput):
            named.resolve(str(path))


def test_the_studios_own_models_and_datasets_stay_usable_and_are_not_written(shared: Callable[..., Settings]):
    settings = shared(default_model="/models/ours")
    own = LocalPaths(settings)
    for folder in (settings.models_dir, settings.datasets_dir, settings.outputs_dir):
        own.resolve(str(folder / "x"), "model_name_or_path")
        with pytest.raises(InvalidInput):
            own.resolve(str(folder / "x"), "output_dir")
    own.resolve("/models/ours", "model_name_or_path")
    own.resolve("owner/name", "model_name_or_path")
    for path in (settings.database_path, settings.uploads_dir / "x"):
        with pytest.raises(InvalidInput):
            own.resolve(str(path))


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("/api/finetune/start", {"model_name_or_path": "m", "train_data_path": "{}/rows.json"}),
        ("/api/finetune/start", {"model_name_or_path": "m", "train_data_path": "~root/x.json"}),
        ("/api/finetune/start", {"type": "kbalign", "model_name_or_path": "m", "input_path": "{}"}),
        ("/api/finetune/start", {"config_file": "{}/run.yaml"}),
        ("/api/finetune/start", {"model_name_or_path": "{}", "dataset_id": "d"}),
        ("/api/finetune/start", {"model_name_or_path": "m", "dataset_id": "d", "output_dir": "{}/made"}),
        ("/api/finetune/start", {"model_name_or_path": "m", "dataset_id": "d", "start_from": "{}"}),
        ("/api/finetune/estimate", {"config_file": "{}/run.yaml"}),
        ("/api/datasets/from-repository", {"address": "{}", "rows": "passages"}),
        ("/api/datasets/from-repository", {"address": "file://{}"}),
        ("/api/datasets/from-repository", {"address": "git@example.org:a/b.git"}),
        ("/api/datasets/from-repository", {"address": "ssh://example.org/a/b.git"}),
        ("/api/datasets/from-repository", {"address": "git://example.org/a/b.git"}),
        ("/api/datasets/from-repository", {"address": "http://127.0.0.1:9/x.git"}),
        ("/api/datasets/from-repository", {"address": "http://169.254.169.254/latest"}),
    ],
)
def test_requests_behind_a_login_reach_no_file_of_the_machine(
    behind_login: TestClient, secrets: Path, route: str, body: dict[str, Any]
):
    """H2 and L2, by REST: nothing is read, kept or made."""
    given = {name: value.replace("{}", str(secrets)) for name, value in body.items()}
    answer = behind_login.post(route, json={"config": given} if "finetune" in route else given)
    assert answer.status_code == 422, answer.text
    said = answer.json()["detail"]["message"]
    assert any(why in said for why in ("not in a folder", "address = ", "no such user")), said
    assert behind_login.get("/api/datasets").json() in ([], {"datasets": []})
    assert not (secrets / "made").exists()


@pytest.mark.parametrize("bad", ["/" + "x/" * 3000, "~nosuchuser/x", "/tmp/\0", "/" + "x" * 300], ids=repr)
def test_what_can_be_no_path_is_no_server_error(tmp_path: Path, bad: str):
    """L1, where no login is needed: each of these was a 500."""
    client = TestClient(app_of(Studio(load_settings(home=tmp_path / "home"))), base_url="http://127.0.0.1")
    recipe = {"model_name_or_path": "m", "dataset_id": "d"}
    for given in (
        {"model_name_or_path": "m", "train_data_path": bad},
        {"type": "kbalign", "model_name_or_path": "m", "input_path": bad},
        {"model_name_or_path": bad, "dataset_id": "d"},
        {**recipe, "output_dir": bad},
        {**recipe, "start_from": bad},
        {**recipe, "config_file": bad},
    ):
        answer = client.post("/api/finetune/start", json={"config": given})
        assert answer.status_code in (404, 422), (given, answer.text[:500])
        assert len(answer.text) < 2000
    for given in ({"address": bad}, {"address": "https://example.org/x", "branch": "a\0b"}):
        answer = client.post("/api/datasets/from-repository", json=given)
        assert answer.status_code in (422, 503), answer.text[:500]


def resolved(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    def look(host: str, port: int, **_: Any) -> list[Any]:
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return [(0, 0, 0, "", (address, port)) for address in addresses]

    monkeypatch.setattr(paths.socket, "getaddrinfo", look)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "::1",
        "fe80::1%eth0",
        "fd00::1",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "::",
    ],
)
def test_only_public_hosts_are_asked(monkeypatch: pytest.MonkeyPatch, address: str):
    """H2: a name that leads to this machine or its network, if only as one of several addresses."""
    resolved(monkeypatch, "93.184.215.14", address)
    with pytest.raises(InvalidInput, match="not a public one"):
        public_host("https://ada:secret@docs.example/x.git")


def test_git_gets_the_very_addresses_that_were_looked_at(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    resolved(monkeypatch, "93.184.215.14", "2606:2800:21f:cb07::1")
    both = ("93.184.215.14", "2606:2800:21f:cb07::1")
    assert public_host("https://docs.example:8443/x") == ("docs.example", 8443, both)
    environment = git.without_owner("http://docs.example/x", tmp_path)
    assert "docs.example:80:93.184.215.14,2606:2800:21f:cb07::1" in environment.values()
    assert environment["HOME"] == str(tmp_path)
    resolved(monkeypatch)
    monkeypatch.setattr(paths, "getproxies", dict)
    with pytest.raises(InvalidInput, match="cannot be found") as refused:
        public_host("https://ada:secret@docs.example/x.git")
    assert "secret" not in refused.value.message.en


def test_git_for_others_runs_without_the_owners_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """H2: no credential helper and no key of the owner is asked; run with the real git."""
    import subprocess

    home = tmp_path / "owner"
    home.mkdir()
    (home / ".gitconfig").write_text('[credential]\n\thelper = "!echo password=secret"\n')
    monkeypatch.setenv("HOME", str(home))

    def helpers(environment: dict[str, str]) -> str:
        command = ["git", "config", "--get-all", "credential.helper"]
        return subprocess.run(
            command, env={**os.environ, **environment}, capture_output=True, text=True, cwd=tmp_path
        ).stdout.strip()

    assert "secret" in helpers({})
    assert helpers(git.without_owner(str(tmp_path), tmp_path)) == ""


def test_a_clone_for_others_takes_a_local_repository_that_was_named(tmp_path: Path):
    import subprocess

    source = tmp_path / "source"
    for command in (["init", "-q", str(source)], ["-C", str(source), "commit", "-q", "--allow-empty", "-m", "x"]):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *command], check=True)
    (tmp_path / "to").mkdir()
    assert git.clone(str(source), "", ".", tmp_path / "to" / "copy", lambda *_: None, shared=True)


def test_a_dataset_is_not_kept_where_the_start_is_refused(tmp_path: Path, secrets: Path, built_in_model: Path):
    """H2: the owner's file remained as a dataset after the answer 422; one that was there before stays."""
    studio = Studio(load_settings(home=tmp_path / "home"))
    asked = {
        "type": "dpo",
        "model_name_or_path": str(built_in_model),
        "train_data_path": str(secrets / "rows.json"),
    }
    with pytest.raises(InvalidDataset):
        studio.training.start(asked)
    assert studio.datasets.list() == []
    kept = studio.datasets.upload(secrets / "rows.json")
    with pytest.raises(InvalidDataset):
        studio.training.start(asked)
    assert [dataset.id for dataset in studio.datasets.list()] == [kept.id]


def test_a_folder_for_the_copy_is_not_made_before_the_copy(tmp_path: Path):
    """L2: a folder appeared at the check, before there was a task."""
    from sage_studio.training.save import check_output

    check_output(str(tmp_path / "new" / "deep"))
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="Not a directory"):
        check_output(str(tmp_path / "file" / "below"))
