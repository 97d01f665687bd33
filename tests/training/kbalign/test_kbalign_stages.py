"""The stages with a scripted generator: filters, tries, failures, edits, and resuming after a kill within each."""

import json
from collections import Counter
from pathlib import Path

import pytest
from kbalign_parts import TOWNS, Killed, Scripted, pairs_about, town_in

from sage_studio.data.chunking import split_tokens
from sage_studio.data.synthesis import qa_filter
from sage_studio.data.synthesis.qa_filter import QAPair
from sage_studio.errors import InvalidDataset
from sage_studio.training.methods.kbalign import annotate, rounds
from sage_studio.training.methods.kbalign.chunks import Chunk, chunk_rows
from sage_studio.training.methods.kbalign.generator import Completion
from sage_studio.training.methods.kbalign.rounds import Check, balanced, check_row, verdict_of, verify
from sage_studio.training.methods.kbalign.samples import Sample, build_samples, training_rows
from sage_studio.training.methods.kbalign.stage_files import RecordFile, stage_files
from sage_studio.training.progress import read_events
from sage_studio.training.run import Stopped


def words(text):
    """A token a word, for pieces that can be counted by eye."""
    spans, at = [], 0
    for word in text.split():
        at = text.index(word, at)
        spans.append((at, at + len(word)))
        at += len(word)
    return spans


def short_lines(run):
    return RecordFile(run.folder / "kbalign" / "1-short.jsonl", annotate.ShortAnnotation)


def general_lines(run):
    return RecordFile(run.folder / "kbalign" / "2-general.jsonl", annotate.GeneralQuestions)


def long_lines(run):
    return RecordFile(run.folder / "kbalign" / "2-long.jsonl", annotate.LongAnnotation)


# Chunks


def test_pieces_overlap_and_lose_nothing():
    text = " ".join(f"w{number}" for number in range(100))
    pieces = split_tokens(text, words(text), 20, 0.15)
    assert [len(piece.split()) for piece in pieces] == [20, 20, 20, 20, 20, 15]
    assert [piece.split()[0] for piece in pieces] == ["w0", "w17", "w34", "w51", "w68", "w85"]
    assert set(" ".join(pieces).split()) == set(text.split())


def test_a_piece_ends_with_a_sentence_where_one_ends_near():
    text = "one two three four five six seven eight nine. ten eleven twelve"
    assert split_tokens(text, words(text), 10)[0] == "one two three four five six seven eight nine."


def test_chunks_keep_file_and_heading_and_are_spread_when_there_are_too_many():
    from sage_studio.data.rows import Example, Message, Origin, Passage

    rows = [Passage(f"text {at}", Origin(f"{at}.md", heading=("Guide",))) for at in range(10)]
    rows.append(Example((Message("user", "Why?"),), "Because.", Origin("qa.json")))
    chunks = chunk_rows(rows, words, 100, 0.15)
    assert chunks[3] == Chunk(chunk=3, file="3.md", heading=("Guide",), text="text 3")
    assert chunks[10].with_heading == "Why?\nBecause."
    assert [chunk.file for chunk in chunk_rows(rows, words, 100, 0.15, max_chunks=3)] == ["0.md", "3.md", "7.md"]


# Stage 1


def test_each_chunk_gets_five_pairs_and_a_chinese_one_three(start, towns):
    run = start()
    chinese = Chunk(chunk=6, text="奥维克的大桥由阿达设计，一九三一年通车。")
    kinds = ("是谁设计的", "由何人设计", "设计者叫什么", "谁来设计")
    said = "\n".join(f"问题：奥维克的大桥{kind}？\n答案：大桥由阿达设计。" for kind in kinds)
    writer = Scripted(lambda prompt: said if "文本" in prompt else pairs_about(town_in(prompt)))
    made = annotate.annotate_short(run, writer, [*towns, chinese], short_lines(run))
    assert [len(line.pairs) for line in made] == [5, 5, 5, 5, 5, 5, 3]
    assert {(params.temperature, params.top_p) for params in writer.params} == {(0.8, 0.95)}
    assert "请根据文本写出 3 个问题" in writer.asked[-1]
    assert made == short_lines(run).read()


