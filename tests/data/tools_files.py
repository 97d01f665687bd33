"""Files as the tools of the field leave them: dumps, exports and demo files, with the quirks that real ones have.

The same columns as `test_format_matrix.GOOD`, of which they are a part.
"""

import gzip
import json

from made_files import array, lines, parquet, parquet_of, table, zipped


def pretty(record: dict[str, object]) -> bytes:
    return json.dumps(record, indent=2).encode()


ASK, SAY = {"role": "user", "content": "Weather in Paris?"}, {"role": "assistant", "content": "Sunny."}
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}
CALLED = {"role": "assistant", "content": None, "tool_calls": [CALL]}
ANSWERED = {"role": "tool", "tool_call_id": "c1", "content": "sunny"}
OPENAI = {"messages": [ASK, SAY]}
OPENAI_TOOLS = {"messages": [ASK, CALLED, ANSWERED, SAY], "tools": [{"type": "function"}]}
OPENAI_FUNCTIONS = {"messages": [ASK, {**CALLED, "tool_calls": None, "function_call": CALL["function"]}]}
OPENAI_BARRED = {"messages": [ASK, {**SAY, "weight": 0}]}
DEVELOPER = {"messages": [{"role": "developer", "content": "Be brief."}, ASK, SAY]}
EMPTY_CALLS = {"messages": [{**ASK, "name": None, "tool_calls": None}, {**SAY, "tool_calls": [], "refusal": None}]}
PARTS = {"messages": [{**ASK, "content": [{"type": "input_text", "text": "Hi?"}, "And?"]}, SAY]}
PICTURE = {"messages": [{**ASK, "content": [{"type": "text", "text": "What?"}, {"type": "image_url"}]}, SAY]}
SHAREGPT = {"id": "x_0", "conversations": [{"from": "human", "value": "Hi?"}, {"from": "gpt", "value": "Yes."}]}
SHAREGPT_CAPITALS = {"conversations": [{"from": "Human", "value": "Hi?"}, {"from": "Bing", "value": "Yes."}]}
AS_TEXT = {"conversations": json.dumps(SHAREGPT["conversations"])}
SHAREGPT_TOOLS = {
    "conversations": [
        {"from": "human", "value": "Weather?"},
        {"from": "function_call", "value": '{"name": "weather", "arguments": {}}'},
        {"from": "observation", "value": "sunny"},
        {"from": "gpt", "value": "Sunny."},
    ],
    "tools": '[{"name": "weather"}]',
}
KTO_DEMO = [{**OPENAI, "label": True}, {**OPENAI, "label": False}]
KTO_ALPACA = [{"instruction": "Why?", "output": "So.", "label": label} for label in (True, False)]
KTO_FLOATS = [{"prompt": "Why?", "completion": "So.", "label": label} for label in (1.0, 0.0)]
CLASSES = [{**OPENAI, "label": label} for label in ("weather", 3, 0, None)]
TRIPLETS = {"anchor": "Why?", "positive": "Rain.", "negative_1": "Sun.", "negative_2": "Snow."}
PLAIN = {"instruction": "Why?", "input": "", "output": "So."}
WRAPPED = {"version": "1.0", "info": {"by": "me", "n": 2}, "tags": ["a"], "data": [PLAIN, PLAIN], "licence": {"a": []}}
ONE_LINE = {"data": [{**PLAIN, "instruction": f"question {n}"} for n in range(30_000)]}
CHINESE = [["问题", "答案"], ["为什么；下雨？", "因为有云"], ["什么是窗口？", "按时间分组"]]
UNICODE_TEXT = "\r\n".join("\t".join(cells) for cells in CHINESE).encode("utf-16")
MAPPED = table({"question": "为什么；下雨？", "answer": "因为有云，\n而且冷。"}, delimiter=";", end="\r\n").decode()
BIG5 = "question,answer\n為什麼下雨？,因為有雲\n誰是你？,我是學生\n".encode("big5")
SHIFT_JIS = "question,answer\nなぜ雨が降りますか,雲があるからです\n".encode("shift_jis")
TRADITIONAL = "question,answer\n為什麼下雨？,因為有雲\n誰是你？,我是學生\n".encode("gbk")
WORDS = "Les fenêtres groupent les enregistrements par durée ou par nombre, voilà tout ce qu'il faut savoir."
LATIN = f'<!-- saved --><html><head><meta charset="iso-8859-1"></head><body><h1>Été</h1><p>{WORDS}</p></body></html>'
SENTENCE = "These words stand here so that the section is long enough to become a row of the dataset. "
DOCUMENTS_AND_ROWS = {"a.md": SENTENCE, "train.jsonl": lines(PLAIN), "资料/b.csv": table(PLAIN), "__MACOSX/a.json": "x"}
COMMAS = lines(PLAIN, PLAIN, end=",\n")

