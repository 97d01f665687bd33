"""Stage 4 goes in rounds: the model learns one part of the questions after the other, and checks itself between.

Knows the order of a round, where each leaves its model, and how steps are counted over all of them. Knows nothing of
how a model is trained (`training.tuning`) or verified (`verification`).
"""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sage_studio.errors import InvalidDataset, naming_full_disk
from sage_studio.files import write_atomically
from sage_studio.text import Text
from sage_studio.training.fitting import steps_of
from sage_studio.training.methods.kbalign import folder as names
from sage_studio.training.methods.kbalign.lines import Lines
from sage_studio.training.methods.kbalign.samples import Sample, rows_of
from sage_studio.training.methods.kbalign.verification import Check, balanced, row_of, verify
from sage_studio.training.methods.kbalign.writing import Writer
from sage_studio.training.progress import ProgressWriter
from sage_studio.training.recipes.kbalign import KBAlignRecipe
from sage_studio.training.run import Run, Tally

MODEL = "model"
STATE = "round.json"


@dataclass(frozen=True, slots=True)
class Learned:
    """A round that is over: its number, where its model lies, and the steps and tokens of all rounds so far."""

    number: int
    model: Path
    steps: int
    tokens: int


class RoundProgress(ProgressWriter):
    """Reports a round's steps as steps of the whole run.

    Args:
        before, after: steps of the rounds before, and about as many as those after will have.
        number: of the round; rounds: how many there are.
    """

    def __init__(self, folder: Path, before: int, after: int, number: int, rounds: int) -> None:
        super().__init__(folder)
        self._before, self._after = before, after
        self._number, self._rounds = number, rounds
        self._epochs = 0.0

    def write(self, **fields: Any) -> None:
        """Append one event, its steps, epochs and time left brought to those of the whole run."""
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


def last_learned(run: Run[KBAlignRecipe]) -> Learned | None:
    """The newest round that is over, from an earlier start of this task."""
    for number in range(run.recipe.rounds, 0, -1):
        state = _round_folder(run, number) / MODEL / STATE
        if state.is_file():
            known = json.loads(state.read_text(encoding="utf-8"))
            return Learned(number, state.parent, known["steps"], known["tokens"])
    return None


def keep(run: Run[KBAlignRecipe], number: int, model: Any) -> None:
    """Keep a round's model, to go on from if the next round is broken off; the one before is given up."""
    folder = _round_folder(run, number)
    new, final = folder / f"{MODEL}.new", folder / MODEL
    shutil.rmtree(new, ignore_errors=True)
    with naming_full_disk(folder):
        model.save_pretrained(new, **({"save_embedding_layers": False} if run.recipe.use_lora else {}))
        state = {"steps": run.tally.steps, "tokens": run.tally.tokens}
        write_atomically(new / STATE, json.dumps(state))
        new.rename(final)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    shutil.rmtree(_round_folder(run, number - 1), ignore_errors=True)


def forget(run: Run[KBAlignRecipe]) -> None:
    """Give up all rounds' models: the finished one is saved."""
    for number in range(1, run.recipe.rounds + 1):
        shutil.rmtree(_round_folder(run, number), ignore_errors=True)


def has_begun(run: Run[KBAlignRecipe]) -> bool:
    """Whether anything was learned yet: then the samples stay as they are."""
    return any(run.checkpoints.glob("round-*"))


def rows_for(run: Run[KBAlignRecipe], number: int, samples: Sequence[Sample], writer: Writer) -> Path:
    """The file of rows that a round learns, made unless it is there.

    From the second round on the model first answers its part's questions and judges its answers.
    """
    stages = run.folder / names.FOLDER
    path = stages / names.ROWS.format(number)
    part = [(at, sample) for at, sample in enumerate(samples) if sample.part == number]
    if not path.exists():
        rows = [row for _, sample in part for row in rows_of(sample)]
        checks: list[Check] = []
        if number > 1 and run.recipe.verification_ratio and part:
            found = verify(run, writer, part, Lines(stages / names.CHECKS.format(number), Check))
            checks = balanced(found, round(run.recipe.verification_ratio * len(rows)), run.recipe.seed)
            _say(number, found, checks)
        rows += [row_of(check, samples[check.sample].file) for check in checks]
        stages.mkdir(exist_ok=True)
        write_atomically(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def learn_round(
    run: Run[KBAlignRecipe],
    number: int,
    rows: Path,
    samples: Sequence[Sample],
    learn: Callable[[Run[KBAlignRecipe]], Any],
) -> Any:
    """One round's training, counted into the run's tally also where it is stopped. Returns the model.

    Args:
        rows: what is learned.
        samples: of all rounds.
        learn: trains on the data of the run it is given.
    """
    recipe, tally = run.recipe, run.tally
    before, tokens = tally.steps, tally.tokens
    later = Counter(sample.part for sample in samples for _ in rows_of(sample) if sample.part > number)
    after = sum(steps_of(recipe, count) for count in later.values())
    own = replace(
        run,
        folder=_round_folder(run, number),
        recipe=recipe.model_copy(update={"max_samples": 0}),
        job=run.job.model_copy(update={"data_path": str(rows)}),
        progress=RoundProgress(run.folder, before, after, number, recipe.rounds),
        tally=Tally(model_kind=tally.model_kind),
    )
    own.folder.mkdir(parents=True, exist_ok=True)
    print(f"round {number} of {recipe.rounds}")
    try:
        return learn(own)
    finally:
        tally.steps, tally.tokens = before + own.tally.steps, tokens + own.tally.tokens
        tally.total_steps = before + own.tally.total_steps + after
        tally.epochs += own.tally.epochs
        tally.train_loss = own.tally.train_loss
        tally.tokens_per_second = own.tally.tokens_per_second
        tally.details[f"round_{number}"] = own.tally.details
        tally.place = Text("", "")


def check_parts(samples: Sequence[Sample], rounds: int) -> None:
    """Raise `InvalidDataset` where there are too few questions for so many rounds, or a sample of no round."""
    missing = [number for number in range(1, rounds + 1) if all(sample.part != number for sample in samples)]
    if missing:
        raise InvalidDataset(
            Text(
                f"{len(samples)} questions are not enough for {rounds} rounds: none is left for round {missing[0]}.",
                f"{len(samples)} 个问题不够分成 {rounds} 轮：第 {missing[0]} 轮没有问题。",
            ),
            Text("Lower rounds, or add to the knowledge base.", "请减少 rounds，或扩充知识库。"),
        )


def _round_folder(run: Run[KBAlignRecipe], number: int) -> Path:
    return run.checkpoints / f"round-{number}"


def _say(number: int, found: Sequence[Check], kept: Sequence[Check]) -> None:
    counts = {verdict: sum(check.verdict == verdict for check in found) for verdict in ("correct", "wrong", "")}
    print(
        f"round {number}: of {len(found)} answers the model judged {counts['correct']} correct and {counts['wrong']} "
        f"wrong, {counts['']} not at all; {len(kept)} judgements are learned, as many of either kind"
    )