def test_a_chunk_is_asked_about_again_until_it_has_enough_but_not_for_ever(start, towns):
    run = start(questions_per_chunk=3)
    counts = Counter()

    def answer(prompt):
        town = town_in(prompt)
        counts[town] += 1
        return {"Arn": pairs_about(town, counts[town]), "Bex": "I would rather not."}.get(town, pairs_about(town))

    made = annotate.annotate_short(run, Scripted(answer), towns, short_lines(run))
    assert [line.tries for line in made] == [3, 3, 1, 1, 1, 1]
    assert [len(line.pairs) for line in made] == [3, 0, 3, 3, 3, 3]
    assert made[0].left_out == {qa_filter.REPEATED: 3}


def test_a_chunk_that_fails_loses_no_other_and_says_why(start, towns):
    run = start(generation_batch_size=4)
    made = annotate.annotate_short(
        run,
        Scripted(lambda prompt: Completion("", error="no memory") if "Cos" in prompt else pairs_about(town_in(prompt))),
        towns,
        short_lines(run),
    )
    assert [len(line.pairs) for line in made] == [5, 5, 0, 5, 5, 5]
    assert [line.error for line in made] == ["", "", "no memory", "", "", ""]
    assert made[2].tries == 3


@pytest.mark.parametrize("torn", ["", '{"chunk":2,"pai'])
def test_stage_one_goes_on_after_a_kill(start, towns, torn):
    first = Scripted(lambda prompt: Killed() if "Cos" in prompt else pairs_about(town_in(prompt)))
    run = start()
    with pytest.raises(Killed):
        annotate.annotate_short(run, first, towns, short_lines(run))
    with short_lines(run).path.open("a") as file:
        file.write(torn)
    second = Scripted(lambda prompt: pairs_about(town_in(prompt)))
    made = annotate.annotate_short(start(), second, towns, short_lines(run))
    assert [town_in(prompt) for prompt in second.asked] == list(TOWNS[2:])
    assert [line.chunk for line in made] == [0, 1, 2, 3, 4, 5]


def test_what_a_person_edited_stays(start, towns):
    run = start()
    annotate.annotate_short(run, Scripted(lambda prompt: pairs_about(town_in(prompt))), towns, short_lines(run))
    lines = [json.loads(line) for line in short_lines(run).path.read_text().splitlines()]
    lines[1]["pairs"] = [{"question": "What is Bex known for?", "answer": "For cheese."}]
    del lines[4]
    short_lines(run).path.write_text(
        "\n".join(map(json.dumps, lines))
    )  # no newline at the end, as editors may leave it
    writer = Scripted(lambda prompt: pairs_about(town_in(prompt)))
    made = annotate.annotate_short(start(), writer, towns, short_lines(run))
    assert [town_in(prompt) for prompt in writer.asked] == ["Eck"]
    assert next(line for line in made if line.chunk == 1).pairs == (
        QAPair(question="What is Bex known for?", answer="For cheese."),
    )
    assert sorted(line.chunk for line in made) == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ('{"chunk": 0, "pairs": [{"question": "Why?"}]}', "pairs.0.answer"),
        ('{"chunk": "first"}', "chunk"),
        ('{"chunk": 0, "pears": []}', "pears"),
        ('{"chunk": 0', "JSON"),
        ("[1]", "line 2"),
    ],
)
def test_an_edit_that_broke_a_line_is_named(start, towns, line, named):
    run = start()
    short_lines(run).append([annotate.ShortAnnotation(chunk=5)])
    with short_lines(run).path.open("a") as file:
        file.write(line + "\n" + '{"chunk":1}\n')
    with pytest.raises(InvalidDataset) as refused:
        annotate.annotate_short(run, Scripted(pairs_about), towns, short_lines(run))
    assert "1-short.jsonl, line 2" in refused.value.message.en
    assert named in refused.value.message.en
    assert refused.value.row == 2


