"""The page as it is built: its parts have the ids that its docstring promises, and only named endpoints are public."""

import re
from dataclasses import replace

import gradio as gr
import pytest
from fake_studio import SOURCES, FakeStudio

from sage_studio.errors import NotFound
from sage_studio.services.rag import RetrieverStatus
from sage_studio.serving.retriever import IndexStatus, RetrieverConfig
from sage_studio.serving.types import ChatChunk
from sage_studio.space import Space
from sage_studio.tasks.task import TaskStatus
from sage_studio.text import verbatim
from sage_studio.training.progress import Result
from sage_studio.training.recipes import SFTRecipe
from sage_studio.ui import page as module
from sage_studio.ui.chat.conversation import conversation, reply, rewind, stopped, unanswered
from sage_studio.ui.chat.documents_panel import documents_of, retriever_line, twice_line
from sage_studio.ui.components.dialogs import Dialog
from sage_studio.ui.status_bar import StatusBar
from sage_studio.ui.tasks import other_work
from sage_studio.ui.tasks.run_view import head
from sage_studio.ui.tasks.tasks_tab import BACKEND, BACKEND_QUESTION, BACKEND_TITLE, offered
from sage_studio.ui.tasks.tasks_table import download_link, tasks_table


def ids(page: gr.Blocks) -> set[str]:
    return {block.elem_id for block in page.blocks.values() if getattr(block, "elem_id", None)}


def test_every_promised_id_is_there(page):
    promised = re.findall(
        r"\b[a-z]+(?:-[a-z]+)+\b", (module.__doc__ or "").split("have a stable")[-1].split("A table")[0]
    )
    names = {name for name in promised if not name.startswith(("data-",))} | {
        "tabs",
        "dataset",
        "train",
        "tasks",
        "chat",
        "models",
    }
    assert names - ids(page) - {"elem-id"} == set()


def test_every_field_of_the_recipe_has_its_input(page):
    assert {f"field-{name}" for name in SFTRecipe.model_fields if name != "type"} <= ids(page)


def test_the_pages_own_events_are_private(page):
    public = {fn.api_name for fn in page.fns.values() if fn.api_visibility == "public"}
    assert {"start_finetune", "chat", "use_as_backend"} <= public
    assert all(not str(name).startswith("ui_") for name in public)


def test_tabs_hold_nothing_but_tabs(page):
    """Gradio numbers the children of Tabs; anything else among them shifts the labels."""
    tabs = next(block for block in page.blocks.values() if isinstance(block, gr.Tabs))
    assert [child.id for child in tabs.children] == ["dataset", "train", "tasks", "chat", "models"]


def test_handlers_that_change_a_state_are_queued(page):
    """Gradio reports a changed state only through the queue; without it the views would not follow."""
    listened = {
        target for fn in page.fns.values() for target, event in fn.targets if event == "change" and target is not None
    }
    for fn in page.fns.values():
        changed = [out for out in fn.outputs if isinstance(out, gr.State) and out._id in listened]
        assert fn.queue or not changed, fn.fn.__name__


@pytest.mark.parametrize("language", ["en", "zh"])
def test_an_empty_studio_says_what_to_do_first(language):
    assert 'class="empty"' in tasks_table(FakeStudio(empty=True), "all", "", language)


@pytest.mark.parametrize(("chosen", "rows"), [("all", 6), ("running", 3), ("done", 1), ("failed", 2)])
def test_the_filter_lets_its_kind_through(fake, chosen, rows):
    assert tasks_table(fake, chosen, "", "zh", "train").count("data-key=") == rows


def test_the_kind_lets_trainings_or_other_tasks_through():
    fake = FakeStudio()
    (job,) = [fake.datasets.augment(dataset_id=fake.datasets.list()[0].id)]
    trained = [task.id for task in fake.tasks.list()]
    for kind, shows_trainings, shows_job in (("", True, True), ("train", True, False), ("augment", False, True)):
        shown = tasks_table(fake, "all", "", "en", kind)
        assert (trained[0] in shown, f"{job.id}<" in shown or f'"{job.id}"' in shown) == (shows_trainings, shows_job)
    assert "Paraphrase" in tasks_table(fake, "running", "", "en", "augment")
    assert "No task of this kind" in tasks_table(fake, "all", "", "en", "annotate")


