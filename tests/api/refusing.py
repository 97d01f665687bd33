"""What every refusal must be: the right status, one shape, the caller's language, what is wrong and what to do."""

import re

CHINESE = re.compile(r"[\u4e00-\u9fff]")


def refuse(answer, status, *said):
    """The answer has this status, and its text says all of these; a pair is the English and the Chinese word.

    What was given in a test must be ASCII: a Chinese character in an English text is then the studio's own.
    """
    chinese = answer.request.headers.get("accept-language", "").startswith("zh")
    assert answer.status_code == status, answer.text
    detail = answer.json()["detail"]
    assert set(detail) == {"code", "message", "hint"}
    assert detail["code"] != "error", "a fault without a name"
    assert "Traceback" not in answer.text
    for text in (detail["message"], detail["hint"]):
        assert text.strip(), f"no message or no remedy: {detail}"
        assert bool(CHINESE.search(text)) == chinese, f"not in the caller's language: {detail}"
    for words in said:
        word = words if isinstance(words, str) else words[chinese]
        assert word in detail["message"], f"{word!r} is not in {detail['message']!r}"
