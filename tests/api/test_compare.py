"""Compare: several models answer the same message, each under the name that the server returned; votes are kept."""

import json

import pytest
from refusing import refuse
from waiting import wait_until

from sage_studio.errors import EngineUnavailable, InvalidInput
from sage_studio.evaluation.arena import compare
from sage_studio.serving.types import ChatChunk
from sage_studio.text import verbatim


def ask(client, models, message="one two", **more):
    return client.post("/api/compare", json={"message": message, "models": models, **more})


def test_every_model_answers_under_the_name_that_the_server_returned(asking):
    answers = ask(asking, ["tuned", "small", "other"]).json()["answers"]
    assert [answer["model"] for answer in answers] == ["tuned", "small", "other"]
    for answer in answers:
        said = answer["response"].split(":")[0].split("@")[0]  # the fake engine says who it is
        assert said == answer["asked"] == answer["model"]
        assert answer["done"]
        assert answer["usage"] == {"prompt_tokens": 3, "completion_tokens": 3}
        assert 0 < answer["first_token_seconds"] <= answer["seconds"]
        assert answer["error"] is None


def test_one_that_fails_says_why_and_the_others_go_on(asking):
    good, bad = ask(asking, ["small", "nobody"]).json()["answers"]
    assert good["done"]
    assert good["response"].startswith("small:")
    assert bad["error"]["code"] == "not_found"
    assert "nobody" in bad["error"]["message"]
    assert not bad["done"]


def test_the_answers_stream_together(asking):
    stream = ask(asking, ["small", "tuned"], "slow a b c d e f", stream=True).text
    events = [json.loads(line.removeprefix("data: ")) for line in stream.split("\n\n") if line]
    columns = [event["column"] for event in events if event["text"]]
    assert columns.index(1) < len(columns) - 1 - columns[::-1].index(0), "the second began before the first had ended"
    assert columns.index(0) < len(columns) - 1 - columns[::-1].index(1)
    for column, name in enumerate(("small", "tuned")):
        mine = [event for event in events if event["column"] == column]
        assert [event["done"] for event in mine] == [False] * (len(mine) - 1) + [True]
        assert mine[-1]["model"] == name
        assert mine[-1]["tokens_per_second"] > 0
        assert "".join(event["text"] for event in mine).split(" ", 1)[1] == "slow a b c d e f "


@pytest.mark.parametrize(
    ("models", "said"),
    [(["small"], "1"), ([], "0"), (["a", "b", "c", "d", "e"], "5"), (["small", "small"], "small")],
)
def test_two_to_four_different_models(asking, models, said):
    refuse(ask(asking, models), 422, said)


def test_a_wrong_option_is_refused_at_once(asking):
    refuse(ask(asking, ["small", "tuned"], temperature=9), 422, "temperature", "9")


def test_a_blank_message_is_refused_at_once(asking):
    refuse(ask(asking, ["small", "tuned"], message="  "), 422)


def test_a_vote_is_kept_and_counted(asking):
    def vote(winner, models=("small", "tuned")):
        return asking.post("/api/compare/votes", json={"message": "why?", "models": models, "winner": winner})

    assert vote("tuned").status_code == 201
    assert vote("tuned").json()["winner"] == "tuned"
    vote("")
    vote("small", ["small", "other"])
    kept = asking.get("/api/compare/votes").json()
    standings = {one.pop("model"): one for one in kept["standings"]}
    assert standings["tuned"] == {"wins": 2, "ties": 1, "comparisons": 3}
    assert standings["small"] == {"wins": 1, "ties": 1, "comparisons": 4}
    assert standings["other"] == {"wins": 0, "ties": 0, "comparisons": 1}
    assert list(standings) == ["tuned", "small", "other"], "the best first"
    assert kept["votes"][0]["models"] == ["small", "other"]
    assert kept["votes"][0]["created_at"] > kept["votes"][-1]["created_at"]
    refuse(vote("nobody"), 422, "nobody")
    refuse(vote("small", ["small"]), 422, "small")
    assert len(asking.get("/api/compare/votes").json()["votes"]) == 4


def test_a_fault_in_mid_answer_keeps_what_was_said():
    def broken(name):
        yield ChatChunk("half ", name)
        raise EngineUnavailable(verbatim("gone", "断开"))

    def whole(name):
        yield ChatChunk("all", name)
        yield ChatChunk("", name, done=True)

    last = {piece.column: piece.reply for piece in compare(lambda name: (broken, whole)[name == "b"](name), ["a", "b"])}
    assert last[0].text == "half "
    assert str(last[0].error) == "gone"
    assert last[1].done
    assert last[1].text == "all"


def test_a_fault_of_the_house_is_not_swallowed():
    def wrong(name):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        list(compare(wrong, ["a", "b"]))


def test_leaving_ends_every_answer():
    ended = []

    def endless(name):
        try:
            while True:
                yield ChatChunk("x", name)
        finally:
            ended.append(name)

    pieces = compare(endless, ["a", "b", "c"])
    next(pieces)
    pieces.close()
    wait_until(lambda: sorted(ended) == ["a", "b", "c"])


def test_the_verb_checks_before_it_asks(answering):
    with pytest.raises(InvalidInput):
        answering.chat.compare([{"role": "user", "content": "why?"}], ["small"])
