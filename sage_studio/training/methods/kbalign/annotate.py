"""The annotation stages: the model writes questions and answers about the knowledge base.

Short dependency: questions that a single chunk answers. Long dependency: general questions, answered from every chunk
that a search finds for them, the partial answers merged into one.
"""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pydantic import Field

from sage_studio.data.bm25 import BM25
from sage_studio.data.synthesis.qa_filter import (
    CUT_OFF,
    INCONSISTENT,
    UNANSWERED,
    Bounds,
    QAFilter,
    QAPair,
    agreement,
    answer_fault,
    distinct,
    parse_questions,
    question_fault,
    quotable_sentences,
    support,
)
from sage_studio.training.methods.kbalign import prompts
from sage_studio.training.methods.kbalign.chunks import Chunk, Cluster, TokenSpans, cluster_chunks
from sage_studio.training.methods.kbalign.generator import Completion, DecodingParams, Generator
from sage_studio.training.methods.kbalign.stage_files import RecordFile, StageRecord, process_pending
from sage_studio.training.progress import Phase
from sage_studio.training.recipes.methods import KBAlignRecipe
from sage_studio.training.run import Run

# Short dependency

QUESTIONS, QUESTIONS_ZH = 5, 3
"""Questions per chunk in the paper: fewer in Chinese."""
TOKENS_PER_PAIR = 80
TOKENS_PER_QUESTION = 40
TOKENS_PER_SECOND_ANSWER = 60
NO_QUOTES = "no sentence of the text can be quoted"


class ShortAnnotation(StageRecord):
    """The pairs of one chunk.

    Attributes:
        pairs: those kept.
        tries: how often the model was asked about the chunk.
        left_out: pairs rejected, by reason.
        error: why the model could generate nothing, the last time it was asked.
    """

    chunk: int
    pairs: tuple[QAPair, ...] = ()
    tries: int = 0
    left_out: dict[str, int] = Field(default_factory=dict)
    error: str = ""


@dataclass
class _ChunkState:
    """A chunk while it is annotated.

    Attributes:
        wanted: how many pairs it should get.
        quotes: its quotable sentences, in random order.
        tried: how often a question was asked to each.
    """

    chunk: Chunk
    filter: QAFilter
    wanted: int
    quotes: Sequence[str]
    tried: Counter[str] = field(default_factory=Counter)
    tries: int = 0
    error: str = ""

    @property
    def missing(self) -> int:
        return max(0, self.wanted - len(self.filter.kept))


_Candidates = list[tuple[_ChunkState, QAPair]]


def annotate_short(
    run: Run[KBAlignRecipe], generator: Generator, chunks: Sequence[Chunk], file: RecordFile[ShortAnnotation]
) -> list[ShortAnnotation]:
    """Annotate every chunk that the file does not hold yet. Raises as `process_pending`."""
    return process_pending(
        run,
        Phase.SHORT_DEPENDENCY,
        file,
        {chunk.chunk: chunk for chunk in chunks},
        lambda record: record.chunk,
        lambda batch: _annotate_batch(run.recipe, generator, batch),
    )


def questions_per_chunk(recipe: KBAlignRecipe, chunk: Chunk) -> int:
    """How many pairs a chunk should get."""
    return recipe.questions_per_chunk or (QUESTIONS_ZH if chunk.language == "zh" else QUESTIONS)


def _annotate_batch(recipe: KBAlignRecipe, generator: Generator, batch: Sequence[Chunk]) -> list[ShortAnnotation]:
    """Ask about all chunks of a batch, and again about those that lack pairs, up to ``tries`` times."""
    states = [_start(recipe, chunk) for chunk in batch]
    for attempt in range(recipe.tries):
        pending = [state for state in states if state.missing]
        if not pending:
            break
        seed = f"short {batch[0].chunk} {attempt}"
        candidates = (_quoted_pairs if recipe.answers == "quoted" else _written_pairs)(recipe, generator, pending, seed)
        _keep_consistent(recipe, generator, candidates, f"again {seed}")
    return [
        ShortAnnotation(
            chunk=state.chunk.chunk,
            pairs=tuple(state.filter.kept[: state.wanted]),
            tries=state.tries,
            left_out=dict(state.filter.rejected),
            error=state.error,
        )
        for state in states
    ]


