"""DPO end to end: what it measures, what its reference is, what it learns, and how it goes on after a stop."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sage_studio.data.formats import read_retrieved
from sage_studio.data.rows import Origin
from sage_studio.training.progress import Reason, read_events

COLOURS = ("red", "green", "blue", "amber", "black", "white", "pink", "grey")
NewTask = Callable[..., Any]
DPO = {"type": "dpo", "learning_rate": 5e-3}
REWARDS = {"rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies"}


def pair(asked: str, chosen: str, rejected: str) -> dict[str, Any]:
    said = {"chosen": chosen, "rejected": rejected}
    return {
        "prompt": [{"role": "user", "content": asked}],
        **{side: [{"role": "assistant", "content": text}] for side, text in said.items()},
        "origin": {"file": "test.jsonl"},
    }


PAIRS = [
    pair(f"What colour is thing {number}?", f"It is {colour}, dear friend.", f"{colour}, obviously.")
    for number, colour in enumerate(COLOURS)
]


def figures(task: Any) -> list[dict[str, float]]:
    return [event.figures for event in read_events(task.path)[0] if event.figures]


def test_a_whole_run_leaves_everything_and_its_rewards(new_task: NewTask, tiny_model: Path):
    task = new_task(PAIRS, **DPO, num_train_epochs=2)
    result = task.run()
    assert (result.status, result.steps, result.rows, result.model_kind) == ("completed", 8, 8, "adapter")
    assert result.tokens > 0
    assert [set(each) for each in figures(task)] == [REWARDS] * 8
    assert figures(task)[-1]["rewards/margins"] > 0
    config = json.loads((task.path / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(tiny_model)
    assert json.loads((task.path / "training_args.json").read_text())["recipe"]["beta"] == 0.1
    assert not (task.path / "ref").exists()
    assert result.details["smoke_answer"] is not None


def test_the_reference_of_a_new_adapter_is_the_base(new_task: NewTask):
    """Before the first step policy and reference are the same: no reward, and a loss of ln 2."""
    task = new_task(PAIRS, **DPO, max_steps=1, precision="fp32")
    task.run()
    assert task.losses[0] == pytest.approx(0.6931, abs=1e-4)
    assert figures(task)[0]["rewards/margins"] == pytest.approx(0, abs=1e-4)


def test_the_reference_of_an_adapter_to_go_on_from_is_that_adapter(new_task: NewTask):
    """An SFT adapter that changes the model much: against the base the loss would be another."""
    tuned = new_task(name="tuned", learning_rate=2e-2, num_train_epochs=4)
    tuned.run()
    start = {"job": {"adapter_location": str(tuned.path)}, "start_from": str(tuned.path)}
    task = new_task(PAIRS, **DPO, **start, name="on", num_train_epochs=1, precision="fp32", lora_r=64)
    task.run()
    assert task.losses[0] == pytest.approx(0.6931, abs=1e-4)
    assert figures(task)[0]["rewards/margins"] == pytest.approx(0, abs=1e-4)
    assert figures(task)[-1]["rewards/margins"] > 0
    before, after = (_weights(each.path) for each in (tuned, task))
    assert before.keys() == after.keys(), "one adapter of the same shape, not two"
    moved = max(float((before[name] - after[name]).abs().max()) for name in before)
    assert 0 < moved < 0.2, "it went on from there"


def test_a_resumed_run_ends_as_an_uninterrupted_one(new_task: NewTask, monkeypatch: pytest.MonkeyPatch):
    from sage_studio.training.methods.dpo import PreferenceTrainer
    from sage_studio.training.run import StopRequest
    from sage_studio.training.runner import follow

    tuned = new_task(name="tuned", num_train_epochs=1)
    tuned.run()
    start = {"start_from": str(tuned.path), "precision": "fp32", "max_steps": 6, "num_train_epochs": 9}
    job = {"adapter_location": str(tuned.path)}
    whole, broken = (new_task(PAIRS, **DPO, **start, job=job, name=name) for name in ("whole", "broken"))
    whole.run()
    stop, right, batches = StopRequest(), PreferenceTrainer.compute_loss, []

    def fourth_is_last(*args: Any, **kwargs: Any) -> Any:
        batches.append(None)
        stop.requested = len(batches) == 4
        return right(*args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(PreferenceTrainer, "compute_loss", fourth_is_last)
        assert follow(broken.path, stop) == 0
    assert (broken.result().status, broken.result().steps) == ("stopped", 4)
    kept = broken.path / "checkpoints" / "checkpoint-4"
    assert not (kept / "ref").exists(), "with it there, transformers restores the reference in place of the adapter"
    (broken.path / "job.json").write_text(
        json.dumps(json.loads((broken.path / "job.json").read_text()) | {"resume": True})
    )
    (broken.path / "result.json").unlink()
    broken.run()
    assert broken.losses == pytest.approx(whole.losses, rel=1e-3)


def test_the_whole_model_can_be_trained_without_a_second_one(new_task: NewTask, monkeypatch: pytest.MonkeyPatch):
    from trl.trainer import dpo_trainer

    monkeypatch.setattr(dpo_trainer, "create_model_from_path", lambda *_, **__: pytest.fail("a second model"))
    task = new_task(PAIRS, **DPO, use_lora=False, num_train_epochs=2)
    assert task.run().model_kind == "full"
    assert figures(task)[-1]["rewards/margins"] > 0


@pytest.mark.parametrize(
    "options",
    [
        {"loss_type": "ipo"},
        {"loss_type": "robust", "label_smoothing": 0.1},
        {"loss_type": "apo_zero", "sft_weight": 0.5},
        {"loss_type": "sppo_hard", "gradient_checkpointing": True},
        {"use_dora": True, "lora_dropout": 0.1},
    ],
)
def test_options_train(new_task: NewTask, options: dict[str, Any]):
    task = new_task(PAIRS, **DPO, max_steps=2, **options)
    assert task.run().status == "completed"
    assert figures(task)


def test_rows_of_which_truncation_leaves_no_difference_are_named(new_task: NewTask, capsys: pytest.CaptureFixture[str]):
    same = "Once upon a time " * 40
    rows = [pair("word " * 200, "Yes.", "No."), PAIRS[0], pair("Hi", same + "one", same + "two"), PAIRS[1]]
    result = new_task(rows, **DPO).run()
    assert (result.rows, result.details["rows_used"], result.details["rows_dropped"]) == (4, 2, 2)
    assert "2 of 4 rows left out (row 1, 3)" in capsys.readouterr().out


def test_pairs_that_are_all_cut_off_fail_as_data(new_task: NewTask):
    result = new_task([pair("word " * 200, "Yes.", "No.")], **DPO).run(expect=1)
    assert result.reason == Reason.DATA
    assert "max_length = 96" in result.message[0]


def test_a_row_without_a_rejected_answer_fails_as_data_and_is_named(new_task: NewTask):
    broken = {name: value for name, value in PAIRS[0].items() if name != "rejected"}
    result = new_task([PAIRS[0], broken], **DPO).run(expect=1)
    assert result.reason == Reason.DATA
    assert "Line 2" in result.message[0]
    assert "rejected" in result.message[0]


def test_an_adapter_that_does_not_fit_fails_as_model(new_task: NewTask, tmp_path: Path):
    gone = str(tmp_path / "gone")
    result = new_task(PAIRS, **DPO, job={"adapter_location": gone}, start_from=gone).run(expect=1)
    assert result.reason == Reason.MODEL
    assert gone in result.message[0]


def test_a_run_that_learned_nothing_fails_as_unhealthy(new_task: NewTask, monkeypatch: pytest.MonkeyPatch):
    from sage_studio.training.methods.dpo import PreferenceTrainer

    right = PreferenceTrainer.compute_loss
    monkeypatch.setattr(PreferenceTrainer, "compute_loss", lambda *a, **k: right(*a, **k) * 0)
    assert new_task(PAIRS, **DPO).run(expect=1).reason == Reason.UNHEALTHY


@pytest.mark.training
def test_dpo_raises_the_preference_accuracy_on_pairs_it_has_not_seen(
    new_task: NewTask, built_in_model: Path, capsys: pytest.CaptureFixture[str]
):
    """The documented rows on the real model: answers that name their source are preferred to bare ones."""
    rooms = ["lamp", "map", "drum", "flag", "rope", "clock", "vase", "globe", "kettle", "ladder", "mirror", "piano"]
    rows = [
        read_retrieved(
            {
                "query": f"Where is the {thing}?",
                "retrieval_result": [f"Inventory: the {thing} is in room {number + 11}."],
                "chosen": {"text": f"Room {number + 11}, says the inventory."},
                "rejected": {"text": f"The {thing} is in room {number + 11}."},
            },
            Origin("rooms.json", row=number + 1),
        ).to_json()
        for number, thing in enumerate(rooms * 2)
    ]
    learned, unseen = rows[:16], rows[16:]
    task = new_task(
        learned,
        **DPO | {"learning_rate": 5e-4},
        job={"model_location": str(built_in_model)},
        per_device_train_batch_size=4,
    )
    task.run()
    before, after = _accuracy(built_in_model, None, unseen), _accuracy(built_in_model, task.path, unseen)
    with capsys.disabled():
        print(f"\nDPO: preference accuracy on {len(unseen)} unseen pairs {before:.2f} -> {after:.2f}")
    assert after >= before + 0.5


def _accuracy(base: Path, adapter: Path | None, rows: list[dict[str, Any]]) -> float:
    """The share of the pairs whose better answer is the likelier one."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from sage_studio.training.tokenize import PAIRS

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    model = PeftModel.from_pretrained(model, adapter) if adapter else model
    columns = PAIRS.encode([PAIRS.parts(row) for row in rows], AutoTokenizer.from_pretrained(base), 256).columns

    def likelihood(prompt: list[int], answer: list[int]) -> float:
        ids = torch.tensor([prompt + answer])
        with torch.inference_mode():
            logits = model(ids).logits[0, len(prompt) - 1 : -1].float()
        return float(logits.log_softmax(-1).gather(1, ids[0, len(prompt) :, None]).sum())

    better = [
        likelihood(prompt, chosen) > likelihood(prompt, rejected)
        for prompt, chosen, rejected in zip(*columns.values(), strict=True)
    ]
    return sum(better) / len(better)


def _weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / "adapter_model.safetensors")
