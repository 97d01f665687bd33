"""Answers from documents, with a real embedder in its own process and a fake engine: through REST, and every fault."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from waiting import TRAINING, wait_until

from sage_studio.catalog import BUILT_IN, BUILT_IN_EMBEDDER
from sage_studio.errors import Conflict, EmbedderUnavailable, InvalidDataset, InvalidInput, NotFound, StudioError
from sage_studio.studio import Studio
from sage_studio.tasks.task import TaskStatus
from sage_studio.training.progress import TrainingJob
from sage_studio.training.recipes import parse_recipe

FACTS = {
    "The Eiffel Tower is 330 metres tall and stands in Paris.": "towers.md",
    "Photosynthesis turns light, water and carbon dioxide into sugar and oxygen.": "biology.md",
    "SQLite keeps a whole database in a single file.": "databases.md",
    "Penguins are birds that cannot fly but swim very well.": "animals.md",
}


@pytest.fixture
def studio(studio: Studio, built_in_embedder: Path) -> Studio:
    """With the built-in embedder unpacked already."""
    studio.settings.models_dir.mkdir(parents=True, exist_ok=True)
    shutil.copytree(built_in_embedder, studio.settings.models_dir / BUILT_IN_EMBEDDER, copy_function=os.link)
    return studio


@pytest.fixture
def facts(studio: Studio, tmp_path: Path) -> str:
    path = tmp_path / "facts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in FACTS))
    return studio.datasets.upload(path).id


def test_the_passage_that_answers_is_found_and_the_answer_is_drawn_from_it(
    asking: TestClient, answering: Studio, facts: str
):
    client = asking
    found = client.post("/api/retrieve", json={"query": "How do plants make food from sunlight?", "count": 2}).json()
    assert found["passages"][0]["text"].startswith("Photosynthesis")
    assert found["passages"][0]["score"] > found["passages"][1]["score"]
    body = {"message": "Which bird is a good swimmer?", "documents": True, "max_tokens": 500}
    answer = client.post("/api/chat", json=body).json()
    assert answer["sources"][0]["text"].startswith("Penguins")
    assert answer["sources"][0]["file"] == "facts.jsonl"
    assert "Penguins are birds" in answer["response"], "the engine, which repeats what it is asked, got the passage"
    assert "Question: Which bird" in answer["response"]
    events = client.post("/api/chat", json={**body, "documents": facts, "stream": True}).text
    last = json.loads([line for line in events.splitlines() if line.startswith("data: ")][-1].removeprefix("data: "))
    assert last["done"]
    assert last["sources"][0]["text"].startswith("Penguins")
    plain = client.post("/api/chat", json={"message": "Hello"}).json()
    assert (plain["sources"], plain["response"].split()) == ([], ["small:", "Hello"])

    before = answering.rag.retriever.embedder.process
    assert before is not None
    before.stop(0.0)
    assert client.post("/api/retrieve", json={"query": "towers"}).json()["passages"][0]["text"].startswith("The Eiffel")
    after = answering.rag.retriever.embedder.process
    assert after is not None
    assert after != before, "a dead embedder is started again"
    answering.close()
    assert not after.is_alive(), "it ends with the studio"


def test_an_index_is_made_once_and_belongs_to_model_and_rows(studio: Studio, facts: str, monkeypatch: Any):
    studio.rag.retrieve("towers")
    folder = studio.datasets.store.data_path(facts).parent
    kept = list(folder.glob("retrieval-*.npy"))
    assert len(kept) == 1
    assert studio.rag.status().index.state == "ready"
    assert studio.rag.status().index.passages == len(FACTS)
    embedded: list[int] = []
    right = studio.rag.retriever.embedder.embed

    def counting(model: Any, texts: Any, query: bool = False) -> Any:
        embedded.append(len(texts))
        return right(model, texts, query)

    monkeypatch.setattr(studio.rag.retriever.embedder, "embed", counting)
    studio.rag.retrieve("birds")
    studio.rag.retriever._indexes.clear()
    studio.rag.retrieve("birds")
    assert embedded == [1, 1], "only the questions"
    kept[0].write_bytes(b"broken")
    studio.rag.retriever._indexes.clear()
    studio.rag.retrieve("birds")
    assert embedded[2:] == [len(FACTS), 1], "a broken index is made anew"
    studio.datasets.delete(facts)
    with pytest.raises(NotFound, match="no dataset to answer from"):
        studio.rag.retrieve("birds")
    with pytest.raises(NotFound, match=facts):
        studio.rag.retrieve("birds", dataset_id=facts)


def test_a_tuned_embedder_becomes_the_retriever_and_cannot_be_deleted_then(studio: Studio, facts: str):
    task_id = finished(studio, facts)
    status = studio.rag.use(task_id)
    assert (status.choice.task_id, status.choice.dataset_id) == (task_id, facts)
    wait_until(lambda: studio.rag.status().index.state == "ready", TRAINING)
    assert studio.rag.retrieve("swimming birds")[0].text.startswith("Penguins")
    with pytest.raises(Conflict, match="is the retriever"):
        studio.tasks.delete(task_id)
    with pytest.raises(Conflict, match="cannot chat"):
        studio.serving.use_task(task_id)
    shutil.rmtree(studio.tasks.get(task_id).folder)
    with pytest.raises(NotFound, match="folder of the retriever"):
        studio.rag.retrieve("swimming birds")
    studio.rag.use(model=BUILT_IN_EMBEDDER)
    assert studio.rag.status().choice.task_id == ""
    studio.tasks.delete(task_id)


def test_an_embedder_that_does_not_start_says_why_and_chat_goes_on_without(answering: Studio, facts: str):
    broken = answering.settings.models_dir / BUILT_IN_EMBEDDER / "model.safetensors"
    cut = broken.read_bytes()[:1000]
    broken.unlink()  # it is linked to the one that all tests share
    broken.write_bytes(cut)
    with pytest.raises(EmbedderUnavailable, match="cannot be loaded") as caught:
        answering.chat.answer([{"role": "user", "content": "birds?"}], documents=True)
    assert "embedder.log" in caught.value.hint.en
    assert answering.rag.status().index.state == "failed"
    assert list(answering.chat.answer([{"role": "user", "content": "birds?"}]))[-1].done


def test_without_an_engine_what_was_found_does_not_hide_it(studio: Studio, facts: str, monkeypatch: Any):
    def down(*_: Any, **__: Any) -> None:
        raise StudioError_("The engine is down.")

    monkeypatch.setattr(studio.serving, "switch", down)
    with pytest.raises(StudioError, match="engine is down"):
        studio.chat.answer([{"role": "user", "content": "birds?"}], documents=facts)


@pytest.mark.parametrize(
    ("changes", "status", "said"),
    [
        ({"query": ""}, 422, "empty"),
        ({"query": " \n"}, 422, "empty"),
        ({"query": "x" * 4001}, 422, "4,001"),
        ({"count": 0}, 422, "count = 0"),
        ({"count": 51}, 422, "count = 51"),
        ({"dataset_id": "no-such"}, 404, "no-such"),
        ({"dataset_id": "../etc"}, 400, "../etc"),
        ({"colour": "red"}, 422, "colour"),
        ({"query": None}, 422, "query"),
    ],
)
def test_a_look_up_that_is_no_good_is_refused(
    client: TestClient, facts: str, changes: dict[str, Any], status: int, said: str
):
    answer = client.post("/api/retrieve", json={"query": "birds", **changes})
    assert answer.status_code == status
    assert said in answer.json()["detail"]["message"]


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"task_id": "finetune-1"}, 404, "finetune-1"),
        ({"task_id": "../1"}, 400, "../1"),
        ({"model_name": BUILT_IN}, 422, "no embedder"),
        ({"model_name": "/no/such/folder"}, 422, "/no/such/folder"),
        ({"dataset_id": "no-such"}, 404, "no-such"),
        ({"model": "x"}, 422, "model"),
    ],
)
def test_what_cannot_be_the_retriever_is_refused(client: TestClient, body: dict[str, Any], status: int, said: str):
    answer = client.post("/api/finetune/use-as-retriever", json=body)
    assert answer.status_code == status
    assert said in answer.json()["detail"]["message"]
    assert client.get("/api/retriever").json()["model"] == BUILT_IN_EMBEDDER, "nothing has changed"


def test_a_task_that_is_not_completed_or_no_embedder_is_refused(studio: Studio, facts: str):
    queued = made(studio, facts)
    with pytest.raises(Conflict, match="not completed"):
        studio.rag.use(queued)
    writer = finished(studio, facts, type="sft", model_name_or_path=BUILT_IN)
    with pytest.raises(Conflict, match="trained no embedder"):
        studio.rag.use(writer)


def test_a_dataset_without_a_passage_is_named(studio: Studio, facts: str):
    (studio.datasets.store.data_path(facts).parent / "data.jsonl").write_text("")
    (studio.datasets.store.data_path(facts).parent / "index.u64").unlink()
    with pytest.raises(InvalidDataset, match="no passage"):
        studio.rag.retrieve("birds")


def test_a_question_that_is_too_long_is_refused_before_anything_starts(studio: Studio, facts: str):
    with pytest.raises(InvalidInput, match="characters"):
        studio.chat.answer([{"role": "user", "content": "x" * 5000}], documents=True)
    assert studio.rag.retriever.embedder.process is None


class StudioError_(StudioError):
    def __init__(self, said: str) -> None:
        from sage_studio.text import verbatim

        super().__init__(verbatim(said))


def made(studio: Studio, dataset_id: str, **recipe: Any) -> str:
    """A queued task that nobody starts."""
    values = {"type": "embedding", "model_name_or_path": BUILT_IN_EMBEDDER, "dataset_id": dataset_id, **recipe}
    studio.tasks.scheduler.close()
    return studio.tasks.store.create(
        parse_recipe(values), TrainingJob(model_location="m", data_path="d"), dataset_id, "facts"
    ).id


def finished(studio: Studio, dataset_id: str, **recipe: Any) -> str:
    """A task as a completed training leaves it, its model that of the catalogue."""
    task_id = made(studio, dataset_id, **recipe)
    folder = studio.tasks.store.get(task_id).folder
    shutil.copytree(studio.settings.models_dir / BUILT_IN_EMBEDDER, folder, dirs_exist_ok=True, copy_function=os.link)
    (folder / "training_args.json").write_text("{}")
    studio.tasks.store.transition(task_id, {TaskStatus.QUEUED}, TaskStatus.COMPLETED)
    return task_id
