"""KBAlign from end to end: read, annotate, mix, learn in rounds, save.

Knows the order of the stages and what is wrong when one yields nothing. Knows nothing of what a stage does.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import set_seed

from sage_studio.errors import InvalidDataset
from sage_studio.text import Text
from sage_studio.training import base_model, environment, rows, saving, tuning
from sage_studio.training.methods import sft
from sage_studio.training.methods.kbalign import folder as names
from sage_studio.training.methods.kbalign import long, rounds, short
from sage_studio.training.methods.kbalign.chunks import Chunk, cut, passages_at, token_spans
from sage_studio.training.methods.kbalign.generation import TransformersWriter
from sage_studio.training.methods.kbalign.lines import AnyLine, Lines
from sage_studio.training.methods.kbalign.samples import Sample, mix
from sage_studio.training.methods.kbalign.writing import Writer
from sage_studio.training.progress import Phase
from sage_studio.training.recipes.kbalign import KBAlignRecipe
from sage_studio.training.run import Run


def train(run: Run[KBAlignRecipe]) -> None:
    """Annotate, train in rounds, save, and check the model. Raises `Stopped` when asked to stop, to be gone on with."""
    recipe = run.recipe
    saving.check_output(recipe.output_dir)
    run = tuning.with_optimizer(run)
    dtype = environment.compute_type(recipe.precision)
    set_seed(recipe.seed)

    run.progress.phase(Phase.READING_DATA)
    tokenizer = base_model.load_tokenizer(run.job)
    rows.check_template(tokenizer)
    chunks = _chunks(run, tokenizer)

    learned = rounds.last_learned(run)
    model = tuning.load(_going_on(run, learned), dtype)
    writer = TransformersWriter(model, tokenizer, recipe.generation_batch_size, recipe.seed)
    samples = _samples(run, writer, tokenizer, chunks)
    rounds.check_parts(samples, recipe.rounds)
    for number in range(learned.number + 1 if learned else 1, recipe.rounds + 1):
        run.stop.interrupt()
        model = _round(run, number, samples, writer, model, tokenizer, dtype)
        rounds.keep(run, number, model)
    tuning.finish(run, model, tokenizer, run.tally.details)
    rounds.forget(run)


def _going_on(run: Run[KBAlignRecipe], learned: rounds.Learned | None) -> Run[KBAlignRecipe]:
    """The run with the model of the newest finished round in place of the base."""
    if learned is None:
        return run
    run.tally.steps, run.tally.tokens = learned.steps, learned.tokens
    print(f"going on behind round {learned.number}")
    place = "adapter_location" if run.recipe.use_lora else "model_location"
    return replace(run, job=run.job.model_copy(update={place: str(learned.model)}))


def _chunks(run: Run[KBAlignRecipe], tokenizer: Any) -> list[Chunk]:
    recipe, lines = run.recipe, _file(run, names.CHUNKS, Chunk)
    chunks = lines.read()
    if not chunks:
        found = passages_at(Path(run.job.data_path), recipe.max_samples)
        run.tally.rows = len(found)
        chunks = cut(found, token_spans(tokenizer), recipe.chunk_size, recipe.chunk_overlap, recipe.max_chunks)
        if not chunks:
            raise InvalidDataset(
                Text("The knowledge base holds no text.", "知识库中没有文本。"),
                Text("Add documents to it.", "请添加文档。"),
            )
        lines.replace(chunks)
    print(f"chunks   {len(chunks):,} of at most {recipe.chunk_size} tokens")
    run.tally.details["chunks"] = len(chunks)
    return chunks


def _samples(run: Run[KBAlignRecipe], writer: Writer, tokenizer: Any, chunks: Sequence[Chunk]) -> list[Sample]:
    """Stages 1 to 3: what their files lack is made, and samples older than what they were made of are made again."""
    recipe, lines = run.recipe, _file(run, names.SAMPLES, Sample)
    short_file, long_file = _file(run, names.SHORT, short.ShortLine), _file(run, names.LONG, long.LongLine)
    asked = short.annotate(run, writer, chunks, short_file) if recipe.short_dependency else []
    answered: list[long.LongLine] = []
    if recipe.long_dependency:
        general_file = _file(run, names.GENERAL, long.GeneralLine)
        general = long.ask_in_general(run, writer, chunks, general_file, token_spans(tokenizer))
        answered = long.answer_in_general(run, writer, chunks, general, long_file)
    run.progress.phase(Phase.MIXING)
    if _is_older(lines.path, (short_file.path, long_file.path)) and not rounds.has_begun(run):
        _count(run, asked, answered)
        lines.replace(mix(recipe, chunks, asked, answered, token_spans(tokenizer)))
    samples = lines.read()
    run.tally.details["questions"] = len(samples)
    return samples


def _count(run: Run[KBAlignRecipe], asked: Sequence[short.ShortLine], answered: Sequence[long.LongLine]) -> None:
    """Say what came of the annotation. Raises `InvalidDataset` where nothing did, with what was wrong most often."""
    pairs = sum(len(line.pairs) for line in asked)
    long_pairs = sum(bool(line.answer) for line in answered)
    left_out = Counter[str]()
    for line in asked:
        left_out.update(line.left_out)
    errors = [error for error in (*(line.error for line in asked), *(line.error for line in answered)) if error]
    failed = [line for line in asked if line.error and not line.pairs]
    run.tally.details |= {
        "short_questions": pairs,
        "long_questions": long_pairs,
        "long_unanswered": len(answered) - long_pairs,
        "failed_chunks": len(failed),
        "left_out": dict(left_out),
    }
    print(f"kept     {pairs:,} short questions, {long_pairs:,} of {len(answered):,} general ones")
    for fault, count in left_out.most_common():
        print(f"left out {count:,} pairs: {fault}")
    for line in failed:
        print(f"chunk {line.chunk} failed: {line.error}")
    if not pairs and not long_pairs:
        raise _nothing(len(asked), [*(fault for fault, _ in left_out.most_common(1)), *errors])


def _round(
    run: Run[KBAlignRecipe],
    number: int,
    samples: Sequence[Sample],
    writer: Writer,
    model: Any,
    tokenizer: Any,
    dtype: Any,
) -> Any:
    """Verify, then learn one part. Returns the model."""
    path = rounds.rows_for(run, number, samples, writer)

    def learn(own: Run[KBAlignRecipe]) -> Any:
        encoded = tuning.read(own, tokenizer, rows.answered, rows.encode)
        return tuning.learn(own, model, tokenizer, encoded, dtype, sft.trainer_of)

    return rounds.learn_round(run, number, path, samples, learn)


def _file(run: Run[KBAlignRecipe], name: str, kind: type[AnyLine]) -> Lines[AnyLine]:
    return Lines(run.folder / names.FOLDER / name, kind)


def _is_older(path: Path, sources: Iterable[Path]) -> bool:
    """Whether a file is missing, or older than one that it was made of."""
    times = [source.stat().st_mtime_ns for source in sources if source.exists()]
    return not path.exists() or path.stat().st_mtime_ns < max(times, default=0)


def _nothing(chunks: int, why: Sequence[str]) -> InvalidDataset:
    most = f" ({'; '.join(why[:2])})" if why else ""
    return InvalidDataset(
        Text(
            f"Of {chunks} chunks the model wrote no question that could be kept{most}.",
            f"模型没有为 {chunks} 个片段写出可用的问题{most}。",
        ),
        Text(
            "Choose a larger model, answers: quoted, more tries or a lower min_support; or write pairs into "
            "kbalign/1-short.jsonl and resume.",
            "请选择更大的模型、把 answers 设为 quoted、增加 tries 或降低 min_support；也可在 kbalign/1-short.jsonl "
            "中写入问答后继续任务。",
        ),
    )