def test_a_state_offers_what_can_be_done_with_it():
    fake = FakeStudio()
    can = {task.status: [update["visible"] for update in offered(task)] for task in fake.tasks.list()}
    assert can[TaskStatus.COMPLETED] == [True, False, False, False]
    assert can[TaskStatus.FAILED] == [False, False, True, False]
    assert can[TaskStatus.TRAINING] == [False, False, False, True]
    links = {task.status: str(download_link(task, "zh")) for task in fake.tasks.list()}
    assert "api/finetune/tasks/finetune-1763760000/download" in links[TaskStatus.COMPLETED]
    assert links[TaskStatus.TRAINING] == ""


def test_an_embedder_is_offered_as_the_retriever_and_not_as_the_backend():
    task = next(task for task in FakeStudio().tasks.list() if task.status is TaskStatus.COMPLETED)
    backend, retriever, *_ = offered(replace(task, type="embedding"))
    assert (backend["visible"], retriever["visible"]) == (False, True)


def test_what_was_measured_before_and_after_is_shown():
    fake = FakeStudio()
    task = next(task for task in fake.tasks.list() if task.status is TaskStatus.COMPLETED)
    details = {"held_out_before": {"ndcg@10": 0.25}, "held_out_after": {"ndcg@10": 0.5}}
    progress = replace(fake.tasks.progress(task.id), result=Result(status="completed", details=details))
    said = head(task, progress, "zh")
    assert "ndcg@10" in said
    assert "+0.25" in said
    assert "ndcg@10" not in head(task, fake.tasks.progress(task.id), "zh")


def test_the_peak_of_a_run_stands_beside_its_estimate():
    fake = FakeStudio()
    by_status = {task.status: head(task, fake.tasks.progress(task.id), "en") for task in fake.tasks.list()}
    done = by_status[TaskStatus.COMPLETED]
    assert "<dt>Peak memory</dt><dd>4.2 GB</dd></div><div><dt>Estimated</dt><dd>4.1 GB</dd>" in done
    assert "Peak" not in by_status[TaskStatus.TRAINING]
    task = next(task for task in fake.tasks.list() if task.status is TaskStatus.COMPLETED)
    unknown = replace(fake.tasks.progress(task.id), result=Result(status="completed", peak_memory_gb=3.04))
    assert "3.0 GB<" in head(task, unknown, "zh")
    assert "预估" not in head(task, unknown, "zh")


def test_sources_stand_folded_under_the_answer_and_are_escaped():
    turn = reply("A window.", ChatChunk("", "m", done=True, sources=SOURCES), "en")
    words, under = (part["text"] for part in turn["content"])
    assert words == "A window."
    assert "2 sources" in under
    assert "guide/windows.md › Windows › What it is" in under
    assert "0.83" in under
    assert "<b>bold" not in under
    assert "sources" not in reply("x", ChatChunk("", "m", done=True), "en")["content"][1]["text"]


def test_an_answer_that_was_looked_up_twice_says_so_and_its_first_answer_is_never_said():
    waiting = reply("", ChatChunk("", "m", look_ups=1), "en")
    assert "first answer" in waiting["content"]
    asked = {"role": "user", "content": "why?"}
    assert stopped("en", [asked, waiting]) == [asked]
    assert conversation([asked, waiting], "") == [asked]
    said = [reply("x", ChatChunk("", "m", done=True, look_ups=times), "zh")["content"][1]["text"] for times in (1, 2)]
    assert ["检索两次" in text for text in said] == [False, True]


def test_the_named_endpoint_looks_up_twice(page):
    chat = next(fn.fn for fn in page.fns.values() if fn.api_name == "chat")
    last = list(chat("What is a window?", documents=True, expand=True))[-1]
    assert (last["look_ups"], len(last["sources"])) == (2, 2)
    assert last["response"].startswith("You asked: What is a window?")


def test_looking_up_twice_is_recommended_for_a_model_that_learned_it():
    assert ["KBAlign" in twice_line(suits, "en") for suits in (False, True)] == [False, True]


@pytest.mark.parametrize(
    ("is_on", "dataset", "told"), [(False, "d-v1", False), (True, "d-v1", "d-v1"), (True, "", True), (True, None, True)]
)
def test_the_switch_says_where_to_look(is_on, dataset, told):
    assert documents_of(is_on, dataset) == told


@pytest.mark.parametrize("state", ["idle", "building", "ready", "failed"])
def test_the_retriever_says_how_far_it_is(state):
    status = RetrieverStatus(
        RetrieverConfig("minilm", ""), IndexStatus(state, "d", 3, 9, verbatim("full disk", "磁盘已满"))
    )
    said = retriever_line(status, "zh")
    assert "minilm" in said
    assert {"building": "3/9", "ready": "9", "failed": "磁盘已满"}.get(state, "索引") in said


