"""Whether a tuned model is served with the chat template that it was trained with.

Knows where a tokenizer keeps its template and where training noted the template's hash. Knows no engine, imports no
transformers.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from sage_studio.errors import InvalidModel
from sage_studio.text import Text

TEMPLATE = "chat_template.jinja"
TOKENIZER = "tokenizer_config.json"
ARGUMENTS = "training_args.json"
HASH = "chat_template_sha256"
SHOWN = 12


def needs_own_template(folder: Path, base: str) -> bool:
    """Whether a tuned model must be served whole, with the template in its own folder: the base's is another one now.

    Args:
        folder: the tuned model, with ``training_args.json`` if the studio trained it.
        base: what the engine would take its template from, folder or hub id.

    Raises:
        InvalidModel: it was trained with a template that neither has; the message names the hashes.
    """
    trained = trained_hash(folder)
    if trained is None or (served := template_hash(base)) is None or served == trained:
        return False
    if template_hash(str(folder)) == trained:
        return True
    raise InvalidModel(
        Text(
            f"{folder.name} was trained with the chat template {trained[:SHOWN]}…, but {base} now has {served[:SHOWN]}…"
            f" ({TEMPLATE} or {TOKENIZER}): its answers would be worse than it can do.",
            f"{folder.name} 训练时使用的对话模板是 {trained[:SHOWN]}…，而 {base} 现在的是 {served[:SHOWN]}…"
            f"（{TEMPLATE} 或 {TOKENIZER}），回答质量会下降。",
        ),
        Text(
            f"Restore the base's template, copy the one from training to {folder / TEMPLATE}, or train again.",
            f"请恢复基座的模板，或将训练时的模板复制到 {folder / TEMPLATE}，或重新训练。",
        ),
    )


def trained_hash(folder: Path) -> str | None:
    """The SHA-256 of the template that a model was trained with; None where training left no note of it."""
    found = _json(folder / ARGUMENTS).get(HASH)
    return found if isinstance(found, str) else None


def template_hash(location: str) -> str | None:
    """The SHA-256 of a tokenizer's chat template; None where it is not on this machine, has none, or several."""
    file = _local(location, TEMPLATE)
    if file is not None and file.is_file():
        return hashlib.sha256(file.read_text(encoding="utf-8").encode()).hexdigest()
    file = _local(location, TOKENIZER)
    template = _json(file).get("chat_template") if file is not None else None
    return hashlib.sha256(template.encode()).hexdigest() if isinstance(template, str) else None


def _local(location: str, name: str) -> Path | None:
    if Path(location).is_absolute():
        return Path(location) / name
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(location, name)
    return Path(found) if isinstance(found, str) else None


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
