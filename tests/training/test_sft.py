"""SFT end to end on a tiny model: artefacts, learning, masks, precision, and every failure with its class."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sage_studio.training.progress import Phase, Reason, read_events

NewTask = Callable[..., Any]


def test_a_whole_run_leaves_everything(new_task: NewTask, tiny_model: Path):
    task = new_task(num_train_epochs=2, job={"estimated_gb": 1.5})
    result = task.run()
    assert (result.status, result.steps, result.total_steps, result.epochs) == ("completed", 8, 8, 2.0)
    assert result.rows == 8
    assert result.tokens > 0
    assert result.tokens_per_second
    assert result.peak_memory_gb
    assert result.estimated_memory_gb == 1.5
    assert result.model_kind == "adapter"
    assert result.details["rows_used"] == 8
    config = json.loads((task.path / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(tiny_model)
    for name in ("adapter_model.safetensors", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (task.path / name).stat().st_size
    arguments = json.loads((task.path / "training_args.json").read_text())
    assert arguments["recipe"]["num_train_epochs"] == 2
    assert arguments["job"]["model_location"] == str(tiny_model)
    assert len(arguments["chat_template_sha256"]) == 64
    assert not (task.path / ".reserve").exists()
    assert not list((task.path / "checkpoints").glob("checkpoint-*"))


def test_progress_tells_each_phase_and_each_step(new_task: NewTask, capsys: pytest.CaptureFixture[str]):
    task = new_task()
    task.run()
    events, _ = read_events(task.path)
    phases = list(dict.fromkeys(event.phase for event in events))
    assert phases == [
        Phase.STARTING,
        Phase.READING_DATA,
        Phase.LOADING_MODEL,
        Phase.TRAINING,
        Phase.SAVING,
        Phase.CHECKING,
    ]
    steps = [event for event in events if event.loss is not None]
    assert [event.step for event in steps] == [1, 2, 3, 4]
    assert all(event.total_steps == 4 and event.tokens_per_second and event.memory_gb for event in steps)
    assert steps[-1].eta_seconds == 0
    assert steps[-1].epoch == 1
    printed = capsys.readouterr().out
    assert "step 4/4 · epoch 1.00 · loss" in printed
    assert "\x1b" not in printed
    assert "it/s" not in printed


def test_rows_that_can_be_memorised_are(new_task: NewTask):
    task = new_task(num_train_epochs=15, per_device_train_batch_size=8, use_lora=False, learning_rate=1e-2)
    task.run()
    losses = task.losses
    assert losses[-1] < 0.5 * losses[0]


def test_the_same_seed_gives_the_same_run(new_task: NewTask):
    first, second, other = new_task(name="a"), new_task(name="b"), new_task(name="c", seed=7)
    for task in (first, second, other):
        task.run()
    assert first.losses == second.losses
    assert first.losses != other.losses


def test_the_whole_model_can_be_trained(new_task: NewTask):
    from transformers import AutoModelForCausalLM

    task = new_task(use_lora=False, learning_rate=1e-3)
    assert task.run().model_kind == "full"
    assert not (task.path / "adapter_config.json").exists()
    model = AutoModelForCausalLM.from_pretrained(task.path)
    assert str(model.dtype) == "torch.bfloat16", "stored as the base was published"


@pytest.mark.parametrize("options", [{"precision": "fp32"}, {"gradient_checkpointing": True}, {"max_steps": 1}])
def test_options_train(new_task: NewTask, options: dict[str, object]):
    assert new_task(**options).run().status == "completed"


@pytest.mark.training
@pytest.mark.parametrize("quantization", ["8bit", "4bit"])
def test_a_quantized_base_can_be_trained(new_task: NewTask, quantization: str):
    result = new_task(quantization=quantization).run()
    assert (result.status, result.model_kind) == ("completed", "adapter")


@pytest.mark.training
@pytest.mark.parametrize("quantization", ["8bit", "4bit"])
def test_a_quantized_base_learns_beside_held_out_rows(new_task: NewTask, quantization: str):
    """Measuring them has bitsandbytes repack a 4-bit base on a CPU with AVX-512 BF16 so that no gradient passes it."""
    measured, alone = (
        new_task(name=name, quantization=quantization, eval_share=share, max_samples=6 if not share else 8,
                 num_train_epochs=4, load_best_model=False)
        for name, share in (("measured", 0.25), ("alone", 0.0))
    )  # fmt: skip
    for task in (measured, alone):
        task.run()
    fallen = [task.losses[0] - task.losses[-1] for task in (measured, alone)]
    assert fallen[0] > 0.5 * fallen[1] > 0, fallen


@pytest.mark.training
@pytest.mark.parametrize("quantization", ["8bit", "4bit"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_quantized_base_stays_in_the_type_that_is_computed_in(
    new_task: NewTask, monkeypatch: pytest.MonkeyPatch, quantization: str, checkpointing: bool
):
    """Not in fp32, which is 2.2 GB more for a model of 7B; its gradients flow all the same."""
    import torch

    from sage_studio.training import trainer

    seen: dict[str, Any] = {}
    right = trainer.fit

    def fit(run: Any, trainer: Any) -> None:
        right(run, trainer)
        model = trainer.model.get_base_model()
        seen["types"] = {parameter.dtype for parameter in (model.get_input_embeddings().weight, model.lm_head.weight)}
        seen["norm"] = model.model.norm.weight.dtype
        weights = dict(trainer.model.named_parameters())
        seen["still"] = [name for name, weight in weights.items() if "lora_B" in name and not weight.any()]

    monkeypatch.setattr(trainer, "fit", fit)
    new_task(quantization=quantization, gradient_checkpointing=checkpointing, precision="bf16").run()
    assert seen == {"types": {torch.bfloat16}, "norm": torch.bfloat16, "still": []}


def test_accumulation_and_samples_count(new_task: NewTask):
    result = new_task(gradient_accumulation_steps=3, max_samples=7).run()
    assert (result.rows, result.steps) == (7, 2)  # 4 batches, 3 and 1


def test_the_cpu_loss_is_the_models_own(new_task: NewTask, tiny_model: Path):
    """Logits for the answers only, but the same number as the model's own loss over the whole rows."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from sage_studio.training.tokenize import ANSWERS, IGNORED, read_rows

    task = new_task(precision="fp32", per_device_train_batch_size=8, max_steps=1, max_grad_norm=1000)
    task.run()
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    encoded = ANSWERS.encode(read_rows(task.path.with_suffix(".jsonl")), tokenizer, 96)
    length = max(map(len, encoded.columns["input_ids"]))
    pad = [length - len(ids) for ids in encoded.columns["input_ids"]]
    model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    with torch.no_grad():
        whole = model(
            input_ids=torch.tensor([ids + [0] * n for ids, n in zip(encoded.columns["input_ids"], pad, strict=True)]),
            attention_mask=torch.tensor([[1] * (length - n) + [0] * n for n in pad]),
            labels=torch.tensor([ids + [IGNORED] * n for ids, n in zip(encoded.columns["labels"], pad, strict=True)]),
        ).loss.item()
    assert task.losses[0] == pytest.approx(whole, rel=1e-4)