def _start(recipe: KBAlignRecipe, chunk: Chunk) -> _ChunkState:
    quotes = quotable_sentences(chunk.text) if recipe.answers == "quoted" else []
    random.Random(f"{recipe.seed} {chunk.chunk}").shuffle(quotes)
    qa_filter = QAFilter(chunk.with_heading, recipe.min_support)
    return _ChunkState(chunk, qa_filter, questions_per_chunk(recipe, chunk), quotes)


def _written_pairs(
    recipe: KBAlignRecipe, generator: Generator, pending: Sequence[_ChunkState], seed: str
) -> _Candidates:
    """Acceptable pairs that the model wrote, question and answer, as in the paper."""
    asked = [prompts.write_pairs(state.chunk.with_heading, state.wanted, state.chunk.language) for state in pending]
    max_tokens = max(state.wanted for state in pending) * TOKENS_PER_PAIR
    params = DecodingParams(max_tokens, recipe.temperature, recipe.top_p)
    candidates: _Candidates = []
    for state, completion in zip(pending, generator.generate(asked, params, seed), strict=True):
        state.tries, state.error = state.tries + 1, completion.error
        pairs = state.filter.parse(completion.text, finished=completion.finished)
        candidates += [(state, pair) for pair in pairs]
    return candidates


def _quoted_pairs(
    recipe: KBAlignRecipe, generator: Generator, pending: Sequence[_ChunkState], seed: str
) -> _Candidates:
    """Acceptable pairs of a sentence of the text, as the answer, and a question that the model wrote to it."""
    chosen = [(state, quote) for state in pending for quote in _next_quotes(state)]
    asked = [prompts.write_question(quote, state.chunk.language) for state, quote in chosen]
    params = DecodingParams(TOKENS_PER_QUESTION, recipe.temperature, recipe.top_p)
    candidates: _Candidates = []
    for (state, quote), completion in zip(chosen, generator.generate(asked, params, seed), strict=True):
        state.error = completion.error
        pair = QAPair(question=" ".join(completion.text.split()), answer=quote)
        if not completion.finished:
            state.filter.reject(CUT_OFF)
        elif not completion.error and state.filter.accepts(pair):
            candidates.append((state, pair))
    return candidates


def _next_quotes(state: _ChunkState) -> list[str]:
    """As many sentences as pairs are missing: those kept least often, then those tried least often."""
    state.tries += 1
    state.error = "" if state.quotes else NO_QUOTES
    kept, chosen = Counter(pair.answer for pair in state.filter.kept), list[str]()
    for _ in range(state.missing if state.quotes else 0):
        quote = min(state.quotes, key=lambda quote: (kept[quote], state.tried[quote]))
        kept[quote] += 1
        state.tried[quote] += 1
        chosen.append(quote)
    return chosen


def _keep_consistent(recipe: KBAlignRecipe, generator: Generator, candidates: _Candidates, seed: str) -> None:
    """Keep the pairs whose answer the model repeats when asked again; with ``min_agreement`` 0, all."""
    agreements = [1.0] * len(candidates)
    if recipe.min_agreement and candidates:
        asked = [
            prompts.answer_part(pair.question, state.chunk.with_heading, state.chunk.language)
            for state, pair in candidates
        ]
        answers = generator.generate(asked, DecodingParams(TOKENS_PER_SECOND_ANSWER), seed)
        agreements = [agreement(pair, answer.text) for (_, pair), answer in zip(candidates, answers, strict=True)]
    for (state, pair), share in zip(candidates, agreements, strict=True):
        if share >= recipe.min_agreement:
            state.filter.keep(pair)
        else:
            state.filter.reject(INCONSISTENT)


# Long dependency

TOKENS_PER_GENERAL_QUESTION = 50
TOKENS_PER_PARTIAL_ANSWER = 120
TOKENS_PER_MERGED_ANSWER = 320
TOKENS_OF_TEMPLATE = 16
"""What a chat template adds to a turn, at most."""
NO_ANSWER = ("none", "n/a", "no", "无", "没有")
NO_TEXT_HELPS = "no text answers it"
ANY_LENGTH = Bounds(max_answer=0)


