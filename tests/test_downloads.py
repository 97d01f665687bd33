"""Downloads that somebody waits for: a process each, seen with its bytes, cancelled, found again."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from fastapi.testclient import TestClient
from hub_server import HubServer, etag_of, serving
from model_folder import write_model
from rest_app import app_of
from safetensors.numpy import save_file
from waiting import wait_until

from sage_studio.data.jobs import JobState
from sage_studio.downloads import Downloads, DownloadState
from sage_studio.errors import Conflict, HubUnavailable, InvalidModel, NotFound
from sage_studio.fetching import UNFINISHED
from sage_studio.models.model_folder import cache_entry, is_here, snapshot
from sage_studio.serving.types import EngineState
from sage_studio.settings import Settings
from sage_studio.studio import Studio
from sage_studio.tasks.launcher import PREPARER, ProcessLauncher
from sage_studio.tasks.task import TaskStatus
from sage_studio.training.progress import Phase, read_events, read_job

NAME = "lab/tiny"
BYTES = 4 << 20
ROW = {"instruction": "Why?", "output": "Because."}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    """The hub that this process and its children ask, and an empty cache."""
    from huggingface_hub import constants

    folder = write_model(tmp_path / "hub-model")
    names = ("model.embed_tokens", "model.layers.0.self_attn.q_proj", "lm_head")
    zeros = {f"{name}.weight": np.zeros((2, 2), dtype=np.float32) for name in names}
    save_file({**zeros, "large": np.arange(BYTES // 4, dtype=np.float32)}, folder / "model.safetensors")
    with serving() as server:
        server.add(NAME, folder)
        for name in ("HF_TOKEN", "HF_HUB_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        address = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        yield server


@pytest.fixture
def downloads(settings: Settings) -> Iterator[Downloads]:
    yield (made := Downloads(settings.downloads_dir, ProcessLauncher(PREPARER)))
    for each in made.running():
        made.cancel(each.name)


def well_under_way(server: HubServer) -> Path:
    """Wait until a megabyte of the weights is here; the file that they are in so far."""
    etag = etag_of(server.models[NAME] / "model.safetensors")
    part = cache_entry(NAME) / "blobs" / f"{etag}{UNFINISHED}"
    wait_until(lambda: part.is_file() and part.stat().st_size >= 1 << 20)
    return part


def reaches(downloads: Downloads, state: DownloadState, seconds: float = 60.0):
    wait_until(lambda: downloads.get(NAME).state is state, seconds)
    return downloads.get(NAME)


def test_a_download_is_seen_and_waited_for(server, downloads):
    place = downloads.fetch(NAME)
    assert place == snapshot(NAME)
    done = downloads.get(NAME)
    assert (done.state, done.transfer.done) == (DownloadState.COMPLETED, done.transfer.total)
    assert done.transfer.total > BYTES
    assert not done.message


def test_it_is_cancelled_and_goes_on_where_it_was(server, downloads):
    server.slow = 0.5
    downloads.start(NAME)
    part = well_under_way(server)
    under_way = downloads.get(NAME)
    assert under_way.state is DownloadState.RUNNING
    assert under_way.transfer.total > BYTES
    downloads.cancel(NAME)
    stopped = reaches(downloads, DownloadState.STOPPED)
    assert (stopped.message.en, bool(stopped.hint.zh)) == ("The download was cancelled.", True)
    kept = part.stat().st_size
    with pytest.raises(Conflict, match="is over: stopped"):
        downloads.cancel(NAME)
    server.slow = 0.0
    downloads.fetch(NAME)
    assert ("GET", f"/storage/{NAME}/model.safetensors", f"bytes={kept}-") in server.asked


def test_who_waits_for_a_download_that_is_cancelled_is_told(server, downloads):
    server.slow = 0.5
    told = []

    def wait():
        try:
            downloads.fetch(NAME)
        except Conflict as error:
            told.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    wait_until(lambda: any(each.transfer.total for each in downloads.running()))
    downloads.cancel(NAME)
    thread.join(60)
    assert "was cancelled" in told[0].message.en


def test_it_outlives_the_studio_and_is_found_again(server, settings, downloads):
    server.slow = 0.5
    downloads.start(NAME)
    wait_until(lambda: downloads.get(NAME).transfer.total)
    again = Downloads(settings.downloads_dir, ProcessLauncher(PREPARER))
    assert [each.state for each in again.all()] == [DownloadState.RUNNING]
    assert again.start(NAME).state is DownloadState.RUNNING, "one is enough"
    server.slow = 0.0
    assert reaches(again, DownloadState.COMPLETED).transfer.done > BYTES


def test_one_that_was_killed_says_so_and_goes_on(server, settings, downloads):
    server.slow = 0.5
    downloads.start(NAME)
    part = well_under_way(server)
    order = json.loads((settings.downloads_dir / "lab--tiny" / "download.json").read_text())
    psutil.Process(order["pid"]).kill()
    stopped = reaches(downloads, DownloadState.STOPPED)
    assert stopped.message.en == "The download was interrupted."
    kept = part.stat().st_size
    server.slow = 0.0
    downloads.fetch(NAME)
    assert ("GET", f"/storage/{NAME}/model.safetensors", f"bytes={kept}-") in server.asked


@pytest.mark.parametrize(
    ("spoil", "kind"), [("gated", InvalidModel), ("missing", InvalidModel), ("down", HubUnavailable)]
)
def test_why_it_failed_is_told_to_who_waits(server, downloads, monkeypatch, spoil, kind):
    if spoil == "gated":
        server.gated.add(NAME)
    elif spoil == "missing":
        server.models.clear()
    else:
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(kind):
        downloads.fetch(NAME)
    failed = downloads.get(NAME)
    assert (failed.state, bool(failed.message.zh), bool(failed.hint.zh)) == (DownloadState.FAILED, True, True)


def test_one_that_nobody_began_is_not_there(downloads):
    with pytest.raises(NotFound):
        downloads.get("lab/none")


# For a task


@pytest.fixture
def studio(settings: Settings, monkeypatch: pytest.MonkeyPatch, server: HubServer) -> Studio:
    """Its verbs, without a scheduler; children read the same settings."""
    for name, value in settings.environment.items():
        monkeypatch.setenv(name, value)
    return Studio(settings)


def test_a_task_fetches_its_model_first_and_the_trainer_needs_no_hub(studio, server, tmp_path):
    from sage_studio.preparing.child import prepare
    from sage_studio.training.run import StopRequest

    (tmp_path / "rows.json").write_text(json.dumps([ROW]))
    task = studio.training.start({"model_name_or_path": NAME, "train_data_path": str(tmp_path / "rows.json")})
    assert not read_job(task.folder).prepared
    assert prepare(task.folder, StopRequest()) == 0
    events, _ = read_events(task.folder)
    counted = [event for event in events if event.phase is Phase.DOWNLOADING and event.total]
    assert (counted[-1].unit, counted[-1].done, counted[-1].total > BYTES) == ("bytes", counted[-1].total, True)
    job = read_job(task.folder)
    assert (job.prepared, job.model_location) == (True, NAME)
    assert is_here(job.model_location)


def test_a_hub_model_that_the_method_cannot_train_fails_before_a_gpu(studio, server, tmp_path):
    from sage_studio.preparing.child import prepare
    from sage_studio.training.progress import Reason, read_result
    from sage_studio.training.run import StopRequest

    (server.models[NAME] / "chat_template.jinja").unlink()
    (tmp_path / "rows.json").write_text(json.dumps([ROW]))
    task = studio.training.start({"model_name_or_path": NAME, "train_data_path": str(tmp_path / "rows.json")})
    assert prepare(task.folder, StopRequest()) == 1
    result = read_result(task.folder)
    assert (result.reason, "no chat template" in result.message[0]) == (Reason.MODEL, True)


def test_without_a_network_the_task_can_be_continued_later(studio, server, tmp_path, monkeypatch):
    from sage_studio.preparing.child import prepare
    from sage_studio.training.progress import Reason, read_result
    from sage_studio.training.run import StopRequest

    (tmp_path / "rows.json").write_text(json.dumps([ROW]))
    task = studio.training.start({"model_name_or_path": NAME, "train_data_path": str(tmp_path / "rows.json")})
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert prepare(task.folder, StopRequest()) == 1
    result = read_result(task.folder)
    assert (result.reason, result.action) == (Reason.NETWORK, "resume")
    studio.tasks.store.transition(
        task.id, {TaskStatus.QUEUED}, TaskStatus.FAILED, reason_class=result.reason, finished_at=1.0
    )
    assert studio.training.retry(task.id).status is TaskStatus.QUEUED


@pytest.mark.training
def test_a_hub_model_is_downloaded_and_trained_without_another_question_to_the_hub(
    studio, server, tiny_model, tmp_path
):
    server.add("lab/llama", tiny_model)
    (tmp_path / "rows.json").write_text(json.dumps([{**ROW, "instruction": f"Why {n}?"} for n in range(8)]))
    studio.start()
    try:
        values = {"model_name_or_path": "lab/llama", "train_data_path": str(tmp_path / "rows.json"), "max_steps": 2}
        task = studio.training.start(values)
        wait_until(lambda: read_job(task.folder).prepared)
        asked = len(server.asked)
        wait_until(lambda: studio.tasks.get(task.id).status.is_over, 300)
        done = studio.tasks.get(task.id)
        assert (done.status, done.reason.en) == (TaskStatus.COMPLETED, "")
        assert server.asked[asked:] == [], "the trainer has all it needs"
        adapter = json.loads((task.folder / "adapter_config.json").read_text())
        assert adapter["base_model_name_or_path"] == "lab/llama", "no path of this machine"
    finally:
        studio.close()


# For the chat


def test_a_model_to_chat_with_is_fetched_before_the_engine_starts(studio, server, monkeypatch):
    server.slow = 0.5
    started = []

    def switch(name):
        started.append((name, is_here(NAME)))
        return next(model for model in studio.serving.registry.models() if model.name == name)

    monkeypatch.setattr(studio.serving.registry, "switch_model", switch)
    thread = threading.Thread(target=studio.serving.switch, args=(NAME,))
    thread.start()
    wait_until(lambda: studio.serving.status().state is EngineState.DOWNLOADING)
    status = wait_until(lambda: (found := studio.serving.status()).download and found.download.total and found)
    assert status.download.total > BYTES
    assert started == []
    server.slow = 0.0
    thread.join(120)
    assert started == [(NAME, True)]
    assert studio.serving.status().state is not EngineState.DOWNLOADING


def test_why_the_engine_could_not_have_its_model_is_in_its_status(studio, server, monkeypatch):
    server.gated.add(NAME)
    monkeypatch.setattr(studio.catalog, "default", lambda *_, **__: NAME)
    studio.serving._start_engine()
    status = studio.serving.status()
    assert status.state is EngineState.FAILED
    assert "gated" in status.message.en
    assert server.url in status.message.zh


# By REST


def test_downloads_and_the_search_by_rest(studio, server):
    with TestClient(app_of(studio), base_url="http://127.0.0.1") as client:
        found = client.get("/api/models/search", params={"q": "tiny"}).json()
        assert [each["name"] for each in found] == [NAME]
        server.slow = 0.5
        begun = client.post("/api/models/downloads", json={"model_name": NAME})
        assert (begun.status_code, begun.json()["model_name"]) == (202, NAME)
        assert client.delete(f"/api/models/downloads/{NAME}").status_code == 200
        wait_until(lambda: client.get("/api/models/downloads").json()[0]["state"] != "running")
        assert client.delete(f"/api/models/downloads/{NAME}").status_code == 409
        assert client.delete("/api/models/downloads/lab/none").status_code == 404
        assert client.post("/api/models/downloads", json={"model_name": "lab/none"}).status_code == 422


def test_a_search_without_a_hub_is_refused_with_the_remedy(studio, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with TestClient(app_of(studio), base_url="http://127.0.0.1") as client:
        answer = client.get("/api/models/search", params={"q": "tiny"}, headers={"Accept-Language": "zh"})
    assert answer.status_code == 503
    assert "HF_ENDPOINT" in answer.text


# As a task


def test_a_download_is_a_task_that_the_next_studio_goes_on_following(studio, settings, server):
    server.slow = 0.5
    studio.models.download(NAME)
    (job,) = studio.tasks.background("download")
    assert wait_until(lambda: studio.tasks.background("download")[0].total) > BYTES
    later = Studio(settings)  # the first one was killed: the process that downloads lives on
    later._jobs.recover()
    assert later._jobs.get(job.id).state is JobState.RUNNING
    server.slow = 0.0
    assert later._jobs.wait(job.id, 60).state is JobState.COMPLETED
    assert snapshot(NAME)
    assert len(later.models.downloads()) == 1


def test_the_task_of_a_download_stops_it_and_resumes_it(studio, server):
    server.slow = 0.5
    studio.models.download(NAME)
    (job,) = studio.tasks.background("download")
    well_under_way(server)
    studio._jobs.stop(job.id)
    assert studio._jobs.wait(job.id, 60).state is JobState.STOPPED
    wait_until(lambda: studio.models.downloads()[0].state is DownloadState.STOPPED)
    server.slow = 0.0
    studio._jobs.resume(job.id)
    assert studio._jobs.wait(job.id, 60).state is JobState.COMPLETED
    assert snapshot(NAME)