def test_a_failed_task_says_why_and_what_to_do():
    fake = FakeStudio()
    task = next(task for task in fake.tasks.list() if task.status is TaskStatus.FAILED)
    said = head(task, fake.tasks.progress(task.id), "zh")
    assert task.reason.zh in said
    assert task.hint.zh in said
    assert "下一步" in said


def test_progress_is_said_as_epochs_and_percent():
    fake = FakeStudio()
    task = next(task for task in fake.tasks.list() if task.status is TaskStatus.TRAINING)
    assert re.search(r"Epoch 2/3 \(6\d%\)", head(task, fake.tasks.progress(task.id), "en"))


def test_the_status_bar_follows_the_engine():
    fake = FakeStudio(start_seconds=60)
    with gr.Blocks():
        bar = StatusBar(fake)
    assert "未启动" in bar.render("zh")[0]
    fake.serving.start_engine()
    assert re.search(r"启动中 \d+ % \(\d+ 秒 / 约 1 分\)", bar.render("zh")[0])
    fake.serving.engine_started -= 61
    assert "就绪 18 tok/s" in bar.render("zh")[0]
    assert re.search(r"训练中.*2/3 轮.* % .*剩 \d+ 分", re.sub(r"<[^>]+>", "", bar.render("zh")[0]))
    fake.serving.engine_fails = True
    assert "出错" in bar.render("zh")[0]


def test_a_dialog_names_the_object_and_escapes_it():
    with gr.Blocks():
        dialog = Dialog("d", BACKEND_TITLE, BACKEND_QUESTION, BACKEND)
    html = dialog.ask("zh", "finetune-1", "<b>x</b>")
    assert "确定要将此微调模型设置为 Studio 的对话后端吗？当前对话将使用此模型。" in html
    assert "&lt;b&gt;x" in html
    assert dialog.ask("zh", "finetune-1", "x") != dialog.ask("zh", "finetune-1", "x"), (
        "the same question must open again"
    )


def test_a_conversation_holds_words_and_no_figures():
    asked = {"role": "user", "content": "why?"}
    done = reply("because", ChatChunk("", "m", done=True, tokens_per_second=18.2, first_token_seconds=0.3), "en")
    assert "18.2 tok/s" in done["content"][1]["text"]
    assert conversation([asked, done], " be brief ") == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "why?"},
        {"role": "assistant", "content": "because"},
    ]


def test_a_lost_answer_keeps_the_message_and_is_not_sent_to_the_model():
    asked = {"role": "user", "content": "why?"}
    lost = unanswered("zh", [asked, {"role": "assistant", "content": "…", "metadata": {"id": "pending"}}])
    assert len(lost) == 2
    assert "没有得到回答" in lost[1]["content"]
    assert conversation(lost, "") == [{"role": "user", "content": "why?"}]
    assert rewind("zh", lost) == [asked]
    assert stopped("zh", lost) == [asked]


def test_the_fake_refuses_what_is_not_there(fake):
    with pytest.raises(NotFound):
        fake.tasks.get("finetune-0")


def test_a_space_adds_its_note(page, fake):
    on_space = module.build_page(fake, Space("ada/studio", "ada", ("ada-studio.hf.space",), has_oauth=False))
    assert ids(on_space) - ids(page) == {"space-note"}


def test_other_work_has_its_log_and_can_be_stopped_and_resumed():
    fake = FakeStudio()
    job = fake.datasets.augment(dataset_id=fake.datasets.list()[0].id)
    ((task, _),) = fake.tasks.others()
    assert f'data-key="{job.id}"' in tasks_table(fake, "all", "", "en"), "it can be picked"
    assert "rows written so far are kept" in other_work.stop_question(task).en
    resume, stop = other_work.buttons(task.status)
    assert (resume["visible"], stop["visible"], stop["interactive"]) == (False, True, True)
    assert "20 / 64" in other_work.head(task, job, "en")
    assert "Stop it first" in other_work.delete_button(False, "en")[1]
    fake.tasks.stop(job.id)
    ((task, stopped),) = fake.tasks.others()
    assert "Resume continues from there" in other_work.head(task, stopped, "en")
    assert [update["visible"] for update in other_work.buttons(task.status)] == [True, False]
    assert other_work.buttons(TaskStatus.STOPPING)[1]["interactive"] is False, "it stops already"
    assert "dataset_id" in other_work.order_table(task, "zh")