LEFT_BY_TOOLS: dict[str, tuple[str, bytes, str, str, int, int]] = {
    # name of the file, content, container, formats, rows, left out
    "sharegpt with tools": ("a.json", array(SHAREGPT, SHAREGPT_TOOLS, SHAREGPT), "JSON", "ShareGPT", 2, 1),
    "sharegpt, turns written as text": ("a.parquet", parquet(AS_TEXT, AS_TEXT), "Parquet", "ShareGPT", 2, 0),
    "sharegpt, roles in capitals": ("a.json", array(SHAREGPT_CAPITALS), "JSON", "ShareGPT", 1, 0),
    "openai with tools": ("a.jsonl", lines(OPENAI, OPENAI_TOOLS), "JSON", "messages", 1, 1),
    "openai with functions": ("a.jsonl", lines(OPENAI, OPENAI_FUNCTIONS), "JSON", "messages", 1, 1),
    "openai, an answer of weight 0": ("a.jsonl", lines(OPENAI, OPENAI_BARRED), "JSON", "messages", 1, 1),
    "openai, developer": ("a.jsonl", lines(DEVELOPER), "JSON", "messages", 1, 0),
    "openai, calls that are null": ("a.parquet", parquet(EMPTY_CALLS, EMPTY_CALLS), "Parquet", "messages", 2, 0),
    "openai, parts": ("a.jsonl.gz", gzip.compress(lines(PARTS, PICTURE)), "JSON.gz", "messages", 1, 1),
    "llama-factory's kto demo": ("a.json", array(*KTO_DEMO), "JSON", "messages/label", 1, 1),
    "kto by label, alpaca": ("a.json", array(*KTO_ALPACA), "JSON", "instruction/output/label", 1, 1),
    "kto, labels as pandas writes them": ("a.parquet", parquet(*KTO_FLOATS), "Parquet", "KTO", 1, 1),
    "a label that is a class": ("a.jsonl", lines(*CLASSES), "JSON", "messages", 4, 0),
    "an object with the rows in it": ("a.json", pretty(WRAPPED), "JSON", "Alpaca", 2, 0),
    "the same on one line, packed": ("a.json.gz", gzip.compress(lines(WRAPPED)), "JSON.gz", "Alpaca", 2, 0),
    "the same on one long line": ("a.json", lines(ONE_LINE), "JSON", "Alpaca", 30_000, 0),
    "an object with texts in it": ("kb.json", pretty({"data": ["Rain falls.", "Clouds form."]}), "JSON", "text", 2, 0),
    "a line for each text": ("kb.jsonl", lines("Rain falls.", "Clouds form."), "JSON", "text", 2, 0),
    "jsonl with a comma after each row": ("a.jsonl", COMMAS, "JSON", "Alpaca", 2, 0),
    "excel's csv in gb18030": ("a.csv", MAPPED.encode("gb18030"), "CSV", "question/answer", 1, 0),
    "excel's tsv in utf-16, packed": (
        "a.tsv.gz",
        gzip.compress(MAPPED.replace(';"', '\t"').replace("question;", "question\t").encode("utf-16")),
        "CSV.gz",
        "question/answer",
        1,
        0,
    ),
    "traditional chinese, gbk": ("a.csv", TRADITIONAL, "CSV", "question/answer", 2, 0),
    "a page in the encoding it declares": ("a.html", LATIN.encode("latin-1"), "HTML", "", 1, 0),
    "a page under no name": ("page", LATIN.encode(), "HTML", "", 1, 0),
    "a zip of documents and rows": ("a.zip", zipped(DOCUMENTS_AND_ROWS), "Markdown", "", 1, 2),
    "pandas' csv of messages": (
        "a.csv",
        table({"id": 1, "messages": str(OPENAI["messages"])}),
        "CSV",
        "messages",
        1,
        0,
    ),
    "sentence-transformers' triplets": ("a.jsonl", lines(TRIPLETS), "JSON", "anchor/positive", 1, 0),
}

REFUSED_OF_TOOLS: dict[str, tuple[str, bytes, int | None, str]] = {
    # name of the file, content, row named, words of the message
    "an object with two lists": ("a.json", lines({"train": [PLAIN], "test": [PLAIN]}), 2, "test, after train"),
    "an object with an empty list": ("a.json", b'{"data": []}', None, "0 usable rows of 0"),
    "python in a cell that json has not": ("a.csv", table({"id": 1, "messages": "[{'a': {[]: 1}}]"}), 1, "of turns"),
    "python in a cell that would run": (
        "a.csv",
        table({"id": 1, "messages": "[{'role': exit()}]"}),
        1,
        "a list of turns",
    ),
    "an object whose list is broken": ("a.json", b'{"data": [{"question": "a", "answer": "b"} 5]}', 1, "',' or ']'"),
    "an object that is not closed": ("a.json", lines(WRAPPED)[:-2], 2, "',' or '}' expected after the rows"),
    "an object with more behind it": ("a.json", pretty(WRAPPED) + b"[]", 2, "more text after"),
    "an object with a key alone": ("a.json", pretty({"data": [PLAIN]})[:-1] + b', "a" 5}', 1, "':' expected after 'a'"),
    "excel's unicode text": ("a.txt", UNICODE_TEXT, 1, "(答案, 问题)"),
    "big5": ("a.csv", BIG5, None, "no known encoding"),
    "shift jis": ("a.csv", SHIFT_JIS, None, "no known encoding"),
    "rich text": ("a.rtf", b"{\\rtf1\\ansi hello}", None, "is a rich text (.rtf) file"),
    "a zip of rows": ("a.zip", zipped({"train.jsonl": lines(PLAIN)}), None, "train.jsonl: rows, not a document"),
    "a parquet column twice": (
        "a.parquet",
        parquet_of(("question", ["a"]), ("answer", ["b"]), ("answer", ["c"])),
        None,
        "two columns 'answer'",
    ),
    "parquet text as bytes": ("a.parquet", parquet({"question": b"a", "answer": b"b"}), None, "but of bytes: question"),
    "lines with lists of their own": ("a.jsonl", lines({"data": [PLAIN]}, {"data": [PLAIN]}), 1, "(data)"),
}
