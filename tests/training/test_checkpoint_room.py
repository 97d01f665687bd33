"""Room for the checkpoints is looked at before the first step, not when the first of them is written."""

from types import SimpleNamespace

import pytest

from sage_studio.errors import StorageFull
from sage_studio.training import save
from sage_studio.training.failures import explain
from sage_studio.training.progress import Reason

GIB = 2**30


def free(monkeypatch, left):
    monkeypatch.setattr(save.shutil, "disk_usage", lambda folder: SimpleNamespace(free=left))


def test_what_does_not_fit_is_refused_with_need_room_and_remedy(tmp_path, monkeypatch):
    free(monkeypatch, 8 * GIB)
    with pytest.raises(StorageFull) as caught:
        save.check_room(tmp_path, trained=GIB, kept=2)
    reason, message, hint = explain(caught.value)
    assert reason is Reason.DISK
    assert "3 checkpoints need 9.0 GiB" in message.en
    assert "8.0 GiB are free" in message.en
    assert "save_total_limit" in hint.zh


def test_what_fits_is_not(tmp_path, monkeypatch):
    free(monkeypatch, 9 * GIB)
    save.check_room(tmp_path, trained=GIB, kept=2)


def test_what_an_earlier_part_of_the_run_wrote_makes_way(tmp_path, monkeypatch):
    free(monkeypatch, 0)
    (tmp_path / "checkpoint-1").mkdir()
    (tmp_path / "checkpoint-1" / "optimizer.pt").write_bytes(b"x" * 3000)
    save.check_room(tmp_path, trained=500, kept=1)
    with pytest.raises(StorageFull):
        save.check_room(tmp_path, trained=501, kept=1)


def test_a_training_looks_before_its_first_step(tmp_path, monkeypatch):
    import torch

    from sage_studio.training.trainer import fit

    free(monkeypatch, 0)
    stepped = []
    arguments = SimpleNamespace(fp16=False)
    trainer = SimpleNamespace(model=torch.nn.Linear(4, 4), args=arguments, train=lambda **_: stepped.append(1))
    recipe = SimpleNamespace(save_total_limit=1)
    run = SimpleNamespace(checkpoints=tmp_path / "checkpoints", recipe=recipe, job=SimpleNamespace(resume=False))
    with pytest.raises(StorageFull):
        fit(run, trainer)
    assert stepped == []
