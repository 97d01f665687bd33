"""How good the rows of a dataset are: near-duplicates, leaks, lengths by a real tokenizer, and which rows are meant."""
