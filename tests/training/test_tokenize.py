"""What the trainer sees of a row, token for token; and what the health check sees of a finished adapter."""

from pathlib import Path
from typing import Any

import pytest

from sage_studio.errors import InvalidDataset
from sage_studio.training.environment import cpu_has_bf16, usable_cores
from sage_studio.training.health_checks import ModelHealthError, check_weights
from sage_studio.training.tokenize import ANSWERS, IGNORED
from sage_studio.training.trainer import connected_rows

PROMPT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "你好, what is 1+1?"}]
ANSWER = [{"role": "assistant", "content": "\n二. Two.\n\n```py\n# no heading\n```"}]


@pytest.fixture(scope="module")
def tokenizer(built_in_model: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(built_in_model)


def test_the_answer_alone_is_learned_token_for_token(tokenizer: Any):
    encoded = ANSWERS.encode([{"prompt": PROMPT, "completion": ANSWER}], tokenizer, 512)
    ids, labels = encoded.columns["input_ids"][0], encoded.columns["labels"][0]
    asked = tokenizer.apply_chat_template(PROMPT, add_generation_prompt=True, return_dict=True)["input_ids"]
    assert ids[: len(asked)] == asked, "exactly what the model reads when it is asked"
    assert labels[: len(asked)] == [IGNORED] * len(asked)
    assert labels[len(asked) :] == ids[len(asked) :]
    assert tokenizer.decode(ids[len(asked) :]) == ANSWER[0]["content"] + "<|im_end|>\n"
    assert tokenizer.decode(ids) == tokenizer.apply_chat_template(PROMPT + ANSWER, tokenize=False)


def test_a_long_row_keeps_its_beginning(tokenizer: Any):
    row = {"prompt": PROMPT, "completion": [{"role": "assistant", "content": "word " * 100}]}
    whole, cut = ANSWERS.encode([row], tokenizer, 512), ANSWERS.encode([row], tokenizer, 40)
    assert (whole.truncated, cut.truncated) == ([], [1])
    assert cut.columns["input_ids"][0] == whole.columns["input_ids"][0][:40]
    assert cut.columns["labels"][0] == whole.columns["labels"][0][:40]


def test_rows_that_say_the_same_are_known_by_it(tokenizer: Any):
    long = "A window groups the records of a stream by time or by count. " * 4
    said = [("Why?", "So."), ("Why?", "No."), ("How?", "So."), ("What?", long), ("What is it?", long)]
    rows = [
        {"prompt": [{"role": "user", "content": ask}], "completion": [{"role": "assistant", "content": answer}]}
        for ask, answer in said
    ]
    assert connected_rows(ANSWERS.encode(rows, tokenizer, 512).text_keys) == [[0, 1], [2], [3, 4]]


def test_a_template_that_rewrites_the_prompt_is_counted_and_masked_up_to_the_difference(tokenizer: Any):
    import copy

    changed = copy.deepcopy(tokenizer)
    turns = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    changed.chat_template = turns + "{% if add_generation_prompt %}<think>{% endif %}"
    encoded = ANSWERS.encode([{"prompt": PROMPT, "completion": ANSWER}], changed, 512)
    assert encoded.diverging == 1
    learned = [token for token in encoded.columns["labels"][0] if token != IGNORED]
    assert changed.decode(learned).endswith(ANSWER[0]["content"])


def test_a_row_that_the_template_refuses_is_named(tokenizer: Any):
    import copy

    strict = copy.deepcopy(tokenizer)
    strict.chat_template = "{% if messages[0].role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}x"
    plain = {"prompt": PROMPT[1:], "completion": ANSWER}
    with pytest.raises(InvalidDataset) as caught:
        ANSWERS.encode([plain, {"prompt": PROMPT, "completion": ANSWER}], strict, 512)
    assert caught.value.row == 2


@pytest.mark.parametrize(
    ("value", "said"), [(0.0, "all zero"), (float("nan"), "not numbers"), (float("inf"), "not numbers")]
)
def test_an_adapter_of_zeros_or_of_no_numbers_is_unhealthy(tmp_path: Path, value: float, said: str):
    _adapter(tmp_path, value)
    with pytest.raises(ModelHealthError, match=said):
        check_weights(tmp_path, "adapter")


def test_a_trained_adapter_is_healthy(tmp_path: Path):
    _adapter(tmp_path, 0.01)
    check_weights(tmp_path, "adapter")


def test_native_bf16_is_read_from_the_processors_flags(tmp_path: Path):
    flags = tmp_path / "cpuinfo"
    flags.write_text("flags : fpu avx512f avx512_bf16\n")
    assert cpu_has_bf16(flags)
    flags.write_text("flags : fpu avx2\n")
    assert not cpu_has_bf16(flags)
    assert not cpu_has_bf16(tmp_path / "none")
    assert usable_cores() >= 1


def _adapter(folder: Path, b: float) -> None:
    import torch
    from safetensors.torch import save_file

    weights = {"layer.lora_A.weight": torch.ones(2, 4), "layer.lora_B.weight": torch.full((4, 2), b)}
    save_file(weights, folder / "adapter_model.safetensors")
