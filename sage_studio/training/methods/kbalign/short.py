"""Stage 1 has the model write questions on each chunk that the chunk alone answers.

Knows how often it is asked and what becomes of what it writes. Knows nothing of models (`writing`) or wording
(`prompts`).
"""

from collections.abc import Sequence

from pydantic import Field

from sage_studio.training.methods.kbalign import prompts
from sage_studio.training.methods.kbalign.chunks import Chunk
from sage_studio.training.methods.kbalign.filters import Pair, Sieve
from sage_studio.training.methods.kbalign.lines import Line, Lines
from sage_studio.training.methods.kbalign.working import work_through
from sage_studio.training.methods.kbalign.writing import Style, Writer
from sage_studio.training.progress import Phase
from sage_studio.training.recipes.kbalign import KBAlignRecipe
from sage_studio.training.run import Run

QUESTIONS, QUESTIONS_ZH = 5, 3
"""Questions a chunk in the paper: fewer in Chinese."""
TOKENS_A_PAIR = 80
"""Room for one question and its answer."""


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
    sieves = {chunk.chunk: Sieve(chunk.shown, recipe.min_support) for chunk in lot}
    tries, errors = dict.fromkeys(sieves, 0), dict.fromkeys(sieves, "")
    for attempt in range(recipe.tries):
        lacking = [chunk for chunk in lot if len(sieves[chunk.chunk].pairs) < wanted(recipe, chunk)]
        if not lacking:
            break
        asked = [prompts.write_pairs(chunk.shown, wanted(recipe, chunk), chunk.language) for chunk in lacking]
        most = max(wanted(recipe, chunk) for chunk in lacking)
        style = Style(most * TOKENS_A_PAIR, recipe.temperature, recipe.top_p)
        for chunk, said in zip(lacking, writer.write(asked, style, f"short {lot[0].chunk} {attempt}"), strict=True):
            tries[chunk.chunk] += 1
            errors[chunk.chunk] = said.error
            sieves[chunk.chunk].add(said.text, whole=said.whole)
    return [
        ShortLine(
            chunk=chunk.chunk,
            pairs=tuple(sieves[chunk.chunk].pairs[: wanted(recipe, chunk)]),
            tries=tries[chunk.chunk],
            left_out=dict(sieves[chunk.chunk].left_out),
            error=errors[chunk.chunk],
        )
        for chunk in lot
    ]
