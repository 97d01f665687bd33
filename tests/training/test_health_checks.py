"""The health gate asks what lies on the disk: the saved model, loaded once more."""

from collections.abc import Callable
from typing import Any

import pytest
from safetensors import safe_open

from sage_studio.training import save
from sage_studio.training.progress import Reason

NewTask = Callable[..., Any]


@pytest.mark.parametrize(
    ("use_lora", "file", "text"),
    [
        (True, "adapter_config.json", '{"peft_type": "LORA", "r": 99}'),
        (False, "config.json", '{"model_type": "nobody"}'),
    ],
    ids=["adapter", "full"],
)
def test_what_was_saved_and_cannot_be_loaded_again_fails_as_unhealthy(
    new_task: NewTask, monkeypatch: pytest.MonkeyPatch, use_lora: bool, file: str, text: str
):
    task = new_task(use_lora=use_lora, max_steps=1)
    save_model = save.save_model

    def damaged(run: Any, *rest: Any) -> None:
        save_model(run, *rest)
        (run.folder / file).write_text(text)

    monkeypatch.setattr(save, "save_model", damaged)
    result = task.run(expect=1)
    assert result.reason is Reason.UNHEALTHY
    assert result.message[0].startswith("The saved model cannot be loaded again: ")


@pytest.mark.parametrize("use_lora", [True, False], ids=["adapter", "full"])
def test_the_model_that_is_asked_is_the_saved_one(new_task: NewTask, monkeypatch: pytest.MonkeyPatch, use_lora: bool):
    asked: list[Any] = []
    monkeypatch.setattr(
        "sage_studio.training.health_checks.check_answer", lambda model, _: asked.append(model) or "yes"
    )
    task = new_task(use_lora=use_lora, max_steps=1)
    task.run()
    name = "adapter_model.safetensors" if use_lora else "model.safetensors"
    with safe_open(task.path / name, framework="pt") as saved:
        key = next(key for key in saved.keys() if "q_proj" in key)  # noqa: SIM118 - safe_open is no mapping
        wanted = saved.get_tensor(key)
    state = asked[0].state_dict()
    found = state[key.replace(".weight", ".saved.weight") if use_lora else key]
    assert found.equal(wanted.to(found.dtype))
    assert use_lora or asked[0].name_or_path == str(task.path)


def test_where_there_is_no_room_for_a_second_model_the_one_in_memory_is_asked(
    new_task: NewTask, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("sage_studio.training.health_checks.ROOM", 1e9)
    result = new_task(use_lora=False, max_steps=1).run()
    assert result.details["smoke_answer"]
    assert "not loaded again: too little memory" in capsys.readouterr().out
