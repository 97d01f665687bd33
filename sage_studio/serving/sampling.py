"""How an answer is drawn: the options a caller may give, checked before the engine sees them.

Knows names, bounds and defaults. Knows no engine.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sage_studio.errors import InvalidInput
from sage_studio.text import Text


class Sampling(BaseModel):
    """The options of ``generate`` and ``stream``.

    Attributes:
        temperature: 0 always takes the likeliest token; higher is more varied.
        top_p: draw only from the likeliest tokens that make up this share.
        max_tokens: longest answer, in tokens; the engine shortens it to what its context leaves.
        seed: the same seed draws the same answer where the engine can.
        stop: texts that end the answer.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    temperature: float = Field(0.7, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int = Field(1024, ge=1)
    seed: int | None = None
    stop: str | list[str] | None = None


RULES = {
    "temperature": Text("it must be a number from 0 to 2", "必须是 0 到 2 之间的数字"),
    "top_p": Text("it must be a number above 0 and up to 1", "必须是大于 0 且不超过 1 的数字"),
    "max_tokens": Text("it must be a whole number from 1", "必须是不小于 1 的整数"),
    "seed": Text("it must be a whole number or empty", "必须是整数或留空"),
    "stop": Text("it must be a text or a list of texts", "必须是文本或文本列表"),
}


def check_sampling(options: Mapping[str, Any]) -> Sampling:
    """Check a caller's options; one that is None takes its default.

    Raises:
        InvalidInput: naming the option, its value, the rule and the remedy.
    """
    try:
        return Sampling.model_validate({name: value for name, value in options.items() if value is not None})
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
        rule = RULES.get(name, Text("there is no such option", "没有这个选项"))
        shown = options.get(name)
        known = ", ".join(Sampling.model_fields)
        raise InvalidInput(
            Text(f"{name} = {shown!r}: {rule.en}.", f"{name} = {shown!r}：{rule.zh}。"),
            Text(f"Options: {known}.", f"可用选项：{known}。"),
        ) from error
