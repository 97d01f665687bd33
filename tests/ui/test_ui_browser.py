"""The page in a real browser, over a studio in memory: every tab, both languages, both sizes; dialogs and toasts."""

from dataclasses import replace

import pytest

pytestmark = pytest.mark.browser

SIZES = {"desktop": (1440, 900), "phone": (390, 844)}
LOCALES = {"zh": "zh-CN", "en": "en-US"}
TABS = {"dataset": "数据集", "train": "训练", "tasks": "任务", "chat": "对话", "models": "模型"}
DONE = "finetune-1763760000"


@pytest.fixture
def opened(browser, address):
    contexts = []

    def open_page(language: str = "zh", size: str = "desktop"):
        width, height = SIZES[size]
        context = browser.new_context(locale=LOCALES[language], viewport={"width": width, "height": height})
        contexts.append(context)
        tab = context.new_page()
        tab.faults, tab.foreign = [], []
        tab.on(
            "console", lambda said: tab.faults.append(f"{said.text} {said.location}") if said.type == "error" else None
        )
        tab.on("pageerror", lambda error: tab.faults.append(str(error)))
        tab.on("request", lambda asked: None if is_ours(asked.url, address) else tab.foreign.append(asked.url))
        tab.goto(address)
        tab.wait_for_selector("#status-bar .brand")
        return tab

    yield open_page
    for context in contexts:
        context.close()


def is_ours(url: str, address: str) -> bool:
    return url.startswith((address, "data:", "blob:"))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("language", LOCALES)
def test_every_tab_opens_without_a_fault_and_without_sideways_scroll(opened, language, size):
    tab = opened(language, size)
    word = TABS["models"] if language == "zh" else "Models"
    tab.get_by_role("tab", name=word).first.wait_for()
    for name in TABS:
        tab.click(f"#{name}-button")
        tab.wait_for_selector(f"#{name}[role=tabpanel]", state="visible")
        tab.wait_for_selector(f"#{ANCHORS[name]}")
        width, room = tab.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
        assert width <= room, f"{name} is {width - room} px too wide"
    assert tab.faults == []
    assert tab.foreign == []


ANCHORS = {
    "dataset": "dataset-list tr[data-key]",
    "train": "run-head .chip",
    "tasks": "tasks-table tr[data-key]",
    "chat": "chat-message textarea",
    "models": "models-table tr[data-key]",
}


def test_the_language_can_be_switched_and_is_remembered(opened):
    tab = opened("zh")
    tab.click("[data-language=en]")
    tab.wait_for_selector("#status-bar [data-language=zh]")
    tab.get_by_role("tab", name="Dataset").first.wait_for()
    tab.reload()
    tab.get_by_role("tab", name="Dataset").first.wait_for()


def test_escape_cancels_a_dialog_and_focus_returns(opened, fake):
    before = [model.name for model in fake.serving.models()]  # the studio is shared: another test may have set one
    tab = opened()
    tab.click("#tasks-button")
    tab.click(f"#tasks-table tr[data-key={DONE}] td")
    tab.click("#task-backend")
    tab.wait_for_selector("#dialog-backend dialog[open]")
    assert tab.get_by_role("dialog").is_visible()
    assert DONE in tab.inner_text("#dialog-backend .object")
    tab.keyboard.press("Escape")
    tab.wait_for_selector("#dialog-backend dialog[open]", state="detached")
    assert tab.evaluate("document.activeElement.id") == "task-backend"
    assert [model.name for model in fake.serving.models()] == before


def test_a_picked_task_stays_picked_is_in_the_address_and_survives_a_reload(opened):
    tab = opened()
    tab.click("#tasks-button")
    tab.click(f"#tasks-table tr[data-key={DONE}] td")
    tab.wait_for_function(f"location.search.includes('task={DONE}')")
    tab.wait_for_selector(f"#tasks-table tr[data-key={DONE}][aria-selected=true]")
    tab.reload()
    tab.click("#tasks-button")
    tab.wait_for_selector(f"#tasks-table tr[data-key={DONE}][aria-selected=true]")
    tab.wait_for_selector("#task-backend")


def test_a_wrong_value_is_a_toast_in_the_persons_language_and_nothing_is_lost(opened):
    tab = opened()
    tab.click("#train-button")
    tab.fill("#field-num_train_epochs input", "0")
    tab.fill("#field-name input, #field-name textarea", "my run")
    tab.click("#train-start")
    tab.wait_for_selector("text=必须大于 0")
    assert tab.input_value("#field-num_train_epochs input") == "0"
    assert tab.input_value("#field-name input, #field-name textarea") == "my run"


def test_set_as_backend_and_talk(opened):
    tab = opened()
    tab.click("#tasks-button")
    tab.click(f"#tasks-table tr[data-key={DONE}] td")
    tab.click("#task-backend")
    tab.click("#dialog-backend [data-answer=ok]")
    tab.wait_for_selector("text=✅ 已切换到微调模型: sage-finetuned-1763760000")
    tab.click("#task-chat")
    tab.fill("#chat-message textarea", "什么是窗口？")
    tab.click("#chat-send")
    tab.wait_for_selector(".answered-by >> text=sage-finetuned-1763760000 · 18.2 tok/s")


