"""Answering once and twice from passages: what is looked up, what is asked, what is shown, and what is ended early."""

import json

import pytest

from sage_studio.data.bm25 import BM25
from sage_studio.services.rag import FIRST_PIECES, LONGEST_QUERY, answer_once, answer_twice, grounded
from sage_studio.serving.types import ChatChunk, Source

PASSAGES = [
    "The longest bridge of Orvik is the Lume.",
    "The Lume is 240 metres long and painted green.",
    "Cheese is made in Tarnhollow.",
]
ASKED = [{"role": "user", "content": "Be brief."}, {"role": "user", "content": "What is the longest bridge in town?"}]


class LookUp:
    """Finds by words, ``count`` passages at most, and remembers what was looked for."""

    def __init__(self, count=1):
        self.count = count
        self.queries = []

    def __call__(self, query):
        self.queries.append(query)
        return [
            Source(PASSAGES[at], "towns.md", "Orvik", 1 / len(query))
            for at in BM25(PASSAGES).nearest(query, self.count)
        ]


class Ask:
    """Answers with the texts given, one after the other, word by word; remembers what was asked and what was ended."""

    def __init__(self, *texts):
        self.texts = list(texts)
        self.asked, self.given, self.ended = [], [], []

    def __call__(self, messages):
        self.asked.append(list(messages))
        return self._answer(self.texts.pop(0), len(self.asked))

    def _answer(self, text, number):
        words = text.split(" ") if text else []
        try:
            for word in words:
                self.given.append(number)
                yield ChatChunk(word + " ", "m")
            yield ChatChunk("", "m", True, "stop", 3, len(words), 9.0, 0.25)
        finally:
            self.ended.append(number)


def text_of(chunks):
    return "".join(chunk.text for chunk in chunks).strip()


def test_once_the_question_is_looked_up_and_answered_from_what_it_finds():
    ask, look_up = Ask("It is the Lume."), LookUp()
    chunks = list(answer_once(ASKED, ask, look_up))
    assert look_up.queries == [ASKED[1]["content"]]
    assert ask.asked == [grounded(ASKED, look_up(ASKED[1]["content"]))]
    assert ask.asked[0][0] == ASKED[0], "what was said before stays"
    assert text_of(chunks) == "It is the Lume."
    assert [(len(chunk.sources), chunk.look_ups) for chunk in chunks[-2:]] == [(0, 0), (1, 1)]
    assert chunks[-1].first_token_seconds == 0.25


def test_twice_the_second_look_up_knows_the_first_answer_and_only_the_second_answer_is_shown():
    ask, look_up = Ask("The Lume, 240 metres long and green.", "It is green."), LookUp()
    chunks = list(answer_twice(ASKED, ask, look_up))
    question = ASKED[1]["content"]
    assert look_up.queries == [question, f"{question}\nThe Lume, 240 metres long and green."]
    asked = [messages[-1]["content"] for messages in ask.asked]
    assert [PASSAGES[0] in asked[0], PASSAGES[1] in asked[0]] == [True, False]
    assert [PASSAGES[0] in asked[1], PASSAGES[1] in asked[1]] == [False, True]
    assert all(messages[0] == ASKED[0] for messages in ask.asked)
    assert all(content.endswith(f"Question: {question}") for content in asked), "the first answer is not in it"
    assert text_of(chunks) == "It is green."
    assert [source.text for source in chunks[-1].sources] == [PASSAGES[1]]
    assert (chunks[-1].look_ups, chunks[-1].completion_tokens) == (2, 3)
    assert chunks[-1].first_token_seconds > 0.25, "who asked has waited for the first answer too"


def test_while_the_first_answer_is_written_pieces_without_text_come():
    ask = Ask("The Lume is 240 metres long.", "Green.")
    chunks = answer_twice(ASKED, ask, LookUp())
    for written in range(1, 5):
        assert next(chunks) == ChatChunk("", "m", look_ups=1)
        assert ask.given == [1] * written


