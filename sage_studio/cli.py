"""The studio's verbs on the command line: ``python -m sage_studio.cli VERB …``. Prints JSON.

Works on the same home as a running studio: a task started here waits in the queue until a studio runs, and an engine
that runs already answers. Knows verbs and their words; knows nothing of what they do, and supervises nothing.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from sage_studio.errors import StudioError
from sage_studio.serving_views import BackendView, ModelView
from sage_studio.settings import load_settings
from sage_studio.studio import Studio
from sage_studio.text import language_of
from sage_studio.views import DatasetView, TaskView


def main(arguments: Sequence[str] | None = None) -> int:
    """Say one verb. Returns the exit status: 0, or 2 with the reason on standard error."""
    given = parser().parse_args(arguments)
    try:
        studio = Studio(load_settings())
        try:
            show(say(studio, given))
        finally:
            studio.serving.registry.close()  # an engine that this process started ends with it
    except StudioError as error:
        print(error.say(language_of(os.environ.get("LC_ALL") or os.environ.get("LANG"))), file=sys.stderr)
        return 2
    return 0


def parser() -> argparse.ArgumentParser:
    """The verbs and their words."""
    top = argparse.ArgumentParser(prog="python -m sage_studio.cli", description=(__doc__ or "").splitlines()[0])
    verbs = top.add_subparsers(dest="verb", required=True)
    docs = verbs.add_parser("prepare-sage-docs", help="fetch the SAGE documentation and make it a dataset")
    docs.add_argument("--force-refresh", action="store_true")
    verbs.add_parser("quickstart", help="keep the questions about SAGE that come with the studio as a dataset")
    upload = verbs.add_parser("upload", help="keep a file of rows or of documents as a dataset")
    upload.add_argument("file", type=Path)
    upload.add_argument("--name", default="")
    verbs.add_parser("datasets", help="all datasets")
    train = verbs.add_parser("train", help="queue a training")
    train.add_argument("fields", nargs="+", metavar="field=value", help="the recipe's fields, e.g. learning_rate=1e-4")
    verbs.add_parser("tasks", help="all tasks")
    for name, what in (("task", "show"), ("logs", "print the log of"), ("stop", "stop"), ("resume", "go on with")):
        verbs.add_parser(name, help=f"{what} a task").add_argument("task_id")
    verbs.add_parser("models", help="models that can answer")
    verbs.add_parser("use-as-backend", help="let a task's model answer the chat").add_argument("task_id")
    verbs.add_parser("chat", help="ask the current model").add_argument("message")
    return top


def say(studio: Studio, given: argparse.Namespace) -> Any:
    """The verb's answer, ready to be shown."""
    match given.verb:
        case "prepare-sage-docs":
            return DatasetView.of(studio.datasets.prepare_sage_docs(given.force_refresh))
        case "quickstart":
            return DatasetView.of(studio.datasets.add_quickstart())
        case "upload":
            return DatasetView.of(studio.datasets.upload(given.file, given.name))
        case "datasets":
            return [DatasetView.of(dataset) for dataset in studio.datasets.list()]
        case "train":
            values = dict(field.partition("=")[::2] for field in given.fields)
            return _task(studio, studio.training.start({key: yaml.safe_load(text) for key, text in values.items()}).id)
        case "tasks":
            return [_task(studio, task.id) for task in studio.tasks.list()]
        case "task":
            return _task(studio, given.task_id)
        case "logs":
            return "\n".join(studio.tasks.logs(given.task_id).lines)
        case "stop":
            return _task(studio, studio.tasks.stop(given.task_id).id)
        case "resume":
            return _task(studio, studio.tasks.resume(given.task_id).id)
        case "models":
            return [ModelView.of(model) for model in studio.serving.models()]
        case "use-as-backend":
            return BackendView.of(studio.serving.use_task(given.task_id))
        case _:
            return "".join(chunk.text for chunk in studio.chat.answer([{"role": "user", "content": given.message}]))


def show(answer: Any) -> None:
    """Print text as it is and views as JSON."""
    if isinstance(answer, str):
        print(answer)
        return
    plain = [view.model_dump() for view in answer] if isinstance(answer, list) else _dumped(answer)
    print(json.dumps(plain, ensure_ascii=False, indent=2))


def _dumped(view: BaseModel) -> dict[str, Any]:
    return view.model_dump()


def _task(studio: Studio, task_id: str) -> TaskView:
    return TaskView.of(studio.tasks.get(task_id), studio.tasks.progress(task_id))


if __name__ == "__main__":
    sys.exit(main())