class GeneralQuestions(StageRecord):
    """The general questions about a chunk or a cluster of chunks.

    Attributes:
        chunk: the chunk, or the first of the cluster.
        cluster: all chunks of the cluster; empty for a single chunk.
        left_out: questions rejected, by reason.
    """

    chunk: int
    cluster: tuple[int, ...] = ()
    questions: tuple[str, ...] = ()
    left_out: dict[str, int] = Field(default_factory=dict)
    error: str = ""


class PartialAnswer(StageRecord):
    """The answer from one chunk."""

    chunk: int
    answer: str


class LongAnnotation(StageRecord):
    """A general question and its answer.

    Attributes:
        chunk: that of its `GeneralQuestions`.
        number: of the question among those of its `GeneralQuestions`, from 0.
        answer: merged from the parts; empty if no chunk helped.
        error: why there is no answer.
    """

    chunk: int
    number: int
    question: str
    answer: str = ""
    parts: tuple[PartialAnswer, ...] = ()
    error: str = ""

    @property
    def key(self) -> tuple[int, int]:
        """Identifies the question."""
        return self.chunk, self.number


def write_general_questions(
    run: Run[KBAlignRecipe],
    generator: Generator,
    chunks: Sequence[Chunk],
    file: RecordFile[GeneralQuestions],
    spans: TokenSpans,
) -> list[GeneralQuestions]:
    """Have general questions written about every chunk that the file does not hold yet, similar chunks together.

    A cluster in the file stays as it is, edited or not; only other chunks are clustered. Raises as `process_pending`.
    """
    by_number = {chunk.chunk: chunk for chunk in chunks}
    clusters = [_cluster_of(record, by_number) for record in file.read() if record.chunk in by_number]
    clustered = {number for cluster in clusters for number in cluster.numbers}
    max_tokens = _max_cluster_tokens(run.recipe, generator, spans)
    clusters += cluster_chunks(chunks, run.recipe.cluster_size, max_tokens, spans, clustered)
    return process_pending(
        run,
        Phase.GENERAL_QUESTIONS,
        file,
        {cluster.chunk: cluster for cluster in clusters},
        lambda record: record.chunk,
        lambda batch: _general_batch(run.recipe, generator, batch),
    )


