"""What the page says of a run before it starts, what it offers after one, and runs beside each other."""

import json
import shlex
from dataclasses import replace

import gradio as gr
import pytest
import yaml
from fake_studio import FakeStudio

from sage_studio.cli import parser
from sage_studio.services.estimates import GIB, Estimate
from sage_studio.tasks.task import TaskStatus
from sage_studio.text import verbatim
from sage_studio.training.duration import Duration
from sage_studio.training.failures import Action
from sage_studio.training.memory import MemoryEstimate
from sage_studio.training.recipes import SFTRecipe
from sage_studio.ui.components.format import about
from sage_studio.ui.components.labels import NEXT_ACTION
from sage_studio.ui.components.localization import LabelRegistry
from sage_studio.ui.components.page_context import PageContext
from sage_studio.ui.datasets.augment_panel import AugmentPanel
from sage_studio.ui.tasks.runs_panel import differences, named
from sage_studio.ui.tasks.task_actions import offered_next
from sage_studio.ui.training import commands
from sage_studio.ui.training.estimate_panel import estimate_view
from sage_studio.ui.training.training_tab import TrainingTab

VALUES = {"model_name_or_path": "m", "dataset_id": "d-v1", "max_samples": 8.0, "use_lora": False, "name": ""}


def forecast(fake, batch):
    values = {"model_name_or_path": "m", "dataset_id": "d", "per_device_train_batch_size": batch}
    return fake.estimates.known(values)


def test_a_run_that_fits_says_so_with_its_parts_and_the_last_time(fake):
    shown = estimate_view(forecast(fake, 1), "en")
    assert "Needs about 4.1 GB · 6.0 GB free" in shown
    assert ">fits ✓</b>" in shown
    assert "activations 1.6" in shown
    assert "Measured in the last run: 4.2 GB" in shown
    assert "data-changes" not in shown


def test_a_run_that_does_not_fit_offers_changes_as_buttons(fake):
    shown = estimate_view(forecast(fake, 8), "zh")
    assert "不够" in shown
    changes = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    assert json.dumps(changes).replace('"', "&#34;") in shown


def test_where_nothing_helps_that_is_said():
    memory = MemoryEstimate(1 * GIB, 9 * GIB, 0, 0, 0, 0)
    nothing = Estimate(memory, "cpu", GIB, GIB, None, 0, 0, (), (verbatim("A <b>remark</b>.", "备注"),))
    shown = estimate_view(nothing, "en")
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


def test_several_gpus_are_driven_by_accelerate(settings):
    trainer = commands.command("sft", {"gpu_vis": "0,2"}, settings).splitlines()[1]
    assert "CUDA_VISIBLE_DEVICES=0,2 accelerate launch --multi_gpu --num_processes 2 -m sage_studio.training" in trainer


def test_the_script_is_python_and_the_call_is_json():
    values = commands.chosen(SFTRecipe, {**VALUES, "name": "it's “mine”"})
    compile(commands.client_script("sft", values, "http://127.0.0.1:7860"), "script", "exec")
    words = shlex.split(commands.curl("sft", values, "http://127.0.0.1:7860"))
    assert json.loads(words[-1]) == {"type": "sft", "config": values}


def test_the_remedy_of_a_failed_task_is_a_button_under_its_name(fake):
    failed = next(task for task in fake.tasks.list() if task.status is TaskStatus.FAILED)
    remedy, reproduce = offered_next(failed, "en")
    assert (remedy["visible"], remedy["value"]) == (True, NEXT_ACTION[failed.next_action].en)
    assert reproduce["visible"] is False


def test_a_stopped_task_has_its_resume_button_and_a_completed_one_can_be_reproduced(fake):
    by_status = {task.status: offered_next(task, "zh") for task in fake.tasks.list()}
    assert [update["visible"] for update in by_status[TaskStatus.STOPPED]] == [False, False]
    assert [update["visible"] for update in by_status[TaskStatus.COMPLETED]] == [False, True]
    assert [update["visible"] for update in offered_next(None, "en")] == [False, False]


