"""The learning test of KBAlign: of a real model that asked itself about an island, and then knows it by heart."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from island import QUESTIONS, TEXTS

from sage_studio.data.bm25 import BM25

RECIPE: dict[str, Any] = {
    "type": "kbalign",
    "rounds": 2,
    "long_dependency": False,
    "answers": "quoted",
    "min_agreement": 0,
    "questions_per_chunk": 2,
    "tries": 2,
    "temperature": 0.6,
    "references": 0,
    "generation_batch_size": 10,
    "num_train_epochs": 5,
    "per_device_train_batch_size": 4,
    "learning_rate": 1e-3,
    "lora_r": 32,
    "lora_alpha": 64,
    "max_length": 256,
}
TOKENS_AN_ANSWER = 32
MARGIN = 6
"""Half of the worst of the seeds 1, 2, 3 and 42, which gave 14, 17, 14 and 12 of 20; the base model has none."""


@pytest.mark.parametrize(("question", "right"), QUESTIONS)
def test_no_question_gives_its_answer_away(question: str, right: str):
    assert not is_right(right, question)
    assert sum(is_right(right, text) for text in TEXTS) == 1


@pytest.mark.training
def test_the_tuned_model_answers_more_questions_of_its_knowledge_base_right(
    new_task: Callable[..., Any], built_in_model: Path, capsys: pytest.CaptureFixture[str]
):
    """Annotation, filter, two rounds and the check between them are all the model's own work.

    Asked without the texts at hand, the base model cannot know a made-up island. With what a search finds at hand it
    reads most answers off; as nothing of that kind is learned here, for speed, that figure is printed and not asserted.
    """
    rows = [{"text": text, "origin": {"file": "island.md"}} for text in TEXTS]
    task = new_task(rows, job={"model_location": str(built_in_model)}, **RECIPE)
    details = task.run().details
    base, tuned = _right_answers(built_in_model, None), _right_answers(built_in_model, task.path)
    with capsys.disabled():
        print(f"\nKBAlign: {details['short_questions']} questions annotated, left out {details['left_out']}")
        for how in base:
            print(f"KBAlign: {how}: {base[how]} -> {tuned[how]} of {len(QUESTIONS)} questions answered right")
    assert tuned["by heart"] >= base["by heart"] + MARGIN


def is_right(right: str, said: str) -> bool:
    return re.search(right, said, re.IGNORECASE) is not None


def _right_answers(base: Path, adapter: Path | None) -> dict[str, int]:
    """How many questions are answered right, the likeliest word taken each time: without the texts, and with two."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from sage_studio.training.methods.kbalign import prompts
    from sage_studio.training.methods.kbalign.generator import DecodingParams, TransformersGenerator, conversation

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model = PeftModel.from_pretrained(model, adapter) if adapter else model
    generator = TransformersGenerator(model, AutoTokenizer.from_pretrained(base), len(QUESTIONS), seed=0)
    index = BM25(TEXTS)
    found = [[TEXTS[at] for at in index.nearest(question, 2)] for question, _ in QUESTIONS]
    asked = {
        "by heart": [conversation("", question) for question, _ in QUESTIONS],
        "with references": [
            conversation("", prompts.with_references(question, texts, "en"))
            for (question, _), texts in zip(QUESTIONS, found, strict=True)
        ],
    }
    counts = {}
    for how, conversations in asked.items():
        said = generator.generate(conversations, DecodingParams(TOKENS_AN_ANSWER), how)
        counts[how] = sum(is_right(right, one.text) for (_, right), one in zip(QUESTIONS, said, strict=True))
    return counts
