"""Training an embedder end to end: artefacts, figures, learning on real documents, resuming, and every failure."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sage_studio.settings import load_settings
from sage_studio.training.progress import Phase, Reason, read_events

NewTask = Callable[..., Any]
FIGURES = {"recall@1", "recall@5", "recall@10", "mrr@10", "ndcg@10"}
ORIGIN = {"file": "test.jsonl"}
COLOURS = ("red", "green", "blue", "amber", "black", "white", "pink", "grey")
ROWS = [
    {
        "query": f"Which thing is {colour}?",
        "pos": [f"The thing number {number} has the colour {colour}.", f"{colour} is thing {number}"],
        "neg": [f"Nothing is {colour}."] if number % 2 else [],
        "origin": ORIGIN,
    }
    for number, colour in enumerate(f"{colour}{number}" for number in range(3) for colour in COLOURS)
]


@pytest.fixture
def new_embedding(new_task: NewTask, tiny_embedder: Path) -> NewTask:
    """Make the folder of an embedding task on the tiny embedder."""

    def make(rows: list[dict[str, Any]] | None = None, job: dict[str, Any] | None = None, **recipe: Any) -> Any:
        orders = {"model_location": str(tiny_embedder), **(job or {})}
        options = {"per_device_train_batch_size": 4, "num_train_epochs": 2, "max_length": 32, "eval_share": 0.2}
        return new_task(ROWS if rows is None else rows, orders, **{"type": "embedding", **options, **recipe})

    return make


def test_a_whole_run_leaves_an_embedder_and_its_figures(new_embedding: NewTask, tiny_embedder: Path):
    task = new_embedding(eval_steps=3)
    result = task.run()
    assert (result.status, result.model_kind, result.rows) == ("completed", "adapter", 24)
    assert result.steps == result.total_steps > 6
    assert result.tokens > 0
    assert result.train_loss
    details = result.details
    assert (details["pairs"], details["held_out"], details["dimensions"], details["tokens_read"]) == (38, 5, 32, 32)
    assert set(details["held_out_before"]) == set(details["held_out_after"]) == FIGURES
    assert all(0 <= value <= 1 for value in (*details["held_out_before"].values(), *details["held_out_after"].values()))
    assert json.loads((task.path / "adapter_config.json").read_text())["base_model_name_or_path"] == str(tiny_embedder)
    for name in ("adapter_model.safetensors", "tokenizer.json", "modules.json", "1_Pooling/config.json"):
        assert (task.path / name).stat().st_size
    assert json.loads((task.path / "training_args.json").read_text())["held_out_after"] == details["held_out_after"]
    measured = [event.step for event in read_events(task.path)[0] if event.figures]
    assert measured == [0, *range(3, result.steps, 3), result.steps]
    assert not (task.path / "README.md").exists()


def test_progress_tells_each_phase_and_each_step(new_embedding: NewTask):
    task = new_embedding()
    task.run()
    events, _ = read_events(task.path)
    assert list(dict.fromkeys(event.phase for event in events)) == [
        Phase.STARTING,
        Phase.READING_DATA,
        Phase.LOADING_MODEL,
        Phase.TRAINING,
        Phase.SAVING,
        Phase.CHECKING,
    ]
    steps = [event for event in events if event.loss is not None]
    assert [event.step for event in steps] == list(range(1, task.result().steps + 1))
    assert all(event.learning_rate is not None and event.tokens_per_second for event in steps)


def test_pairs_that_can_be_learned_are(new_embedding: NewTask):
    task = new_embedding(num_train_epochs=20, use_lora=False, learning_rate=1e-2)
    details = task.run().details
    assert task.losses[-1] < 0.5 * task.losses[0]
    assert details["held_out_after"]["ndcg@10"] > details["held_out_before"]["ndcg@10"]


@pytest.mark.parametrize(
    "options", [{"use_lora": False}, {"mini_batch_size": 2}, {"hard_negatives": 0}, {"lora_target_modules": "query"}]
)
def test_options_train(new_embedding: NewTask, options: dict[str, Any]):
    task = new_embedding(max_steps=2, **options)
    assert task.run().model_kind == ("adapter" if options.get("use_lora", True) else "full")
    assert (task.path / "model.safetensors").exists() is not options.get("use_lora", True)


def test_cached_in_pieces_the_loss_is_the_same(new_embedding: NewTask, tiny_embedder: Path, tmp_path: Path):
    steady = tmp_path / "without-dropout"
    shutil.copytree(tiny_embedder, steady)
    config = json.loads((steady / "config.json").read_text())
    no_dropout = {name: 0.0 for name in config if "dropout" in name and config[name]}
    (steady / "config.json").write_text(json.dumps({**config, **no_dropout}))
    same = {"job": {"model_location": str(steady)}, "max_steps": 2, "precision": "fp32"}
    whole, pieces = new_embedding(name="a", **same), new_embedding(name="b", mini_batch_size=2, **same)
    for task in (whole, pieces):
        task.run()
    assert pieces.losses == pytest.approx(whole.losses, rel=1e-3)


def test_conversations_train_an_embedder(new_embedding: NewTask):
    rows = [
        {
            "prompt": [{"role": "user", "content": row["query"]}],
            "completion": [{"role": "assistant", "content": row["pos"][0]}],
            "origin": ORIGIN,
        }
        for row in ROWS
    ]
    assert new_embedding(rows=rows, max_steps=2).run().details["pairs"] == 19


def test_a_resumed_run_ends_like_one_that_was_never_stopped(new_embedding: NewTask):
    from sage_studio.training.run import StopRequest
    from sage_studio.training.runner import follow

    whole = new_embedding(name="whole")
    whole.run()
    stop = StopRequest()
    cut = new_embedding(name="cut")
    _stop_at(5, stop)
    assert follow(cut.path, stop) == 0
    assert (cut.result().status, cut.result().steps) == ("stopped", 5)
    job = json.loads((cut.path / "job.json").read_text())
    (cut.path / "job.json").write_text(json.dumps({**job, "resume": True}))
    (cut.path / "result.json").unlink()
    result = cut.run()
    assert result.steps == whole.result().steps
    assert cut.losses == pytest.approx(whole.losses, rel=1e-4)
    assert result.details["held_out_before"] == whole.result().details["held_out_before"]
    assert result.details["held_out_after"] == whole.result().details["held_out_after"]


@pytest.mark.parametrize("rows", [ROWS[:1], ROWS[:1] * 3, [{**ROWS[0], "pos": []}, *ROWS], [{"origin": {}}]])
def test_bad_rows_fail_as_data(new_embedding: NewTask, rows: list[dict[str, Any]]):
    result = new_embedding(rows=rows).run(expect=1)
    assert (result.status, result.reason) == ("failed", Reason.DATA)
    assert all((*result.message, *result.hint))


@pytest.mark.parametrize("damage", ["gone", "empty", "cut weights"])
def test_an_embedder_that_cannot_be_loaded_fails_as_model(
    new_embedding: NewTask, tiny_embedder: Path, tmp_path: Path, damage: str
):
    broken = tmp_path / "broken"
    if damage == "empty":
        broken.mkdir()
    elif damage == "cut weights":
        shutil.copytree(tiny_embedder, broken)
        weights = broken / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:1000])
    result = new_embedding(job={"model_location": str(broken)}).run(expect=1)
    assert result.reason == Reason.MODEL
    assert str(broken) in result.message[0]


def test_target_modules_that_are_not_there_fail_as_model(new_embedding: NewTask):
    result = new_embedding(lora_target_modules="q_proj").run(expect=1)
    assert result.reason == Reason.MODEL
    assert "query" in result.hint[0]


def test_a_collapsed_embedder_is_unhealthy(new_embedding: NewTask, monkeypatch: pytest.MonkeyPatch):
    from sage_studio.training import embedding_model

    right = embedding_model.embed_passages
    monkeypatch.setattr(embedding_model, "embed_passages", lambda *a: right(*a)[[0] * len(a[1])])
    result = new_embedding(max_steps=1).run(expect=1)
    assert result.reason == Reason.UNHEALTHY
    assert "collapsed" in result.message[0]


def test_an_embedder_that_comes_back_different_is_unhealthy(new_embedding: NewTask, monkeypatch: pytest.MonkeyPatch):
    from sage_studio.training import embedding_model

    monkeypatch.setattr(embedding_model, "save_embedder", _without_training(embedding_model.save_embedder))
    result = new_embedding(use_lora=False, max_steps=1).run(expect=1)
    assert result.reason == Reason.UNHEALTHY
    assert "other vectors" in result.message[0]


def test_a_loss_that_is_no_number_is_unhealthy(new_embedding: NewTask, monkeypatch: pytest.MonkeyPatch):
    from sage_studio.training.methods.embedding import EmbeddingTrainer

    right = EmbeddingTrainer.compute_loss
    monkeypatch.setattr(EmbeddingTrainer, "compute_loss", lambda *a, **k: right(*a, **k) * float("nan"))
    result = new_embedding().run(expect=1)
    assert result.reason == Reason.UNHEALTHY
    assert "step 1" in result.message[0]


def test_on_real_documents_the_right_section_is_found_more_often(
    new_task: NewTask, built_in_embedder: Path, docs_repository: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """The built-in embedder learns which section of the SAGE documentation answers which question."""
    from sage_studio.data.sources.sage_docs import SAGEDocsProcessor

    processor = SAGEDocsProcessor(load_settings(home=tmp_path / "home", docs_repo=docs_repository))
    processor.prepare_training_data()
    rows = [row.to_json() for row in processor.examples()]
    task = new_task(
        rows[:: max(1, len(rows) // LEARNING["rows"])],
        {"model_location": str(built_in_embedder)},
        type="embedding",
        **LEARNING["recipe"],
    )
    details = task.run().details
    before, after = details["held_out_before"], details["held_out_after"]
    with capsys.disabled():
        print(f"\nheld-out questions about the documentation: {before} -> {after}")
    assert after["ndcg@10"] > before["ndcg@10"] + 0.01


LEARNING: dict[str, Any] = {
    "rows": 400,
    "recipe": {
        "per_device_train_batch_size": 32,
        "num_train_epochs": 1,
        "learning_rate": 5e-4,
        "max_length": 96,
        "eval_share": 0.25,
    },
}


def _stop_at(step: int, stop: Any) -> None:
    """Ask for a stop once so many steps are done."""
    from sage_studio.training import callbacks

    right = callbacks.ProgressCallback.on_step_end

    def on_step_end(self: Any, args: Any, state: Any, control: Any, **rest: Any) -> None:
        stop.requested = stop.requested or state.global_step == step
        right(self, args, state, control, **rest)
        if stop.requested:
            callbacks.ProgressCallback.on_step_end = right  # type: ignore[method-assign]

    callbacks.ProgressCallback.on_step_end = on_step_end  # type: ignore[method-assign]


def _without_training(save: Callable[[Any, Path], None]) -> Callable[[Any, Path], None]:
    """Save other weights than those that were trained."""

    def broken(model: Any, folder: Path) -> None:
        import torch

        with torch.no_grad():
            kept = {name: value.clone() for name, value in model.state_dict().items()}
            for parameter in model.parameters():
                parameter.normal_()
            save(model, folder)
            model.load_state_dict(kept)

    return broken
