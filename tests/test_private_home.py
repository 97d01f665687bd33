"""M1: no other user of the machine reads what the studio keeps."""

import logging
import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from running_studio import RunningStudio
from waiting import patient

from sage_studio import cli
from sage_studio.database import Database
from sage_studio.files import make_private
from sage_studio.settings import PROJECT
from sage_studio.studio import Studio

NOBODY = 65534
OLD = ("old.txt", "app.out")
"""What was there before the studio, and what the test writes itself."""
SEARCH = """
import os, sys
os.setgroups([]); os.setgid({nobody}); os.setuid({nobody})
read = []
for folder, _, files in os.walk(sys.argv[1], onerror=lambda error: None):
    for name in files:
        try:
            open(os.path.join(folder, name), "rb").read()
            read.append(name)
        except OSError:
            pass
print(read)
"""


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def umask():
    """The usual umask; as it was afterwards."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def open_folder(tmp_path, umask):
    """A folder that every user can reach, as pytest's own are not."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.owner() == Path.home().owner() and folder != Path("/tmp") and folder.is_relative_to("/tmp"):
            folder.chmod(0o755)
    return tmp_path


def test_what_a_studio_writes_is_for_its_user_alone(open_folder):
    """M1: a home of 0.1 with the modes it had, and a studio on it as a person starts it."""
    home = open_folder / "home"
    (home / "studio_finetune" / "outputs").mkdir(parents=True)
    (home / "studio_finetune" / "outputs" / "old.txt").write_text("ENGINEKEY")
    studio = RunningStudio(home)
    studio.start()
    try:
        with sqlite3.connect(home / "studio_finetune" / "studio.db") as database:
            database.execute("INSERT OR REPLACE INTO serving VALUES ('x', 'ENGINEKEY')")
        assert (mode(home), mode(home / "studio_finetune")) == (0o700, 0o700)
        made = {path: mode(path) for path in home.rglob("*") if path.is_file() and path.name not in OLD}
        assert {path.name for path in made} >= {"studio.db", "studio.db-wal", "studio.db-shm", "studio.log"}
        assert {path: bits for path, bits in made.items() if bits & 0o077} == {}
        assert f"Closed {home} to other users" in (home / "studio.log").read_text()
        if os.getuid() == 0:
            home.parent.chmod(0o755)
            script = SEARCH.format(nobody=NOBODY)
            done = subprocess.run([sys.executable, "-IS", "-c", script, str(home)], capture_output=True, text=True)
            assert done.stdout == "[]\n", done.stderr
    finally:
        studio.stop()


def test_the_database_is_never_open_to_others_not_even_its_log(tmp_path, umask):
    """M1: ``-wal`` and ``-shm`` get the mode that the database has when they are made."""
    database = Database(tmp_path / "studio.db")
    with database.transaction() as sql:
        sql.execute("INSERT INTO serving VALUES ('x', 'ENGINEKEY')")
    assert {path.name: mode(path) for path in tmp_path.iterdir()} == {
        "studio.db": 0o600,
        "studio.db-wal": 0o600,
        "studio.db-shm": 0o600,
    }


def test_a_database_of_0_1_is_closed_with_its_log_when_it_is_opened(tmp_path, umask):
    path = tmp_path / "studio.db"
    kept = Database(path)
    with kept.transaction() as sql:
        sql.execute("INSERT INTO serving VALUES ('x', 'ENGINEKEY')")
    for file in tmp_path.iterdir():
        file.chmod(0o644)
    with kept.transaction() as sql:  # its locks outlive the look at its mode
        sql.execute("INSERT INTO serving VALUES ('y', '2')")
        Database(path)
        with pytest.raises(sqlite3.OperationalError), sqlite3.connect(path, timeout=0) as other:
            other.execute("BEGIN IMMEDIATE")
    assert {mode(file) for file in tmp_path.iterdir()} == {0o600}


def test_a_home_that_was_open_is_closed_and_the_log_says_so(settings, umask, caplog):
    settings.root.mkdir(parents=True)
    with caplog.at_level(logging.INFO, "sage_studio"):
        Studio(settings, queues_only=True)
    assert (mode(settings.root), mode(settings.root.parent)) == (0o700, 0o700)
    assert f"Closed {settings.root.parent} to other users: mode 700, was 755." in caplog.text


def test_a_folder_for_others_too_is_left_as_it_is(tmp_path, umask, caplog, monkeypatch):
    shared, home = tmp_path / "tmp", tmp_path / "person"
    shared.mkdir()
    shared.chmod(0o1777)
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    make_private(shared, home)
    assert (mode(shared), mode(home)) == (0o1777, 0o755)
    assert caplog.text.count("Other users may look into") == 2


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_a_home_of_another_user_is_named(tmp_path, umask, caplog):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    os.chown(theirs, NOBODY, NOBODY)
    make_private(theirs)
    assert mode(theirs) == 0o755
    assert f"belongs to another user (uid {NOBODY})" in caplog.text


def test_the_command_line_makes_files_for_its_user_alone(settings, monkeypatch, umask, capsys):
    monkeypatch.setenv("SAGE_STUDIO_HOME", str(settings.home))
    cli.main(["tasks"])
    assert capsys.readouterr().out.strip() == "[]"
    assert {path: mode(path) for path in settings.root.rglob("*") if mode(path) & 0o077} == {}


def test_the_page_is_started_with_a_umask_of_077():
    code = "import os, sage_studio.launch as l; l.load_settings = lambda: print(oct(os.umask(0))) or 1/0; l.main()"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, timeout=patient(60)
    )
    assert done.stdout == "0o77\n", done.stderr
