"""Finding H3: what strangers write is read in time that grows with its length, not with its square.

45 KB of ``# a---…`` stopped the whole server for half a minute, and 1 MB would have taken hours.
"""

import gc
import time
from collections.abc import Callable

import pytest

from sage_studio.data import chunking, grading, language
from sage_studio.data.documents.markdown import clean_heading, clean_html, clean_text, mend_fences, parse_markdown
from sage_studio.data.documents.sections import plain_section
from sage_studio.data.readers import convert_child
from sage_studio.data.synthesis import qa_filter
from sage_studio.training.methods.kbalign import rounds

SHORT, TIMES = 5_000, 4
"""Characters of the shorter text, and how many times as long the longer one is. Its reading may take 9 times as long,
which is 3 times for each doubling; a square would take 16 times as long."""
ROUNDS = 6
NOTHING = 0.002
"""CPU seconds below which a measurement says nothing."""


def grows_linearly(read: Callable[[str], object], text: Callable[[int], str]) -> bool:
    """Whether the CPU time of this thread grows with the length; other load on the machine does not count in it."""
    shorter, longer = text(SHORT), text(TIMES * SHORT)
    short, long = [], []
    for _ in range(ROUNDS):
        short.append(seconds(read, shorter))
        long.append(seconds(read, longer))
        if min(long) <= 9 * max(min(short), NOTHING):
            return True
    return False


def seconds(read: Callable[[str], object], text: str) -> float:
    gc.disable()
    begin = time.thread_time()
    try:
        read(text)
    finally:
        gc.enable()
    return time.thread_time() - begin


