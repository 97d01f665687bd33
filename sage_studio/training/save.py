"""Saves the finished model into the task folder, with ``training_args.json`` and ``lineage.json``, and copies it."""

import json
import shutil
from pathlib import Path
from typing import Any

from sage_studio.errors import Conflict, naming_full_disk
from sage_studio.files import write_atomically
from sage_studio.text import Text
from sage_studio.training.environment import device_name, versions
from sage_studio.training.lineage import base_revision, sha256_of, write_lineage
from sage_studio.training.progress import JOB, PROGRESS, RECIPE, RESULT
from sage_studio.training.run import Run

ARGUMENTS = "training_args.json"
NOT_COPIED = ("checkpoints", PROGRESS, RESULT, JOB, "*.log", ".*")


class OutputNotEmpty(Conflict):
    """The folder that is to get the copy holds something already."""

    code = "output_taken"


def check_output(folder: str) -> None:
    """Raise `OutputNotEmpty` unless a copy can be put there; called before training, not after."""
    if not folder:
        return
    path = Path(folder).expanduser()
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise OutputNotEmpty(
            Text(f"output_dir = {folder} is not empty.", f"output_dir = {folder} 不为空。"),
            Text("Name a new or an empty folder.", "请指定新的或空的文件夹。"),
        )
    with naming_full_disk(path):
        path.mkdir(parents=True, exist_ok=True)


def save_model(run: Run[Any], model: Any, tokenizer: Any, dtype: Any) -> None:
    """Write weights, tokenizer and chat template; a model trained whole is stored in ``dtype``."""
    with naming_full_disk(run.folder):
        if run.state.model_kind == "adapter":
            model.save_pretrained(run.folder, save_embedding_layers=False, selected_adapters=["default"])
            (run.folder / "README.md").unlink(missing_ok=True)  # peft's empty model card
        else:
            model.config.use_cache = True
            model.to(dtype).save_pretrained(run.folder)
        tokenizer.save_pretrained(run.folder)


def write_arguments(run: Run[Any], template: str, figures: dict[str, Any]) -> None:
    """Write ``lineage.json``, then ``training_args.json``: recipe, orders, versions and counts.

    The latter says that the model before it is whole.
    """
    write_lineage(
        run.folder,
        dataset_id=run.job.dataset_id or run.recipe.dataset_id,
        dataset_sha256=run.job.dataset_sha256,
        docs_commit=run.job.docs_commit,
        rows=run.state.rows,
        base_model=run.recipe.model_name_or_path,
        base_revision=base_revision(run.job.model_location),
        chat_template_sha256=sha256_of(template),
        versions=versions(),
        hardware=device_name(),
        recipe=run.recipe.model_dump(mode="json"),
        reproduces=run.job.reproduces,
    )
    content = {
        "recipe": run.recipe.model_dump(mode="json"),
        "job": run.job.model_dump(mode="json"),
        "versions": versions(),
        "chat_template_sha256": sha256_of(template),
        "model_kind": run.state.model_kind,
        "steps": run.state.steps,
        "tokens": run.state.tokens,
        "rows": run.state.rows,
        **figures,
    }
    write_atomically(run.folder / ARGUMENTS, json.dumps(content, ensure_ascii=False, indent=2))


def copy_output(run: Run[Any]) -> None:
    """Copy the model to the recipe's ``output_dir``, if it names one."""
    if not run.recipe.output_dir:
        return
    target = Path(run.recipe.output_dir).expanduser()
    with naming_full_disk(target):
        shutil.copytree(run.folder, target, ignore=shutil.ignore_patterns(*NOT_COPIED), dirs_exist_ok=True)
    print(f"copied to {target} (with {RECIPE} and {ARGUMENTS})")
