"""What the page says of a run before it starts, what it offers after one, and runs beside each other."""

import json
import shlex

import gradio as gr
import yaml
from fake_studio import FakeStudio

from sage_studio.cli import parser
from sage_studio.forecast import GIB, Forecast
from sage_studio.tasks.task import TaskStatus
from sage_studio.text import Text
from sage_studio.training.actions import Action
from sage_studio.training.memory import Memory
from sage_studio.training.recipes import SFTRecipe
from sage_studio.ui import commands
from sage_studio.ui.before_panel import forecast_view
from sage_studio.ui.labels import NEXT_ACTION
from sage_studio.ui.next_steps import offered_next
from sage_studio.ui.runs_panel import differences, named

VALUES = {"model_name_or_path": "m", "dataset_id": "d-v1", "max_samples": 8.0, "use_lora": False, "name": ""}


def forecast(fake, batch):
    values = {"model_name_or_path": "m", "dataset_id": "d", "per_device_train_batch_size": batch}
    return fake.known_estimate(values)


def test_a_run_that_fits_says_so_with_its_parts_and_the_last_time(fake):
    shown = forecast_view(forecast(fake, 1), "en")
    assert "Needs about 4.1 GB · 6.0 GB free" in shown
    assert ">fits ✓</b>" in shown
    assert "activations 1.6" in shown
    assert "Measured in the last run: 4.2 GB" in shown
    assert "data-changes" not in shown


def test_a_run_that_does_not_fit_offers_changes_as_buttons(fake):
    shown = forecast_view(forecast(fake, 8), "zh")
    assert "不够" in shown
    changes = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    assert json.dumps(changes).replace('"', "&#34;") in shown


def test_where_nothing_helps_that_is_said():
    memory = Memory(1 * GIB, 9 * GIB, 0, 0, 0, 0)
    nothing = Forecast(memory, "cpu", GIB, GIB, None, 0, 0, (), (Text("A <b>remark</b>.", "备注"),))
    shown = forecast_view(nothing, "en")
    assert "smaller model" in shown
    assert "A &lt;b&gt;remark" in shown


def test_only_what_differs_from_the_defaults_stands_in_the_commands():
    assert commands.chosen(SFTRecipe, VALUES) == {
        "model_name_or_path": "m",
        "dataset_id": "d-v1",
        "max_samples": 8,
        "use_lora": False,
    }


def test_the_shell_command_says_the_same_recipe(settings):
    line, trainer = commands.command("sft", commands.chosen(SFTRecipe, VALUES), settings).splitlines()
    words = shlex.split(line)
    assert words[:3] == ["python", "-m", "sage_studio.cli"]
    fields = parser().parse_args(words[3:]).fields
    said = {key: yaml.safe_load(text) for key, text in (field.split("=", 1) for field in fields)}
    assert SFTRecipe.model_validate(said).max_samples == 8
    assert said["use_lora"] is False
    assert "python -m sage_studio.training" in trainer


def test_several_cards_are_driven_by_accelerate(settings):
    trainer = commands.command("sft", {"gpu_vis": "0,2"}, settings).splitlines()[1]
    assert "CUDA_VISIBLE_DEVICES=0,2 accelerate launch --multi_gpu --num_processes 2 -m sage_studio.training" in trainer


def test_the_script_is_python_and_the_call_is_json():
    values = commands.chosen(SFTRecipe, {**VALUES, "name": "it's “mine”"})
    compile(commands.client_script("sft", values, "http://127.0.0.1:7860"), "script", "exec")
    words = shlex.split(commands.curl("sft", values, "http://127.0.0.1:7860"))
    assert json.loads(words[-1]) == {"type": "sft", "config": values}


def test_the_remedy_of_a_failed_task_is_a_button_under_its_name(fake):
    failed = next(task for task in fake.list_tasks() if task.status is TaskStatus.FAILED)
    remedy, reproduce = offered_next(failed, "en")
    assert (remedy["visible"], remedy["value"]) == (True, NEXT_ACTION[failed.next_action].en)
    assert reproduce["visible"] is False


def test_a_stopped_task_has_its_resume_button_and_a_completed_one_can_be_reproduced(fake):
    by_status = {task.status: offered_next(task, "zh") for task in fake.list_tasks()}
    assert [update["visible"] for update in by_status[TaskStatus.STOPPED]] == [False, False]
    assert [update["visible"] for update in by_status[TaskStatus.COMPLETED]] == [False, True]
    assert [update["visible"] for update in offered_next(None, "en")] == [False, False]


def test_every_action_has_a_name():
    assert set(NEXT_ACTION) == set(Action)


def test_runs_beside_each_other():
    fake = FakeStudio()
    first, second = fake.list_tasks()[:2]
    shown = differences(fake.compare_tasks([first.id, second.id]), "en")
    assert "All settings are the same." in shown
    assert named(first) != named(second)
    shown = differences(fake.compare_tasks([first.id, fake.start_finetune({**second.recipe, "lora_r": 8}).id]), "zh")
    assert "秩 r" in shown


def test_the_page_has_the_parts(page):
    ids = {block.elem_id for block in page.blocks.values() if getattr(block, "elem_id", None)}
    assert {"train-price", "train-commands", "task-next", "task-reproduce", "task-again", "runs-picker"} <= ids


def test_a_draft_fills_the_form(page):
    """Every input of the form is an output of the handler that takes a draft over."""
    taken = [fn for fn in page.fns.values() if fn.fn is not None and fn.fn.__name__ == "ui_use_draft"]
    assert len(taken) == 1
    names = {out.elem_id for out in taken[0].outputs if not isinstance(out, gr.State)}
    assert {f"field-{name}" for name in SFTRecipe.model_fields if name != "type"} <= names
