"""Serving: which model answers, and the engine that does the answering.

Example:
    >>> from sage_studio.serving import vllm_registry
    >>> vllm_registry.generate("What is SAGE?")  # doctest: +SKIP
"""

from sage_studio.serving.registry import VLLMRegistry

__all__ = ["VLLMRegistry", "vllm_registry"]

vllm_registry = VLLMRegistry()
"""This process's registry. Used without ``configure`` it works in the home that the settings name."""
