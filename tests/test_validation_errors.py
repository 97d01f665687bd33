"""A pydantic error as a sentence in both languages, wherever values come in."""

import json
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field, ValidationError, model_validator

from sage_studio.errors import InvalidSetting
from sage_studio.settings import load_settings
from sage_studio.text import verbatim
from sage_studio.validation_errors import SHOWN, RuleError, first_error


class Values(BaseModel, extra="forbid"):
    """A field for each kind of rule."""

    share: float = Field(0.5, gt=0, le=1, allow_inf_nan=False)
    count: int = 1
    on: bool = True
    name: Annotated[str, Field(min_length=1, max_length=5)] = "a"
    kind: Literal["a", "b"] = "a"
    inner: list[dict[str, int]] = []

    @model_validator(mode="after")
    def _fits(self) -> "Values":
        if self.count == 13:
            raise RuleError(verbatim("count must not be 13", "count 不能为 13"), verbatim("Not 13.", "不能是 13。"))
        if self.count == 14:
            raise ValueError("not 14 either")
        return self


def broken(values):
    with pytest.raises(ValidationError) as caught:
        Values.model_validate_json(values) if isinstance(values, str) else Values.model_validate(values)
    return first_error(caught.value.errors())


@pytest.mark.parametrize(
    ("values", "en", "zh"),
    [
        ({"share": 0}, "share = 0: it must be greater than 0", "share = 0：必须大于 0"),
        ({"share": 1.5}, "share = 1.5: it must be at most 1", "share = 1.5：必须不大于 1"),
        ({"share": "x"}, "share = 'x': it must be a number", "share = 'x'：必须是数字"),
        ({"share": float("inf")}, "share = inf: it must be a finite number", "share = inf：必须是有限的数字"),
        ({"count": 1.5}, "count = 1.5: it must be a whole number", "count = 1.5：必须是整数"),
        ({"on": "perhaps"}, "on = 'perhaps': it must be true or false", "on = 'perhaps'：必须是 true 或 false"),
        ({"name": ""}, "name = '': it must not be empty", "name = ''：不能为空"),
        ({"name": "toolong"}, "name = 'toolong': it must have at most 5 characters", "name = 'toolong'：最多 5 个字符"),
        ({"kind": "c"}, "kind = 'c': it must be one of 'a' or 'b'", "kind = 'c'：必须是 'a' or 'b' 之一"),
        ({"other": 1}, "other = 1: there is no such field", "other = 1：没有这个字段"),
        ({"inner": [{"x": "y"}]}, "inner.0.x = 'y': it must be a whole number", "inner.0.x = 'y'：必须是整数"),
        ({"inner": 3}, "inner = 3: it must be a list", "inner = 3：必须是列表"),
        ({"count": 13}, "count must not be 13", "count 不能为 13"),
        ({"count": 14}, "not 14 either", "not 14 either"),
    ],
)
def test_field_value_and_rule_are_said(values, en, zh):
    assert broken(values).sentence == verbatim(en, zh)


def test_a_rule_of_our_own_brings_its_sentence_for_the_form():
    assert broken({"count": 13}).at_form.zh == "不能是 13。"


def test_a_long_value_is_not_repeated_whole():
    assert len(broken({"share": "x" * 10_000}).sentence.en) < SHOWN + 100


def test_what_is_no_json_is_said_without_the_whole_text():
    said = broken("{" + json.dumps("x" * 500)).sentence
    assert said.zh.startswith("不是有效的 JSON")
    assert "xxx" not in said.en


def test_a_setting_is_refused_in_both_languages():
    with pytest.raises(InvalidSetting) as caught:
        load_settings(port=0)
    assert "port = 0: it must be at least 1" in caught.value.say("en")
    assert "port = 0：必须不小于 1" in caught.value.say("zh")
