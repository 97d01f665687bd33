"""Stage 4 has the model check itself: it answers its own questions anew, and judges what it answered.

Knows what is asked of the model and how its judgements become rows, as many "correct" as "wrong" ones. Knows nothing
of models (`writing`) or wording (`prompts`).
"""

import random
import re
from collections.abc import Sequence
from typing import Any, Literal

from sage_studio.training.methods.kbalign import prompts
from sage_studio.training.methods.kbalign.lines import Line, Lines
from sage_studio.training.methods.kbalign.samples import Sample, row
from sage_studio.training.methods.kbalign.working import work_through
from sage_studio.training.methods.kbalign.writing import Style, Writer, ask
from sage_studio.training.progress import Phase
from sage_studio.training.recipes.kbalign import KBAlignRecipe
from sage_studio.training.run import Run

TEMPERATURE, TOP_P = 0.2, 0.8
"""Of answers and judgements, as in the paper."""
TOKENS_AN_ANSWER = 160
TOKENS_A_JUDGEMENT = 80
CORRECT = re.compile(r"\W*(?:correct\b|right\b|yes\b|正确|对[，,。]|是的)", re.IGNORECASE)
WRONG = re.compile(r"\W*(?:wrong\b|incorrect\b|not correct\b|no\b|错误|不正确|不对)", re.IGNORECASE)

Verdict = Literal["correct", "wrong", ""]


class Check(Line):
    """One answer and what the model thinks of it.

    Attributes:
        sample: number of the question in ``3-samples.jsonl``, counted from 0.
        right: the answer it was taught.
        given: the answer it gave now.
        verdict: empty where the judgement is none.
    """

    sample: int
    spoken: Literal["en", "zh"] = "en"
    question: str
    references: tuple[str, ...] = ()
    right: str
    given: str = ""
    verdict: Verdict = ""
    judgement: str = ""
    error: str = ""


def verify(
    run: Run[KBAlignRecipe], writer: Writer, numbered: Sequence[tuple[int, Sample]], lines: Lines[Check]
) -> list[Check]:
    """Have each question answered and judged that the file does not hold yet. Raises as `work_through`."""
    return work_through(
        run,
        Phase.VERIFYING,
        lines,
        numbered,
        lambda each: each[0],
        lambda line: line.sample,
        lambda lot: _checked(writer, lot),
        run.recipe.generation_batch_size,
    )


def verdict_of(judgement: str) -> Verdict:
    """What a judgement begins with; empty if it is neither."""
    if WRONG.match(judgement):
        return "wrong"
    return "correct" if CORRECT.match(judgement) else ""


def balanced(checks: Sequence[Check], most: int, seed: int) -> list[Check]:
    """At most ``most`` checks, as many correct as wrong ones, drawn by chance; none where one kind is missing."""
    draw = random.Random(seed)
    kinds = [[check for check in checks if check.verdict == verdict] for verdict in ("correct", "wrong")]
    each = min(most // 2, *map(len, kinds))
    drawn = [check for kind in kinds for check in draw.sample(kind, each)]
    draw.shuffle(drawn)
    return drawn


def row_of(check: Check, file: str) -> dict[str, Any]:
    """A check as a row to train on: told the question, its references and the answer, the model gives the judgement."""
    asked = prompts.with_references(check.question, check.references, check.spoken)
    return row(prompts.check(asked, check.given, check.spoken), check.judgement, file)


def _checked(writer: Writer, lot: Sequence[tuple[int, Sample]]) -> list[Check]:
    seed = f"verify {lot[0][0]}"
    asked = [ask("", prompts.with_references(one.question, one.references, one.spoken)) for _, one in lot]
    given = writer.write(asked, Style(TOKENS_AN_ANSWER, TEMPERATURE, TOP_P), seed)
    pairs = zip(lot, given, strict=True)
    shown = [prompts.judge(one.question, one.answer, said.text, one.spoken) for (_, one), said in pairs]
    judged = writer.write(shown, Style(TOKENS_A_JUDGEMENT, TEMPERATURE, TOP_P), f"judge {seed}")
    checks = []
    for (number, one), said, judgement in zip(lot, given, judged, strict=True):
        error = said.error or judgement.error
        text = "" if error else " ".join(judgement.text.split())
        checks.append(
            Check(
                sample=number,
                spoken=one.spoken,
                question=one.question,
                references=one.references,
                right=one.answer,
                given=said.text.strip(),
                verdict=verdict_of(text) if said.text.strip() else "",
                judgement=text,
                error=error,
            )
        )
    return checks