def test_output_dir_gets_a_copy(new_task: NewTask, tmp_path: Path):
    target = tmp_path / "copy" / "here"
    new_task(output_dir=str(target)).run()
    names = {path.name for path in target.iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "training_args.json"} <= names
    assert not names & {"checkpoints", "progress.jsonl", "result.json", "train.log"}


def test_output_dir_with_something_in_it_is_refused_before_training(new_task: NewTask, tmp_path: Path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    task = new_task(output_dir=str(tmp_path / "mine"))
    result = task.run(expect=1)
    assert "not empty" in result.message[0]
    assert task.losses == []
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_rows_cut_to_nothing_are_dropped_and_counted(new_task: NewTask, capsys: pytest.CaptureFixture[str]):
    short = {"prompt": [{"role": "user", "content": "Hi"}], "completion": [{"role": "assistant", "content": "Yes"}]}
    long = {**short, "prompt": [{"role": "user", "content": "word " * 200}]}
    result = new_task(rows=[long, short, short]).run()
    assert (result.rows, result.details["rows_dropped"], result.details["rows_used"]) == (3, 1, 2)
    assert "1 of 3 rows left out" in capsys.readouterr().out


@pytest.mark.parametrize("content", [None, b"", b"not json\n", b'{"prompt": [], "completion": []}\n', b"\xff\xfe\n"])
def test_bad_data_fails_as_data(new_task: NewTask, content: bytes | None):
    task = new_task()
    data = task.path.with_suffix(".jsonl")
    if content is None:
        data.unlink()
    else:
        data.write_bytes(content)
    result = task.run(expect=1)
    assert (result.status, result.reason) == ("failed", Reason.DATA)
    assert all(result.message)
    assert all(result.hint)


def test_rows_whose_answers_are_all_cut_off_fail_as_data(new_task: NewTask):
    result = new_task(max_length=16).run(expect=1)
    assert result.reason == Reason.DATA
    assert "max_length = 16" in result.message[0]


@pytest.mark.parametrize("damage", ["gone", "empty", "cut weights", "no config"])
def test_a_model_that_cannot_be_loaded_fails_as_model(new_task: NewTask, tiny_model: Path, tmp_path: Path, damage: str):
    import shutil

    broken = tmp_path / "broken"
    if damage == "empty":
        broken.mkdir()
    elif damage != "gone":
        shutil.copytree(tiny_model, broken)
        weights = broken / "model.safetensors"
        if damage == "no config":
            (broken / "config.json").unlink()
        else:
            weights.write_bytes(weights.read_bytes()[:1000])
    result = new_task(job={"model_location": str(broken)}).run(expect=1)
    assert result.reason == Reason.MODEL
    assert str(broken) in result.message[0]
    assert all(result.hint)


def test_a_tokenizer_without_chat_template_fails_as_model(new_task: NewTask, tiny_model: Path, tmp_path: Path):
    import shutil

    bare = tmp_path / "bare"
    shutil.copytree(tiny_model, bare)
    (bare / "chat_template.jinja").unlink()
    result = new_task(job={"model_location": str(bare)}).run(expect=1)
    assert result.reason == Reason.MODEL
    assert "chat template" in result.message[0]


@pytest.mark.parametrize("targets", ["q_proj,nonsense", ",", "lm_head"])
def test_target_modules_that_are_not_there_fail_as_model(new_task: NewTask, targets: str):
    result = new_task(lora_target_modules=targets).run(expect=1)
    assert result.reason == Reason.MODEL
    assert "q_proj" in result.hint[0]


def test_target_modules_by_name(new_task: NewTask):
    task = new_task(lora_target_modules="q_proj, v_proj")
    task.run()
    config = json.loads((task.path / "adapter_config.json").read_text())
    assert sorted(config["target_modules"]) == ["q_proj", "v_proj"]


def test_a_diverging_run_fails_as_unhealthy(new_task: NewTask, monkeypatch: pytest.MonkeyPatch):
    from sage_studio.training.methods.sft import AnswerTrainer

    right = AnswerTrainer.compute_loss
    monkeypatch.setattr(AnswerTrainer, "compute_loss", lambda *a, **k: right(*a, **k) * float("nan"))
    task = new_task()
    result = task.run(expect=1)
    assert result.reason == Reason.UNHEALTHY
    assert "step 1" in result.message[0]
    assert not (task.path / "adapter_model.safetensors").exists()


def test_a_run_that_learned_nothing_fails_as_unhealthy(new_task: NewTask, monkeypatch: pytest.MonkeyPatch):
    from sage_studio.training.methods.sft import AnswerTrainer

    right = AnswerTrainer.compute_loss
    monkeypatch.setattr(AnswerTrainer, "compute_loss", lambda *a, **k: right(*a, **k) * 0)
    result = new_task().run(expect=1)
    assert result.reason == Reason.UNHEALTHY
    assert "all zero" in result.message[0]


def test_memory_that_does_not_suffice_fails_as_memory(new_task: NewTask, monkeypatch: pytest.MonkeyPatch):
    import torch

    from sage_studio.training.methods.sft import AnswerTrainer

    def greedy(*_: object, **__: object) -> None:
        torch.empty(1 << 60)

    monkeypatch.setattr(AnswerTrainer, "compute_loss", greedy)
    result = new_task().run(expect=1)
    assert result.reason == Reason.MEMORY
    assert "smaller batch" in result.hint[0]


def test_a_bug_is_called_a_bug_and_its_traceback_stays_in_the_log(
    new_task: NewTask, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    from sage_studio.training.methods.sft import AnswerTrainer

    monkeypatch.setattr(AnswerTrainer, "compute_loss", lambda *_, **__: {}["nowhere"])
    result = new_task().run(expect=1)
    assert result.reason == Reason.BUG
    assert "KeyError" in result.message[0]
    assert "nowhere" not in result.message[0]
    assert "train.log" in result.hint[0]
    assert "KeyError: 'nowhere'" in capsys.readouterr().out


def test_a_gpu_that_cuda_cannot_open_ends_the_run_at_once(new_task: NewTask):
    """It would train on the CPU for hours, and nobody would know. Here torch sees no GPU for certain."""
    result = new_task(job={"gpus": "0"}).run(expect=1)
    assert (result.status, result.reason, result.steps) == ("failed", Reason.GPU, 0)
    assert "GPU 0" in result.message[0]
    assert "make doctor" in result.hint[0]


def test_a_model_that_always_computes_all_logits_learns_the_same(new_task: NewTask, monkeypatch: pytest.MonkeyPatch):
    """On a CPU only the answers' logits are asked for; a model that brings its own code may not know how."""
    from transformers import LlamaForCausalLM

    usual = new_task(max_steps=3).run()
    forward = LlamaForCausalLM.forward

    def without_it(
        self: Any,
        input_ids: Any = None,
        attention_mask: Any = None,
        position_ids: Any = None,
        past_key_values: Any = None,
        inputs_embeds: Any = None,
        labels: Any = None,
        use_cache: Any = None,
        output_attentions: Any = None,
        output_hidden_states: Any = None,
        return_dict: Any = None,
    ) -> Any:
        given = {
            name: value for name, value in locals().items() if name not in ("self", "forward") and value is not None
        }
        return forward(self, **given)

    monkeypatch.setattr(LlamaForCausalLM, "forward", without_it)
    assert new_task(max_steps=3, name="second").run().train_loss == pytest.approx(usual.train_loss, rel=1e-4)
