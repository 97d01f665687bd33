"""Stage 1 has the model write questions on each chunk that the chunk alone answers.

Knows how often it is asked and what becomes of what it writes. Knows nothing of models (`writing`), wording (`prompts`)
or of what makes a pair good (`sieve`).
"""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import Field

from sage_studio.training.methods.kbalign import prompts
from sage_studio.training.methods.kbalign.chunks import Chunk
from sage_studio.training.methods.kbalign.filters import Pair
from sage_studio.training.methods.kbalign.lines import Line, Lines
from sage_studio.training.methods.kbalign.quotes import quotes_of
from sage_studio.training.methods.kbalign.roundtrip import DISAGREE, TOKENS_AN_ANSWER, agreement
from sage_studio.training.methods.kbalign.sieve import CUT_OFF, Sieve
from sage_studio.training.methods.kbalign.working import work_through
from sage_studio.training.methods.kbalign.writing import Style, Writer
from sage_studio.training.progress import Phase
from sage_studio.training.recipes.kbalign import KBAlignRecipe
from sage_studio.training.run import Run

QUESTIONS, QUESTIONS_ZH = 5, 3
"""Questions a chunk in the paper: fewer in Chinese."""
TOKENS_A_PAIR = 80
"""Room for one question and its answer."""
TOKENS_A_QUESTION = 40
NO_QUOTES = "no sentence of the text can be quoted"


class ShortLine(Line):
    """What came of one chunk.

    Attributes:
        pairs: what is kept.
        left_out: how many pairs were not, by their fault.
        error: why the model could write nothing, the last time it was asked.
    """

    chunk: int
    pairs: tuple[Pair, ...] = ()
    tries: int = 0
    left_out: dict[str, int] = Field(default_factory=dict)
    error: str = ""


@dataclass
class _Asking:
    """A chunk that is being asked about.

    Attributes:
        wanted: how many pairs it shall have.
        quotes: its sentences that may be answers, in the order in which they are tried.
        tried: how often each was.
    """

    chunk: Chunk
    sieve: Sieve
    wanted: int
    quotes: Sequence[str]
    tried: Counter[str] = field(default_factory=Counter)
    tries: int = 0
    error: str = ""

    @property
    def lacks(self) -> int:
        return max(0, self.wanted - len(self.sieve.pairs))


def annotate(
    run: Run[KBAlignRecipe], writer: Writer, chunks: Sequence[Chunk], lines: Lines[ShortLine]
) -> list[ShortLine]:
    """Have every chunk asked about that the file does not hold yet. Raises as `work_through`."""
    return work_through(
        run,
        Phase.SHORT_DEPENDENCY,
        lines,
        chunks,
        lambda chunk: chunk.chunk,
        lambda line: line.chunk,
        lambda lot: _annotated(run.recipe, writer, lot),
        run.recipe.generation_batch_size,
    )


def wanted(recipe: KBAlignRecipe, chunk: Chunk) -> int:
    """Questions about one chunk."""
    return recipe.questions_per_chunk or (QUESTIONS_ZH if chunk.language == "zh" else QUESTIONS)


def _annotated(recipe: KBAlignRecipe, writer: Writer, lot: Sequence[Chunk]) -> list[ShortLine]:
    """Ask about all chunks of the lot, and again about those that have too few, up to ``tries`` times."""
    asked = [_begun(recipe, chunk) for chunk in lot]
    for attempt in range(recipe.tries):
        lacking = [one for one in asked if one.lacks]
        if not lacking:
            break
        seed = f"short {lot[0].chunk} {attempt}"
        found = (_quoted if recipe.answers == "quoted" else _written)(recipe, writer, lacking, seed)
        _keep(recipe, writer, found, f"again {seed}")
    return [
        ShortLine(
            chunk=one.chunk.chunk,
            pairs=tuple(one.sieve.pairs[: one.wanted]),
            tries=one.tries,
            left_out=dict(one.sieve.left_out),
            error=one.error,
        )
        for one in asked
    ]


def _begun(recipe: KBAlignRecipe, chunk: Chunk) -> _Asking:
    quotes = quotes_of(chunk.text) if recipe.answers == "quoted" else []
    random.Random(f"{recipe.seed} {chunk.chunk}").shuffle(quotes)
    return _Asking(chunk, Sieve(chunk.shown, recipe.min_support), wanted(recipe, chunk), quotes)


def _written(
    recipe: KBAlignRecipe, writer: Writer, lacking: Sequence[_Asking], seed: str
) -> list[tuple[_Asking, Pair]]:
    """Good pairs that the model wrote as a whole, as in the paper."""
    asked = [prompts.write_pairs(one.chunk.shown, one.wanted, one.chunk.language) for one in lacking]
    style = Style(max(one.wanted for one in lacking) * TOKENS_A_PAIR, recipe.temperature, recipe.top_p)
    found = list[tuple[_Asking, Pair]]()
    for one, said in zip(lacking, writer.write(asked, style, seed), strict=True):
        one.tries, one.error = one.tries + 1, said.error
        found += [(one, pair) for pair in one.sieve.pairs_of(said.text, whole=said.whole)]
    return found


def _quoted(recipe: KBAlignRecipe, writer: Writer, lacking: Sequence[_Asking], seed: str) -> list[tuple[_Asking, Pair]]:
    """Good pairs of a sentence of the text and a question that the model wrote to it."""
    chosen = [(one, quote) for one in lacking for quote in _next_quotes(one)]
    asked = [prompts.write_question(quote, one.chunk.language) for one, quote in chosen]
    style = Style(TOKENS_A_QUESTION, recipe.temperature, recipe.top_p)
    found = list[tuple[_Asking, Pair]]()
    for (one, quote), said in zip(chosen, writer.write(asked, style, seed), strict=True):
        one.error = said.error
        pair = Pair(question=" ".join(said.text.split()), answer=quote)
        if not said.whole:
            one.sieve.leave_out(CUT_OFF)
        elif not said.error and one.sieve.is_good(pair):
            found.append((one, pair))
    return found


def _next_quotes(one: _Asking) -> list[str]:
    """As many sentences as there are pairs lacking: those that were kept least often, then those tried least."""
    one.tries += 1
    one.error = "" if one.quotes else NO_QUOTES
    kept, chosen = Counter(pair.answer for pair in one.sieve.pairs), list[str]()
    for _ in range(one.lacks if one.quotes else 0):
        quote = min(one.quotes, key=lambda quote: (kept[quote], one.tried[quote]))
        kept[quote] += 1
        one.tried[quote] += 1
        chosen.append(quote)
    return chosen


def _keep(recipe: KBAlignRecipe, writer: Writer, found: Sequence[tuple[_Asking, Pair]], seed: str) -> None:
    """Keep the good pairs whose answer the model gives again, or all where the recipe does not ask for that."""
    agreed = [1.0] * len(found)
    if recipe.min_agreement and found:
        asked = [prompts.answer_part(pair.question, one.chunk.shown, one.chunk.language) for one, pair in found]
        given = writer.write(asked, Style(TOKENS_AN_ANSWER), seed)
        agreed = [agreement(pair, said.text) for (_, pair), said in zip(found, given, strict=True)]
    for (one, pair), share in zip(found, agreed, strict=True):
        if share >= recipe.min_agreement:
            one.sieve.keep(pair)
        else:
            one.sieve.leave_out(DISAGREE)