def repeated(unit: str, before: str = "", after: str = "") -> Callable[[int], str]:
    return lambda length: before + unit * (length // len(unit)) + after


def growing_ticks(length: int) -> str:
    """Runs of ticks, each longer than the one before: none closes another."""
    runs, count = [], 1
    while length > 0:
        runs.append("`" * count + "a")
        length -= count + 1
        count += 1
    return "".join(runs)


def document(text: str) -> object:
    return list(chunking.chunk_document(parse_markdown(text, "a.md")))


REVIEWED = {
    "a heading of dashes": repeated("-", "# a", "a\n\ntext\n"),
    "blanks inside a line": repeated(" ", "a", "b \n"),
    "comments that do not end": repeated("<!--"),
    "images that do not end": repeated("!["),
    "ticks that nothing closes": repeated("`", "", "a"),
    "runs of ticks, none like another": growing_ticks,
}


@pytest.mark.parametrize("name", REVIEWED)
def test_the_files_of_the_review_are_read_in_linear_time(name):
    """H3: each of these took seconds at 20 to 45 KB."""
    assert grows_linearly(document, REVIEWED[name])


MARKUP = (
    "[",
    "](",
    "]",
    "(",
    "!",
    "\\[",
    "\\",
    "<",
    "<a ",
    '<a href="',
    "<http:",
    "<br ",
    "<br/",
    "<!--",
    "{",
    "{: ",
    "{.a ",
    ":",
    ":material-",
    ":a",
    "`",
    "[a](",
    "![a](",
    "![",
    "[a\\] ",
    "[[a] ",
    "[[",
    "](<",
    '](a "',
    "](a '",
    "]( ",
    "](a(b)",
    "](](x)",
    "[![a](b)",
    "![a](<x)b>)",
    "](http://",
    "](./",
    '<a "',
    "<a '\"",
    "\n::: a.b",
    "\n    --8<--",
    "\n\t:",
    "]\n",
    "] \n",
    "[a] [b]",
    "<script",
    "</script ",
    "<div>\n",
    "[a][",
    "`` ` ",
)


@pytest.mark.parametrize("unit", MARKUP)
def test_markup_without_an_end_is_searched_in_linear_time(unit):
    """H3: a beginning whose end is missing does not search the text anew from each place."""
    assert grows_linearly(clean_text, repeated(unit))
    assert grows_linearly(clean_text, repeated(unit, "[", "x"))
    assert grows_linearly(clean_html, repeated(unit))


@pytest.mark.parametrize(
    "unit", ["*", "**", "*a ", "a* *", "__a ", "~~a ", "_", "~", "🚀", "-", "a-", "*a\n", " ", "`"]
)
def test_headings_are_cleaned_in_linear_time(unit):
    """H3: emphasis that is not closed, and edges that are no edge."""
    assert grows_linearly(clean_heading, repeated(unit, "a", "a"))


@pytest.mark.parametrize(
    "text",
    [
        repeated("~", "", "`"),
        repeated("~~~\n"),
        repeated("- ", "", "~~~`"),
        repeated("````\n```\n"),
        repeated("```\n", "````\n"),
        repeated("> ", "", "~~~`"),
    ],
)
def test_fences_are_mended_in_linear_time(text):
    """H3: a line of tildes with a tick behind it was read once for each of them."""
    assert grows_linearly(mend_fences, text)


BLOCKS = (
    "> ",
    "- ",
    "1. ",
    "* a\n",
    "\n> a\n>> b",
    "[a]: b\n",
    "[a\n",
    "|a|b\n",
    "|a|\n|-|\n",
    "a\n---\n",
    "<div>\n\n",
    "    a\n",
    "~~~\n",
    "!!! a\n    ",
    '=== "a"\n',
    "## a\n",
    "\ta\n",
    "a\n",
    "\n",
    "---\n",
    "<script>\n",
    "- a\n  - b\n",
    "&amp;",
    "![a](b)\n",
)


@pytest.mark.parametrize("unit", BLOCKS)
def test_documents_are_parsed_in_linear_time(unit):
    """H3: from the file to its chunks, the parser of blocks included."""
    assert grows_linearly(document, repeated(unit))


READERS: dict[str, Callable[[str], object]] = {
    "parts of questions": lambda text: qa_filter.parse_pairs(text),
    "sentences": qa_filter.split_sentences,
    "whole sentences": lambda text: qa_filter.WHOLE_SENTENCE.fullmatch(text),
    "remarks on the text": lambda text: (qa_filter.OF_THE_TEXT.search(text), qa_filter.UNANSWERED.search(text)),
    "names": lambda text: (qa_filter.NAME.findall(text), qa_filter.WORD.findall(text)),
    "judgements": lambda text: (rounds.CORRECT.match(text), rounds.WRONG.match(text)),
    "first sentence": grading.first_sentence,
    "numbers": lambda text: (grading.NUMBER.findall(text), grading.DENIAL.findall(text), grading.MARKS.sub("", text)),
    "prose": language.prose_of,
    "plain text": lambda text: plain_section(text, "a.txt"),
    "page numbers": lambda text: [convert_child.PAGE_NUMBER.fullmatch(line) for line in text.split("\n")],
    "paragraphs": chunking.PARAGRAPH.split,
    "padding": lambda text: chunking.PADDING.sub(" ", text),
    "leads": chunking.LEADS_ON.search,
}
UNITS = (
    " ",
    "\n ",
    "\n",
    "-",
    "**",
    "__",
    "__a",
    ":",
    "1",
    "1.",
    "a.",
    "'",
    "q ",
    "question ",
    "Q: a?\n",
    "\n1",
    "```\n",
    "`",
    "~",
    "http://",
    "the ",
    "does ",
    "n't ",
    ". ",
    "A",
    "Aa ",
    "*:",
)


@pytest.mark.parametrize("reader", READERS)
def test_other_readers_of_strangers_texts_take_linear_time(reader):
    """H3: the brothers of the patterns for Markdown; blanks behind ``question`` were read once for each of them."""
    for unit in UNITS:
        assert grows_linearly(READERS[reader], repeated(unit, "x", "x")), unit
        assert grows_linearly(READERS[reader], repeated(unit, "question", "x")), unit
