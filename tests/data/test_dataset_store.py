"""Datasets kept, found, paged and deleted; nothing half-kept whatever fails; and the statistics beside them."""

import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator

import pytest

from sage_studio.data import statistics
from sage_studio.data import store as dataset_store
from sage_studio.data.dataset import Dropped, FormatCount
from sage_studio.data.rows import Example, Message, Origin, row_from_json
from sage_studio.data.sources.local import UploadSource
from sage_studio.data.statistics import StatsCollector, histogram
from sage_studio.data.store import DatasetStore, checked_name
from sage_studio.errors import InvalidDataset, InvalidInput, InvalidName, NotFound, StorageFull
from sage_studio.files import slug
from sage_studio.settings import PROJECT
from sage_studio.text import verbatim


class Rows:
    """A source made of the given answers."""

    kind = "upload"
    source = "rows.json"
    commit = None
    container = "JSON"
    formats = (FormatCount("question/answer", ("question", "answer"), 2),)
    dropped = (Dropped(verbatim("empty answer", "回答为空"), 2, ("3", "9")),)

    def __init__(self, *answers: str, name: str = "rows") -> None:
        self.name = name
        self._answers = answers

    def examples(self) -> Iterator[Example]:
        for row, answer in enumerate(self._answers, 1):
            yield Example((Message("user", f"question {row}"),), answer, Origin("rows.json", row=row))


@pytest.fixture
def store(database, settings) -> DatasetStore:
    return DatasetStore(database, settings.datasets_dir)


def folders(settings) -> list[str]:
    return sorted(path.name for path in settings.datasets_dir.iterdir())


def test_a_dataset_is_kept_with_its_manifest(store, settings, database):
    dataset = store.add(Rows("one", "二"))
    assert (dataset.id, dataset.name, dataset.version, dataset.kind) == ("rows-v1", "rows", 1, "upload")
    assert (dataset.stats.total_samples, dataset.stats.dropped) == (2, Rows.dropped)
    assert store.get("rows-v1") == dataset
    assert DatasetStore(database, settings.datasets_dir).list() == [dataset]
    path = store.data_path("rows-v1")
    assert path == settings.datasets_dir / "rows-v1" / "data.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [row_from_json(json.loads(line)).answer for line in lines] == ["one", "二"]
    assert json.loads(path.with_name("manifest.json").read_text(encoding="utf-8"))["sha256"] == dataset.sha256
    import hashlib

    assert hashlib.sha256(path.read_bytes()).hexdigest() == dataset.sha256
    assert path.stat().st_size == dataset.size_bytes


def test_the_same_rows_are_the_same_dataset_and_others_a_new_version(store, settings):
    first = store.add(Rows("one"))
    assert store.add(Rows("one")) == first
    second = store.add(Rows("two"))
    assert (second.id, second.version) == ("rows-v2", 2)
    assert store.add(Rows("one", name="else")).id == "else-v1"
    assert [each.id for each in store.list()] == ["else-v1", "rows-v2", "rows-v1"]
    assert folders(settings) == ["else-v1", "rows-v1", "rows-v2"]


def test_an_id_is_never_used_twice(store):
    store.add(Rows("one"))
    store.delete("rows-v1")
    assert store.add(Rows("two")).id == "rows-v2"


def test_rows_whose_file_is_gone_are_kept_anew(store):
    store.data_path(store.add(Rows("one")).id).unlink()
    with pytest.raises(NotFound, match="is gone"):
        store.preview("rows-v1")
    assert store.add(Rows("one")).id == "rows-v2"


def test_delete_and_unknown_ids(store, settings):
    store.add(Rows("one"))
    store.delete("rows-v1")
    assert folders(settings) == []
    assert store.list() == []
    for verb in (store.get, store.delete, store.data_path, store.preview):
        with pytest.raises(NotFound, match="no dataset rows-v1"):
            verb("rows-v1")
    with pytest.raises(NotFound):
        store.delete("../datasets")


