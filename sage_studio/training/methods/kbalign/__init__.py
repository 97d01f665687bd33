"""KBAlign (arXiv 2411.14790): the model annotates a knowledge base, trains on it, and verifies its own answers.

`pipeline` runs four stages: chunks, annotation (short and long dependency), samples, and rounds of training with
self-verification in between. Each stage writes JSON Lines into the task's folder (`stage_files`), which a person can
edit, and from which a stopped run resumes.
"""
