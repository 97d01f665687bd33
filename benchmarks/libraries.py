"""Libraries that could take the place of a module of ours: what they find, and their CPU time as a ratio.

    uv pip install --target LIBRARIES --no-deps charset-normalizer clevercsv chardet ijson prometheus_client bm25s \\
        py3langid puremagic semantic-text-splitter
    PYTHONPATH=LIBRARIES python -m benchmarks.libraries DOCUMENTS

``DOCUMENTS`` is a folder of Markdown files, for example a clone of the SAGE documentation. Every pair is measured in
one process, one after the other, by CPU time; the decisions that follow are in docs/decisions.md.
"""

import contextlib
import csv
import io
import json
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from sage_studio.data.bm25 import BM25, words_of
from sage_studio.data.chunking import split_text, utf8_size
from sage_studio.data.language import detect_language
from sage_studio.data.readers.content import FileContent
from sage_studio.data.readers.csv import delimiter_of
from sage_studio.data.readers.encoding import detect_encoding
from sage_studio.data.readers.file_type import detect_file_type
from sage_studio.data.readers.json import json_records
from sage_studio.errors import InvalidDataset
from sage_studio.serving.metrics import parse_metrics

CHINESE = "窗口按时间分组记录，数据流经过算子处理后写入下游。请检查配置文件与日志，然后重新启动服务。"
FRENCH = "Où est le café ? Déjà fermé, à côté de l'hôtel. Ça coûte 3 €."
JAPANESE = "ウィンドウは時間ごとに記録をまとめます。設定ファイルとログを確認してください。"


def main() -> None:
    """Print a line a library."""
    logging.disable(logging.WARNING)
    paths = sorted(Path(sys.argv[1]).rglob("*.md"))
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in paths]
    print(f"{len(texts)} documents, {sum(map(len, texts)):,} characters")
    with tempfile.TemporaryDirectory() as folder:
        for measure in (encodings, metrics, keywords, languages, tables, kinds, arrays, chunks):
            try:
                measure(texts, Path(folder))
            except ImportError as error:
                print(f"{measure.__name__}: not measured, {error}")


def cpu(work: Callable[[], Any], times: int = 1) -> float:
    """CPU seconds of a call, the least of three."""
    taken = []
    for _ in range(3):
        began = time.process_time()
        for _ in range(times):
            work()
        taken.append(time.process_time() - began)
    return min(taken)


def line(library: str, ours: str, found: str, ratio: float) -> None:
    """One row of the table."""
    print(f"{library:<24} {ours:<24} {found}; {ratio:.1f} x our CPU time", flush=True)


def encodings(texts: list[str], folder: Path) -> None:
    """charset-normalizer on files of each encoding that we read or refuse."""
    from charset_normalizer import from_bytes

    english, chinese = ("utf-8", "utf-16", "gb18030"), ("utf-8", "utf-16", "gb18030", "big5")
    cases = [(texts[0][:4000], encoding) for encoding in english]
    cases += [(words, encoding) for words in (CHINESE, CHINESE * 20) for encoding in chinese]
    cases += [(words, encoding) for words in (JAPANESE, JAPANESE * 20) for encoding in ("utf-8", "shift_jis")]
    cases += [(words, encoding) for words in (FRENCH, FRENCH * 20) for encoding in ("utf-8", "cp1252")]
    right, refused, theirs, wrong, spent = 0, 0, 0, 0, [0.0, 0.0]
    for number, (words, encoding) in enumerate(cases):
        path = folder / f"{number}.txt"
        path.write_bytes(data := words.encode(encoding, errors="ignore"))
        wanted = data.decode(encoding).removeprefix("\ufeff")

        def mine(path: Path = path) -> str:
            try:
                return detect_encoding(FileContent(path, 1 << 30))
            except InvalidDataset:
                return ""

        said = mine()
        right += bool(said) and data.decode(said).removeprefix("\ufeff") == wanted
        refused += not said
        best = from_bytes(data).best()
        theirs += best is not None and str(best).removeprefix("\ufeff") == wanted
        wrong += best is not None and str(best).removeprefix("\ufeff") != wanted
        spent[0] += cpu(mine)
        spent[1] += cpu(lambda data=data: from_bytes(data).best())  # type: ignore[misc]
    found = f"of {len(cases)} right {theirs}, wrong {wrong}; ours right {right}, wrong {len(cases) - right - refused}"
    line("charset-normalizer", "readers/encoding", found, spent[1] / spent[0])


