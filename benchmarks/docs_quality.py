"""How good the rows are that the studio makes of a documentation, beside a plain split at ``#`` lines.

    python -m benchmarks.docs_quality [REPOSITORY]

REPOSITORY: a git address, a folder or a bundle; the setting ``docs_repo`` without it. Everything is measured by this
file's own, simpler means, so that the converter is not its own judge: fences by their marks, languages by counting
letters, near-duplicates by the exact share of common shingles (0.8 and more) among all pairs that share a rare one.
The plain split leaves out answers below the studio's own minimum, 40 characters, which is kind to it. Tokens are those
of the built-in model's tokenizer with its chat template, question included; max_length is the recipe's default.
"""

import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from sage_studio.catalog import BUILT_IN, Catalog
from sage_studio.data.sources.sage_docs import DocsRepository, SAGEDocsProcessor
from sage_studio.models.chat_template import ChatTokenizer
from sage_studio.models.unpack import ensure_unpacked
from sage_studio.settings import load_settings
from sage_studio.training.recipes import SFTRecipe

FENCE = re.compile(r"^[ >]*(?:[-*+]|\d+[.)])?[ ]*(`{3,}|~{3,})([^`]*)$")
HEADING = re.compile(r"^#{1,6}[ \t]+(.+)$")
HAN = re.compile(r"[\u4e00-\u9fff]")
LATIN = re.compile(r"[A-Za-z]+")
UNIT = re.compile(r"[\u4e00-\u9fff]|[^\W\u4e00-\u9fff]+")
PLAIN_MIN = 40
ALIKE = 0.8
MAX_LENGTH = int(SFTRecipe.model_fields["max_length"].default)
LONG_FENCE = re.compile(r"^(`{4,})([^`]*)$")
BAD_BEGIN = re.compile(
    r"[ \t]+[-*+\d`]"  # in a list whose head is missing
    r"|[^\[\n]{0,200}\]\("  # behind a link's first bracket
    r"|`{3,}[^\s`\"]*[()/]"  # a fence named after half an address
    r"|(`{3,})[^\n]*\n\s*\1"  # an empty fence, or a fence in a fence
    r"|(?:\*\*[^*\n]+\*\* )?(?:\\`){3}\w"  # behind a fence that is none
    r"|</|\\\["
)
EMPTY_END = re.compile(r"^(`{3,})[^\n`]*\n\s*\1\Z", re.MULTILINE)
BAD_END = re.compile(r"\]\([^)\s]*$|\\?\[[^\]\n]*$|<[a-z/][^>\n]*$|\\$", re.MULTILINE)
TABLE_RULE = re.compile(r"[ >]*\|?[ :|-]+\|?$")
BADGES = re.compile(r"(?:\[?!?\[[^\]]*\]\([^)]*(?:badge|shields)[^)]*\)\S*\s*)+$")
CODE = re.compile(r"^[ >]*```.*?^[ >]*```[ \t]*$|`[^`\n]*`|https?://\S+", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Row:
    """A question, its answer, and the line of the file where its title stands."""

    question: str
    answer: str
    file: str
    line: int


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as home:
        chosen = {"docs_repo": sys.argv[1]} if len(sys.argv) > 1 else {}
        settings = load_settings(home=Path(home), **chosen)
        docs = SAGEDocsProcessor(settings)
        print(f"Fetching {docs.source} ...", file=sys.stderr)
        docs.download_docs()
        fresh = SAGEDocsProcessor(settings)
        begin = time.process_time()
        ours = [
            Row(row["instruction"], row["output"], row["origin"]["file"], row["origin"]["row"])
            for row in fresh.convert_markdown_to_qa()
        ]
        our_seconds = time.process_time() - begin
        files = {file: content.decode("utf-8", "replace") for file, content in DocsRepository(settings).documents()}
        begin = time.process_time()
        plain = [row for file, text in files.items() for row in plain_split(file, text)]
        plain_seconds = time.process_time() - begin
        fenced = {file: lines_in_fences(text) for file, text in files.items()}
        print(f"\n{docs.source} at {docs.commit}: {len(files)} files, {sum(map(len, files.values())):,} characters\n")
        tokenizer = ChatTokenizer(Path(ensure_unpacked(Catalog(settings), BUILT_IN).location))
        print_table(measures(plain, fenced, plain_seconds, tokenizer), measures(ours, fenced, our_seconds, tokenizer))
        for each in fresh.dropped:
            print(f"left out: {each.count} x {each.reason.en}")


def plain_split(file: str, text: str) -> Iterable[Row]:
    """The baseline: every line that begins with ``#`` is a title, what follows it the answer."""
    title, line, body = "", 0, list[str]()
    for number, each in enumerate([*text.split("\n"), "# end"], 1):
        found = HEADING.match(each)
        if not found:
            body.append(each)
            continue
        answer = "\n".join(body).strip()
        if title and len(answer) >= PLAIN_MIN:
            yield Row(f"请介绍 SAGE 框架中关于 {title} 的内容", answer, file, line)
        title, line, body = found[1].strip(), number, []


def lines_in_fences(text: str) -> set[int]:
    """Line numbers inside code fences, told by the marks alone; those `wrappers_in` finds hold text, not code."""
    inside, mark, wrappers = set[int](), "", wrappers_in(text)
    for number, line in enumerate(text.split("\n"), 1):
        found = FENCE.match(line) if number not in wrappers else None
        if mark:
            if found and found[1].startswith(mark) and not found[2].strip():
                mark = ""
            else:
                inside.add(number)
        elif found:
            mark = found[1]
    return inside


def wrappers_in(text: str) -> set[int]:
    """Lines of opening fences around text: marked as Markdown around a whole document, or leaving another open."""
    lines, found = text.rstrip().split("\n"), set[int]()
    first = FENCE.match(lines[0])
    if first and first[2].strip() == "markdown" and lines[-1] == first[1]:
        found = {1, len(lines)}
    for number, line in enumerate(lines, 1):
        long = LONG_FENCE.match(line)
        if long and number not in found:
            end = next((at for at in range(number, len(lines)) if lines[at].rstrip() == long[1]), len(lines))
            marks = [each[2].strip() for each in map(FENCE.match, lines[number:end]) if each]
            found |= {number} if len(marks) % 2 and marks[0] else set()
    return found


def is_cut(answer: str) -> bool:
    """Whether an answer begins or ends in the middle of markup: a link, a fence, a list, a table, a tag, bold type."""
    first, last = answer.split("\n", 1)[0], answer.rsplit("\n", 1)[-1]
    marks = [each for each in map(FENCE.match, answer.split("\n")) if each]
    if BAD_BEGIN.match(answer) or BADGES.match(answer) or EMPTY_END.search(answer):
        return True
    if (not FENCE.match(last) and BAD_END.search(last)) or (marks and not is_closed(answer)):
        return True
    if first.startswith("|") and not TABLE_RULE.match(answer.split("\n", 2)[1] if "\n" in answer else ""):
        return True
    prose = re.sub(r"\\.", "", CODE.sub("", answer))
    return any(part.count("**") % 2 for part in (prose.split("\n\n")[0], prose.split("\n\n")[-1]))


def is_closed(answer: str) -> bool:
    """Whether no fence is left open."""
    mark = ""
    for found in map(FENCE.match, answer.split("\n")):
        if found and not mark:
            mark = found[1]
        elif found and found[1].startswith(mark) and not found[2].strip():
            mark = ""
    return not mark


def measures(rows: Sequence[Row], fenced: dict[str, set[int]], seconds: float, tokenizer: ChatTokenizer) -> list[str]:
    """The figures of one way of converting, as texts."""
    tokens = tokens_of(rows, tokenizer)
    asked = Counter(row.question for row in rows)
    judged = [agrees for row in rows if (agrees := language_agrees(row)) is not None]
    in_fence = sum(row.line in fenced[row.file] for row in rows)
    return [
        f"{len(rows):,}",
        f"{in_fence:,} ({in_fence / len(rows):.1%})",
        f"{sum(is_cut(row.answer) for row in rows):,}",
        f"{sum(count for count in asked.values() if count > 1):,}",
        f"{len(rows) - len({' '.join(row.answer.split()) for row in rows}):,}",
        f"{near_copies([row.answer for row in rows]):,}",
        f"{max(len(row.answer) for row in rows):,}",
        f"{max(tokens):,}",
        f"{sum(length > MAX_LENGTH for length in tokens):,}",
        f"{sum(judged) / max(1, len(judged)):.1%} of {len(judged):,}",
        f"{seconds:.2f}",
    ]


def tokens_of(rows: Sequence[Row], tokenizer: ChatTokenizer) -> list[int]:
    """Of each row, rendered with the chat template."""
    texts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": row.question}, {"role": "assistant", "content": row.answer}]
        )
        for row in rows
    ]
    return [len(ids) for ids in tokenizer(texts)["input_ids"]]


