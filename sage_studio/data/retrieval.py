"""The formats of retrieval data, ``query``/``pos``/``neg``, and of bare text.

Knows how each is read. Knows nothing of files or rows.
"""

from collections.abc import Callable, Mapping
from itertools import count, takewhile
from typing import Any

from sage_studio.data.conversations import NO_QUESTION
from sage_studio.data.example import Origin, Passage, Retrieval
from sage_studio.data.values import NothingToLearn, check_characters, string
from sage_studio.text import Text

NO_PASSAGE = Text("no passage that answers the query", "没有能回答查询的段落")
NO_TEXT = Text("empty text", "文本为空")


def read_retrieval(query: str, pos: str, neg: str) -> Callable[[Mapping[str, Any], Origin], Retrieval]:
    """A reader of a query and its passages, text or lists of text, under three keys; ``neg`` may be absent.

    Further wrong passages may stand under the key with a number: ``negative_1``, ``negative_2``, ….
    """

    def read(record: Mapping[str, Any], origin: Origin) -> Retrieval:
        asked = string(record[query], query)
        numbered = takewhile(record.__contains__, (f"{neg}_{number}" for number in count(1)))
        right = _passages(record.get(pos), pos)
        wrong = tuple(text for key in (neg, *numbered) for text in _passages(record.get(key), key))
        if not asked.strip():
            raise NothingToLearn(NO_QUESTION)
        if not right:
            raise NothingToLearn(NO_PASSAGE)
        check_characters((asked, *right, *wrong))
        return Retrieval(asked, right, wrong, origin)

    return read


def read_text(record: Mapping[str, Any], origin: Origin) -> Passage:
    """Bare ``text``."""
    text = string(record["text"], "text")
    if not text.strip():
        raise NothingToLearn(NO_TEXT)
    check_characters((text,))
    return Passage(text, origin)


def _passages(value: Any, key: str) -> tuple[str, ...]:
    texts = value if isinstance(value, list) else [value]
    return tuple(filter(str.strip, (string(text, key) for text in texts)))