def test_a_stop_is_honoured_between_two_lots_and_says_where(start, towns):
    run = start()

    def answer(prompt):
        run.stop.requested = "Cos" in prompt
        return pairs_about(town_in(prompt))

    with pytest.raises(Stopped):
        annotate.annotate_short(run, Scripted(answer), towns, short_lines(run))
    assert [line.chunk for line in short_lines(run).read()] == [0, 1, 2]
    assert run.state.place.en == "in short dependency, 3 of 6 done"


def test_progress_tells_phase_count_and_time_left(start, towns):
    run = start()
    annotate.annotate_short(run, Scripted(lambda prompt: pairs_about(town_in(prompt))), towns, short_lines(run))
    events = read_events(run.folder)[0]
    assert {event.phase for event in events} == {"short_dependency"}
    assert [event.done for event in events if event.done is not None] == [0, 1, 2, 3, 4, 5, 6]
    assert all(event.eta_seconds is not None for event in events if event.done)
    assert events[-1].detail == "6/6"


def test_where_answers_are_quoted_only_the_questions_are_the_models(start, towns):
    run = start(answers="quoted", questions_per_chunk=2, tries=2)
    chunk = Chunk(chunk=0, text="The town of Arn has a tower. The town of Arn has nine wells. See also below")
    asked = Counter()

    def answer(sentence):
        asked[sentence] += 1
        if "tower" in sentence:
            return ("What has the town of Arn, a tower?", "What can be seen in the town of Arn?")[asked[sentence] - 1]
        return "How many wells are in the town of Arn?"

    (made,) = annotate.annotate_short(run, Scripted(answer), [chunk], short_lines(run))
    assert {(pair.question, pair.answer) for pair in made.pairs} == {
        ("How many wells are in the town of Arn?", "The town of Arn has nine wells."),
        ("What can be seen in the town of Arn?", "The town of Arn has a tower."),
    }
    assert asked == {"The town of Arn has nine wells.": 1, "The town of Arn has a tower.": 2}, "what lacked alone"
    assert (made.tries, made.left_out) == (2, {qa_filter.NOTHING_NEW: 1})


def test_a_chunk_without_a_sentence_to_quote_says_so_and_a_failure_why(start):
    run = start(answers="quoted", questions_per_chunk=1, tries=1, generation_batch_size=3)
    texts = ("| a | table |", "The town of Bex has a tower.", "The town of Cos has a tower.")
    chunks = [Chunk(chunk=at, text=text) for at, text in enumerate(texts)]
    said = {
        texts[1]: Completion("", error="no memory"),
        texts[2]: Completion("What has the town of Co", finished=False),
    }
    made = annotate.annotate_short(run, Scripted(said.__getitem__), chunks, short_lines(run))
    assert [line.error for line in made] == [annotate.NO_QUOTES, "no memory", ""]
    assert [line.left_out for line in made] == [{}, {}, {qa_filter.CUT_OFF: 1}]


def test_answers_that_the_model_does_not_give_again_are_left_out(start, towns):
    run = start(min_agreement=0.5, questions_per_chunk=2, tries=1)
    said = (
        "Question: Who built the tower of {0}?\nAnswer: The mason {0}us.\n\n"
        "Question: What has the town of {0}?\nAnswer: The town of {0} has a tower."
    )

    def answer(prompt):
        town = town_in(prompt)
        if "Write 2 questions" in prompt:
            return said.format(town)
        return f"It was {town}us." if town == "Arn" or "Who built" in prompt else "none"

    writer = Scripted(answer)
    made = annotate.annotate_short(run, writer, towns[:2], short_lines(run))
    assert [[pair.answer for pair in line.pairs] for line in made] == [["The mason Arnus."], ["The mason Bexus."]]
    assert [line.left_out for line in made] == [{qa_filter.INCONSISTENT: 1}] * 2
    again = [params for params, prompt in zip(writer.params, writer.asked, strict=True) if "Write 2" not in prompt]
    assert {params.temperature for params in again} == {0.0}
    assert all("has a tower. It was built" in prompt for prompt in writer.asked), "with the chunk at hand"