def test_every_action_has_a_name():
    assert set(NEXT_ACTION) == set(Action)


def test_runs_beside_each_other():
    fake = FakeStudio()
    first, second = fake.tasks.list()[:2]
    shown = differences(fake.tasks.compare([first.id, second.id]), "en")
    assert "All settings are the same." in shown
    assert named(first) != named(second)
    shown = differences(fake.tasks.compare([first.id, fake.training.start({**second.recipe, "lora_r": 8}).id]), "zh")
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


def test_time_stands_before_memory_and_says_what_all_rows_would_take(fake):
    values = {"model_name_or_path": "m", "dataset_id": "sage-docs-v3", "max_samples": 256, "num_train_epochs": 1}
    shown = str(estimate_view(fake.estimates.known(values), "en"))
    assert "<b>About 3 min</b> on 256 of 5,412 rows" in shown
    assert "All 5,412 rows would take about 55 min on this GPU." in shown
    assert shown.index("About 3 min") < shown.index("Needs about")
    assert "全部 5,412 行在此 GPU 上约需 55 分" in estimate_view(fake.estimates.known(values), "zh")


def test_a_rough_time_is_a_range_and_a_long_one_offers_fewer_rows(fake):
    forecast = fake.estimates.known({"model_name_or_path": "m", "dataset_id": "sage-docs-v3"})
    rough = Duration(40_000.0, 16_000.0, 80_000.0, "rough", 6119, 6119)
    shown = estimate_view(replace(forecast, device="cpu", duration=rough), "en")
    assert "Roughly 4.5 h to 22 h" in shown or "Roughly 4.5 h to 20 h" in shown
    assert json.dumps({"max_samples": 256}).replace('"', "&#34;") in shown
    unknown = estimate_view(replace(forecast, duration=None, untimed=verbatim("Not yet.", "还没有。")), "en")
    assert "Not yet." in unknown


def test_without_a_dataset_the_first_sentence_leads_to_one_and_start_waits():
    with gr.Blocks():
        tab = TrainingTab(frame_of(FakeStudio(empty=True)))
    values = ["" if name == "dataset_id" else box.value for name, box in tab.inputs.items()]
    for language, sentence in (("en", "Choose a dataset first."), ("zh", "请先选择数据集。")):
        missing, price, _, start = tab.before.show(language, "sft", *values)
        assert sentence in missing
        assert "<button" in missing
        assert price == ""
        assert start["interactive"] is False
    given = [
        ("sage-docs-v3" if name == "dataset_id" else value) for name, value in zip(tab.inputs, values, strict=True)
    ]
    assert tab.before.show("en", "sft", *given)[3]["interactive"] is True
    wrong = [0 if name == "num_train_epochs" else value for name, value in zip(tab.inputs, given, strict=True)]
    assert "Epochs: it must be greater than 0" in tab.before.show("en", "sft", *wrong)[1]


def frame_of(studio):
    """What a tab of a page gets."""
    page = gr.context.Context.root_block
    states = [gr.State(""), gr.State(""), gr.State(0), gr.State(None)]
    return PageContext(studio, LabelRegistry(), gr.Tabs(), gr.Timer(2.0), page, *states)


def test_augmenting_begins_with_a_sample_and_its_price(fake):
    with gr.Blocks():
        panel = AugmentPanel(frame_of(fake))
    assert panel.most.value == 20
    said = str(panel.show_price("en", "sage-docs-v3", "paraphrase", "both", 2, 20)[0])
    assert "20 of 5,412 rows · 80 calls" in said
    assert "tokens/s" in said
    every = str(panel.show_price("zh", "sage-docs-v3", "back_translation", "question", 1, 0)[0])
    assert "10,824" in every


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(4, "10 s"), (47, "50 s"), (100, "2 min"), (170, "3 min"), (2700, "45 min"), (5000, "85 min"), (6000, "1.5 h")],
)
def test_a_time_nobody_knows_exactly_is_rounded(seconds, said):
    assert about(seconds, "en") == said
