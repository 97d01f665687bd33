"""Training in rounds with self-verification in between.

Each round trains on its part of the samples. From the second round on, the model first answers the questions of its
part and judges its answers; these judgements are trained on as well, as many "correct" as "wrong".
"""

import json
import random
import re
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from sage_studio.errors import InvalidDataset, naming_full_disk
from sage_studio.files import write_atomically
from sage_studio.text import Text
from sage_studio.training.methods.kbalign import prompts, stage_files
from sage_studio.training.methods.kbalign.generator import DecodingParams, Generator, conversation
from sage_studio.training.methods.kbalign.samples import Sample, conversation_row, training_rows
from sage_studio.training.methods.kbalign.stage_files import RecordFile, StageRecord, process_pending
from sage_studio.training.progress import Phase, ProgressWriter
from sage_studio.training.recipes.methods import KBAlignRecipe
from sage_studio.training.run import Run, RunState
from sage_studio.training.trainer import count_steps

# Verification

TEMPERATURE, TOP_P = 0.2, 0.8
"""Of answers and judgements, as in the paper."""
TOKENS_PER_ANSWER = 160
TOKENS_PER_JUDGEMENT = 80
CORRECT = re.compile(r"\W*(?:correct\b|right\b|yes\b|正确|对[，,。]|是的)", re.IGNORECASE)
WRONG = re.compile(r"\W*(?:wrong\b|incorrect\b|not correct\b|no\b|错误|不正确|不对)", re.IGNORECASE)

Verdict = Literal["correct", "wrong", ""]


class Check(StageRecord):
    """One answer and the model's judgement of it.

    Attributes:
        sample: number of the sample in ``3-samples.jsonl``, from 0.
        language: written ``spoken`` in the file.
        right: the reference answer.
        given: the answer that the model gave.
        verdict: empty if the judgement is neither.
    """

    sample: int
    language: prompts.Language = Field("en", alias="spoken")
    question: str
    references: tuple[str, ...] = ()
    right: str
    given: str = ""
    verdict: Verdict = ""
    judgement: str = ""
    error: str = ""


def verify(
    run: Run[KBAlignRecipe], generator: Generator, numbered: Sequence[tuple[int, Sample]], file: RecordFile[Check]
) -> list[Check]:
    """Have the model answer and judge each question that the file does not hold yet. Raises as `process_pending`."""
    return process_pending(
        run,
        Phase.VERIFYING,
        file,
        {number: (number, sample) for number, sample in numbered},
        lambda check: check.sample,
        lambda batch: _verify_batch(generator, batch),
    )


def verdict_of(judgement: str) -> Verdict:
    """The verdict that a judgement begins with; empty if it is neither."""
    if WRONG.match(judgement):
        return "wrong"
    return "correct" if CORRECT.match(judgement) else ""


