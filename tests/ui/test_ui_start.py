"""From a click on Start to a run that is seen: what a preparation says, downloads, and a model found on the hub."""

from dataclasses import replace
from types import SimpleNamespace

import gradio as gr
import pytest

from sage_studio.downloads import Download, DownloadState
from sage_studio.errors import HubUnavailable
from sage_studio.fetching import Transfer
from sage_studio.serving.types import EngineState, EngineStatus
from sage_studio.tasks.task import TaskProgress, TaskStatus
from sage_studio.text import verbatim
from sage_studio.training.progress import Event, Phase
from sage_studio.ui.chat.chat_tab import banner
from sage_studio.ui.components.events import follow
from sage_studio.ui.components.progress import doing
from sage_studio.ui.models.downloads_panel import downloads_list
from sage_studio.ui.status_bar import engine_state, running_task, task_line
from sage_studio.ui.tasks.run_view import head
from sage_studio.ui.training.model_search import ModelSearch, described

ROWS = {"done": 3000, "total": 6119, "unit": "rows", "per_second": 500.0, "eta_seconds": 6.2}
BYTES = {"done": 1_200_000_000, "total": 3_100_000_000, "unit": "bytes", "per_second": 24e6, "eta_seconds": 80.0}


SAID = [
    (Phase.UNPACKING, 0.0, {}, "unpacking the model", "解包模型"),
    (Phase.UNPACKING, 12.0, {}, "unpacking the model · 12 s so far", "解包模型 · 已 12 秒"),
    (
        Phase.CHECKING_ROWS,
        0.0,
        ROWS,
        "reading rows 3,000 of 6,119 · 6 s left",
        "读取数据行 3,000，共 6,119 · 剩余 6 秒",
    ),
    (
        Phase.DOWNLOADING,
        0.0,
        BYTES,
        "downloading the model 1.2 GB of 3.1 GB · 24.0 MB/s · 1 min 20 s left",
        "下载模型 1.2 GB，共 3.1 GB · 24.0 MB/秒 · 剩余 1 分 20 秒",
    ),
    (Phase.READING_FILE, 0.0, {"detail": "rows.json"}, "reading the file · rows.json", "读取文件 · rows.json"),
    (Phase.STARTING, 0.0, {}, "starting the trainer", "启动训练进程"),
]


@pytest.mark.parametrize(("phase", "passed", "fields", "en", "zh"), SAID)
def test_what_a_preparation_is_doing(monkeypatch, phase, passed, fields, en, zh):
    monkeypatch.setattr("sage_studio.ui.components.progress.time.time", lambda: 1000.0 + passed)
    now = Event(time=1000.0, phase=phase, **fields)
    assert (doing(now, "en"), doing(now, "zh")) == (en, zh)


def test_the_run_and_the_status_bar_say_it(fake):
    task = replace(fake.tasks.list()[0], status=TaskStatus.PREPARING, started_at=None)
    progress = TaskProgress(
        now=Event(time=1.0, phase=Phase.CHECKING_ROWS, **ROWS), percent=49.0, queue_place=None, seconds=0.0
    )
    shown = head(task, progress, "en")
    assert "reading rows 3,000 of 6,119" in shown
    assert 'aria-valuenow="49"' in shown
    line = task_line(task, progress, "en")
    assert ("Preparing" in line, "reading rows 3,000 of 6,119" in line) == (True, True)


def test_a_task_that_trains_is_shown_before_one_that_is_prepared(fake):
    training = replace(fake.tasks.list()[0], status=TaskStatus.TRAINING, started_at=1.0)
    preparing = replace(training, id="finetune-2", status=TaskStatus.PREPARING, started_at=None)

    two = SimpleNamespace(tasks=SimpleNamespace(list=lambda: [preparing, training]))
    assert running_task(two) is training


def test_the_engine_says_how_far_its_model_is():
    transfer = Transfer("lab/tiny", 1_200_000_000, 3_100_000_000, 24e6, 80.0)
    status = EngineStatus(EngineState.DOWNLOADING, "vllm", download=transfer)
    assert engine_state(status, "en") == "downloading 1.2 GB of 3.1 GB · 24.0 MB/s · 1 min 20 s left"
    assert 'aria-valuenow="39"' in banner(status, "zh")