def metrics(_: list[str], __: Path) -> None:
    """prometheus_client's parser on an exposition as vLLM's."""
    from prometheus_client.parser import text_string_to_metric_families

    bounds = [0.001 * 2**power for power in range(20)]
    page = "".join(
        f"# HELP vllm:m{number} help\n# TYPE vllm:m{number} histogram\n"
        + "".join(f'vllm:m{number}_bucket{{engine="0",le="{bound}",model_name="m"}} {bound * 9}\n' for bound in bounds)
        + f'vllm:m{number}_bucket{{engine="0",le="+Inf",model_name="m"}} 99.0\n'
        f'vllm:m{number}_count{{engine="0",model_name="m"}} 99.0\nvllm:m{number}_sum{{engine="0",model_name="m"}} 7.0\n'
        for number in range(30)
    )

    def theirs() -> dict[str, float]:
        values: dict[str, float] = {}
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                if "le" not in sample.labels:
                    values[sample.name] = values.get(sample.name, 0.0) + sample.value
        return values

    same = theirs() == dict(parse_metrics(page, 0.0).values)
    ratio = cpu(theirs, 5) / cpu(lambda: parse_metrics(page, 0.0), 5)
    line("prometheus_client", "serving/metrics", f"{'the same' if same else 'other'} figures", ratio)


def keywords(texts: list[str], _: Path) -> None:
    """bm25s with our words, index and queries."""
    import bm25s

    passages = [part for text in texts for part in text.split("\n\n") if len(part) > 80][:3000]
    queries = [" ".join(passage.split()[:8]) for passage in passages[::60]]

    def ours() -> list[list[int]]:
        index = BM25(passages)
        return [index.nearest(query, 5) for query in queries]

    def theirs() -> list[list[int]]:
        index = bm25s.BM25(k1=1.2, b=0.75, method="lucene")
        index.index([words_of(passage) for passage in passages], show_progress=False)
        asked = [sorted(set(words_of(query))) for query in queries]
        return [list(map(int, row)) for row in index.retrieve(asked, k=5, show_progress=False)[0]]

    same = sum(mine[:1] == his[:1] for mine, his in zip(ours(), theirs(), strict=True))
    found = f"the same first passage in {same} of {len(queries)} queries over {len(passages)}"
    line("bm25s", "data/bm25", found, cpu(theirs) / cpu(ours))


def languages(texts: list[str], _: Path) -> None:
    """py3langid, told to choose from languages, on documents and on short texts in Chinese with Latin names."""
    import py3langid

    mixed = [f"SAGE 用 Pipeline {number} 处理数据流，输出到 Sink。" for number in range(200)]
    english = [" ".join(text.split()[:30]) for text in texts if detect_language(text) == "en" and len(text) > 200]
    cases = [(text, "zh") for text in mixed] + [(text, "en") for text in english]
    ours = sum(detect_language(text) == wanted for text, wanted in cases)
    theirs = sum(py3langid.classify(text)[0] == wanted for text, wanted in cases)
    ratio = cpu(lambda: [py3langid.classify(text) for text, _ in cases]) / cpu(
        lambda: [detect_language(text) for text, _ in cases]
    )
    line("py3langid", "data/language", f"right in {theirs} of {len(cases)}, ours {ours}", ratio)


