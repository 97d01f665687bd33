"""KBAlign from end to end in the child: on a tiny model with pairs that a person wrote, stopped, killed and gone on."""

import json
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from kbalign_parts import TOWNS

from sage_studio.training.methods.kbalign.stage_files import stage_files
from sage_studio.training.progress import Phase, Reason, read_events

NewTask = Callable[..., Any]
SMALL = {
    "type": "kbalign",
    "rounds": 3,
    "long_dependency": False,
    "references": 1,
    "reference_size": 16,
    "tries": 1,
    "max_length": 256,
    "generation_batch_size": 16,
}


def passage(text: str) -> dict[str, Any]:
    return {"text": text, "origin": {"file": "towns.md", "heading": ["Towns"]}}


ROWS = [passage(f"The town of {town} has a tower, built by {town}us.") for town in TOWNS]


def write_pairs(task: Any, chunks: range = range(len(TOWNS))) -> None:
    """Stage 1 as a person may have written it."""
    folder = task.path / "kbalign"
    folder.mkdir(exist_ok=True)
    lines = []
    for chunk in chunks:
        pairs = [{"question": f"Who {verb} the tower?", "answer": f"{TOWNS[chunk]}us."} for verb in ("built", "made")]
        lines.append(json.dumps({"chunk": chunk, "pairs": pairs}) + "\n")
    (folder / "1-short.jsonl").write_text("".join(lines))


@pytest.fixture
def ready(new_task: NewTask) -> NewTask:
    """A task with its pairs written."""

    def make(**recipe: Any) -> Any:
        task = new_task(rows=ROWS, **{**SMALL, **recipe})
        write_pairs(task)
        return task

    return make


