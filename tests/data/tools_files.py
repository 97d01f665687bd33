"""Files as the tools of the field leave them: dumps, exports and demo files, with the quirks that real ones have.

The same columns as `test_format_matrix.GOOD`, of which they are a part.
"""

import gzip

from made_files import array, lines, parquet

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
CLASSES = [{**OPENAI, "label": "weather"}, {**OPENAI, "label": 3}]
TRIPLETS = {"anchor": "Why?", "positive": "Rain.", "negative_1": "Sun.", "negative_2": "Snow."}

LEFT_BY_TOOLS: dict[str, tuple[str, bytes, str, str, int, int]] = {
    # name of the file, content, container, formats, rows, left out
    "sharegpt with tools": ("a.json", array(SHAREGPT, SHAREGPT_TOOLS, SHAREGPT), "JSON", "ShareGPT", 2, 1),
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
    "a label that is a class": ("a.jsonl", lines(*CLASSES), "JSON", "messages", 2, 0),
    "sentence-transformers' triplets": ("a.jsonl", lines(TRIPLETS), "JSON", "anchor/positive", 1, 0),
}
