"""The page in a real browser, over a studio in memory: every tab, both languages, both sizes; dialogs and toasts."""

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
        tab.set_default_timeout(20_000)
        tab.faults, tab.foreign = [], []
        tab.on("console", lambda message: tab.faults.append(message.text) if message.type == "error" else None)
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
    assert not any(model.name.endswith("1763760000") for model in fake.list_models())


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
