"""Looking up twice through REST, with a fake engine that repeats its prompt: once with a real embedder in its own
process, and for every way to end with look-ups of a test's own."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.testclient import TestClient
from refusing import refuse
from rest_app import LOGIN
from serving_files import write_adapter
from test_retrieval import made
from test_retrieval import studio as studio
from waiting import patient, wait_until

from sage_studio.catalog import BUILT_IN
from sage_studio.errors import NotFound
from sage_studio.services import rag
from sage_studio.serving.types import Source
from sage_studio.studio import Studio
from sage_studio.tasks.task import TaskStatus
from sage_studio.text import verbatim

FACTS = [
    "The oldest bridge of Orvik is the Lume.",
    "The Lume is painted green every seven years.",
    "The Lume was designed by the engineer Ada Lind.",
    "Ada Lind was born in Tarnhollow and went to Bex.",
    "Tarnhollow is known for its blue cheese.",
    "The harbour of Orvik freezes in January.",
    "Trams in Orvik run every ten minutes.",
    "The mayor of Bex keeps bees.",
    "A ferry crosses the strait twice a day.",
    "The museum of Cos shows old clocks.",
]
ASKED = {"message": "Which engineer is behind the oldest bridge in town?", "documents": True, "max_tokens": 30}
TWICE = ASKED | {"expand": True}


@pytest.fixture
def facts(answering: Studio, tmp_path: Path) -> str:
    path = tmp_path / "facts.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in FACTS))
    return answering.datasets.upload(path).id


@pytest.fixture
def finds(answering: Studio, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the look-ups find, one after the other: a text, or an error to raise."""
    found: list[Any] = ["The first passage.", "The second passage."]

    def retrieve(query: str, dataset_id: str = "") -> list[Source]:
        one = found.pop(0)
        if isinstance(one, Exception):
            raise one
        return [Source(one, "a.md", "", 0.5)]

    monkeypatch.setattr(answering.rag, "retrieve", retrieve)
    return found


def events_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")]


def test_the_second_look_up_holds_the_first_answer_and_gives_the_sources(asking: TestClient, facts: str):
    def found_for(query: str) -> list[str]:
        passages = asking.post("/api/retrieve", json={"query": query}).json()["passages"]
        return [passage["text"] for passage in passages]

    once = asking.post("/api/chat", json=ASKED).json()
    assert (once["look_ups"], [source["text"] for source in once["sources"]]) == (1, found_for(ASKED["message"]))
    twice = asking.post("/api/chat", json=TWICE | {"documents": facts}).json()
    sources = [source["text"] for source in twice["sources"]]
    assert sources == found_for(f"{ASKED['message']}\n{once['response'].strip()}")
    assert set(sources) != {source["text"] for source in once["sources"]}, "else this shows nothing"
    assert sources[0] in twice["response"], "the engine, which repeats what it is asked, got the second passages"
    assert (twice["look_ups"], twice["usage"]["completion_tokens"]) == (2, 30)


@pytest.mark.usefixtures("finds")
def test_it_streams_without_the_text_of_the_first_answer(asking: TestClient):
    events = events_of(asking.post("/api/chat", json=TWICE | {"stream": True}).text)
    texts = [event["text"] for event in events]
    first = texts.index("small: ")
    assert texts[:first] == [""] * first
    assert first == len(texts) - 1 - first, "as many as the second answer has"
    assert "The second passage." in "".join(texts)
    assert "The first passage." not in "".join(texts)
    assert [event.get("look_ups") for event in events] == [None] * (len(events) - 1) + [2]
    assert [source["text"] for source in events[-1]["sources"]] == ["The second passage."]


def test_where_the_same_is_found_the_first_answer_stands(asking: TestClient, finds: list[Any]):
    finds[1] = finds[0]
    answer = asking.post("/api/chat", json=TWICE).json()
    assert "The first passage." in answer["response"]
    assert (answer["look_ups"], answer["usage"]["completion_tokens"], finds) == (2, 30, [])