def test_downloads_offer_to_cancel_and_to_go_on():
    under_way = Download("lab/tiny", DownloadState.RUNNING, Transfer("lab/tiny", 5, 10), 1.0)
    failed = replace(under_way, name="lab/<b>", state=DownloadState.FAILED, message=verbatim("No.", "不。"))
    complete = replace(under_way, name="lab/done", state=DownloadState.COMPLETED)
    shown = downloads_list([under_way, failed, complete], "en")
    assert 'data-download="cancel:lab/tiny"' in shown
    assert 'data-download="go-on:lab/&lt;b&gt;"' in shown
    assert "No." in shown
    assert "lab/done" not in shown
    assert downloads_list([complete], "en") == ""


def test_outputs_shown_in_an_answer_are_not_sent_again():
    """What `follow` would send next is compared with what the answer showed."""
    shown = ["a", "b"]
    with gr.Blocks() as page:
        first, second = gr.Textbox(), gr.Textbox()
        followed = follow([page.load], lambda _: shown, [], [first, second])
    assert followed.outputs[1:] == [first, second]
    marks, *values = followed.now("en")
    assert (len(marks), values) == (2, shown)


def test_a_search_that_finds_nothing_or_no_hub_is_said_quietly(fake, monkeypatch):
    search = ModelSearch.__new__(ModelSearch)
    search.studio = fake
    found, said = search.find("en", "qwen3-4b", "sft")
    assert [name for _, name in found["choices"]] == ["Qwen/Qwen3-4B", "Qwen/Qwen3-4B-Instruct-2507"]
    assert "2 found" in said
    assert "no-such" in search.find("en", "no-such", "sft")[1]
    assert "two letters" in search.find("en", "q", "sft")[1]

    def away(*_):
        raise HubUnavailable(verbatim("No hub.", "无法连接。"))

    monkeypatch.setattr(fake.models, "search", away)
    found, said = search.find("zh", "qwen3", "sft")
    assert (found["visible"], "无法连接。" in said) == (False, True)


def test_a_gated_model_is_marked(fake):
    (llama,) = fake.models.search("llama-3.2-1b")
    assert described(llama, "en") == "meta-llama/Llama-3.2-1B-Instruct · 1.2 B · needs an agreement"


# In a browser


@pytest.fixture
def tab(browser, address, fake):
    context = browser.new_context(locale="en-US", viewport={"width": 1440, "height": 900})
    page = context.new_page()
    page.set_default_timeout(20_000)
    page.goto(address)
    page.wait_for_selector("#status-bar .brand")
    before = list(fake.tasks.kept)
    yield page
    context.close()
    fake.tasks.kept, fake.models.kept = before, []


@pytest.mark.browser
def test_start_shows_the_new_run_in_its_own_answer(tab, fake):
    tab.click("#train-button")
    tab.wait_for_selector("#run-head .chip")
    known = {task.id for task in fake.tasks.kept}
    answers = []
    tab.on("response", lambda answer: answers.append(answer.url))
    tab.click("#train-start")
    tab.wait_for_function(
        "known => !known.some((id) => document.querySelector('#run-head').innerText.includes(id))", arg=sorted(known)
    )
    started = next(task.id for task in fake.tasks.kept if task.id not in known)
    assert started in tab.inner_text("#run-head")
    tab.wait_for_selector("#train-start:not([aria-busy=true])")
    tab.wait_for_function(f"location.search.includes('task={started}')")


@pytest.mark.browser
def test_a_model_found_on_the_hub_fills_the_field(tab):
    tab.click("#train-button")
    tab.click("#model-search > button")
    tab.fill("#model-search-text input, #model-search-text textarea", "phi-4-mini")
    tab.click("#model-search-button")
    tab.click("#model-search-results label")
    tab.wait_for_function(
        "document.querySelector('#field-model_name_or_path input').value === 'microsoft/Phi-4-mini-instruct'"
    )


@pytest.mark.browser
def test_a_download_is_cancelled_and_continued_on_the_models_tab(tab, fake):
    fake.models.download("lab/tiny")
    tab.click("#models-button")
    tab.click("[data-download='cancel:lab/tiny']")
    tab.wait_for_selector("#models-downloads >> text=The download was cancelled.")
    tab.click("[data-download='go-on:lab/tiny']")
    tab.wait_for_selector("[data-download='cancel:lab/tiny']")
