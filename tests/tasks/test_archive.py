"""The archive that a person takes away."""

import gc
import io
import tarfile
import tracemalloc
from itertools import islice

import psutil
import pytest

from sage_studio.errors import NotFound
from sage_studio.tasks.archive import archive_name, stream_archive

SIZE = (8 << 20) - 5


@pytest.fixture
def task(create):
    task = create()
    for name in ("train.log", "result.json", "training_args.json", "adapter_model.safetensors"):
        (task.folder / name).write_text(f"this is {name}")
    (task.folder / "checkpoints" / "checkpoint-1").mkdir(parents=True)
    (task.folder / "checkpoints" / "checkpoint-1" / "optimizer.pt").write_bytes(b"o" * 1000)
    (task.folder / "merged").mkdir()
    (task.folder / "merged" / "model.safetensors").write_bytes(b"the base with the adapter in it")
    return task


def unpack(task):
    with tarfile.open(fileobj=io.BytesIO(b"".join(stream_archive(task)))) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}


def test_it_holds_the_model_and_how_it_came_about(task):
    files = unpack(task)
    names = {name.removeprefix(f"{task.id}/") for name in files}
    assert names == {
        "recipe.yaml", "job.json", "train.log", "result.json", "training_args.json", "adapter_model.safetensors"
    }  # fmt: skip
    assert files[f"{task.id}/train.log"] == b"this is train.log"
    assert files[f"{task.id}/recipe.yaml"] == (task.folder / "recipe.yaml").read_bytes()
    assert archive_name(task) == f"{task.id}.tar.gz"


def test_folders_below_long_names_and_empty_files_survive(task):
    deep = task.folder / "模型" / ("n" * 120)
    (deep / "checkpoints").mkdir(parents=True)
    (deep / "checkpoints" / "kept.txt").write_text("not the trainer's folder of that name")
    (deep / "空").touch()
    (deep / "block").write_bytes(b"b" * 512)
    files = unpack(task)
    top = f"{task.id}/模型/{'n' * 120}"
    assert files[f"{top}/空"] == b""
    assert files[f"{top}/block"] == b"b" * 512
    assert f"{top}/checkpoints/kept.txt" in files


def test_links_and_half_written_files_stay_out(task, tmp_path):
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("secret")
    (task.folder / "link").symlink_to(secret / "key")
    (task.folder / "folder-link").symlink_to(secret)
    (task.folder / ".result.json.123").write_text("half")
    assert not any("link" in name or ".123" in name for name in unpack(task))


def test_memory_does_not_grow_with_the_model(task):
    with (task.folder / "model.safetensors").open("wb") as file:
        file.truncate(200 << 20)
    tracemalloc.start()
    largest = max(len(piece) for piece in stream_archive(task))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert largest <= 2 << 20
    assert peak < 16 << 20, f"{peak >> 20} MiB"


def test_a_folder_that_is_gone_is_said_before_the_first_byte(task):
    task.folder.rename(task.folder.with_name("moved"))
    with pytest.raises(NotFound, match=task.id):
        stream_archive(task)


def test_a_client_that_goes_away_leaves_nothing_open(task):
    with (task.folder / "adapter_model.safetensors").open("wb") as file:
        file.truncate(64 << 20)
    pieces = stream_archive(task)
    assert list(islice(pieces, 2))
    opened = str(task.folder / "adapter_model.safetensors")
    assert opened in [file.path for file in psutil.Process().open_files()]
    pieces.close()
    gc.collect()
    assert opened not in [file.path for file in psutil.Process().open_files()]


def test_a_file_that_grows_meanwhile_is_cut_and_one_that_shrinks_is_an_error(task):
    model, log = task.folder / "adapter_model.safetensors", task.folder / "train.log"
    with model.open("wb") as file:
        file.truncate(SIZE)
    pieces = stream_archive(task)
    first = next(pieces)
    with model.open("ab") as file:
        file.write(b"appended")
    with tarfile.open(fileobj=io.BytesIO(first + b"".join(pieces))) as tar:
        assert tar.getmember(f"{task.id}/{model.name}").size == SIZE
        assert tar.extractfile(f"{task.id}/{log.name}").read() == b"this is train.log"
    pieces = stream_archive(task)
    next(pieces)
    model.write_bytes(b"short")
    with pytest.raises(NotFound, match="shorter"):
        list(pieces)