def balanced(checks: Sequence[Check], most: int, seed: int) -> list[Check]:
    """A random choice of at most ``most`` checks, as many correct as wrong; none if there are none of one kind."""
    rng = random.Random(seed)
    kinds = [[check for check in checks if check.verdict == verdict] for verdict in ("correct", "wrong")]
    count = min(most // 2, *map(len, kinds))
    chosen = [check for kind in kinds for check in rng.sample(kind, count)]
    rng.shuffle(chosen)
    return chosen


def check_row(check: Check, file: str) -> dict[str, Any]:
    """A check as a training row: given question, references and answer, the model writes the judgement."""
    asked = prompts.with_references(check.question, check.references, check.language)
    return conversation_row(prompts.check(asked, check.given, check.language), check.judgement, file)


def _verify_batch(generator: Generator, batch: Sequence[tuple[int, Sample]]) -> list[Check]:
    seed = f"verify {batch[0][0]}"
    asked = [
        conversation("", prompts.with_references(sample.question, sample.references, sample.language))
        for _, sample in batch
    ]
    answers = generator.generate(asked, DecodingParams(TOKENS_PER_ANSWER, TEMPERATURE, TOP_P), seed)
    shown = [
        prompts.judge(sample.question, sample.answer, answer.text, sample.language)
        for (_, sample), answer in zip(batch, answers, strict=True)
    ]
    judgements = generator.generate(shown, DecodingParams(TOKENS_PER_JUDGEMENT, TEMPERATURE, TOP_P), f"judge {seed}")
    checks = []
    for (number, sample), answer, judgement in zip(batch, answers, judgements, strict=True):
        error = answer.error or judgement.error
        text = "" if error else " ".join(judgement.text.split())
        checks.append(
            Check(
                sample=number,
                language=sample.language,
                question=sample.question,
                references=sample.references,
                right=sample.answer,
                given=answer.text.strip(),
                verdict=verdict_of(text) if answer.text.strip() else "",
                judgement=text,
                error=error,
            )
        )
    return checks


# Rounds

MODEL = "model"
STATE = "round.json"


@dataclass(frozen=True, slots=True)
class FinishedRound:
    """A finished round: its number, the folder of its model, and the steps and tokens of all rounds so far."""

    number: int
    model: Path
    steps: int
    tokens: int


class RoundProgress(ProgressWriter):
    """Reports the steps of a round as steps of the whole run.

    Args:
        before, after: steps of the rounds before, and estimated steps of those after.
        number: of the round.
        rounds: how many there are.
    """

    def __init__(self, folder: Path, before: int, after: int, number: int, rounds: int) -> None:
        super().__init__(folder)
        self._before, self._after = before, after
        self._number, self._rounds = number, rounds
        self._epochs = 0.0

    def write(self, **fields: Any) -> None:
        """Append one event, with the steps, epochs and remaining time of the whole run."""
        step, total, eta = fields.get("step"), fields.get("total_steps"), fields.get("eta_seconds")
        if step is not None and total is not None:
            fields |= {"step": self._before + step, "total_steps": self._before + total + self._after}
            if eta is not None and total > step:
                fields["eta_seconds"] = eta / (total - step) * (total - step + self._after)
        if fields.get("epoch") is not None and self._epochs:
            fields["epoch"] = self._number - 1 + fields["epoch"] / self._epochs
        if fields.get("total_epochs") is not None:
            self._epochs = fields["total_epochs"]
            fields["total_epochs"] = self._rounds
        super().write(**fields)


def last_finished(run: Run[KBAlignRecipe]) -> FinishedRound | None:
    """The last round that an earlier start of this task finished."""
    for number in range(run.recipe.rounds, 0, -1):
        state = _round_folder(run, number) / MODEL / STATE
        if state.is_file():
            values = json.loads(state.read_text(encoding="utf-8"))
            return FinishedRound(number, state.parent, values["steps"], values["tokens"])
    return None


def save_model(run: Run[KBAlignRecipe], number: int, model: Any) -> None:
    """Save a round's model, from which a run resumes that is stopped in the next round; delete the one before."""
    folder = _round_folder(run, number)
    new, final = folder / f"{MODEL}.new", folder / MODEL
    shutil.rmtree(new, ignore_errors=True)
    with naming_full_disk(folder):
        model.save_pretrained(new, **({"save_embedding_layers": False} if run.recipe.use_lora else {}))
        state = {"steps": run.state.steps, "tokens": run.state.tokens}
        write_atomically(new / STATE, json.dumps(state))
        new.rename(final)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    shutil.rmtree(_round_folder(run, number - 1), ignore_errors=True)


def delete_models(run: Run[KBAlignRecipe]) -> None:
    """Delete the models of all rounds, once the trained model is saved."""
    for number in range(1, run.recipe.rounds + 1):
        shutil.rmtree(_round_folder(run, number), ignore_errors=True)


def has_begun(run: Run[KBAlignRecipe]) -> bool:
    """Whether any round has begun; from then on the samples stay as they are."""
    return any(run.checkpoints.glob("round-*"))


def write_rows(run: Run[KBAlignRecipe], number: int, samples: Sequence[Sample], generator: Generator) -> Path:
    """The file of a round's training rows: its samples and, from the second round on, its checks.

    An existing file is kept.
    """
    folder = run.folder / stage_files.FOLDER
    path = folder / stage_files.ROWS.format(number)
    if path.exists():
        return path
    part = [(at, sample) for at, sample in enumerate(samples) if sample.part == number]
    rows = [row for _, sample in part for row in training_rows(sample)]
    if number > 1 and run.recipe.verification_ratio and part:
        found = verify(run, generator, part, RecordFile(folder / stage_files.CHECKS.format(number), Check))
        checks = balanced(found, round(run.recipe.verification_ratio * len(rows)), run.recipe.seed)
        counts = Counter(check.verdict for check in found)
        print(
            f"round {number}: of {len(found)} answers the model judged {counts['correct']} correct, {counts['wrong']} "
            f"wrong and {counts['']} not at all; {len(checks)} judgements are trained on, half of either kind"
        )
        rows += [check_row(check, samples[check.sample].file) for check in checks]
    folder.mkdir(exist_ok=True)
    write_atomically(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def train_round(
    run: Run[KBAlignRecipe],
    number: int,
    rows: Path,
    samples: Sequence[Sample],
    train: Callable[[Run[KBAlignRecipe]], Any],
) -> Any:
    """Train one round; its figures are added to the run's also if it is stopped. Returns the model.

    Args:
        rows: file of the round's training rows.
        samples: of all rounds.
        train: trains on the data of the run that it is given.
    """
    recipe, state = run.recipe, run.state
    before, tokens = state.steps, state.tokens
    later = Counter(sample.part for sample in samples for _ in training_rows(sample) if sample.part > number)
    after = sum(count_steps(recipe, count) for count in later.values())
    own = replace(
        run,
        folder=_round_folder(run, number),
        recipe=recipe.model_copy(update={"max_samples": 0}),
        job=run.job.model_copy(update={"data_path": str(rows)}),
        progress=RoundProgress(run.folder, before, after, number, recipe.rounds),
        state=RunState(model_kind=state.model_kind),
    )
    own.folder.mkdir(parents=True, exist_ok=True)
    print(f"round {number} of {recipe.rounds}")
    try:
        return train(own)
    finally:
        state.steps, state.tokens = before + own.state.steps, tokens + own.state.tokens
        state.total_steps = before + own.state.total_steps + after
        state.epochs += own.state.epochs
        state.train_loss = own.state.train_loss
        state.tokens_per_second = own.state.tokens_per_second
        state.details[f"round_{number}"] = own.state.details
        state.place = Text()


def check_parts(samples: Sequence[Sample], rounds: int) -> None:
    """Raise `InvalidDataset` if a round has no sample."""
    missing = [number for number in range(1, rounds + 1) if all(sample.part != number for sample in samples)]
    if missing:
        raise InvalidDataset(
            Text(
                "{count} questions are not enough for {rounds} rounds: round {missing} has none.",
                count=len(samples),
                rounds=rounds,
                missing=missing[0],
            ),
            Text("Lower rounds, or add to the knowledge base."),
        )


def _round_folder(run: Run[KBAlignRecipe], number: int) -> Path:
    return run.checkpoints / f"round-{number}"