def tables(_: list[str], __: Path) -> None:
    """clevercsv and csv.Sniffer on tables of questions and answers."""
    import clevercsv

    rows = [["question", "answer"]] + [[f"What is {n}, and why?", f"It is {n}; see: a|b\tc, d."] for n in range(40)]
    right, theirs, sniffed, spent = 0, 0, 0, [0.0, 0.0]
    for delimiter in ",;\t|":
        file = io.StringIO()
        csv.writer(file, delimiter=delimiter).writerows(rows)
        sample = file.getvalue()
        right += delimiter_of(sample) == delimiter
        theirs += getattr(clevercsv.Sniffer().sniff(sample), "delimiter", "") == delimiter
        with contextlib.suppress(csv.Error):
            sniffed += csv.Sniffer().sniff(sample).delimiter == delimiter
        spent[0] += cpu(lambda sample=sample: delimiter_of(sample))  # type: ignore[misc]
        spent[1] += cpu(lambda sample=sample: clevercsv.Sniffer().sniff(sample))  # type: ignore[misc]
    found = f"right in {theirs} of 4, csv.Sniffer {sniffed}, ours {right}"
    line("clevercsv", "readers/csv", found, spent[1] / spent[0])


def kinds(texts: list[str], folder: Path) -> None:
    """puremagic on the kinds that a person uploads, named as what they are not."""
    import puremagic

    rows = [{"instruction": "Why?", "output": text[:200]} for text in texts[:20]]
    table = "question,answer\n" + "".join(f'"{row["instruction"]}","no"\n' for row in rows)
    files = {
        "json": json.dumps(rows).encode(),
        "jsonl": "\n".join(map(json.dumps, rows)).encode(),
        "csv": table.encode(),
        "md": texts[0].encode(),
        "html": b"<!doctype html><html><body><p>text</p></body></html>",
        "pdf": b"%PDF-1.7\n",
    }
    right, theirs, spent = 0, 0, [0.0, 0.0]
    for kind, data in files.items():
        path = folder / f"{kind}.bin"
        path.write_bytes(data)
        right += mine(path).lower() in (kind, {"md": "markdown", "jsonl": "json"}.get(kind, ""))
        theirs += any(kind in (each.extension.lstrip("."), each.name.lower()) for each in _guesses(puremagic, data))
        spent[0] += cpu(lambda path=path: mine(path))  # type: ignore[misc]
        spent[1] += cpu(lambda data=data: _guesses(puremagic, data))  # type: ignore[misc]
    found = f"right in {theirs} of {len(files)} by content, ours {right}"
    line("puremagic", "readers/file_type", found, spent[1] / spent[0])


def mine(path: Path) -> str:
    """What our reader takes a file for."""
    try:
        return str(detect_file_type(FileContent(path, 1 << 30)).value)
    except InvalidDataset:
        return ""


def _guesses(puremagic: Any, data: bytes) -> Iterable[Any]:
    try:
        return puremagic.magic_string(data)  # type: ignore[no-any-return]
    except (puremagic.PureError, ValueError):
        return []


def arrays(texts: list[str], folder: Path) -> None:
    """ijson on one long array of rows."""
    import ijson

    path = folder / "rows.json"
    path.write_text(json.dumps([{"instruction": "Why?", "output": text[:2000]} for text in texts] * 5))

    def theirs() -> int:
        with path.open("rb") as file:
            return sum(1 for _ in ijson.items(file, "item"))

    def ours() -> int:
        return sum(1 for _ in json_records(FileContent(path, 1 << 30)))

    found = f"{theirs()} rows, ours {ours()}; backend {ijson.backend}"
    line("ijson", "readers/json", found, cpu(theirs) / cpu(ours))


def chunks(texts: list[str], _: Path) -> None:
    """semantic-text-splitter with the same limit in bytes."""
    from semantic_text_splitter import TextSplitter

    def ours() -> list[str]:
        return [piece for text in texts for piece in split_text(text, 1200, utf8_size)]

    splitter = TextSplitter((600, 1200))

    def theirs() -> list[str]:
        return [piece for text in texts for piece in splitter.chunks(text)]

    found = f"{len(theirs())} pieces, ours {len(ours())}; {_cut(theirs())} end within a sentence, ours {_cut(ours())}"
    line("semantic-text-splitter", "data/chunking", found, cpu(theirs) / cpu(ours))


def _cut(pieces: list[str]) -> int:
    return sum(piece.rstrip()[-1:].isalnum() for piece in pieces)


if __name__ == "__main__":
    main()
