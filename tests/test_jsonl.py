"""JSON Lines that are appended to while others read them: after a crash, an edit and a full disk."""

import errno
import re
import subprocess
import sys

import pytest

from sage_studio import files
from sage_studio.errors import StorageFull

LINES = ['{"n": 1}', '{"n": 2}']


@pytest.fixture
def path(tmp_path):
    return tmp_path / "lines.jsonl"


def test_what_is_appended_is_read_from_an_offset_on(path):
    files.append(path, LINES)
    read, offset = files.read_from(path, 0)
    assert ([line.decode() for line in read], offset) == (LINES, 18)
    files.append(path, ['{"n": "词"}'], sync=True)
    assert files.read_from(path, offset) == (['{"n": "词"}'.encode()], path.stat().st_size)
    assert files.read_from(path, path.stat().st_size) == ([], path.stat().st_size)


def test_a_line_that_is_being_written_is_not_read_yet(path):
    path.write_bytes(b'{"n": 1}\n{"n"')
    assert files.read_from(path, 0) == ([b'{"n": 1}'], 9)
    assert list(files.complete_lines(path)) == [b'{"n": 1}']


def test_an_offset_past_the_end_starts_over(path):
    files.append(path, LINES)
    assert files.read_from(path, 19) == ([line.encode() for line in LINES], 18)


def test_no_more_is_read_at_once_than_the_limit(path):
    files.append(path, LINES)
    read, offset = files.read_from(path, 0, limit=10)
    assert (read, offset) == ([b'{"n": 1}'], 9)


def test_a_missing_file_is_empty(path):
    assert files.read_from(path, 5) == ([], 0)
    assert list(files.complete_lines(path)) == []
    assert files.mend(path) == 0
    assert not path.exists()


@pytest.mark.parametrize(
    ("content", "mended", "count"),
    [
        (b"", b"", 0),
        (b"1\n2\n", b"1\n2\n", 2),
        (b"1\n2", b"1\n2\n", 2),
        (b"1\n{", b"1\n", 1),
        (b"{", b"", 0),
    ],
)
def test_the_last_line_is_kept_if_it_is_complete_else_cut_off(path, content, mended, count):
    path.write_bytes(content)
    assert files.mend(path, bytes.isdigit) == count
    assert path.read_bytes() == mended


def test_without_a_check_a_line_without_its_newline_is_cut_off(path):
    path.write_bytes(b"1\n2")
    assert files.mend(path) == 1
    assert path.read_bytes() == b"1\n"


def test_a_full_disk_is_named(path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.write", full)
    with pytest.raises(StorageFull, match=re.escape(str(path))):
        files.append(path, LINES)


@pytest.mark.skipif(sys.platform == "win32", reason="no limits of file sizes")
def test_lines_that_do_not_fit_on_the_disk_leave_no_torn_line(path):
    """The limit of the file's size stands for the disk's end: a first write is cut short, the next one fails."""
    files.append(path, LINES)
    script = (
        "import resource, signal, sys; from pathlib import Path; from sage_studio import files\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n"
        "    files.append(Path(sys.argv[1]), ['x' * 600, 'y' * 600])\n"
        "except OSError:\n"
        "    print('refused')\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "refused"
    assert path.read_text().splitlines() == LINES