def test_where_the_same_is_found_the_first_answer_stands_and_is_not_computed_again():
    ask, look_up = Ask("The longest bridge of Orvik."), LookUp(count=3)
    messages = [{"role": "user", "content": "Which is painted?"}]
    chunks = list(answer_twice(messages, ask, look_up))
    first, second = look_up(look_up.queries[0]), look_up(look_up.queries[1])
    assert {source.text for source in first} == {source.text for source in second} == set(PASSAGES)
    assert [source.text for source in first] != [source.text for source in second], "another order makes no other find"
    assert len(ask.asked) == 1
    assert text_of(chunks) == "The longest bridge of Orvik."
    assert (chunks[-1].look_ups, chunks[-1].completion_tokens) == (2, 5)
    assert list(chunks[-1].sources) == first, "in the order in which the model read them"


def test_a_long_first_answer_is_looked_up_with_before_its_end_and_then_ended():
    words = ["Lume", "metres", "green", "painted"] * FIRST_PIECES
    ask, look_up = Ask(" ".join(words), "Green."), LookUp()
    chunks = list(answer_twice(ASKED, ask, look_up))
    assert look_up.queries[1].split()[-FIRST_PIECES:] == words[:FIRST_PIECES]
    assert ask.given.count(1) == FIRST_PIECES
    assert ask.ended == [1, 2], "the first is over before the second begins"
    assert text_of(chunks) == "Green."


def test_a_long_first_answer_that_stands_goes_on_to_its_end():
    words = ["Tarnhollow"] * (FIRST_PIECES + 40)
    messages = [{"role": "user", "content": "Which cheese is made in Tarnhollow?"}]
    ask = Ask(" ".join(words))
    assert text_of(answer_twice(messages, ask, LookUp())).split() == words
    assert ask.given == [1] * len(words)


@pytest.mark.parametrize("blank", ["", "   "])
def test_an_empty_first_answer_is_not_looked_up_with(blank):
    ask, look_up = Ask(blank), LookUp()
    chunks = list(answer_twice(ASKED, ask, look_up))
    assert len(look_up.queries) == 1
    assert (text_of(chunks), chunks[-1].look_ups, len(chunks[-1].sources)) == ("", 1, 1)


def test_question_and_first_answer_are_cut_to_what_can_be_looked_up():
    look_up = LookUp()
    messages = [{"role": "user", "content": "Lume? " * (LONGEST_QUERY // 6)}]
    list(answer_twice(messages, Ask("metres " * 99, "Green."), look_up))
    assert [len(query) <= LONGEST_QUERY for query in look_up.queries] == [True, True]


@pytest.mark.parametrize(("taken", "ended"), [(2, [1]), (8, [1, 2])], ids=["the first", "the second"])
def test_leaving_ends_the_answer_under_way(taken, ended):
    ask = Ask("The Lume is 240 metres long.", "It is green all over and long.")
    chunks = answer_twice(ASKED, ask, LookUp())
    for _ in range(taken):
        next(chunks)
    chunks.close()
    assert ask.ended == ended
    assert len(ask.asked) == len(ended)


def test_a_second_look_up_that_fails_ends_the_first_answer():
    class Broken(LookUp):
        def __call__(self, query):
            if self.queries:
                raise LookupError(query)
            return super().__call__(query)

    ask = Ask("The Lume.")
    with pytest.raises(LookupError, match="The Lume"):
        list(answer_twice(ASKED, ask, Broken()))
    assert ask.ended == [1]


def test_what_fails_at_once_fails_before_the_first_piece_is_taken():
    def engine_is_down(messages):
        raise LookupError(json.dumps(messages))

    with pytest.raises(LookupError, match=r"240 metres|longest bridge of Orvik"):
        answer_twice(ASKED, engine_is_down, LookUp())


def test_a_chinese_question_is_asked_in_chinese():
    content = grounded([{"role": "user", "content": "桥有多长？"}], [Source("240 米", "a.md", "桥", 0.5)])[-1][
        "content"
    ]
    assert content.startswith("请根据以下资料")
    assert "[1] a.md › 桥\n240 米" in content
