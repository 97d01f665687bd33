"""KBAlign from end to end: chunk, annotate, build samples, train in rounds, save."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import set_seed

from sage_studio.errors import InvalidDataset
from sage_studio.text import Text
from sage_studio.training import environment, model_loading, save, tokenize, trainer
from sage_studio.training.methods import sft
from sage_studio.training.methods.kbalign import annotate, rounds, stage_files
from sage_studio.training.methods.kbalign.chunks import Chunk, chunk_rows, read_rows, token_spans
from sage_studio.training.methods.kbalign.generator import Generator, TransformersGenerator
from sage_studio.training.methods.kbalign.samples import Sample, build_samples
from sage_studio.training.methods.kbalign.stage_files import Record, RecordFile
from sage_studio.training.progress import Phase
from sage_studio.training.recipes.methods import KBAlignRecipe
from sage_studio.training.run import Run


def train(run: Run[KBAlignRecipe]) -> None:
    """Annotate, train in rounds, save, and check the model. Raises `Stopped` when asked to stop."""
    recipe = run.recipe
    save.check_output(recipe.output_dir)
    run = trainer.with_optimizer(run)
    dtype = environment.compute_type(recipe.precision)
    set_seed(recipe.seed)

    run.progress.phase(Phase.READING_DATA)
    tokenizer = model_loading.load_tokenizer(run.job)
    tokenize.check_template(tokenizer)
    chunks = _chunks(run, tokenizer)

    finished = rounds.last_finished(run)
    model = trainer.load(_resumed(run, finished), dtype)
    generator = TransformersGenerator(model, tokenizer, recipe.generation_batch_size, recipe.seed)
    samples = _samples(run, generator, tokenizer, chunks)
    rounds.check_parts(samples, recipe.rounds)
    for number in range(finished.number + 1 if finished else 1, recipe.rounds + 1):
        run.stop.interrupt()
        path = rounds.write_rows(run, number, samples, generator)

        def train_on_rows(own: Run[KBAlignRecipe], model: Any = model) -> Any:
            encoded = trainer.read(own, tokenizer, tokenize.ANSWERS)
            return trainer.fit_rows(own, model, tokenizer, encoded, dtype, sft.trainer_of)

        model = rounds.train_round(run, number, path, samples, train_on_rows)
        rounds.save_model(run, number, model)
    trainer.finish(run, model, tokenizer, run.state.details)
    rounds.delete_models(run)


def _resumed(run: Run[KBAlignRecipe], finished: rounds.FinishedRound | None) -> Run[KBAlignRecipe]:
    """The run with the model of the last finished round in place of the base model."""
    if finished is None:
        return run
    run.state.steps, run.state.tokens = finished.steps, finished.tokens
    print(f"resuming after round {finished.number}")
    place = "adapter_location" if run.recipe.use_lora else "model_location"
    return replace(run, job=run.job.model_copy(update={place: str(finished.model)}))


def _chunks(run: Run[KBAlignRecipe], tokenizer: Any) -> list[Chunk]:
    recipe, file = run.recipe, _file(run, stage_files.CHUNKS, Chunk)
    chunks = file.read()
    if not chunks:
        found = read_rows(Path(run.job.data_path), recipe.max_samples)
        run.state.rows = len(found)
        chunks = chunk_rows(found, token_spans(tokenizer), recipe.chunk_size, recipe.chunk_overlap, recipe.max_chunks)
        if not chunks:
            raise InvalidDataset(
                Text("The knowledge base contains no text."),
                Text("Add documents to it."),
            )
        file.replace(chunks)
    print(f"chunks   {len(chunks):,} of at most {recipe.chunk_size} tokens")
    run.state.details["chunks"] = len(chunks)
    return chunks


def _samples(run: Run[KBAlignRecipe], generator: Generator, tokenizer: Any, chunks: Sequence[Chunk]) -> list[Sample]:
    """Complete the annotation, and build the samples anew if their file is older than the annotation."""
    recipe, file, spans = run.recipe, _file(run, stage_files.SAMPLES, Sample), token_spans(tokenizer)
    short_file = _file(run, stage_files.SHORT, annotate.ShortAnnotation)
    long_file = _file(run, stage_files.LONG, annotate.LongAnnotation)
    short = annotate.annotate_short(run, generator, chunks, short_file) if recipe.short_dependency else []
    long: list[annotate.LongAnnotation] = []
    if recipe.long_dependency:
        general_file = _file(run, stage_files.GENERAL, annotate.GeneralQuestions)
        general = annotate.write_general_questions(run, generator, chunks, general_file, spans)
        long = annotate.answer_general_questions(run, generator, chunks, general, long_file)
    run.progress.phase(Phase.MIXING)
    if _is_older(file.path, (short_file.path, long_file.path)) and not rounds.has_begun(run):
        _report_annotation(run, short, long)
        file.replace(build_samples(recipe, chunks, short, long, spans))
    samples = file.read()
    run.state.details["questions"] = len(samples)
    return samples


def _report_annotation(
    run: Run[KBAlignRecipe], short: Sequence[annotate.ShortAnnotation], long: Sequence[annotate.LongAnnotation]
) -> None:
    """Log the figures of the annotation. Raises `InvalidDataset` if there is no pair, with the most frequent reason."""
    pairs = sum(len(record.pairs) for record in short)
    long_pairs = sum(bool(record.answer) for record in long)
    left_out = Counter[str]()
    for record in short:
        left_out.update(record.left_out)
    errors = [error for error in (*(each.error for each in short), *(each.error for each in long)) if error]
    failed = [record for record in short if record.error and not record.pairs]
    run.state.details |= {
        "short_questions": pairs,
        "long_questions": long_pairs,
        "long_unanswered": len(long) - long_pairs,
        "failed_chunks": len(failed),
        "left_out": dict(left_out),
    }
    print(f"kept     {pairs:,} short questions, {long_pairs:,} of {len(long):,} general ones")
    for reason, count in left_out.most_common():
        print(f"left out {count:,} pairs: {reason}")
    for record in failed:
        print(f"chunk {record.chunk} failed: {record.error}")
    if not pairs and not long_pairs:
        raise _nothing_usable(len(short), [*(reason for reason, _ in left_out.most_common(1)), *errors])


def _file(run: Run[KBAlignRecipe], name: str, kind: type[Record]) -> RecordFile[Record]:
    return RecordFile(run.folder / stage_files.FOLDER / name, kind)


def _is_older(path: Path, sources: Iterable[Path]) -> bool:
    """Whether a file is missing, or older than one that it was made of."""
    times = [source.stat().st_mtime_ns for source in sources if source.exists()]
    return not path.exists() or path.stat().st_mtime_ns < max(times, default=0)


def _nothing_usable(chunks: int, reasons: Sequence[str]) -> InvalidDataset:
    shown = f" ({'; '.join(reasons[:2])})" if reasons else ""
    return InvalidDataset(
        Text("The model wrote no usable question about {chunks} chunks{shown}.", chunks=chunks, shown=shown),
        Text(
            "Choose a larger model, answers: quoted, more tries or a lower min_support; or write pairs into "
            "kbalign/1-short.jsonl and resume."
        ),
    )
