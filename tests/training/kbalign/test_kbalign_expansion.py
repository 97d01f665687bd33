"""Answering twice: the second look-up knows what the first answer named."""

from sage_studio.data.bm25 import BM25
from sage_studio.training.methods.kbalign.expansion import answer_twice, expand

PASSAGES = [
    "The longest bridge of Orvik is the Lume.",
    "The Lume is 240 metres long and painted green.",
    "Cheese is made in Tarnhollow.",
]


def look_up(query):
    return [PASSAGES[at] for at in BM25(PASSAGES).nearest(query, 2)]


class Answering:
    def __init__(self, first="The Lume is 240 metres long, or so."):
        self.first = first
        self.calls = []

    def __call__(self, question, found):
        self.calls.append((question, tuple(found)))
        return self.first if len(self.calls) == 1 else f"Out of {len(found)}: green."


def test_the_second_look_up_uses_the_first_answer_and_the_second_answer_stands():
    queries, ask = [], Answering()

    def retrieve(query):
        queries.append(query)
        return look_up(query)[:1]

    answered = answer_twice("What is the longest bridge in town?", ask, retrieve)
    assert queries == [
        "What is the longest bridge in town?",
        "What is the longest bridge in town?\nThe Lume is 240 metres long, or so.",
    ]
    assert [found for _, found in ask.calls] == [(PASSAGES[0],), (PASSAGES[1],)]
    assert {question for question, _ in ask.calls} == {"What is the longest bridge in town?"}
    assert answered.answer == "Out of 1: green."
    assert answered.first == "The Lume is 240 metres long, or so."
    assert answered.references == (PASSAGES[1],)


def test_where_nothing_new_is_found_the_first_answer_stands():
    ask = Answering("Something about cheese.")
    answered = answer_twice("Which cheese is made in Tarnhollow?", ask, look_up)
    assert len(ask.calls) == 1
    assert answered.answer == "Something about cheese."


def test_an_empty_answer_is_not_looked_up_with():
    queries = []

    def retrieve(query):
        queries.append(query)
        return []

    assert answer_twice("Why?", Answering("  "), retrieve).answer == "  "
    assert queries == ["Why?"]


def test_a_chat_that_streams_takes_the_passages_only():
    ask = Answering()
    found = expand("What is the longest bridge in town?", ask, lambda query: look_up(query)[:1])
    assert found.changed
    assert found.references == (PASSAGES[1],)
    assert len(ask.calls) == 1, "the last answer is the caller's"