def test_compare_shows_the_answers_side_by_side_and_a_blind_vote_reveals_who_is_who(opened, fake):
    for task in (DONE, "finetune-1763750000"):
        fake.serving.use_task(task)
    tab = opened()
    tab.click("#chat-button")
    tab.check("#chat-compare input")
    tab.wait_for_selector("#compare-columns >> text=对比回答")
    assert not tab.is_visible("#chat-message")
    tab.fill("#compare-message textarea", "什么是窗口？")
    tab.click("#compare-send")
    tab.wait_for_selector(".reply header >> text=sage-finetuned-1763760000")
    tab.wait_for_selector(".reply[aria-busy=false] >> nth=1")
    assert tab.locator(".reply").count() == 2
    assert tab.locator(".reply >> text=tok/s").count() == 2
    assert tab.input_value("#compare-message textarea") == ""
    assert tab.locator("[data-vote]").count() == 0, "only a blind comparison is voted on"
    first, second = (tab.locator(".reply").nth(place).bounding_box() for place in (0, 1))
    assert abs(first["y"] - second["y"]) < 2 < first["width"] < second["x"]

    tab.check("#compare-blind input")
    tab.fill("#compare-message textarea", "Wer bist du?")
    tab.click("#compare-send")
    tab.wait_for_selector("[data-vote='-1']")
    assert "sage-finetuned" not in tab.inner_text(".replies")
    assert [tab.inner_text(f".reply >> nth={place} >> .letter") for place in (0, 1)] == ["A", "B"]
    tab.click("[data-vote='1']")
    tab.wait_for_selector(".reply.won >> text=你的选择")
    winner = tab.get_attribute(".reply.won header code", "title")
    assert (fake.chat.kept_votes[0].message, fake.chat.kept_votes[0].winner) == ("Wer bist du?", winner)
    assert sorted(fake.chat.kept_votes[0].models) == ["sage-finetuned-1763750000", "sage-finetuned-1763760000"]
    tab.wait_for_selector(f"#compare-tally >> text={winner}")
    assert tab.locator("[data-vote]").count() == 0
    tab.uncheck("#chat-compare input")
    tab.wait_for_selector("#chat-message", state="visible")
    assert tab.faults == []


def test_one_models_fault_stands_in_its_column_on_a_phone_below_the_other(opened, fake):
    fake.serving.kept.insert(0, replace(fake.serving.models()[0], name="broken-1", current=False))
    tab = opened("en", "phone")
    tab.click("#chat-button")
    tab.check("#chat-compare input")
    tab.click("#compare-models input")
    tab.get_by_role("option").filter(has_text="broken-1").click()
    tab.keyboard.press("Escape")
    tab.fill("#compare-message textarea", "What is a window?")
    tab.click("#compare-send")
    tab.wait_for_selector(".reply >> text=The engine cannot load broken-1. >> visible=true")
    tab.wait_for_function("document.querySelectorAll('.reply[aria-busy=false]').length === 3")
    boxes = [tab.locator(".reply").nth(place).bounding_box() for place in range(3)]
    assert boxes[0]["y"] < boxes[1]["y"] < boxes[2]["y"]
    assert tab.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    assert tab.locator(".answer script").count() == 0
    fake.serving.kept.pop(0)


def test_a_model_is_unloaded_and_deleted_after_a_question_but_not_the_current_one(opened, fake):
    fake.serving.use_task("finetune-1763750000")
    fake.serving.use_task(DONE)
    tab = opened()
    tab.click("#models-button")
    row = "#models-table tr[data-key='sage-finetuned-{}'] td:nth-child(2)"
    tab.click(row.format("1763760000"))
    tab.wait_for_selector("#model-use:enabled")
    assert tab.is_disabled("#model-delete")
    assert tab.is_disabled("#model-unload")
    tab.click(row.format("1763750000"))
    tab.click("#model-unload:enabled")
    tab.wait_for_selector("#models-notice >> text=已从引擎卸载")
    tab.click("#model-delete")
    tab.wait_for_selector("#dialog-delete-model dialog[open]")
    assert "sage-finetuned-1763750000" in tab.inner_text("#dialog-delete-model .object")
    tab.click("#dialog-delete-model [data-answer=ok]")
    tab.wait_for_selector("#models-table tr[data-key='sage-finetuned-1763750000']", state="detached")
    assert not any(model.name == "sage-finetuned-1763750000" for model in fake.serving.models())


def test_the_engines_performance_is_plotted(opened):
    tab = opened()
    tab.click("#models-button")
    tab.wait_for_selector("#metrics-figures >> text=tok/s")
    for plot in ("speed", "requests", "first-token", "latency", "cache", "gpu-memory", "gpu-load"):
        tab.wait_for_selector(f"#metrics-{plot} canvas, #metrics-{plot} svg.marks", state="visible")
    assert tab.faults == []
