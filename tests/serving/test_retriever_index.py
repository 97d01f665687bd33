"""The index of a dataset's passages on the disk: what tells embedders apart, and which indexes are kept."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from sage_studio.data.chunking import Snippet
from sage_studio.serving.retriever import INDEXES_KEPT, build_index, embedder_fingerprint, index_path, load_index

SNIPPET = Snippet("text", "file.md", "heading")


def test_the_fingerprint_reads_weights_in_pieces(tmp_path, monkeypatch):
    """A large embedder must not come into the web process's memory; the value is that of 0.1, whose indexes stay."""
    weights, config = b"w" * 1000, b"{}"
    (tmp_path / "model.safetensors").write_bytes(weights)
    (tmp_path / "config.json").write_bytes(config)
    expected = hashlib.sha256(
        b"config.json" + hashlib.sha256(config).digest() + b"model.safetensors" + hashlib.sha256(weights).digest()
    ).hexdigest()
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail(f"{path} is read whole"))
    assert embedder_fingerprint(str(tmp_path)) == expected
    assert embedder_fingerprint("hub/id") == "hub/id"


def test_of_a_dataset_the_indexes_used_last_are_kept(tmp_path):
    def build(fingerprint, age):
        path = index_path(tmp_path, fingerprint, "rows")
        build_index(path, [SNIPPET], lambda texts: np.ones((len(texts), 2), np.float32), lambda _: None)
        os.utime(path, (age, age))
        return path

    paths = [build(f"embedder {number}", 1000 + number) for number in range(INDEXES_KEPT)]
    assert load_index(paths[0]) is not None  # used again, so that it is not the oldest any more
    newest = build("another embedder", 5000)
    assert {*tmp_path.glob("*.npy")} == {paths[0], newest}
    assert {*tmp_path.glob("*.jsonl")} == {paths[0].with_suffix(".jsonl"), newest.with_suffix(".jsonl")}
