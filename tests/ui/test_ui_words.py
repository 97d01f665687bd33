"""Every text of the page stands in both languages, and a request is answered in the one it asks for."""

import ast

import gradio as gr
import httpx
import pytest

from sage_studio.settings import PROJECT
from sage_studio.text import LANGUAGES, Text
from sage_studio.ui.components.localization import COOKIE, LabelRegistry, LocalizedBlocks, requested_language

SAME_IN_BOTH = {"Alpha", "CPU", "Dropout", "LoRA", "中文"}


def texts() -> list[tuple[str, str, str]]:
    """File, English and Chinese of each ``Text("…", "…")`` of the UI."""
    found = []
    for path in sorted((PROJECT / "sage_studio" / "ui").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Text":
                said = [argument.value for argument in node.args if isinstance(argument, ast.Constant)]
                found += [(path.name, *said)] if len(said) == 2 else []
    return found


def test_the_page_has_words():
    assert len(texts()) > 150


def is_chinese(text: str) -> bool:
    return any("一" <= letter <= "鿿" for letter in text)


def test_every_text_has_both_languages_and_names_the_same_things():
    wrong = [
        (file, en, zh)
        for file, en, zh in texts()
        if not en.strip()
        or not zh.strip()
        or en.count("{") != zh.count("{")
        or not (is_chinese(zh) or en in SAME_IN_BOTH)
    ]
    assert wrong == []


def test_no_english_text_holds_chinese():
    assert [en for _, en, _ in texts() if is_chinese(en) and en not in SAME_IN_BOTH] == []


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
        words(gr.Radio, label=Text("Show", "显示"), choices=[(Text("All", "全部"), "all")], value="all")
        words(gr.Textbox, label=Text("Message", "消息"), placeholder=Text("Type", "输入"))
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
    """A label that is not in the phrasebook would stay English."""
    chinese = httpx.get(f"{address}config", headers={"accept-language": "zh-CN"}).json()
    english = httpx.get(f"{address}config", headers={"accept-language": "zh-CN", "cookie": f"{COOKIE}=en"}).json()
    pairs = zip(chinese["components"], english["components"], strict=True)
    labels = [(zh["props"].get("label"), en["props"].get("label")) for zh, en in pairs if zh["props"].get("elem_id")]
    assert {zh for zh, en in labels if zh and zh == en} == NAMES
    assert "开始微调" in httpx.get(address, headers={"accept-language": "zh-CN"}).text
    assert "Start fine-tuning" in httpx.get(address).text


def test_the_words_that_the_user_documented_stand_to_the_letter():
    said = {zh for _, _, zh in texts()}
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
