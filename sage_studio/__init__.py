"""SAGE Studio: pick a dataset, fine-tune a model, watch it live, set it as the chat backend, talk to it."""

__version__ = "0.2.0"