@pytest.mark.parametrize("name", ["../etc", "a/b", "a\\b", "a\nb", "a\0b", "x" * 101, "..", ".", "\ud800"])
def test_names_that_could_lead_out_are_refused(store, settings, name):
    with pytest.raises(InvalidName):
        store.add(Rows("one"), name=name)
    assert not settings.datasets_dir.exists()


def test_names_of_any_script_become_safe_ids(store):
    dataset = store.add(Rows("one"), name=" 我的数据 ")
    assert dataset.name == "我的数据"
    assert dataset.id.isascii()
    assert store.add(Rows("one"), name="你的数据").id != dataset.id
    assert slug("My data", "dataset") != slug("my-data", "dataset") == "my-data"
    assert checked_name("a.b (c)") == "a.b (c)"
    assert slug("-" * 9, "dataset").startswith("dataset-")


def test_a_source_that_fails_or_is_empty_leaves_nothing(store, settings, tmp_path):
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"instruction": "a", "output": "b"}\n{"text": 1}\n')
    with pytest.raises(InvalidDataset, match="Row 2"):
        store.add(UploadSource(bad, 1 << 20))
    with pytest.raises(InvalidDataset, match="no row"):
        store.add(Rows())
    assert folders(settings) == []
    assert store.list() == []


def test_a_full_disk_is_named_and_nothing_is_lost(store, settings, monkeypatch):
    kept = store.add(Rows("one"))
    monkeypatch.setattr(dataset_store, "open_for_writing", lambda path: open("/dev/full", "wb"))  # noqa: SIM115
    with pytest.raises(StorageFull, match="No room left"):
        store.add(Rows(*["long answer " * 1000] * 20, name="big"))
    assert folders(settings) == ["rows-v1"]
    assert store.list() == [kept]
    monkeypatch.undo()
    assert store.add(Rows("now", name="big")).id == "big-v1"


def test_a_folder_left_by_a_crash_does_not_stop_the_next(store, settings):
    left = settings.datasets_dir / "rows-v1"
    left.mkdir(parents=True)
    (left / "data.jsonl").write_text("half")
    assert store.add(Rows("one")).id == "rows-v1"
    assert "half" not in store.data_path("rows-v1").read_text(encoding="utf-8")


def test_many_threads_get_a_version_each(store):
    errors = []

    def add(number: int) -> None:
        try:
            store.add(Rows(f"answer {number % 6}"))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=add, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert sorted(each.version for each in store.list()) == [1, 2, 3, 4, 5, 6]


@pytest.fixture
def long_dataset(store) -> str:
    return store.add(Rows(*(f"answer {n} {'Neun' if n % 9 == 0 else ''}" for n in range(1, 1051)))).id


@pytest.mark.parametrize("offset", [0, 1, 99, 100, 101, 555, 1000, 1049])
def test_pages_are_found_wherever_they_are(store, long_dataset, offset):
    preview = store.preview(long_dataset, offset=offset, limit=20)
    assert [row.origin.row for row in preview.rows] == list(range(offset + 1, min(offset + 20, 1050) + 1))
    assert (preview.total, preview.offset) == (1050, offset)


def test_a_page_past_the_end_is_empty(store, long_dataset):
    for offset in (1050, 1099, 1100, 10**9):
        assert store.preview(long_dataset, offset=offset).rows == ()


def test_a_page_reads_no_more_than_it_needs(store, long_dataset):
    path = store.data_path(long_dataset)
    content = path.read_bytes()
    hole = content.index(b"answer 300 ")
    path.write_bytes(content[:hole] + b"\xff" * 20_000 + content[hole + 20_000 :])
    assert store.preview(long_dataset, offset=1000, limit=10).rows[0].origin.row == 1001
    with pytest.raises(ValueError, match=r"decode|Expecting|Invalid|Unterminated|UTF-8"):
        store.preview(long_dataset, offset=290, limit=100)


def test_the_index_is_built_again_where_it_is_missing(store, long_dataset):
    index = store.data_path(long_dataset).with_name("index.u64")
    before = index.read_bytes()
    index.unlink()
    assert store.preview(long_dataset, offset=700, limit=1).rows[0].origin.row == 701
    assert index.read_bytes() == before


