"""Bringing data in by REST: every kind of file, a mapping said once and offered again, repositories and the hub."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
from made_files import pdf, zipped

CSV = "问题,回复,备注\n为什么？,因为下雨。,x\n怎么办？,带伞。,y\n".encode("gb18030")
MAPPING = {"format": "question/answer", "columns": {"question": "问题", "answer": "回复"}}
TEXT = "This section has enough words to become a row of the dataset without any other beside it."


def send(client, file, content, route="", **fields):
    return client.post(f"/api/datasets{route}", files={"file": (file, content)}, data=fields)


def test_what_was_found_and_what_it_can_train_is_kept(client):
    row = {"question": "q", "answer": "a", "context": "c", "meta": None}
    rows = b"".join(json.dumps({**row, "id": n}).encode() + b"\n" for n in range(3))
    dataset = send(client, "qa.jsonl.gz", gzip.compress(rows)).json()
    assert dataset["name"] == "qa"
    assert (dataset["container"], dataset["row_kind"]) == ("JSON.gz", "conversation")
    keys, unread = ["question", "answer"], ["context", "id"]
    assert dataset["formats"] == [{"name": "question/answer", "keys": keys, "rows": 3, "unread": unread}]
    assert send(client, "qa.jsonl.gz", gzip.compress(rows), "/look").json()["formats"] == dataset["formats"]
    assert "sft" in dataset["methods"]
    assert client.get(f"/api/datasets/{dataset['id']}").json() == dataset


def test_a_mapping_is_said_once_and_offered_again(client):
    refused = send(client, "a.csv", CSV)
    assert (refused.status_code, refused.json()["detail"]["code"]) == (422, "unknown_columns")
    look = send(client, "a.csv", CSV, "/look").json()
    assert (look["columns"], look["needs_mapping"], look["remembered"]) == (["问题", "回复", "备注"], True, None)
    assert look["sample"][0]["问题"] == "为什么？"
    assert look["guess"] == MAPPING
    assert {"name": "question/answer", "needs": ["question", "answer"], "takes": ["system"]} in look["known_formats"]

    dataset = send(client, "a.csv", CSV, mapping=json.dumps(MAPPING)).json()
    assert dataset["stats"]["total_samples"] == 2
    assert dataset["formats"][0]["unread"] == ["备注"]
    page = client.get(f"/api/datasets/{dataset['id']}/preview").json()
    assert (page["rows"][1]["instruction"], page["rows"][1]["output"]) == ("怎么办？", "带伞。")

    other = "备注,问题,回复\nz,谁？,我。\n".encode()
    assert send(client, "b.csv", other, "/look").json()["remembered"] == MAPPING
    assert send(client, "c.csv", b"foo,bar\n1,2\n", "/look").json()["remembered"] is None


@pytest.mark.parametrize(
    "mapping",
    [
        "no json",
        "[]",
        json.dumps({"format": "Alpaca"}),
        json.dumps({**MAPPING, "extra": 1}),
        json.dumps({**MAPPING, "format": "Alpacca"}),
        json.dumps({**MAPPING, "columns": {"question": "问题"}}),
        json.dumps({**MAPPING, "columns": {**MAPPING["columns"], "mood": "备注"}}),
        json.dumps({**MAPPING, "columns": {"question": "问题", "answer": "没有"}}),
    ],
)
def test_a_wrong_mapping_is_refused_and_not_remembered(client, mapping):
    refused = send(client, "a.csv", CSV, mapping=mapping)
    assert refused.status_code == 422
    assert refused.json()["detail"]["hint"]
    assert client.get("/api/datasets").json() == []
    assert send(client, "a.csv", CSV, "/look").json()["remembered"] is None


def test_a_look_keeps_nothing_and_tells_the_fault(client):
    rows = json.dumps([{"text": "a"}, {"text": "b"}, {"text": 5}]).encode()
    look = send(client, "kb.json", rows, "/look").json()
    assert (look["rows"], look["row_kind"], look["fault"]["row"]) == (3, "passage", 3)
    assert look["formats"] == [{"name": "text", "keys": ["text"], "rows": 3, "unread": []}]
    assert client.get("/api/datasets").json() == []


def test_documents_become_questions_or_passages(client):
    content = zipped({"a.md": f"# A\n\n{TEXT}", "b.pdf": pdf([[TEXT[::-1]]]), "scan.pdf": pdf([[]])})
    questions = send(client, "docs.zip", content).json()
    assert (questions["kind"], questions["container"]) == ("documents", "Markdown, PDF")
    assert (questions["stats"]["total_samples"], questions["stats"]["dropped"]) == (2, 1)
    passages = send(client, "docs.zip", content, rows="passages", name="docs as passages").json()
    assert (passages["row_kind"], passages["stats"]["total_samples"]) == ("passage", 2)
    assert client.get(f"/api/datasets/{passages['id']}/preview").json()["rows"][1]["origin"]["page"] == 1
    assert send(client, "docs.zip", content, rows="poems").status_code == 422
    assert send(client, "scan.pdf", pdf([[]])).json()["detail"]["message"].startswith("scan.pdf: no text")


def test_a_repositorys_documents(client, tmp_path):
    repository = tmp_path / "handbook"
    repository.mkdir()
    (repository / "a.md").write_text(f"# A\n\n{TEXT}", encoding="utf-8")
    git = ["git", "-C", str(repository), "-c", "user.name=t", "-c", "user.email=t@t"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *command], check=True)
    dataset = client.post("/api/datasets/from-repository", json={"address": f"file://{repository}"}).json()
    assert (dataset["kind"], dataset["name"], len(dataset["commit"])) == ("documents", "handbook", 40)
    refused = client.post("/api/datasets/from-repository", json={"address": str(repository), "folder": "../x"})
    assert refused.status_code == 422
    gone = client.post("/api/datasets/from-repository", json={"address": "file:///nowhere"})
    assert (gone.status_code, gone.json()["detail"]["code"]) == (503, "docs_unavailable")


def test_the_hub_offline_is_said(client, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    refused = client.post("/api/datasets/from-hub", json={"repo": "lab/qa"}, headers={"Accept-Language": "zh"})
    assert (refused.status_code, refused.json()["detail"]["code"]) == (503, "hub_unavailable")
    assert "HF_ENDPOINT" in refused.json()["detail"]["hint"]
    assert client.post("/api/datasets/from-hub", json={"repo": "../x"}).status_code == 422


def test_the_quick_start_set_comes_with_its_test_questions_beside_it(client):
    made = client.post("/api/datasets/quickstart")
    assert made.status_code == 201
    dataset = made.json()
    assert (dataset["kind"], dataset["row_kind"]) == ("quickstart", "conversation")
    assert client.post("/api/datasets/quickstart").json()["id"] == dataset["id"]
    test = client.get("/api/datasets/quickstart/test").json()
    assert set(test[0]) == {"question", "answer", "key", "reject"}
    for entry in test:
        found = client.get(f"/api/datasets/{dataset['id']}/preview", params={"search": entry["question"]}).json()
        assert found["total"] == 0
