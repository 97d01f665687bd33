"""HTML of a comparison: the columns, the votes, and the models' win rates.

In a blind comparison the names are hidden until somebody has voted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from markdown_it import MarkdownIt
from markupsafe import Markup

from sage_studio.evaluation.arena import Reply, Standing
from sage_studio.text import Language, Text
from sage_studio.ui.components.format import EMPTY, count, short
from sage_studio.ui.components.html import Lead, empty, notice, tiles
from sage_studio.ui.components.table import Column, Row, table

LETTERS = "ABCD"
WELCOME = Text("Compare answers")
HOW = Text(
    "Choose two to four models above and ask: they answer the same message side by side, each with its speed."
    " A blind comparison shuffles them and hides the names until you have voted."
)
ASK = Lead(Text("Ask them"), "compare-message")
BETTER, NONE_BETTER = Text("This one is better"), Text("No difference")
VOTE = Text("Which answer is better?")
YOURS, TIED = Text("your vote"), Text("You saw no difference.")
THINKING, STOPPED = Text("answering…"), Text("stopped")
SPEED, FIRST = Text("Speed"), Text("First token")
TOTAL, TOKENS = Text("Total"), Text("Tokens")
SECONDS = Text("{:.2f} s")
STANDINGS, MODEL = Text("Votes so far"), Text("Model")
WINS, TIES, PART = Text("Won"), Text("No difference", context="short"), Text("Compared")
SHARE = Text("Won of all")
FAULT = Text("No answer")

MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")

VOTE_JS = """
element.addEventListener('click', (event) => {
  const vote = event.target.closest('[data-vote]');
  if (vote) trigger('select', {key: vote.dataset.vote});
});
"""


@dataclass(frozen=True, slots=True)
class Round:
    """One message and its answers, in the order in which they are shown.

    Attributes:
        blind: whether names are hidden until a vote.
        vote: the place of the better answer, -1 for no difference; None before a vote.
        stopped: whether a person ended it.
    """

    message: str
    replies: tuple[Reply, ...]
    blind: bool = False
    vote: int | None = None
    stopped: bool = False

    @property
    def is_hidden(self) -> bool:
        """Whether nobody may see yet who is who."""
        return self.blind and self.vote is None and not self.stopped

    @property
    def takes_votes(self) -> bool:
        """Whether all have spoken, at least two of them to the end, and nobody has voted."""
        return self.is_hidden and all(one.is_over for one in self.replies) and sum(one.done for one in self.replies) > 1


def welcome(language: Language) -> Markup:
    """What this place is for."""
    return empty(WELCOME.in_(language), HOW.in_(language), ASK, language)


def columns(shown: Round, language: Language) -> Markup:
    """The message, and the answers side by side."""
    asked = Markup('<p class="asked">{}</p>').format(shown.message)
    articles = Markup().join(_column(shown, place, language) for place in range(len(shown.replies)))
    vote = _vote_row(language) if shown.takes_votes else Markup()
    tied = notice("idle", TIED.in_(language)) if shown.vote == -1 else Markup()
    return Markup('{}<div class="replies">{}</div>{}{}').format(asked, articles, vote, tied)


def standings_table(standings: Sequence[Standing], language: Language) -> Markup:
    """How the models stand by the votes; nothing before the first."""
    if not standings:
        return Markup()
    heads = (Column(MODEL), Column(WINS, True), Column(TIES, True), Column(PART, True), Column(SHARE, True))
    rows = [
        Row(
            (
                Markup('<code title="{}">{}</code>').format(one.model, short(one.model, 40)),
                count(one.wins),
                count(one.ties),
                count(one.comparisons),
                f"{one.wins / one.comparisons:.0%}",
            )
        )
        for one in standings
    ]
    heading = Markup("<h2 class=minor>{}</h2>").format(STANDINGS.in_(language))
    return heading + table(heads, rows, language, STANDINGS)


def _column(shown: Round, place: int, language: Language) -> Markup:
    reply, letter = shown.replies[place], LETTERS[place]
    better = Markup()
    if shown.takes_votes and reply.done:
        better = Markup('<button type="button" class="vote" data-vote="{}" aria-label="{}: {}">{}</button>').format(
            place, letter, BETTER.in_(language), BETTER.in_(language)
        )
    won = " won" if shown.vote == place else ""
    return Markup(
        '<article class="reply{}" aria-label="{}" aria-busy="{}"><header>{}{}</header>{}<div class="answer">{}{}</div>'
        "{}</article>"
    ).format(
        won,
        letter if shown.is_hidden else reply.asked,
        "false" if reply.is_over or shown.stopped else "true",
        _name(shown, place),
        _state(shown, place, language),
        _figures(reply, language),
        Markup(MARKDOWN.render(reply.text)),
        _fault(shown, reply, language),
        better,
    )


def _name(shown: Round, place: int) -> Markup:
    """A letter while it is hidden; else the identity that the server returned, or what was asked for without one."""
    letter = Markup('<span class="letter">{}</span>').format(LETTERS[place]) if shown.blind else Markup()
    if shown.is_hidden:
        return letter
    name = shown.replies[place].model or shown.replies[place].asked
    return letter + Markup('<code title="{}">{}</code>').format(name, short(name, 38))


def _state(shown: Round, place: int, language: Language) -> Markup:
    reply = shown.replies[place]
    if shown.vote == place:
        return Markup('<span class="chip done">✓ {}</span>').format(YOURS.in_(language))
    if reply.error is not None:
        return Markup('<span class="chip failed">{}</span>').format(FAULT.in_(language))
    if reply.done:
        return Markup()
    message = STOPPED if shown.stopped else THINKING
    return Markup('<span class="chip {}">{}</span>').format(
        "idle" if shown.stopped else "running", message.in_(language)
    )


def _figures(reply: Reply, language: Language) -> Markup:
    seconds = SECONDS.in_(language)
    shown = [
        (SPEED, EMPTY if reply.tokens_per_second is None else f"{reply.tokens_per_second:.1f} tok/s"),
        (FIRST, EMPTY if reply.first_token_seconds is None else seconds.format(reply.first_token_seconds)),
        (TOTAL, seconds.format(reply.seconds) if reply.is_over else EMPTY),
        (TOKENS, count(reply.completion_tokens) if reply.done else EMPTY),
    ]
    return tiles([(label.in_(language), value) for label, value in shown], css="four")


def _fault(shown: Round, reply: Reply, language: Language) -> Markup:
    """Why it said no more; in a blind comparison without any name."""
    if reply.error is None:
        return Markup()
    message = [reply.error.message.in_(language), reply.error.hint.in_(language)]
    if shown.is_hidden:
        for place, one in enumerate(shown.replies):
            message = [text.replace(one.asked, LETTERS[place]) for text in message]
    return notice("failed", *message)


def _vote_row(language: Language) -> Markup:
    return Markup(
        '<div class="vote-row"><strong>{}</strong><button type="button" class="vote" data-vote="-1">{}</button></div>'
    ).format(VOTE.in_(language), NONE_BETTER.in_(language))
