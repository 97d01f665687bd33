"""Stage 2 answers general questions from several texts: each from every text that may help, the answers joined.

Knows the order: ask in general, look up, answer from one text at a time or not at all, join, refine. Knows nothing of
models (`writing`), wording (`prompts`), which texts are alike (`clusters`) or how texts are found (`data.bm25`).
"""

from collections.abc import Mapping, Sequence

from pydantic import Field

from sage_studio.data.bm25 import BM25
from sage_studio.training.methods.kbalign import prompts
from sage_studio.training.methods.kbalign.chunks import Chunk, Spans
from sage_studio.training.methods.kbalign.clusters import Cluster, clusters_of
from sage_studio.training.methods.kbalign.filters import (
    UNANSWERED,
    distinct,
    fault_of_answer,
    fault_of_question,
    questions_in,
    support,
)
from sage_studio.training.methods.kbalign.lines import Line, Lines
from sage_studio.training.methods.kbalign.working import work_through
from sage_studio.training.methods.kbalign.writing import Messages, Style, Writer, Written
from sage_studio.training.progress import Phase
from sage_studio.training.recipes.kbalign import KBAlignRecipe
from sage_studio.training.run import Run

TOKENS_A_QUESTION = 50
TOKENS_A_PART = 120
TOKENS_AN_ANSWER = 320
TOKENS_OF_A_TEMPLATE = 16
"""What a chat template puts around a turn, at most."""
NOTHING_FOUND = ("none", "n/a", "no", "无", "没有")
NO_TEXT_HELPS = "no text answers it"


class GeneralLine(Line):
    """The general questions on the subject of a chunk, or of a cluster of chunks.

    Attributes:
        chunk: the chunk, or the first of the cluster.
        cluster: all chunks of the cluster; empty for a chunk alone.
    """

    chunk: int
    cluster: tuple[int, ...] = ()
    questions: tuple[str, ...] = ()
    left_out: dict[str, int] = Field(default_factory=dict)
    error: str = ""


class Part(Line):
    """What one chunk says to a question."""

    chunk: int
    answer: str


class LongLine(Line):
    """A general question with what was found on it.

    Attributes:
        chunk: that of the `GeneralLine` which it was asked in.
        number: of the question among those of its line, counted from 0.
        answer: joined and refined; empty where no text helped.
        error: why there is no answer.
    """

    chunk: int
    number: int
    question: str
    answer: str = ""
    parts: tuple[Part, ...] = ()
    error: str = ""


def ask_in_general(
    run: Run[KBAlignRecipe], writer: Writer, chunks: Sequence[Chunk], lines: Lines[GeneralLine], spans: Spans
) -> list[GeneralLine]:
    """Have the model ask in general about every chunk that the file does not hold yet, like ones at once.

    A cluster that stands in the file stays as it is, edited or not; only chunks in none are put together. Raises as
    `work_through`.
    """
    by_number = {chunk.chunk: chunk for chunk in chunks}
    asked = [_cluster_of(line, by_number) for line in lines.read() if line.chunk in by_number]
    taken = {number for cluster in asked for number in cluster.numbers}
    asked += clusters_of(chunks, run.recipe.cluster_size, _room(run.recipe, writer, spans), spans, taken)
    return work_through(
        run,
        Phase.GENERAL_QUESTIONS,
        lines,
        asked,
        lambda cluster: cluster.chunk,
        lambda line: line.chunk,
        lambda lot: _asked(run.recipe, writer, lot),
        run.recipe.generation_batch_size,
    )