# Stage 2


def test_general_questions_are_sieved(start, towns):
    run = start()
    asked = ("How were the towers built?", "Why?", "How were the towers built?", "What do masons do?", "Who is it by?")
    said = "\n".join(f"{number}. {question}" for number, question in enumerate(asked, 1))
    made = annotate.write_general_questions(run, Scripted(lambda _: said), towns[:1], general_lines(run), words)
    assert made[0].questions == ("How were the towers built?", "What do masons do?", "Who is it by?")
    assert made[0].left_out == {qa_filter.WRONG_LENGTH: 1}


def general(towns):
    asked = ("Which mason built the tower of the town?",)
    return [annotate.GeneralQuestions(chunk=chunk.chunk, questions=asked) for chunk in towns]


def answering(prompt):
    """None for every other town; the notes joined when they are to be refined."""
    if "Notes:" in prompt:
        return "All: " + " ".join(line[2:] for line in prompt.split("\n") if line.startswith("- "))
    town = town_in(prompt)
    return "None." if TOWNS.index(town) % 2 else f"In {town} it was {town}us."


def test_every_text_that_helps_is_in_the_answer(start, towns):
    """A loop that kept the last text's answer only would fail here."""
    run = start()
    made = annotate.answer_general_questions(run, Scripted(answering), towns, general(towns)[:1], long_lines(run))
    assert sorted(part.chunk for part in made[0].parts) == [0, 2, 4]
    assert all(f"In {town} it was {town}us." in made[0].answer for town in ("Arn", "Cos", "Eck"))
    assert made[0].answer.startswith("All: ")


def test_a_single_text_needs_no_refining_and_none_gives_no_answer(start, towns):
    run = start()
    one = Scripted(lambda prompt: "It was Arnus." if "Arn has" in prompt else "none")
    made = annotate.answer_general_questions(run, one, towns, general(towns)[:1], long_lines(run))
    assert (made[0].answer, made[0].error) == ("It was Arnus.", "")
    assert not any("Notes:" in prompt for prompt in one.asked)
    none = annotate.answer_general_questions(
        run, Scripted(lambda _: "无。"), towns, general(towns)[:2], long_lines(run)
    )
    assert (none[1].answer, none[1].error) == ("", annotate.NO_TEXT_HELPS)


def test_as_many_texts_are_asked_as_the_recipe_says(start, towns):
    run = start(retrieved_chunks=2)
    writer = Scripted(lambda _: "none")
    annotate.answer_general_questions(run, writer, towns, general(towns)[:1], long_lines(run))
    assert len(writer.asked) == 2


def test_a_question_whose_texts_fail_loses_no_other(start, towns):
    run = start()

    def answer(prompt):
        return Completion("", error="no memory") if "Question: Why is the tower there?" in prompt else answering(prompt)

    asked = [annotate.GeneralQuestions(chunk=0, questions=("Why is the tower there?",)), *general(towns)[1:]]
    made = annotate.answer_general_questions(run, Scripted(answer), towns, asked, long_lines(run))
    assert (made[0].answer, made[0].error) == ("", "no memory")
    assert all(line.answer for line in made[1:])


def test_stage_two_goes_on_after_a_kill(start, towns):
    run = start()
    asked = Counter()

    def general_answer(prompt):
        asked[town_in(prompt)] += 1
        first = town_in(prompt) == "Dol" and asked["Dol"] == 1
        return Killed() if first else "1. Which mason built the tower of the town?"

    with pytest.raises(Killed):
        annotate.write_general_questions(run, Scripted(general_answer), towns, general_lines(run), words)
    made = annotate.write_general_questions(start(), Scripted(general_answer), towns, general_lines(run), words)
    assert asked == {"Arn": 1, "Bex": 1, "Cos": 1, "Dol": 2, "Eck": 1, "Fyn": 1}

    refined = Counter()

    def long_answer(prompt):
        if "Notes:" in prompt:
            refined["all"] += 1
            if refined["all"] == 3:
                return Killed()
        return answering(prompt)

    with pytest.raises(Killed):
        annotate.answer_general_questions(run, Scripted(long_answer), towns, made, long_lines(run))
    assert [line.chunk for line in long_lines(run).read()] == [0, 1]
    whole = annotate.answer_general_questions(start(), Scripted(long_answer), towns, made, long_lines(run))
    assert refined["all"] == 3 + 4
    assert [(line.chunk, bool(line.answer)) for line in whole] == [(at, True) for at in range(6)]


