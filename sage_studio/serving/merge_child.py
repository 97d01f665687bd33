"""Child that merges an adapter: ``python -m sage_studio.serving.merge_child``.

Arguments: ADAPTER BASE DEST PROGRESS.

DEST appears, by rename, once it is complete. PROGRESS gets a JSON line for each step.
"""

import argparse
import json
import os
import shutil
from pathlib import Path
from typing import Any

import psutil
import torch
from peft import PeftModel
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from sage_studio import files
from sage_studio.serving.adapter_compat import WEIGHTS

SHARE_OF_MEMORY = 0.7


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("adapter", "base", "dest", "progress"):
        parser.add_argument(name)
    parser.add_argument("--trust-remote-code", action="store_true")
    given = parser.parse_args()
    part = Path(f"{given.dest}.part")
    shutil.rmtree(part, ignore_errors=True)
    merge(Path(given.adapter), given.base, part, Path(given.progress), given.trust_remote_code)
    shutil.rmtree(given.dest, ignore_errors=True)
    part.rename(given.dest)


def merge(adapter: Path, base: str, dest: Path, progress: Path, trust_remote_code: bool) -> None:
    """Write the base with the adapter's changes, in the type that the base is published in, and the tokenizer."""
    _say(progress, "loading", 0.05)
    own = adapter if (adapter / "tokenizer_config.json").is_file() else base
    tokenizer = AutoTokenizer.from_pretrained(own, trust_remote_code=trust_remote_code)
    published = AutoConfig.from_pretrained(base, trust_remote_code=trust_remote_code).dtype or torch.float32
    model: Any = AutoModelForCausalLM.from_pretrained(
        base, dtype=_exact_type(base, published), trust_remote_code=trust_remote_code
    )
    rows = embedding_rows(adapter)
    if rows is not None and rows != model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(rows, mean_resizing=False)
    _say(progress, "merging", 0.4)
    merged: Any = PeftModel.from_pretrained(model, adapter).merge_and_unload(safe_merge=True)
    _say(progress, "saving", 0.7)
    merged.to(published).save_pretrained(dest)
    tokenizer.save_pretrained(dest)
    _say(progress, "saved", 1.0)


def embedding_rows(adapter: Path) -> int | None:
    """How many tokens an adapter's own embeddings know; None if it brings none."""
    with safe_open(adapter / WEIGHTS, "pt") as file:
        names = [name for name in file.keys() if "lora_" not in name]  # noqa: SIM118  # it is no dict
        whole = [name for name in names if "embed_tokens" in name or "lm_head" in name]
        return int(file.get_slice(whole[0]).get_shape()[0]) if whole else None


def _exact_type(base: str, published: Any) -> Any:
    """32 bits, unless the memory is too small for that: the sum is rounded once, when it is saved."""
    folder = Path(base)
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors")) if folder.is_absolute() else 0
    available = SHARE_OF_MEMORY * psutil.virtual_memory().available
    return torch.float32 if size * 4 / published.itemsize < available else published


def _say(progress: Path, doing: str, share: float) -> None:
    files.append(progress, [json.dumps({"pid": os.getpid(), "doing": doing, "share": share})])


if __name__ == "__main__":
    main()
