"""A page is served in the language that is asked for."""

import io

import gradio as gr
import httpx
import pytest
from babel.messages.pofile import read_po

from sage_studio.text import LANGUAGES, LOCALE, verbatim
from sage_studio.ui.components.localization import COOKIE, LabelRegistry, LocalizedBlocks, requested_language


@pytest.mark.parametrize(
    ("cookie", "accepted", "language"),
    [
        (None, "zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        (None, "zh", "zh"),
        (None, "en-US,en", "en"),
        (None, "de-DE,zh", "en"),
        (None, "en;q=0.2, zh;q=0.9", "zh"),
        (None, "zh;q=0.2, en", "en"),
        (None, "zha, en", "en"),
        (None, None, "en"),
        ("en", "zh-CN", "en"),
        ("zh", "en-US", "zh"),
        ("xx", "zh-CN", "zh"),
    ],
)
def test_the_explicit_choice_wins_over_the_browser(cookie, accepted, language):
    cookies = {COOKIE: cookie} if cookie else {}
    assert requested_language(cookies, {"accept-language": accepted} if accepted else {}) == language


def test_labels_choices_and_placeholders_are_said_in_one_language():
    words = LabelRegistry()
    with LocalizedBlocks(words) as page:
        words(gr.Radio, label=verbatim("Show", "显示"), choices=[(verbatim("All", "全部"), "all")], value="all")
        words(gr.Textbox, label=verbatim("Message", "消息"), placeholder=verbatim("Type", "输入"))
        words(gr.Textbox, label="untranslated", value="kept")
    said = words.say(page.config, "zh")["components"]
    radio, box, other = (each["props"] for each in said if each["type"] in ("radio", "textbox"))
    assert (radio["label"], radio["choices"], radio["value"]) == ("显示", [("全部", "all")], "all")
    assert (box["label"], box["placeholder"]) == ("消息", "输入")
    assert (other["label"], other["value"]) == ("untranslated", "kept")
    assert "显示" not in str(page.config)


NAMES = {"rsLoRA", "DoRA", "Alpha", "Beta", "Dropout", "Top p"}
"""Labels that are the same in both languages."""


def test_a_page_is_served_in_the_language_that_is_asked_for(address):
    """A label that the registry does not know would stay English."""
    chinese = httpx.get(f"{address}config", headers={"accept-language": "zh-CN"}).json()
    english = httpx.get(f"{address}config", headers={"accept-language": "zh-CN", "cookie": f"{COOKIE}=en"}).json()
    pairs = zip(chinese["components"], english["components"], strict=True)
    labels = [(zh["props"].get("label"), en["props"].get("label")) for zh, en in pairs if zh["props"].get("elem_id")]
    assert {zh for zh, en in labels if zh and zh == en} == NAMES
    assert "开始微调" in httpx.get(address, headers={"accept-language": "zh-CN"}).text
    assert "Start fine-tuning" in httpx.get(address).text


def test_the_words_that_the_user_documented_stand_to_the_letter():
    catalogue = (LOCALE / "zh" / "LC_MESSAGES" / "sage_studio.po").read_text(encoding="utf-8")
    said = {entry.string for entry in read_po(io.StringIO(catalogue))}
    assert {
        "📁 上传本地数据集 (支持 JSON/JSONL (Alpaca 格式))",
        "📚 使用 SAGE 官方文档 (自动从 GitHub 下载并准备训练数据)",
        "开始微调",
        "设为后端",
        "使用此模型",
        "下载",
        "✅ 已完成",
        "✅ 已切换到微调模型: {}",
        "请在对话面板测试",
        "确定要将此微调模型设置为 Studio 的对话后端吗？当前对话将使用此模型。",
    } <= said
    assert LANGUAGES == ("en", "zh")