# Stage 3


def made_of(towns):
    def pairs(town):
        return tuple(QAPair(question=f"Who is {number} in {town}?", answer="x") for number in range(5))

    return [annotate.ShortAnnotation(chunk=chunk.chunk, pairs=pairs(TOWNS[chunk.chunk])) for chunk in towns]


def test_samples_are_shuffled_into_even_parts_with_references(start, towns):
    recipe = start(rounds=4, references=2, reference_size=16).recipe
    answered = [
        annotate.LongAnnotation(chunk=1, number=0, question="How so in all towns?", answer="So."),
        annotate.LongAnnotation(chunk=2, number=0, question="Left out?", error=annotate.NO_TEXT_HELPS),
    ]
    samples = build_samples(recipe, towns, made_of(towns), answered, words)
    assert Counter(sample.kind for sample in samples) == {"short": 30, "long": 1}
    assert sorted(Counter(sample.part for sample in samples).values()) == [7, 8, 8, 8]
    assert [sample.question for sample in samples] != sorted(sample.question for sample in samples)
    assert samples == build_samples(recipe, towns, made_of(towns), answered, words)
    one = next(sample for sample in samples if "Dol" in sample.question)
    assert "Dol" in one.references[0]
    assert len(training_rows(one)) == 2
    assert training_rows(one)[0]["prompt"][0]["content"] == one.question
    assert one.references[0] in training_rows(one)[1]["prompt"][0]["content"]


def test_no_chunk_and_no_answer_is_left_to_one_round_alone(start, towns):
    def pairs(chunk):
        return tuple(
            QAPair(question=f"What is {number} of {chunk}?", answer=f"{answer} of {chunk}.")
            for answer in ("Tower", "Mason")
            for number in range(3)
        )

    made = [annotate.ShortAnnotation(chunk=chunk.chunk, pairs=pairs(chunk.chunk)) for chunk in towns]
    samples = build_samples(start(rounds=3, references=0).recipe, towns, made, [], words)
    learned = Counter((sample.answer, sample.part) for sample in samples)
    assert len(learned) == 2 * len(towns) * 3
    assert set(learned.values()) == {1}
    assert [sample.part for sample in samples] == sorted(sample.part for sample in samples)


def test_without_references_each_question_is_one_row(start, towns):
    samples = build_samples(start(references=0).recipe, towns, made_of(towns), [], words)
    assert all(len(training_rows(sample)) == 1 for sample in samples)


def test_too_few_questions_for_the_rounds_are_refused(start, towns):
    samples = build_samples(start(rounds=3, references=0).recipe, towns, made_of(towns)[:1], [], words)[:2]
    with pytest.raises(InvalidDataset) as refused:
        rounds.check_parts(samples, 3)
    assert "rounds" in refused.value.hint.en


# Stage 4


@pytest.mark.parametrize(
    ("judgement", "verdict"),
    [
        ("correct because it names the mason.", "correct"),
        ("Correct, because …", "correct"),
        ("wrong because of the year", "wrong"),
        ("Incorrect: beside the question", "wrong"),
        ("**Wrong** because", "wrong"),
        ("正确，因为说出了同一个人。", "correct"),
        ("错误，因为年份不对。", "wrong"),
        ("不正确，因为", "wrong"),
        ("The answer is nice.", ""),
        ("", ""),
    ],
)
def test_a_judgement_is_read(judgement, verdict):
    assert verdict_of(judgement) == verdict


def numbered(count):
    def sample(at):
        return Sample(part=2, kind="short", question=f"Who is number {at}?", answer=f"Right {at}.", references=("r",))

    return [(at, sample(at)) for at in range(count)]


