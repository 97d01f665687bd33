"""Large JSONL files, read by several processes, each a part of it."""