def answer_general_questions(
    run: Run[KBAlignRecipe],
    generator: Generator,
    chunks: Sequence[Chunk],
    general: Sequence[GeneralQuestions],
    file: RecordFile[LongAnnotation],
) -> list[LongAnnotation]:
    """Answer every general question that the file does not hold yet. Raises as `process_pending`."""
    index = BM25([chunk.with_heading for chunk in chunks])
    questions = [
        LongAnnotation(chunk=record.chunk, number=number, question=question)
        for record in general
        for number, question in enumerate(record.questions)
    ]
    return process_pending(
        run,
        Phase.LONG_DEPENDENCY,
        file,
        {question.key: question for question in questions},
        lambda record: record.key,
        lambda batch: _answer_batch(run.recipe, generator, batch, chunks, index),
        max(1, run.recipe.generation_batch_size // run.recipe.retrieved_chunks),
    )


def is_answer(text: str) -> bool:
    """Whether a partial answer says anything."""
    plain = text.strip().strip(".。!！\"'").lower()
    return bool(plain) and plain not in NO_ANSWER and not UNANSWERED.search(text)


def _cluster_of(record: GeneralQuestions, by_number: Mapping[int, Chunk]) -> Cluster:
    """The cluster of a record, without chunks that no longer exist."""
    others = (number for number in dict.fromkeys(record.cluster) if number in by_number and number != record.chunk)
    return Cluster((by_number[record.chunk], *(by_number[number] for number in others)))


def _max_cluster_tokens(recipe: KBAlignRecipe, generator: Generator, spans: TokenSpans) -> int:
    """The context length less the prompt around a cluster and less the completion."""
    count = recipe.general_questions
    around = max(
        sum(
            len(spans(turn["content"])) + TOKENS_OF_TEMPLATE
            for turn in prompts.write_general(["", ""], count, language)
        )
        for language in ("en", "zh")
    )
    return generator.context - count * TOKENS_PER_GENERAL_QUESTION - around


def _general_batch(recipe: KBAlignRecipe, generator: Generator, batch: Sequence[Cluster]) -> list[GeneralQuestions]:
    count = recipe.general_questions
    asked = [
        prompts.write_general([chunk.with_heading for chunk in cluster.chunks], count, cluster.language)
        for cluster in batch
    ]
    params = DecodingParams(count * TOKENS_PER_GENERAL_QUESTION, recipe.temperature, recipe.top_p)
    completions = generator.generate(asked, params, f"general {batch[0].chunk}")
    return [_general(cluster, completion, count) for cluster, completion in zip(batch, completions, strict=True)]


def _general(cluster: Cluster, completion: Completion, count: int) -> GeneralQuestions:
    kept, rejected = list[str](), Counter[str]()
    for question in distinct(parse_questions(completion.text)):
        if reason := question_fault(question):
            rejected[reason] += 1
        else:
            kept.append(question)
    return GeneralQuestions(
        chunk=cluster.chunk,
        cluster=cluster.numbers if len(cluster.chunks) > 1 else (),
        questions=tuple(kept[:count]),
        left_out=dict(rejected),
        error=completion.error,
    )


def _answer_batch(
    recipe: KBAlignRecipe, generator: Generator, batch: Sequence[LongAnnotation], chunks: Sequence[Chunk], index: BM25
) -> list[LongAnnotation]:
    """Answer each question from every retrieved chunk alone, then merge the partial answers."""
    seed = f"long {batch[0].chunk} {batch[0].number}"
    pairs = [
        (question, chunks[at]) for question in batch for at in index.nearest(question.question, recipe.retrieved_chunks)
    ]
    asked = [prompts.answer_part(question.question, chunk.with_heading, chunk.language) for question, chunk in pairs]
    params = DecodingParams(TOKENS_PER_PARTIAL_ANSWER, recipe.temperature, recipe.top_p)
    parts: dict[tuple[int, int], list[PartialAnswer]] = {question.key: [] for question in batch}
    errors = dict.fromkeys(parts, "")
    for (question, chunk), completion in zip(pairs, generator.generate(asked, params, seed), strict=True):
        errors[question.key] = completion.error or errors[question.key]
        supported = support(completion.text, f"{chunk.with_heading} {question.question}") >= recipe.min_support
        if not completion.error and completion.finished and supported and is_answer(completion.text):
            parts[question.key].append(PartialAnswer(chunk=chunk.chunk, answer=completion.text.strip()))
    found = [
        question.model_copy(
            update={
                "parts": tuple(parts[question.key]),
                "error": "" if parts[question.key] else errors[question.key] or NO_TEXT_HELPS,
            }
        )
        for question in batch
    ]
    return _merge_parts(recipe, generator, found, {chunk.chunk: chunk for chunk in chunks}, seed)


def _merge_parts(
    recipe: KBAlignRecipe,
    generator: Generator,
    found: Sequence[LongAnnotation],
    chunks: Mapping[int, Chunk],
    seed: str,
) -> list[LongAnnotation]:
    """The partial answers of each question as one answer; a single one needs no merging."""
    several = [question for question in found if len(question.parts) > 1]
    asked = [
        prompts.refine(question.question, [part.answer for part in question.parts], chunks[question.chunk].language)
        for question in several
    ]
    params = DecodingParams(TOKENS_PER_MERGED_ANSWER, recipe.temperature, recipe.top_p)
    completions = generator.generate(asked, params, f"refine {seed}")
    merged = {question.key: completion for question, completion in zip(several, completions, strict=True)}
    return [_with_answer(question, merged.get(question.key)) for question in found]


def _with_answer(question: LongAnnotation, merged: Completion | None) -> LongAnnotation:
    if merged is None:
        return question.model_copy(update={"answer": question.parts[0].answer if question.parts else ""})
    fault = merged.error or answer_fault(merged.text, ANY_LENGTH) or ("" if merged.finished else CUT_OFF)
    return question.model_copy(update={"answer": "" if fault else merged.text.strip(), "error": fault})
