"""Whether better rows give a better model: ``python -m benchmarks.rows_loss REPOSITORY [--tokens 60000] [--seeds 3]``.

Two adapters are trained on the same model with the same recipe and the same number of tokens, in packs, so that the
steps are as many too: one on the studio's rows of a documentation, one on a plain split at ``#`` lines
(`docs_quality.plain_split`); both on rows of the same documents, chosen at random, or which documents they are would
weigh more than how they were split. Then the loss of both, and of the base model, is taken over questions that neither
has seen: the headings that the documentation's own authors wrote as questions, with the text under them. The files that
hold these questions are kept out of both trainings whole, and so is any row elsewhere that nearly repeats one of the
answers. Losses are means per token of the answers, in nats. The last line says how much lower the studio's is, with a
standard error over the questions (each asked of both) and one over the seeds; the exit status is 1 when it is not lower
by two of either. A GPU is used where there is one.
"""

import argparse
import json
import random
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.docs_quality import plain_split
from sage_studio.catalog import BUILT_IN, Catalog
from sage_studio.data.near_duplicates import NearDuplicates
from sage_studio.data.rows import Example, Message, Origin
from sage_studio.data.sources.sage_docs import DocsRepository, SAGEDocsProcessor
from sage_studio.models.chat_template import ChatTokenizer
from sage_studio.models.unpack import ensure_unpacked
from sage_studio.settings import load_settings
from sage_studio.training.preview import lengths
from sage_studio.training.progress import TrainingJob
from sage_studio.training.recipes import SFTRecipe, dump_recipe
from sage_studio.training.tokenize import ANSWERS, IGNORED

MAX_LENGTH = 512
PLAIN, STUDIO = "a plain split", "the studio's rows"
NUMBER = re.compile(r"^\W*(?:Q|问题|检查点)\s*\d*\s*[:：.]\s*")


@dataclass(frozen=True)
class Loss:
    """Summed loss and the tokens that it was summed over."""

    total: float
    tokens: int


def main() -> int:
    """Train, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("repository")
    parser.add_argument("--tokens", type=int, default=60_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--questions", type=int, default=0, help="held-out questions to ask; 0: all")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        settings = load_settings(home=Path(home), docs_repo=options.repository)
        model = Path(ensure_unpacked(Catalog(settings), BUILT_IN).location)
        studio, plain, held_out = rows_of(settings)
        print(
            f"{len(studio):,} rows of the studio, {len(plain):,} of a plain split, {len(held_out)} held-out questions"
        )
        held_out = random.Random(0).sample(held_out, options.questions or len(held_out))
        report("the base model", model, None, held_out)
        losses: dict[str, list[list[Loss]]] = {PLAIN: [], STUDIO: []}
        for seed in range(options.seeds):
            for name, rows in shares(plain, studio, options.tokens, seed, ChatTokenizer(model)).items():
                adapter = trained(Path(home) / f"{name}-{seed}", model, rows, seed)
                title = f"{name}, seed {seed}, {len(rows)} rows"
                losses[name].append(report(title, model, adapter, held_out))
    return report_gap(losses[PLAIN], losses[STUDIO])


def rows_of(settings: Any) -> tuple[list[Example], list[Example], list[Example]]:
    """The studio's rows, the plain ones, and the questions held out of both."""
    studio = list(SAGEDocsProcessor(settings).examples())
    files = {file: content.decode("utf-8", "replace") for file, content in DocsRepository(settings).documents()}
    plain = [
        Example((Message("user", row.question),), row.answer, Origin(file, row=row.line))
        for file, text in files.items()
        for row in plain_split(file, text)
    ]
    held_out = [as_asked(row) for row in studio if row.origin.heading[-1].rstrip().endswith(("?", "？"))]
    closed = {row.origin.file for row in held_out}
    kept = [[row for row in rows if row.origin.file not in closed] for rows in (studio, plain)]
    return without_repeats(kept[0], held_out), without_repeats(kept[1], held_out), held_out


def as_asked(row: Example) -> Example:
    """The row with the heading itself for a question, as its author wrote it."""
    question = NUMBER.sub("", row.origin.heading[-1]).strip()
    return Example((Message("user", question),), row.completion, row.origin)


def without_repeats(rows: Sequence[Example], held_out: Sequence[Example]) -> list[Example]:
    """The rows whose answers are not nearly those of held-out ones."""
    with NearDuplicates() as near:
        for row in (*held_out, *rows):
            near.add(row.completion)
        repeats = {pair.second - len(held_out) for pair in near.pairs_across(len(held_out), alike=0.5)}
    return [row for at, row in enumerate(rows) if at not in repeats]


