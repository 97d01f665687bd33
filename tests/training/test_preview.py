"""The preview says what the trainer does: the same ids and the same labels, for the templates of three families."""

import json
from pathlib import Path
from typing import Any

import pytest

from sage_studio.data.rows import Example, Message, Origin, Passage, Preference, Retrieval
from sage_studio.errors import InvalidDataset, InvalidModel
from sage_studio.models.chat_template import ChatTokenizer
from sage_studio.training.preview import lengths, preview_row
from sage_studio.training.tokenize import ANSWERS, IGNORED

LLAMA3 = (
    "{{- bos_token }}{%- set today = strftime_now('%d %b %Y') %}\n"
    "{%- for m in messages %}\n"
    "    {{- '<|start_header_id|>' + m['role'] + '<|end_header_id|>\\n\\n' + m['content'] | trim + '<|eot_id|>' }}\n"
    "{%- endfor %}\n"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"
)
QWEN = (
    "{%- if messages[0].role != 'system' %}{{- '<|im_start|>system\\nYou are Qwen.<|im_end|>\\n' }}{%- endif %}"
    "{%- for m in messages %}{%- if loop.index0 > 9 %}{%- break %}{%- endif %}"
    "{{- '<|im_start|>' + m.role + '\\n' }}"
    "{%- if m.role == 'assistant' %}{% generation %}{{- '<think>\\n\\n</think>\\n\\n' + m.content }}{% endgeneration %}"
    "{%- else %}{{- m.content }}{%- endif %}{{- '<|im_end|>\\n' }}{%- endfor %}"
    "{%- if tools %}{{- tools | tojson }}{%- endif %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages if m.role != 'system' %}"
    "{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% else %} {{ m.content }}{{ eos_token }}{% endif %}"
    "{% endfor %}"
)
TEMPLATES = {"llama3": LLAMA3, "qwen": QWEN, "mistral": MISTRAL}
SPECIAL = {
    "llama3": ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
    "qwen": ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"],
    "mistral": ["<s>", "[INST]", "[/INST]", "</s>"],
}
WORDS = "Explain windows 请介绍窗口的用法 in SAGE. A window groups records by time or by count, 二. Two. 🚀 naïve café"
ROWS = [
    Example((Message("user", "Explain windows."),), "A window groups records by time.", Origin("a.md", row=1)),
    Example(
        (Message("system", "Be brief."), Message("user", "你好, 窗口是什么？")),
        "\n二. Two 🚀.\n\n```py\n# no heading\n```",
        Origin("a.md", row=2),
    ),
    Example(
        (Message("user", "hi"), Message("assistant", "Yes?"), Message("user", "naïve café  twice")),
        " leading blank and a long tail " + "word " * 120,
        Origin("a.md", row=3),
    ),
]


def build(kind: str, folder: Path) -> Path:
    """A real tokenizer of the family's kind, trained on a few words: byte-level BPE, or Metaspace with bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = SPECIAL[kind]
    if kind == "mistral":
        tokenizer = Tokenizer(models.BPE(unk_token=None, byte_fallback=True))
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
        alphabet = [f"<0x{byte:02X}>" for byte in range(256)]
        trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=[*special, *alphabet])
    else:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=special, initial_alphabet=alphabet)
    tokenizer.train_from_iterator([WORDS] * 20, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=special[0], eos_token=special[-1])
    fast.chat_template = TEMPLATES[kind]
    fast.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["chatml", *TEMPLATES])
def model(request: pytest.FixtureRequest, built_in_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "chatml":
        return built_in_model
    return build(request.param, tmp_path_factory.mktemp(request.param))


def as_json(row: Example) -> dict[str, Any]:
    return {name: value for name, value in row.to_json().items() if name != "origin"}


@pytest.mark.parametrize("max_length", [16, 60, 4096])
def test_the_preview_has_the_trainers_ids_and_labels(model: Path, max_length: int):
    from transformers import AutoTokenizer

    theirs, ours = AutoTokenizer.from_pretrained(model), ChatTokenizer(model)
    for row in ROWS:
        (shown,) = preview_row(row, ours, max_length)
        try:
            encoded = ANSWERS.encode([as_json(row)], theirs, max_length)
        except InvalidDataset:
            assert shown.left_out
            continue
        assert list(shown.ids) == encoded.columns["input_ids"][0]
        assert list(shown.labels) == encoded.columns["labels"][0]
        assert not shown.left_out
        learned = sum(piece.tokens for piece in shown.pieces if piece.fate == "learned")
        assert learned == sum(label != IGNORED for label in encoded.columns["labels"][0]) > 0
        assert sum(piece.tokens for piece in shown.pieces) == shown.tokens
        assert any(piece.fate == "cut" for piece in shown.pieces) == bool(encoded.truncated)


def test_the_pieces_read_as_the_rendered_text(model: Path):
    from transformers import AutoTokenizer

    theirs, ours = AutoTokenizer.from_pretrained(model), ChatTokenizer(model)
    for row in ROWS:
        (shown,) = preview_row(row, ours, 4096)
        messages = [*as_json(row)["prompt"], *as_json(row)["completion"]]
        rendered = theirs.apply_chat_template(messages, tokenize=False)
        assert "".join(piece.text for piece in shown.pieces).replace(" ", "") == rendered.replace(" ", "")
        answer = "".join(piece.text for piece in shown.pieces if piece.fate == "learned")
        assert row.completion.strip() in answer
        assert "�" not in answer


def test_both_sides_of_a_preference_and_texts_without_a_template(model: Path):
    tokenizer = ChatTokenizer(model)
    pair = Preference((Message("user", "Why?"),), "Because it rains.", "No.", Origin("p.json", row=1))
    chosen, rejected = preview_row(pair, tokenizer, 512)
    assert (chosen.side, rejected.side) == ("chosen", "rejected")
    assert chosen.labels != rejected.labels
    retrieval = Retrieval("why", ("rain falls",), ("sun",), Origin("r.json", row=1))
    assert [each.side for each in preview_row(retrieval, tokenizer, 512)] == ["text"] * 3
    assert next(lengths([pair, Passage("rain", Origin("k.json"))], tokenizer, 512)) == (chosen.tokens, True)


def test_a_row_that_the_template_refuses_is_named(tmp_path: Path):
    folder = build("llama3", tmp_path)
    (folder / "chat_template.jinja").write_text("{{ raise_exception('roles must alternate') }}")
    with pytest.raises(InvalidDataset, match=r"row 3: roles must alternate"):
        preview_row(ROWS[2], ChatTokenizer(folder), 512)


def test_what_cannot_be_read_is_refused_in_words(tmp_path: Path):
    with pytest.raises(InvalidModel, match=r"no tokenizer\.json"):
        ChatTokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(InvalidModel, match="cannot be shown"):
        ChatTokenizer(tmp_path)
    folder = build("qwen", tmp_path)
    (folder / "chat_template.jinja").write_text("{% if %}")
    with pytest.raises(InvalidModel, match="cannot be shown"):
        ChatTokenizer(folder)
    (folder / "chat_template.jinja").unlink()
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": None}))
    with pytest.raises(InvalidModel, match="no chat template"):
        preview_row(ROWS[0], ChatTokenizer(folder), 512)


def test_a_template_has_no_way_out_of_its_sandbox(tmp_path: Path):
    folder = build("llama3", tmp_path)
    (folder / "chat_template.jinja").write_text("{{ messages.__class__.__mro__[1].__subclasses__() }}")
    with pytest.raises(InvalidDataset, match="unsafe"):
        preview_row(ROWS[0], ChatTokenizer(folder), 512)