def answer_in_general(
    run: Run[KBAlignRecipe],
    writer: Writer,
    chunks: Sequence[Chunk],
    general: Sequence[GeneralLine],
    lines: Lines[LongLine],
) -> list[LongLine]:
    """Answer every general question that the file does not hold yet. Raises as `work_through`."""
    index = BM25([chunk.shown for chunk in chunks])
    asked = [
        LongLine(chunk=line.chunk, number=number, question=question)
        for line in general
        for number, question in enumerate(line.questions)
    ]

    def work(lot: Sequence[LongLine]) -> list[LongLine]:
        return _answered(run.recipe, writer, lot, chunks, index)

    return work_through(
        run,
        Phase.LONG_DEPENDENCY,
        lines,
        asked,
        lambda line: (line.chunk, line.number),
        lambda line: (line.chunk, line.number),
        work,
        max(1, run.recipe.generation_batch_size // run.recipe.retrieved_chunks),
    )


def says_something(answer: str) -> bool:
    """Whether a text that was asked alone had anything to say."""
    plain = answer.strip().strip(".。!！\"'").lower()
    return bool(plain) and plain not in NOTHING_FOUND and not UNANSWERED.search(answer)


def _cluster_of(line: GeneralLine, by_number: Mapping[int, Chunk]) -> Cluster:
    """What a line was asked about; chunks that are gone are left out."""
    others = (number for number in dict.fromkeys(line.cluster) if number in by_number and number != line.chunk)
    return Cluster((by_number[line.chunk], *(by_number[number] for number in others)))


def _room(recipe: KBAlignRecipe, writer: Writer, spans: Spans) -> int:
    """Tokens that a cluster may have: what the model reads at once, less the prompt around it and the answer."""
    count = recipe.general_questions
    around = max(_tokens_of(prompts.write_general(["", ""], count, spoken), spans) for spoken in ("en", "zh"))
    return writer.context - count * TOKENS_A_QUESTION - around


def _tokens_of(prompt: Messages, spans: Spans) -> int:
    return sum(len(spans(turn["content"])) + TOKENS_OF_A_TEMPLATE for turn in prompt)


def _asked(recipe: KBAlignRecipe, writer: Writer, lot: Sequence[Cluster]) -> list[GeneralLine]:
    count = recipe.general_questions
    asked = [prompts.write_general([chunk.shown for chunk in each.chunks], count, each.language) for each in lot]
    style = Style(count * TOKENS_A_QUESTION, recipe.temperature, recipe.top_p)
    written = writer.write(asked, style, f"general {lot[0].chunk}")
    return [_general_line(cluster, said, count) for cluster, said in zip(lot, written, strict=True)]


def _general_line(cluster: Cluster, said: Written, count: int) -> GeneralLine:
    kept, left_out = list[str](), dict[str, int]()
    for question in distinct(iter(questions_in(said.text))):
        if fault := fault_of_question(question):
            left_out[fault] = left_out.get(fault, 0) + 1
        else:
            kept.append(question)
    together = cluster.numbers if len(cluster.chunks) > 1 else ()
    questions = tuple(kept[:count])
    return GeneralLine(chunk=cluster.chunk, cluster=together, questions=questions, left_out=left_out, error=said.error)


def _answered(
    recipe: KBAlignRecipe, writer: Writer, lot: Sequence[LongLine], chunks: Sequence[Chunk], index: BM25
) -> list[LongLine]:
    """Ask every text that may help on its own, then have all that they said made one answer."""
    seed = f"long {lot[0].chunk} {lot[0].number}"
    pairs = [(line, chunks[at]) for line in lot for at in index.nearest(line.question, recipe.retrieved_chunks)]
    asked = [prompts.answer_part(line.question, chunk.shown, chunk.language) for line, chunk in pairs]
    said = writer.write(asked, Style(TOKENS_A_PART, recipe.temperature, recipe.top_p), seed)
    parts: dict[tuple[int, int], list[Part]] = {(line.chunk, line.number): [] for line in lot}
    errors = dict.fromkeys(parts, "")
    for (line, chunk), one in zip(pairs, said, strict=True):
        key = (line.chunk, line.number)
        errors[key] = one.error or errors[key]
        known = support(one.text, f"{chunk.shown} {line.question}") >= recipe.min_support
        if not one.error and one.whole and known and says_something(one.text):
            parts[key].append(Part(chunk=chunk.chunk, answer=one.text.strip()))
    found = [_with_parts(line, parts[line.chunk, line.number], errors[line.chunk, line.number]) for line in lot]
    return _refined(recipe, writer, found, {chunk.chunk: chunk for chunk in chunks}, seed)


def _with_parts(line: LongLine, parts: Sequence[Part], error: str) -> LongLine:
    return line.model_copy(update={"parts": tuple(parts), "error": "" if parts else error or NO_TEXT_HELPS})


def _refined(
    recipe: KBAlignRecipe, writer: Writer, found: Sequence[LongLine], chunks: dict[int, Chunk], seed: str
) -> list[LongLine]:
    """All parts of each question as one answer; a single part is one already."""
    several = [line for line in found if len(line.parts) > 1]
    asked = [
        prompts.refine(line.question, [part.answer for part in line.parts], chunks[line.chunk].language)
        for line in several
    ]
    said = writer.write(asked, Style(TOKENS_AN_ANSWER, recipe.temperature, recipe.top_p), f"refine {seed}")
    refined = {(line.chunk, line.number): one for line, one in zip(several, said, strict=True)}
    return [_with_answer(line, refined.get((line.chunk, line.number))) for line in found]


def _with_answer(line: LongLine, refined: Written | None) -> LongLine:
    if refined is None:
        answer = line.parts[0].answer if line.parts else ""
        return line.model_copy(update={"answer": answer})
    fault = refined.error or fault_of_answer(refined.text, longest=0) or ("" if refined.whole else "cut off")
    return line.model_copy(update={"answer": "" if fault else refined.text.strip(), "error": fault})
