"""Like chunks asked about at once: which stand together, that they fit the model, going on after a kill or an edit."""

import json

import pytest
from kbalign_parts import Killed, Scripted
from test_kbalign_stages import general_lines, long_lines, words

from sage_studio.training.methods.kbalign import annotate
from sage_studio.training.methods.kbalign.chunks import Chunk, cluster_chunks, token_spans
from sage_studio.training.methods.kbalign.samples import build_samples

TEXTS = (
    "The cheese of Arn ripens in a cellar for nine weeks and is washed with brine.",
    "The bridge of Bex spans the gorge on two arches of granite.",
    "A washed cheese ripens in the cellar of Cos for seven weeks in brine.",
    "Granite was cut for the arches of the bridge that spans the gorge at Dol.",
    "In Eck the brine is salted before a cheese ripens in the cellar.",
    "The tariff for parking is paid at machines near each gate.",
)
ALIKE = [(0, 2, 4), (1, 3), (5,)]
ASKED = "1. How does the cheese of the region ripen?\n2. Why are bridges built of granite there?"


@pytest.fixture
def chunks():
    return [Chunk(chunk=at, file="region.md", text=text) for at, text in enumerate(TEXTS)]


def numbers(clusters):
    return [cluster.numbers for cluster in clusters]


def members(lines):
    return sorted(line.cluster or (line.chunk,) for line in lines)


def ask(run, writer, chunks):
    return annotate.write_general_questions(run, writer, chunks, general_lines(run), words)


# Which stand together


def test_like_chunks_stand_together_and_others_alone(chunks):
    assert numbers(cluster_chunks(chunks, 10, 1000, words)) == ALIKE


@pytest.mark.parametrize(
    ("size", "together"),
    [(1, [(0,), (1,), (2,), (3,), (4,), (5,)]), (2, [(0, 2), (1, 3), (4,), (5,)]), (3, ALIKE)],
)
def test_no_more_stand_together_than_the_recipe_says(chunks, size, together):
    assert numbers(cluster_chunks(chunks, size, 1000, words)) == together


@pytest.mark.parametrize(
    ("room", "together"),
    [
        (30, [(0, 2), (1, 3), (4,), (5,)]),
        (29, [(0, 4), (1, 3), (2,), (5,)]),
        (15, [(at,) for at in range(6)]),
        (0, [(at,) for at in range(6)]),
    ],
)
def test_no_more_stand_together_than_there_is_room_for(chunks, room, together):
    assert numbers(cluster_chunks(chunks, 10, room, words)) == together


def test_a_knowledge_base_on_one_subject_is_one_cluster(towns):
    assert numbers(cluster_chunks(towns, 10, 1000, words)) == [(0, 1, 2, 3, 4, 5)]


def test_chinese_and_texts_without_words_are_told_apart_too():
    texts = (
        "奶酪在地窖中成熟九周，用盐水清洗。",
        "大桥横跨峡谷，由花岗岩建成。",
        "盐水清洗的奶酪在地窖里成熟。",
        "-----",
        "*****",
    )
    chunks = [Chunk(chunk=at, text=text) for at, text in enumerate(texts)]
    assert numbers(cluster_chunks(chunks, 10, 1000, words)) == [(0, 2), (1,), (3,), (4,)]


# The stage


def test_a_cluster_is_asked_about_at_once_and_its_line_says_of_whom(start, chunks):
    run, writer = start(cluster_size=10), Scripted(lambda _: ASKED)
    made = ask(run, writer, chunks)
    assert members(made) == sorted(ALIKE)
    assert len(writer.asked) == len(ALIKE)
    assert all(TEXTS[at] in writer.asked[0] for at in ALIKE[0])
    assert writer.asked[0].startswith("Texts:")
    assert writer.asked[2].startswith("Text:")
    lines = [json.loads(line) for line in general_lines(run).path.read_text().splitlines()]
    assert [(line["chunk"], line.get("cluster")) for line in lines] == [(0, [0, 2, 4]), (1, [1, 3]), (5, None)]
    assert all(len(line["questions"]) == 2 for line in lines)


def test_unless_told_otherwise_each_chunk_is_asked_about_alone(start, chunks):
    run = start()
    ask(run, Scripted(lambda _: ASKED), chunks)
    lines = [json.loads(line) for line in general_lines(run).path.read_text().splitlines()]
    assert [line["chunk"] for line in lines] == [0, 1, 2, 3, 4, 5]
    assert not any("cluster" in line for line in lines)


@pytest.mark.parametrize("context", [340, 350, 8192])
def test_prompt_and_questions_fit_the_models_context(start, chunks, context):
    run, told = start(cluster_size=10, general_questions=3), []

    class Measuring(Scripted):
        def generate(self, prompts, params, seed):
            told.extend(sum(len(words(turn["content"])) for turn in prompt) + params.max_tokens for prompt in prompts)
            return super().generate(prompts, params, seed)

    made = ask(run, Measuring(lambda _: ASKED, context=context), chunks)
    assert max(told) <= context
    assert (members(made) == sorted(ALIKE)) == (context == 8192), "else this shows nothing"


