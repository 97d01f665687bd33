"""Names that would leave a folder, and files that are never half written."""

import errno
import re

import pytest

from sage_studio.errors import InvalidName, StorageFull
from sage_studio.files import safe_name, upload_name, write_atomically


@pytest.mark.parametrize("name", ["..", "../x", "a/b", "a\\b", "", ".hidden", "a..b", "x" * 200, "a\0b", "名字"])
def test_an_id_that_could_climb_is_refused(name):
    with pytest.raises(InvalidName):
        safe_name(name)


@pytest.mark.parametrize("name", ["finetune-1234567890", "sage-docs-v1", "a.b_c-1"])
def test_an_id_of_ours_passes_unchanged(name):
    assert safe_name(name) == name


@pytest.mark.parametrize("name", ["../x.json", "a/../../x.json", "..\\x.json", ".bashrc"])
def test_an_uploaded_name_that_climbs_is_refused(name):
    with pytest.raises(InvalidName):
        upload_name(name)


def test_an_uploaded_name_keeps_its_last_part():
    assert upload_name("C:\\data\\my rows.json") == "my_rows.json"
    assert upload_name("训练.json") == "训练.json"
    assert upload_name("a" * 200 + ".json") == "a" * 123 + ".json"
    assert upload_name(" ") == "data"


def test_a_full_disk_leaves_the_old_content(tmp_path, monkeypatch):
    path = tmp_path / "x.json"
    write_atomically(path, "old")

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageFull, match=re.escape(str(path))):
        write_atomically(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
