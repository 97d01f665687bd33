"""The grader: what counts as a right answer, and what does not though it holds the right word."""

import pytest

from sage_studio.data.grading import Question, first_sentence, grade

PORT = Question("Which port?", "The gateway listens on port 8000.", ("8000",), ("8001",))
BRANCH = Question("Which branch?", "It is main-dev.", ("main-dev",), ("main", "master"))
COMMAND = Question("Which command?", "Run sage job list.", ("sage job list",), ("sage doctor",))
LAYERS = Question("How many layers?", "There are five.", ("five | 5",))
BOTH = Question("Which two?", "SAGE DB and FAISS.", ("sage db", "faiss"))


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (PORT, "The gateway listens on port 8000."),
        (PORT, "**Port `8000`**, by default."),
        (PORT, "It is ８０００."),
        (PORT, "Port 8000. Port 8001 is another service's."),  # what follows the first sentence does not count
        (BRANCH, "Check out 'main-dev'."),
        (COMMAND, "Run this:\n```bash\nsage job list\n```\nIt prints all jobs."),
        (COMMAND, "SAGE JOB LIST"),
        (LAYERS, "It has 5 layers, L1 to L5."),
        (LAYERS, "Five."),
        (BOTH, "FAISS is what SAGE DB is built on."),
    ],
)
def test_a_right_answer(question, answer):
    assert grade(question, answer).right


@pytest.mark.parametrize(
    ("question", "answer", "why"),
    [
        (PORT, "", "no answer"),
        (PORT, " \n```\n", "no answer"),
        (PORT, "Port 80.", "does not say 8000"),
        (PORT, "Port 18000.", "does not say 8000"),
        (PORT, "Port 8000 or 8001.", "says 8001 too"),
        (PORT, "Port 8000, 8080, or 22.", "says 8080 too"),
        (PORT, "It is not port 8000.", "denies: not"),
        (PORT, "It isn't 8000.", "denies: isn't"),
        (PORT, "I do not know. Perhaps 8000.", "does not say 8000"),
        (BRANCH, "Check out main-dev or main.", "says main too"),
        (BRANCH, "Check out main-devel.", "does not say main-dev"),
        (COMMAND, "Run sage doctor or sage job list.", "says sage doctor too"),
        (COMMAND, "Run sage job listing.", "does not say sage job list"),
        (LAYERS, "It has 5 or 6 layers.", "says 6 too"),
        (LAYERS, "It has layers L1 to L5.", "does not say five | 5"),
        (BOTH, "FAISS.", "does not say sage db"),
        (PORT, "It is port 8000, which is " + "very " * 40 + "good.", "more than 40 words"),
    ],
)
def test_a_wrong_answer_and_why(question, answer, why):
    verdict = grade(question, answer)
    assert not verdict.right
    assert verdict.why.en == why
    assert verdict.why.zh


def test_the_first_sentence_keeps_dots_inside_words():
    assert first_sentence("SAGE needs Python 3.10 or newer. Take 3.11.") == "SAGE needs Python 3.10 or newer."
    assert first_sentence("It is in .sage/checkpoints") == "It is in .sage/checkpoints"
    assert first_sentence("端口是 8000。不是 8001。") == "端口是 8000。"