def test_search_finds_any_case_and_pages_its_finds(store, long_dataset):
    found = store.preview(long_dataset, search=" neun", offset=2, limit=3)
    assert found.total == 1050 // 9
    assert [row.origin.row for row in found.rows] == [27, 36, 45]
    assert store.preview(long_dataset, search="question 1050").total == 1
    assert store.preview(long_dataset, search="assistant").total == 0
    assert store.preview(long_dataset, search="rows.json").total == 1050
    assert store.preview(long_dataset, search="neun", offset=500).rows == ()


def test_search_finds_what_json_must_escape(store):
    dataset = store.add(Rows('say "hi"\nnow \\ then'))
    for words in ('"hi"', "\\ then", '"hi"\nnow'):
        assert store.preview(dataset.id, search=words).total == 1


@pytest.mark.parametrize(("offset", "limit"), [(-1, 20), (0, 0), (0, -5), (0, 1001)])
def test_a_page_that_is_none_is_refused(store, long_dataset, offset, limit):
    with pytest.raises(InvalidInput, match="is no page"):
        store.preview(long_dataset, offset=offset, limit=limit)


def test_statistics_of_the_rows():
    report = StatsCollector()
    for answer in ("Hello there, my friend", "Hello there, my friend", "你好，很高兴见到你，我的朋友"):
        report.add(Example((Message("user", "Hi"),), answer, Origin("x")))
    stats = report.stats()
    assert (stats.total_samples, stats.total_chars, stats.longest_chars) == (3, 64, 24)
    assert stats.avg_chars_per_sample == 21.3
    assert stats.duplicates == 1
    assert stats.languages == {"en": 2, "zh": 1}
    assert stats.languages_are_exact
    assert not stats.tokens_are_exact
    assert sum(rows for _, rows in stats.token_histogram) == 3


def test_tokens_are_counted_by_the_real_tokenizer(built_in_model, monkeypatch):
    from tokenizers import Tokenizer

    path = built_in_model / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path))
    examples = [Example((Message("user", f"Why {n}?"),), "Because. " * (n % 40 + 1), Origin("x")) for n in range(900)]
    texts = [f"{each.prompt[0].content}\n{each.completion}" for each in examples]
    expected = sum(len(tokenizer.encode(text, add_special_tokens=False).ids) for text in texts)

    def counted():
        report = StatsCollector(path)
        for example in examples:
            report.add(example)
        return report.stats()

    exact = counted()
    assert (exact.estimated_tokens, exact.tokens_are_exact) == (expected, True)
    assert exact.tokenizer == built_in_model.name
    monkeypatch.setattr(statistics, "EXACT_CHARS", 40_000)
    sampled = counted()
    assert not sampled.tokens_are_exact
    assert sampled.estimated_tokens == pytest.approx(expected, rel=0.05)
    assert sum(rows for _, rows in sampled.token_histogram) == 900


def test_the_histogram_has_about_twenty_round_bins_and_loses_no_row():
    lengths = Counter(dict.fromkeys(range(1, 2001), 1)) + Counter({50_000: 3})
    bins = histogram(lengths)
    assert 15 <= len(bins) <= 20
    assert [bound for bound, _ in bins[:3]] == [100, 200, 300]
    assert bins[0][1] == 100
    assert bins[-1][0] == 50_000
    assert sum(rows for _, rows in bins) == 2003
    assert histogram(Counter()) == ()
    assert histogram(Counter({0: 1, 1: 1})) == ((1, 2),)
    bounds = [bound for bound, _ in bins]
    assert bounds == sorted(set(bounds))


def test_importing_the_package_stays_light():
    modules = [f"sage_studio.data.{path.stem}" for path in (PROJECT / "sage_studio" / "data").glob("[a-z]*.py")]
    heavy = ("pandas", "numpy", "git", "markdown_it", "tokenizers", "torch", "transformers", "datasets")
    script = f"import sys, importlib\nfor name in {modules}: importlib.import_module(name)\n"
    script += f"print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=PROJECT)
    assert done.stdout.strip() == "[]"
    assert len(modules) > 10
