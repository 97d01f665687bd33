"""Embedding models (sentence-transformers): load, add an adapter, save, encode. Trainer and server both use it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sage_studio.errors import InvalidModel
from sage_studio.text import Text
from sage_studio.training.failures import explain
from sage_studio.training.progress import Reason

LONGEST = 8192
"""Tokens read by a model that sets no limit itself."""


def load_embedder(location: str, trust_remote_code: bool = False, device: str | None = None) -> Any:
    """A ``SentenceTransformer`` with fp32 weights. A bare encoder gets mean pooling; an adapter comes with its base.

    Args:
        location: a folder, or a hub id.
        device: ``cpu`` or ``cuda``; the GPU where there is one unless it is given.

    Raises:
        InvalidModel: there is no usable embedder.
    """
    from safetensors import SafetensorError
    from sentence_transformers.sentence_transformer.model import SentenceTransformer

    unusable = (OSError, ValueError, ImportError, KeyError, TypeError, AttributeError, RuntimeError, SafetensorError)
    try:
        model = SentenceTransformer(location, trust_remote_code=trust_remote_code, device=device)
        return model.float()
    except unusable as error:
        if explain(error)[0] in (Reason.MEMORY, Reason.DISK):
            raise
        message = str(error).strip().partition("\n")[0][:300]
        raise InvalidModel(
            Text("The embedder {location} cannot be loaded: {message}", location=location, message=message),
            Text("Check that it is a whole sentence-transformers or encoder model, or choose another."),
        ) from error


def limit_length(model: Any, longest: int) -> int:
    """Let the model read at most ``longest`` tokens, or fewer where it cannot read so many. Returns how many."""
    config = getattr(getattr(model, "transformers_model", None), "config", None)
    limits = [model.max_seq_length, getattr(config, "max_position_embeddings", None), LONGEST]
    model.max_seq_length = min(longest, *(limit for limit in limits if limit))
    return int(model.max_seq_length)


def add_adapter(model: Any, rank: int, alpha: int, dropout: float, targets: str | list[str]) -> None:
    """Put a fresh LoRA adapter on the model; only it is trained from then on."""
    from peft import LoraConfig

    config = LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=targets, task_type="FEATURE_EXTRACTION"
    )
    model.add_adapter(config)


def save_embedder(model: Any, folder: Path) -> None:
    """Write modules, tokenizer and weights, those of the adapter alone where there is one."""
    model.save_pretrained(str(folder), create_model_card=False)
    (folder / "README.md").unlink(missing_ok=True)  # peft's empty model card


def embed_passages(model: Any, texts: Sequence[str], batch_size: int = 32) -> Any:
    """Vectors of passages: float32, shape (texts, dimensions), each of length 1."""
    return model.encode_document(list(texts), batch_size=batch_size, normalize_embeddings=True, show_progress_bar=False)


def embed_queries(model: Any, texts: Sequence[str], batch_size: int = 32) -> Any:
    """Vectors of queries, as of passages; models that were trained with a prompt for queries get it."""
    return model.encode_query(list(texts), batch_size=batch_size, normalize_embeddings=True, show_progress_bar=False)