@pytest.mark.usefixtures("finds", "no_collector")
@pytest.mark.parametrize("words", [0, 3], ids=["the first", "the second"])
def test_a_client_that_leaves_ends_the_answer_under_way(answering: Studio, address: str, tmp_path: Path, words: int):
    journal = tmp_path / "journal.jsonl"
    body = TWICE | {"message": "slow " * 60, "stream": True, "max_tokens": 100}
    with httpx.stream("POST", f"{address}/api/chat", json=body, auth=LOGIN, timeout=patient()) as answer:
        lines = (json.loads(line.removeprefix("data: ")) for line in answer.iter_lines() if line)
        said = [next(lines)["text"]]
        while sum(map(bool, said)) < words:
            said.append(next(lines)["text"])
        assert '"cancelled"' not in journal.read_text()
    wait_until(lambda: '"cancelled": "small"' in journal.read_text())
    wait_until(lambda: answering.serving.registry.metrics()["vllm:num_requests_running"] == 0)
    assert journal.read_text().count('"cancelled"') == 1


def test_a_first_answer_that_does_not_end_is_ended_in_the_engine(
    asking: TestClient, finds: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(rag, "FIRST_PIECES", 8)
    finds[0] = "slow passage"
    body = TWICE | {"message": "and " * 1000, "max_tokens": 2000, "stream": True}
    texts = [event["text"] for event in events_of(asking.post("/api/chat", json=body).text)]
    assert texts.index("small: ") == 7, "the eighth is looked up with"
    wait_until(lambda: '"cancelled": "small"' in (tmp_path / "journal.jsonl").read_text())


@pytest.mark.usefixtures("finds")
def test_who_answers_first_answers_again_though_another_has_become_current(answering: Studio):
    messages = [{"role": "user", "content": ASKED["message"]}]
    chunks = answering.chat.answer(messages, documents=True, expand=True, max_tokens=30)
    assert next(chunks).model == "small"
    answering.serving.switch("tuned")
    assert {chunk.model for chunk in chunks} == {"small"}


def test_a_second_look_up_that_fails_says_so_and_shows_no_answer(asking: TestClient, finds: list[Any]):
    gone = NotFound(
        verbatim("The dataset facts is gone.", "数据集 facts 已不存在。"), verbatim("Take another.", "请另选。")
    )
    finds[1] = gone
    refuse(asking.post("/api/chat", json=TWICE), 404, "facts")
    finds[:] = ["The first passage.", gone]
    events = events_of(asking.post("/api/chat", json=TWICE | {"stream": True}).text)
    assert events[-1]["error"]["code"] == "not_found"
    assert not any(event["text"] for event in events)


@pytest.mark.usefixtures("finds")
def test_an_engine_that_breaks_off_in_the_first_answer_is_an_error(asking: TestClient):
    refuse(asking.post("/api/chat", json=TWICE | {"message": "die", "max_tokens": 99}), 503, "in the middle")


@pytest.mark.parametrize("language", ["en", "zh"])
def test_to_look_up_twice_needs_documents(asking: TestClient, language: str):
    asking.headers["Accept-Language"] = language
    refuse(asking.post("/api/chat", json=TWICE | {"documents": False}), 422, "expand = true")


@pytest.mark.parametrize(
    ("recipe", "learned"),
    [({"type": "kbalign"}, True), ({"type": "kbalign", "references": 0}, False), ({"type": "sft"}, False)],
    ids=["KBAlign", "without references", "SFT"],
)
def test_who_was_tuned_with_references_has_learned_them(answering: Studio, facts: str, recipe: Any, learned: bool):
    task_id = made(answering, facts, model_name_or_path=BUILT_IN, **recipe)
    folder, base = answering.tasks.store.get(task_id).folder, answering.serving.registry.models()[0].path
    write_adapter(folder, base)
    answering.serving.registry.register_model("knowing", str(folder), {"base_name": "small", "task_id": task_id})
    assert [answering.rag.learned_references(name) for name in ("knowing", "small", "", None)] == [
        learned,
        *[False] * 3,
    ]
    answering.serving.switch("knowing")
    assert answering.rag.learned_references() is learned
    answering.tasks.store.transition(task_id, {TaskStatus.QUEUED}, TaskStatus.FAILED)
    answering.tasks.store.delete(answering.tasks.store.get(task_id))
    assert answering.rag.learned_references() is False, "nobody knows any more"