def judging(prompt):
    if "Right answer:" not in prompt:
        return "It is so."
    number = int(prompt.rpartition("Right answer: Right ")[2].split(".")[0])
    return ("correct because it is so.", "wrong because a fact is missing.", "Hm.")[min(number % 4, 2)]


def test_answers_are_judged_and_the_labels_balanced(start):
    run = start(generation_batch_size=8)
    writer = Scripted(judging)
    checks = verify(run, writer, numbered(20), RecordFile(run.folder / "kbalign" / "c.jsonl", Check))
    assert Counter(check.verdict for check in checks) == {"correct": 5, "wrong": 5, "": 10}
    assert {(params.temperature, params.top_p) for params in writer.params} == {(0.2, 0.8)}
    assert "r" in writer.asked[0]
    drawn = balanced(checks, 6, seed=1)
    assert Counter(check.verdict for check in drawn) == {"correct": 3, "wrong": 3}
    assert drawn == balanced(checks, 6, seed=1)
    assert Counter(check.verdict for check in balanced(checks, 100, seed=1)) == {"correct": 5, "wrong": 5}
    assert balanced([check for check in checks if check.verdict == "wrong"], 6, seed=1) == []
    row = check_row(drawn[0], "f.md")
    assert row["completion"][0]["content"] == drawn[0].judgement
    assert drawn[0].right not in row["prompt"][0]["content"]
    assert drawn[0].given in row["prompt"][0]["content"]


def test_verification_goes_on_after_a_kill(start):
    run, asked = start(), Counter()

    def answer(prompt):
        asked[prompt] += 1
        first = "number 3" in prompt and "Right answer" in prompt and asked[prompt] == 1
        return Killed() if first else judging(prompt)

    lines = RecordFile(run.folder / "kbalign" / "c.jsonl", Check)
    with pytest.raises(Killed):
        verify(run, Scripted(answer), numbered(6), lines)
    checks = verify(start(), Scripted(answer), numbered(6), lines)
    assert [check.sample for check in checks] == [0, 1, 2, 3, 4, 5]
    assert sorted(asked.values()) == [1] * 10 + [2, 2], "of the third both the answer and the judgement"


def test_a_round_learns_its_part_and_from_the_second_on_its_checks(start):
    run = start(rounds=2, verification_ratio=0.5)
    samples = [sample.model_copy(update={"part": 1 + number // 8}) for number, sample in numbered(16)]
    first = rounds.write_rows(run, 1, samples, Scripted(judging))
    assert len(first.read_text().splitlines()) == 16
    assert not (run.folder / "kbalign" / "4-round-1-checks.jsonl").exists()
    second = rounds.write_rows(run, 2, samples, Scripted(judging))
    assert len(second.read_text().splitlines()) == 16 + 4
    assert len((run.folder / "kbalign" / "4-round-2-checks.jsonl").read_text().splitlines()) == 8
    again = Scripted(judging)
    assert rounds.write_rows(start(rounds=2), 2, samples, again) == second
    assert again.asked == []


# The files


def test_only_the_stages_files_are_shown(tmp_path: Path):
    folder = tmp_path / "kbalign"
    folder.mkdir()
    for name in ("4-round-10-rows.jsonl", "4-round-2-rows.jsonl", "1-short.jsonl", "0-chunks.jsonl"):
        (folder / name).write_text('{"a": 1}\n{"a": 2}\n')
    for name in ("secrets.jsonl", "5-short.jsonl", "4-round-x-rows.jsonl", "1-short.json"):
        (folder / name).write_text("{}\n")
    (folder / "2-long.jsonl").symlink_to("/etc/passwd")
    files = stage_files(tmp_path)
    assert [file.name for file in files] == [
        "0-chunks.jsonl",
        "1-short.jsonl",
        "4-round-2-rows.jsonl",
        "4-round-10-rows.jsonl",
    ]
    assert [file.rows for file in files] == [2, 2, 2, 2]
    assert files[3].meaning.en == "Round 10: training rows"
    assert stage_files(tmp_path / "none") == []
