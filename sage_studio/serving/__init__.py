"""Serving: the registry of models, and the engine that answers for them.

Example:
    >>> from sage_studio.serving import vllm_registry
    >>> vllm_registry.generate("What is SAGE?")  # doctest: +SKIP
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sage_studio.serving.registry import VLLMRegistry

    vllm_registry: VLLMRegistry
    """This process's registry. Used without ``configure`` it works in the home that the settings name."""

__all__ = ["VLLMRegistry", "vllm_registry"]


def __getattr__(name: str) -> Any:
    """Import the registry when it is first asked for (PEP 562), so that its siblings can be imported without it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from sage_studio.serving.registry import VLLMRegistry

    if name == "VLLMRegistry":
        return VLLMRegistry
    return globals().setdefault("vllm_registry", VLLMRegistry())
