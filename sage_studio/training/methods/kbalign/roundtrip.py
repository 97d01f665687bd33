"""Whether a model that answers its own question again says the same: round-trip consistency (arXiv 1906.05416).

A question that asks for something other than its answer, or for what the text does not say, is mostly answered
differently the second time. Knows how two answers are compared. Knows nothing of models or wording.
"""

from sage_studio.training.methods.kbalign.filters import Pair, telling_words

DISAGREE = "asked again, the model answers otherwise"
TOKENS_AN_ANSWER = 60


def agreement(pair: Pair, given: str) -> float:
    """How far another answer to a pair's question says the same, 0 to 1.

    Compared is what either adds to the question, for a subject that both repeat proves nothing; the shorter one counts,
    for a name alone may be as right as a sentence.

    Example:
        >>> pair = Pair(question="Who designed the Lume bridge?", answer="The Lume bridge was opened in 1931.")
        >>> agreement(pair, "The Lume bridge was designed by Ada Lind.") < 0.5
        True
    """
    asked = set(telling_words(pair.question))
    told, again = set(telling_words(pair.answer)) - asked, set(telling_words(given)) - asked
    return len(told & again) / min(len(told), len(again)) if told and again else 0.0
