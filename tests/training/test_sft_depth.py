"""What SFT offers beyond a plain run: packing, kinds of LoRA, held-out rows, stopping early, going on."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sage_studio.training.progress import Reason, read_events

NewTask = Callable[..., Any]
COLOURS = ("red", "green", "blue", "amber", "black", "white", "pink", "grey")


def row(question: str, answer: str) -> dict[str, Any]:
    return {
        "prompt": [{"role": "user", "content": question}],
        "completion": [{"role": "assistant", "content": answer}],
        "origin": {"file": "test.jsonl"},
    }


def held_out(task: Any) -> dict[int, float]:
    """Held-out loss by step."""
    events = read_events(task.path)[0]
    return {
        event.step: event.figures["eval_loss"] for event in events if event.figures and "eval_loss" in event.figures
    }


@pytest.mark.parametrize(("option", "key"), [("use_rslora", "use_rslora"), ("use_dora", "use_dora")])
def test_kinds_of_lora_are_trained_and_written_down(new_task: NewTask, option: str, key: str):
    task = new_task(**{option: True})
    assert task.run().status == "completed"
    assert json.loads((task.path / "adapter_config.json").read_text())[key] is True
    assert task.losses[-1] < task.losses[0]


def test_packed_rows_have_the_loss_they_have_alone(new_task: NewTask, capsys: pytest.CaptureFixture[str]):
    """All rows in one step, packed and not: the same mean loss, for no row sees another."""
    options = {"precision": "fp32", "max_steps": 1, "max_length": 128}
    alone = new_task(name="alone", per_device_train_batch_size=8, **options)
    packed = new_task(name="packed", per_device_train_batch_size=8, packing=True, **options)
    for task in (alone, packed):
        task.run()
    assert packed.losses[0] == pytest.approx(alone.losses[0], rel=1e-5)
    said = capsys.readouterr().out
    assert "packed   8 rows into " in said
    assert int(said.partition("packed   8 rows into ")[2].split()[0]) < 8


def test_packing_takes_fewer_steps(new_task: NewTask):
    assert new_task(packing=True, max_length=256).run().steps < 4


def test_held_out_rows_are_measured_and_not_trained_on(new_task: NewTask):
    task = new_task(eval_share=0.25, eval_steps=2, num_train_epochs=3)
    result = task.run()
    assert result.total_steps == 9, "6 of the 8 rows, in pairs, three times"
    assert sorted(held_out(task)) == [0, 2, 4, 6, 8, 9]
    details = result.details
    assert details["held_out_before"]["eval_loss"] == held_out(task)[0]
    assert details["held_out_after"]["eval_loss"] == held_out(task)[9]
    assert details["best_eval_loss"] == min(held_out(task).values()) < details["held_out_before"]["eval_loss"]


def test_the_model_is_that_of_the_lowest_held_out_loss(new_task: NewTask):
    """At a rate that ruins it after a while: the adapter kept is that of the checkpoint of the best measurement."""
    from safetensors.torch import load_file

    options = {"eval_share": 0.25, "eval_steps": 2, "num_train_epochs": 16, "learning_rate": 0.1}
    task = new_task(**options, save_total_limit=40, lr_scheduler_type="constant")
    details = task.run().details
    best = details["best_step"]
    assert details["best_eval_loss"] == min(held_out(task).values())
    assert best < 48, "otherwise this test shows nothing: it is to get worse in the end"
    kept = load_file(task.path / "adapter_model.safetensors")
    checkpoint = load_file(task.path / "checkpoints" / f"checkpoint-{best}" / "adapter_model.safetensors")
    last = load_file(task.path / "checkpoints" / "checkpoint-48" / "adapter_model.safetensors")
    assert all(kept[name].equal(checkpoint[name]) for name in kept)
    assert not all(kept[name].equal(last[name]) for name in kept)


def test_a_run_that_no_longer_improves_is_stopped_early_and_completed(
    new_task: NewTask, capsys: pytest.CaptureFixture[str]
):
    options = {"eval_share": 0.25, "eval_steps": 1, "num_train_epochs": 30, "learning_rate": 0.1}
    result = new_task(**options, early_stopping_patience=2, lr_scheduler_type="constant").run()
    assert result.status == "completed"
    assert result.steps == result.details["best_step"] + 2 < result.total_steps == 90
    assert result.details["stopped_early"] is True
    assert f"stopped early at step {result.steps}" in capsys.readouterr().out


def test_patience_is_remembered_over_a_stop(new_task: NewTask, monkeypatch: pytest.MonkeyPatch):
    from sage_studio.training.callbacks import ProgressCallback
    from sage_studio.training.run import StopRequest
    from sage_studio.training.runner import follow

    options = {"eval_share": 0.25, "eval_steps": 1, "num_train_epochs": 30, "learning_rate": 0.1, "precision": "fp32"}
    options |= {"early_stopping_patience": 3, "lr_scheduler_type": "constant"}
    whole, broken = new_task(name="whole", **options), new_task(name="broken", **options)
    stop_at, end = whole.run().details["best_step"] + 2, whole.result().steps
    stop, right = StopRequest(), ProgressCallback.on_step_end

    def stop_there(self: Any, args: Any, state: Any, control: Any, **rest: Any) -> None:
        stop.requested = state.global_step == stop_at
        right(self, args, state, control, **rest)

    with monkeypatch.context() as patched:
        patched.setattr(ProgressCallback, "on_step_end", stop_there)
        assert follow(broken.path, stop) == 0
    assert (broken.result().status, broken.result().steps) == ("stopped", stop_at)
    job = json.loads((broken.path / "job.json").read_text())
    (broken.path / "job.json").write_text(json.dumps(job | {"resume": True}))
    (broken.path / "result.json").unlink()
    assert (broken.run().status, broken.result().steps) == ("completed", end)
    assert held_out(broken) == pytest.approx(held_out(whole), rel=1e-3)


def test_one_row_cannot_be_split(new_task: NewTask):
    result = new_task([row("a", "b")], eval_share=0.5).run(expect=1)
    assert result.reason == Reason.DATA
    assert "eval_share" in result.message[0]


def test_training_goes_on_from_an_adapter(new_task: NewTask):
    first = new_task(name="first", num_train_epochs=4, precision="fp32")
    first.run()
    on = new_task(name="on", job={"adapter_location": str(first.path)}, start_from="first", lora_r=64, precision="fp32")
    on.run()
    assert on.losses[0] == pytest.approx(first.losses[-1], abs=0.1)
    assert on.losses[0] < first.losses[0] - 0.3
    assert json.loads((on.path / "adapter_config.json").read_text())["r"] == 8, "of the adapter it goes on from"


def test_of_preference_pairs_the_better_answer_is_learned(new_task: NewTask, tmp_path: Path):
    """From the file that a person uploads, in the documented format, to the same losses as from the chosen answers."""
    from sage_studio.data.sources.local import UploadSource

    pairs = [
        {"query": f"What colour is thing {at}?", "retrieval_result": f"Thing {at} is {colour}.",
         "chosen": {"text": f"It is {colour}."}, "rejected": {"text": "I will not tell."}}
        for at, colour in enumerate(COLOURS)
    ]  # fmt: skip
    (tmp_path / "pairs.json").write_text(json.dumps(pairs))
    rows = [each.to_json() for each in UploadSource(tmp_path / "pairs.json", max_bytes=1 << 20).examples()]
    told = [{"prompt": each["prompt"], "completion": each["chosen"], "origin": each["origin"]} for each in rows]
    from_pairs, from_answers = new_task(rows, name="pairs"), new_task(told, name="told")
    for task in (from_pairs, from_answers):
        task.run()
    assert "Thing 0 is red." in rows[0]["prompt"][-1]["content"]
    assert from_pairs.losses == from_answers.losses


@pytest.mark.training
def test_sft_lowers_the_loss_on_rows_it_has_not_seen(
    new_task: NewTask, built_in_model: Path, capsys: pytest.CaptureFixture[str]
):
    """Answers in a form of their own, on the real model: the form is learned, not the rows."""
    things = ["lamp", "map", "drum", "flag", "rope", "clock", "vase", "globe", "kettle", "ladder", "mirror", "piano"]
    rows = [
        row(f"Where is the {thing}?", f"[inventory] item: {thing} | place: see shelf list | status: in stock")
        for thing in things
    ]
    task = new_task(
        rows,
        job={"model_location": str(built_in_model)},
        eval_share=0.34,
        eval_steps=4,
        per_device_train_batch_size=4,
        num_train_epochs=2,
        learning_rate=1e-3,
    )
    details = task.run().details
    before, after = (details[f"held_out_{when}"]["eval_loss"] for when in ("before", "after"))
    with capsys.disabled():
        print(f"\nSFT: held-out loss {before:.2f} -> {after:.2f}")
    assert after < 0.5 * before
