"""What threads may do at the same time with one dataset store."""

import json
import threading

from waiting import patient

from sage_studio.data import store as storing
from sage_studio.data.sources.local import UploadSource
from sage_studio.data.store import DatasetStore, RowWriter
from sage_studio.database import Database


def a_file(path, answer):
    path.write_text(json.dumps([{"instruction": "Why?", "input": "", "output": answer}]))
    return UploadSource(path, 1 << 20)


def test_others_add_datasets_while_a_large_file_is_hashed(tmp_path, monkeypatch):
    """Nothing is hashed under the store's lock: of a large file that takes seconds."""
    monkeypatch.setattr(RowWriter, "sha256", "")  # as of a file that several processes wrote
    monkeypatch.setattr(DatasetStore, "_hash_behind", lambda *_: None)
    store = DatasetStore(Database(tmp_path / "studio.db"), tmp_path / "datasets")
    first = store.add(a_file(tmp_path / "a.json", "one"), "large")
    hash_file, hashing, go_on = storing._sha256, threading.Event(), threading.Event()

    def slow(path):
        hashing.set()
        assert go_on.wait(patient())
        return hash_file(path)

    monkeypatch.setattr(storing, "_sha256", slow)
    added = []
    again = threading.Thread(target=lambda: added.append(store.add(a_file(tmp_path / "a.json", "one"), "large")))
    other = threading.Thread(target=lambda: added.append(store.add(a_file(tmp_path / "b.json", "another"), "other")))
    again.start()
    assert hashing.wait(patient())
    other.start()
    other.join(patient())
    assert [dataset.id for dataset in added] == ["other-v1"]
    go_on.set()
    again.join(patient())
    assert added[1].id == first.id, "the same rows are the same dataset"


def test_the_same_rows_added_twice_at_once_are_one_dataset(tmp_path):
    store = DatasetStore(Database(tmp_path / "studio.db"), tmp_path / "datasets")
    sources = [a_file(tmp_path / "rows.json", "one") for _ in range(4)]
    threads = [threading.Thread(target=store.add, args=(source, "same")) for source in sources]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [dataset.id for dataset in store.list()] == ["same-v1"]