def test_a_whole_run_leaves_every_stage_and_a_model(ready: NewTask, capsys: pytest.CaptureFixture[str]):
    task = ready()
    result = task.run()
    assert (result.status, result.model_kind) == ("completed", "adapter")
    assert [file.name for file in stage_files(task.path)] == [
        "0-chunks.jsonl",
        "1-short.jsonl",
        "3-samples.jsonl",
        "4-round-1-rows.jsonl",
        "4-round-2-checks.jsonl",
        "4-round-2-rows.jsonl",
        "4-round-3-checks.jsonl",
        "4-round-3-rows.jsonl",
    ]
    assert result.rows == 6
    assert result.details["questions"] == 12
    rows = [file.rows for file in stage_files(task.path) if file.name.endswith("rows.jsonl")]
    assert sum(rows) >= 24
    assert result.steps == result.total_steps == sum(-(-count // 2) for count in rows)
    steps = [event.step for event in read_events(task.path)[0] if event.loss is not None]
    assert steps == list(range(1, result.steps + 1)), "counted over all rounds"
    assert result.epochs == 3
    phases = {event.phase for event in read_events(task.path)[0]}
    assert {Phase.SHORT_DEPENDENCY, Phase.MIXING, Phase.VERIFYING, Phase.TRAINING, Phase.SAVING} <= phases
    assert (task.path / "adapter_model.safetensors").stat().st_size
    assert not list((task.path / "checkpoints").glob("round-*"))
    said = capsys.readouterr().out
    assert "round 3 of 3" in said
    assert "the model judged" in said


def test_general_questions_are_asked_of_like_chunks_at_once(ready: NewTask):
    task = ready(long_dependency=True, cluster_size=4)
    assert task.run().status == "completed"
    lines = [json.loads(line) for line in (task.path / "kbalign" / "2-general.jsonl").read_text().splitlines()]
    assert [line["cluster"] for line in lines] == [[0, 1, 2, 3], [4, 5]]


def test_the_whole_model_can_be_trained(ready: NewTask):
    task = ready(use_lora=False, rounds=2, learning_rate=1e-3)
    assert task.run().model_kind == "full"
    assert (task.path / "model.safetensors").stat().st_size


def test_a_model_that_writes_nothing_usable_fails_with_what_was_wrong(new_task: NewTask):
    task = new_task(rows=ROWS, **{**SMALL, "questions_per_chunk": 1})
    result = task.run(expect=1)
    assert result.reason == Reason.DATA
    assert "The model wrote no usable question about 6 chunks" in result.message[0]
    assert "1-short.jsonl" in result.hint[0]


def test_a_stop_within_stage_one_says_where_and_the_run_goes_on(ready: NewTask, monkeypatch: pytest.MonkeyPatch):
    from sage_studio.training.methods.kbalign.generator import TransformersGenerator

    task = ready(generation_batch_size=1)
    write_pairs(task, range(2))
    right, asked = TransformersGenerator.generate, []

    def third_is_stopped(*args: Any, **kwargs: Any) -> Any:
        asked.append(None)
        if len(asked) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return right(*args, **kwargs)

    monkeypatch.setattr(TransformersGenerator, "generate", third_is_stopped)
    result = _follow(task)
    assert result.status == "stopped"
    assert result.message[0] == "Stopped in short dependency, 3 of 6 done."
    write_pairs(task)
    _resume(task)
    assert task.run().status == "completed"


def test_a_stop_in_a_round_keeps_the_rounds_before(ready: NewTask, monkeypatch: pytest.MonkeyPatch):
    from sage_studio.training.methods.sft import AnswerTrainer

    whole = ready()
    expected = whole.run()
    task = _copy(whole)
    write_pairs(task)
    right, batches = AnswerTrainer.compute_loss, []

    def sixth_is_last(*args: Any, **kwargs: Any) -> Any:
        batches.append(None)
        if len(batches) == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        return right(*args, **kwargs)

    monkeypatch.setattr(AnswerTrainer, "compute_loss", sixth_is_last)
    stopped = _follow(task)
    assert (stopped.status, stopped.steps) == ("stopped", 6)
    assert stopped.message[0].startswith("Stopped at step 6 of 1")
    monkeypatch.setattr(AnswerTrainer, "compute_loss", right)
    _resume(task)
    result = task.run()
    assert (result.status, result.steps) == ("completed", expected.steps)
    losses = {event.step: event.loss for event in read_events(task.path)[0] if event.loss is not None}
    wanted = {event.step: event.loss for event in read_events(whole.path)[0] if event.loss is not None}
    assert losses.keys() == wanted.keys()
    assert losses[max(losses)] == pytest.approx(wanted[max(wanted)], rel=0.01)


def test_samples_that_were_edited_are_learned(ready: NewTask, monkeypatch: pytest.MonkeyPatch):
    from sage_studio.training.methods.kbalign import rounds

    task = ready()
    with monkeypatch.context() as patched:
        patched.setattr(rounds, "write_rows", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        assert _follow(task).status == "stopped"
    samples = task.path / "kbalign" / "3-samples.jsonl"
    samples.write_text(samples.read_text().replace("Who built the tower?", "Whose work is the tower here?"))
    _resume(task)
    task.run()
    assert "Whose work is the tower here?" in (task.path / "kbalign" / "4-round-1-rows.jsonl").read_text()


def test_pairs_that_were_edited_before_the_training_are_mixed_anew(ready: NewTask, monkeypatch: pytest.MonkeyPatch):
    from sage_studio.training.methods.kbalign import rounds

    task = ready()
    with monkeypatch.context() as patched:
        patched.setattr(rounds, "write_rows", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        assert _follow(task).status == "stopped"
    pairs = task.path / "kbalign" / "1-short.jsonl"
    pairs.write_text(pairs.read_text().replace("Who made the tower?", "Which mason was it then?"))
    _resume(task)
    task.run()
    assert "Which mason was it then?" in (task.path / "kbalign" / "3-samples.jsonl").read_text()


def _follow(task: Any) -> Any:
    """Follow the recipe in this process with its ear open for SIGTERM."""
    from sage_studio.training.child import follow
    from sage_studio.training.stopping import StopRequest

    before, stop = signal.getsignal(signal.SIGTERM), StopRequest()
    stop.listen()
    try:
        assert follow(task.path, stop) == 0, task.result()
    finally:
        signal.signal(signal.SIGTERM, before)
    return task.result()


def _resume(task: Any) -> None:
    job = task.path / "job.json"
    job.write_text(json.dumps(json.loads(job.read_text()) | {"resume": True}))
    (task.path / "result.json").unlink()


def _copy(task: Any) -> Any:
    """A second task with the same orders."""
    path = task.path.with_name("second")
    path.mkdir()
    for name in ("job.json", "recipe.yaml"):
        (path / name).write_text((task.path / name).read_text())
    assert yaml.safe_load((path / "recipe.yaml").read_text())["type"] == "kbalign"
    return type(task)(path)
