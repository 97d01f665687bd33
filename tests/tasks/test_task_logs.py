"""Pages of a training log."""

import psutil
import pytest

from sage_studio.errors import InvalidInput
from sage_studio.tasks.log import MOST, LogPage, read_log

GIB = 1 << 30


@pytest.fixture
def log(tmp_path):
    return tmp_path / "train.log"


def test_the_tail_is_the_last_lines_and_says_where_to_go_on(tmp_path, log):
    log.write_text("".join(f"line {number}\n" for number in range(10_000)))
    page = read_log(tmp_path, limit=3)
    assert page.lines == ("line 9997", "line 9998", "line 9999")
    assert page.offset == page.size == log.stat().st_size
    assert read_log(tmp_path, offset=page.offset).lines == ()
    with log.open("a") as file:
        file.write("more\n")
    assert read_log(tmp_path, offset=page.offset).lines == ("more",)


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 100])
def test_a_short_log_is_never_padded(tmp_path, log, limit):
    log.write_text("one\ntwo\n\n")
    assert read_log(tmp_path, limit=limit).lines == ("one", "two", "")[-limit:]


def test_an_unfinished_line_is_shown_apart_and_comes_again_whole(tmp_path, log):
    log.write_text("whole\nhal")
    page = read_log(tmp_path)
    assert page == LogPage(("whole",), offset=6, size=9, partial="hal")
    log.write_text("whole\nhalf a line\n")
    assert read_log(tmp_path, offset=page.offset).lines == ("half a line",)


def test_pages_forward_lose_and_repeat_nothing(tmp_path, log):
    lines = tuple(f"行 {number} " + "x" * (number % 300) for number in range(5000))
    log.write_text("".join(line + "\n" for line in lines))
    read, offset = (), 0
    while page_lines := (page := read_log(tmp_path, limit=77, offset=offset)).lines:
        assert len(page_lines) <= 77
        read, offset = read + page_lines, page.offset
    assert read == lines
    assert offset == log.stat().st_size


def test_a_log_of_one_gib_costs_nothing(tmp_path, log):
    with log.open("wb") as file:
        file.truncate(GIB)
        file.seek(GIB)
        file.write(b"\n" + b"the end\n" * 500)
    before = psutil.Process().io_counters().read_chars
    page = read_log(tmp_path, limit=200)
    assert read_log(tmp_path, offset=page.offset).lines == ()
    read = psutil.Process().io_counters().read_chars - before
    assert page.lines == ("the end",) * 200
    assert read < 256 << 10, f"{read} bytes were read"


@pytest.mark.parametrize("offset", [None, 0])
def test_a_gib_without_a_line_end_is_cut(tmp_path, log, offset):
    with log.open("wb") as file:
        file.truncate(GIB)
    before = psutil.Process().io_counters().read_chars
    page = read_log(tmp_path, offset=offset)
    assert psutil.Process().io_counters().read_chars - before < 2 * MOST
    assert page.size == GIB
    if offset == 0:
        assert page.offset == MOST, "a reader must get past it"


def test_a_page_that_would_be_too_large_begins_with_a_whole_line(tmp_path, log):
    log.write_text("".join(f"{number:09}\n" for number in range(MOST // 5)))
    lines = read_log(tmp_path, limit=10**9).lines
    assert lines[-1] == f"{MOST // 5 - 1:09}"
    assert MOST // 11 < len(lines) <= MOST // 10 + 1
    assert {len(line) for line in lines} == {9}


def test_bytes_that_are_no_text_are_replaced(tmp_path, log):
    log.write_bytes(b"a\xff\xfeb\n\xe4\xbd\xa0\xe5\n")
    assert read_log(tmp_path).lines == ("a\ufffd\ufffdb", "你\ufffd")
    assert read_log(tmp_path, offset=0).lines == ("a\ufffd\ufffdb", "你\ufffd")


def test_a_progress_bar_is_its_last_state(tmp_path, log):
    log.write_bytes(b"\r 0%|    |\r 50%|##  |\r100%|####|\nnext\r\n 10%\r 20%\r")
    page = read_log(tmp_path)
    assert page.lines == ("100%|####|", "next")
    assert page.partial == " 20%"


def test_no_log_is_an_empty_page(tmp_path, log):
    assert read_log(tmp_path) == read_log(tmp_path / "gone", offset=5) == LogPage()
    log.touch()
    assert read_log(tmp_path) == read_log(tmp_path, offset=0) == LogPage()


def test_an_offset_beyond_the_end_begins_anew(tmp_path, log):
    log.write_text("new\n")
    assert read_log(tmp_path, offset=1000).lines == ("new",)


@pytest.mark.parametrize("wrong", [{"limit": 0}, {"limit": -1}, {"offset": -1}])
def test_wrong_numbers_are_named(tmp_path, wrong):
    with pytest.raises(InvalidInput, match=next(iter(wrong))):
        read_log(tmp_path, **wrong)