def shares(
    plain: Sequence[Example], studio: Sequence[Example], tokens: int, seed: int, tokenizer: ChatTokenizer
) -> dict[str, list[Example]]:
    """What each side trains on with one seed: rows of the same documents, in an order of its own."""
    documents = sorted({row.origin.file for row in (*studio, *plain)})
    random.Random(seed).shuffle(documents)
    chosen = {name: within(rows, documents, tokens, tokenizer) for name, rows in ((PLAIN, plain), (STUDIO, studio))}
    for rows in chosen.values():
        random.Random(seed).shuffle(rows)
    return chosen


def within(rows: Sequence[Example], documents: Sequence[str], tokens: int, tokenizer: ChatTokenizer) -> list[Example]:
    """Rows of one document after the other until they have so many tokens as they are trained on."""
    place, chosen, used = {file: at for at, file in enumerate(documents)}, list[Example](), 0
    for row in sorted(rows, key=lambda row: place[row.origin.file]):
        length, learns = next(lengths([row], tokenizer, MAX_LENGTH))
        if learns:
            chosen.append(row)
            used += min(length, MAX_LENGTH)
        if used >= tokens:
            break
    return chosen


def trained(folder: Path, model: Path, rows: Iterable[Example], seed: int) -> Path:
    """One epoch of the studio's own SFT, in a process of its own."""
    folder.mkdir()
    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps(row.to_json(), ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    recipe = SFTRecipe(
        model_name_or_path=str(model),
        dataset_id="rows",
        num_train_epochs=1,
        packing=True,
        per_device_train_batch_size=2,
        max_length=MAX_LENGTH,
        learning_rate=2e-4,
        save_steps=10_000,
        seed=seed,
    )
    (folder / "recipe.yaml").write_text(dump_recipe(recipe), encoding="utf-8")
    job = TrainingJob(model_location=str(model), data_path=str(data))
    (folder / "job.json").write_text(job.model_dump_json(), encoding="utf-8")
    command = [sys.executable, "-m", "sage_studio.training", str(folder)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return folder


def report(name: str, model: Path, adapter: Path | None, held_out: Sequence[Example]) -> list[Loss]:
    """Print the held-out loss, all together and by the language of the question."""
    losses = losses_of(model, adapter, held_out)
    chosen = {
        "all": losses,
        "zh": [loss for loss, row in zip(losses, held_out, strict=True) if not row.asked.isascii()],
        "en": [loss for loss, row in zip(losses, held_out, strict=True) if row.asked.isascii()],
    }
    figures = "  ".join(f"{label} {mean(some):.4f}" for label, some in chosen.items())
    print(f"{name:40}{figures}  ({sum(loss.tokens for loss in losses):,} tokens)", flush=True)
    return losses


def report_gap(plain: Sequence[Sequence[Loss]], studio: Sequence[Sequence[Loss]]) -> int:
    """Print how much lower the studio's loss is and how far that is chance; returns 1 when it may be chance.

    Args:
        plain: for each seed the loss of every question.
        studio: likewise, of the same questions in the same order.
    """
    by_seed = [mean(theirs) - mean(ours) for theirs, ours in zip(plain, studio, strict=True)]
    tokens = [loss.tokens for loss in studio[0]]
    lower = statistics.fmean(by_seed)
    of_question = [
        statistics.fmean(theirs.total - ours.total for theirs, ours in zip(*pair, strict=True))
        for pair in zip(zip(*plain, strict=True), zip(*studio, strict=True), strict=True)
    ]
    apart = [gap - lower * count for gap, count in zip(of_question, tokens, strict=True)]
    over_questions = statistics.stdev(apart) * len(apart) ** 0.5 / sum(tokens)
    over_seeds = statistics.stdev(by_seed) / len(by_seed) ** 0.5 if len(by_seed) > 1 else 0.0
    print(f"the studio's is lower by {lower:.4f} (± {over_questions:.4f} by question, ± {over_seeds:.4f} by seed)")
    return int(lower <= 2 * max(over_questions, over_seeds))


def losses_of(model: Path, adapter: Path | None, rows: Sequence[Example]) -> list[Loss]:
    """Of each row, over its answer's tokens."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    if adapter is not None:
        network = PeftModel.from_pretrained(network, adapter)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network.to(device).eval()
    encoded = ANSWERS.encode([row.to_json() for row in rows], AutoTokenizer.from_pretrained(model), MAX_LENGTH)
    assert len(encoded) == len(rows)
    losses = []
    with torch.no_grad():
        for ids, labels in zip(encoded.columns["input_ids"], encoded.columns["labels"], strict=True):
            learned = sum(label != IGNORED for label in labels)
            given = torch.tensor([ids, labels], device=device)
            loss = network(input_ids=given[:1], labels=given[1:]).loss
            losses.append(Loss(float(loss) * learned, learned))
    return losses


def mean(losses: Sequence[Loss]) -> float:
    """Per token."""
    return sum(loss.total for loss in losses) / sum(loss.tokens for loss in losses)


if __name__ == "__main__":
    sys.exit(main())