def near_copies(answers: Sequence[str]) -> int:
    """Answers of which at least 0.8 of the shingles are common with an earlier answer, found by their rarest ones."""
    shingles = [shingles_of(answer) for answer in answers]
    known = Counter(each for some in shingles for each in some)
    holders: dict[tuple[str, ...], list[int]] = {}
    copies = 0
    for at, some in enumerate(shingles):
        # with so much in common, two answers share at least one of the rarest fifth
        rare = sorted(some, key=lambda each: (known[each], each))[: len(some) // 5 + 1]
        earlier = {other for each in rare for other in holders.get(each, ())}
        copies += any(len(some & shingles[other]) >= ALIKE * len(some | shingles[other]) for other in earlier)
        for each in rare:
            holders.setdefault(each, []).append(at)
    return copies


def shingles_of(text: str) -> set[tuple[str, ...]]:
    """Runs of four words or Chinese characters."""
    units = UNIT.findall(text.lower())
    return {tuple(units[at : at + 4]) for at in range(max(1, len(units) - 3))}


def language_agrees(row: Row) -> bool | None:
    """Whether the question's language is the prose's; None where the prose has too few letters to tell."""
    prose = CODE.sub("", row.answer)
    han, latin = len(HAN.findall(prose)), len(LATIN.findall(prose))
    if han + latin < 10:
        return None
    return row.question.startswith("请") == (han >= latin)


def print_table(plain: Sequence[str], ours: Sequence[str]) -> None:
    """Two columns, one line a measure."""
    names = (
        "rows",
        "titled by text inside a code fence",
        "begin or end in the middle of markup",
        "rows that share their question",
        "answers that are exact copies",
        "answers nearly like an earlier one",
        "longest answer, characters",
        "longest row, tokens",
        f"rows cut at max_length = {MAX_LENGTH}",
        "question in the language of the prose",
        "CPU seconds on one core",
    )
    print(f"{'':40}{'split at #':>18}{'the studio':>18}")
    for name, left, right in zip(names, plain, ours, strict=True):
        print(f"{name:40}{left:>18}{right:>18}")


if __name__ == "__main__":
    main()