@pytest.mark.parametrize(
    "text", ["The cheese of town {} ripens in a cellar. ", "{}号镇的奶酪在地窖中成熟。"], ids=["en", "zh"]
)
def test_they_fit_with_a_real_tokenizer_and_template_and_fill_it(start, tiny_model, text):
    from transformers import AutoTokenizer

    tokenizer, told = AutoTokenizer.from_pretrained(tiny_model), []

    class Measuring(Scripted):
        def generate(self, prompts, params, seed):
            rendered = [
                tokenizer.apply_chat_template(one, add_generation_prompt=True, tokenize=False) for one in prompts
            ]
            told.extend(len(tokenizer(one)["input_ids"]) + params.max_tokens for one in rendered)
            return super().generate(prompts, params, seed)

    chunks = [Chunk(chunk=at, text=text.format(at) * 10) for at in range(20)]
    run, writer = start(cluster_size=10), Measuring(lambda _: ASKED, context=1500)
    made = annotate.write_general_questions(run, writer, chunks, general_lines(run), token_spans(tokenizer))
    assert max(told) <= writer.context
    assert max(told) > 0.8 * writer.context
    assert 1 < max(len(line.cluster) for line in made) < 10


def test_the_stage_goes_on_after_a_kill_with_the_same_clusters(start, chunks):
    run = start(cluster_size=10)
    with pytest.raises(Killed):
        ask(run, Scripted(lambda prompt: Killed() if TEXTS[1] in prompt else ASKED), chunks)
    assert members(general_lines(run).read()) == [ALIKE[0]]
    again = Scripted(lambda _: ASKED)
    assert members(ask(start(cluster_size=10), again, chunks)) == sorted(ALIKE)
    assert len(again.asked) == len(ALIKE) - 1
    idle = Scripted(lambda _: ASKED)
    ask(start(cluster_size=10), idle, chunks)
    assert idle.asked == []


def edited(run, change):
    path = general_lines(run).path
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    change(lines)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def drop_the_first(lines):
    del lines[0]


def let_one_go(lines):
    lines[0]["cluster"].remove(2)


def ask_otherwise(lines):
    lines[0]["questions"] = ["What is peculiar to the cheese of Arn?"]


@pytest.mark.parametrize(
    ("change", "asked_again"), [(drop_the_first, [(0, 2, 4)]), (let_one_go, [(2,)]), (ask_otherwise, [])]
)
def test_what_a_person_edited_stays_and_only_what_lacks_is_asked(start, chunks, change, asked_again):
    run = start(cluster_size=10)
    ask(run, Scripted(lambda _: ASKED), chunks)
    edited(run, change)
    kept, writer = general_lines(run).read(), Scripted(lambda _: ASKED)
    made = ask(start(cluster_size=10), writer, chunks)
    assert made[: len(kept)] == kept
    assert members(made[len(kept) :]) == asked_again
    assert len(writer.asked) == len(asked_again)


def test_chunks_that_were_added_or_taken_away_are_minded(start, chunks):
    run = start(cluster_size=10)
    ask(run, Scripted(lambda _: ASKED), chunks)
    more = Chunk(chunk=6, text="A cheese ripens in the cellar of Fyn, washed with brine for weeks.")
    made = ask(start(cluster_size=10), Scripted(lambda _: ASKED), [*chunks, more])
    assert members(made) == sorted([*ALIKE, (6,)]), "those that were asked about are not torn apart"
    writer = Scripted(lambda _: ASKED)
    made = ask(start(cluster_size=10), writer, chunks[1:])
    assert members(made) == [(1, 3), (2, 4), (5,)], "a cluster whose first chunk is gone is made anew"
    assert len(writer.asked) == 1


def test_the_questions_of_a_cluster_are_answered_and_learned_like_all_others(start, chunks):
    run = start(cluster_size=10, references=0)
    general = ask(run, Scripted(lambda _: ASKED), chunks)
    said = Scripted(lambda prompt: "none" if "cheese" not in prompt else "A cheese ripens in a cellar.")
    answered = annotate.answer_general_questions(run, said, chunks, general, long_lines(run))
    assert [(line.chunk, line.number) for line in answered] == [(0, 0), (0, 1), (1, 0), (1, 1), (5, 0), (5, 1)]
    clusters = {line.chunk: line.cluster for line in general}
    assert clusters[answered[0].chunk] == (0, 2, 4)
    samples = build_samples(run.recipe, chunks, [], answered, words)
    assert {(sample.kind, sample.file) for sample in samples} == {("long", "region.md")}
