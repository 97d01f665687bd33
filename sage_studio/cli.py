"""The command line: ``sage NOUN VERB …``, made of the table of operations. Prints JSON.

``sage studio start | stop | restart | status | logs`` looks after a studio in the background.

Works on the same home as a running studio: a task started here waits in the queue until a studio runs, and an engine
that runs already answers. The verbs without a noun are those of 0.1.
"""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from pydantic.fields import FieldInfo

from sage_studio import daemon
from sage_studio.errors import StudioError
from sage_studio.files import PRIVATE
from sage_studio.operations import NOUNS, operations
from sage_studio.operations.operation import Noun, Operation
from sage_studio.settings import load_settings
from sage_studio.studio import Studio
from sage_studio.text import Language, language_of

SHORT = {
    "prepare-sage-docs": "prepare_sage_docs",
    "quickstart": "add_quickstart_dataset",
    "upload": "upload_dataset",
    "task": "get_task",
    "logs": "task_logs",
    "stop": "stop_task",
    "resume": "resume_task",
    "use-as-backend": "use_as_backend",
}
"""Verbs of 0.1 -> their operations."""
LISTS = {"datasets": "list_datasets", "tasks": "list_tasks", "models": "list_models"}
"""Nouns that list when no verb follows, as in 0.1."""


BACKGROUND = {
    "start": "start the studio in the background and wait until its page is served",
    "stop": "stop it; trainings go on by themselves",
    "restart": "stop it, if it runs, and start it",
    "status": "whether it runs, and where; exit status 1 if it does not",
    "logs": "the last lines of its log",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Do one operation. Returns the exit status: 0, or 2 with the reason on standard error."""
    os.umask(PRIVATE)
    given = vars(parser().parse_args(arguments))
    language = language_of(os.environ.get("LC_ALL") or os.environ.get("LANG"))
    try:
        if given["noun"] == "studio" and given["verb"] in BACKGROUND:
            return look_after(given["verb"], given)
        studio = Studio(load_settings(), queues_only=True, any_path=True)
        try:
            show(say(studio, given, language))
        finally:
            studio.serving.registry.close()  # an engine that this process started ends with it
    except StudioError as error:
        print(error.say(language), file=sys.stderr)
        return 2
    return 0


def parser() -> argparse.ArgumentParser:
    """Nouns and their verbs, and the verbs of 0.1."""
    known = {operation.name: operation for operation in operations("cli")}
    top = argparse.ArgumentParser(prog="sage", description=(__doc__ or "").splitlines()[0])
    nouns = top.add_subparsers(dest="noun", required=True, metavar="NOUN")
    for noun in NOUNS:
        _add_noun(nouns, noun, known.get(LISTS.get(noun.name, "")))
    for verb, name in SHORT.items():
        _add_operation(nouns, verb, known[name])
    train = nouns.add_parser("train", help="queue a training")
    train.add_argument("fields", nargs="+", metavar="field=value", help="the recipe's fields, e.g. learning_rate=1e-4")
    nouns.add_parser("chat", help="ask the current model").add_argument("message")
    return top


def _add_noun(nouns: Any, noun: Noun, alone: Operation | None) -> None:
    commands = [operation for operation in noun.operations if "cli" in operation.interfaces]
    help_text = ", ".join(operation.verb for operation in commands)
    under = nouns.add_parser(noun.name, help=help_text)
    under.set_defaults(operation=alone)
    verbs = under.add_subparsers(dest="verb", required=alone is None, metavar="VERB")
    for operation in commands:
        _add_operation(verbs, operation.verb, operation)
    if noun.name == "studio":
        for verb, what in BACKGROUND.items():
            command = verbs.add_parser(verb, help=what, description=what)
            if verb == "logs":
                command.add_argument("--lines", type=int, default=100, help="how many")


def _add_operation(verbs: Any, name: str, operation: Operation) -> None:
    command = verbs.add_parser(name, help=operation.description.splitlines()[0], description=operation.description)
    command.add_argument("--json", action="store_true", help="JSON even where the answer is text")
    for field, info in operation.request.model_fields.items():
        _add_field(command, field, info)
    command.set_defaults(operation=operation)


def _add_field(command: argparse.ArgumentParser, name: str, info: FieldInfo) -> None:
    what = info.description
    if info.annotation is bool:
        command.add_argument(flag_of(name), action=argparse.BooleanOptionalAction, default=None, help=what)
    elif info.is_required():
        command.add_argument(name, help=what)
    else:
        command.add_argument(flag_of(name), dest=name, default=None, help=what)


def flag_of(name: str) -> str:
    """The option of an optional parameter: ``--max-rows`` for ``max_rows``."""
    return f"--{name.replace('_', '-')}"


def look_after(verb: str, given: dict[str, Any]) -> int:
    """Start, stop or show a studio in the background. Returns the exit status."""
    settings = load_settings()
    if verb == "logs":
        print("\n".join(daemon.last_lines(settings.log_path, given["lines"])))
        return 0
    if verb in ("stop", "restart"):
        stopped = daemon.stop(settings)
        if verb == "stop":
            show({"running": False, "stopped": stopped})
            return 0
    running = daemon.running_studio(settings) if verb == "status" else daemon.start(settings)
    show({"running": running is not None, **(asdict(running) if running is not None else {})})
    return 0 if running is not None else 1


def say(studio: Studio, given: dict[str, Any], language: Language) -> Any:
    """The operation's answer, as JSON values."""
    if given["noun"] == "chat":
        return "".join(chunk.text for chunk in studio.chat.answer([{"role": "user", "content": given["message"]}]))
    if given["noun"] == "train":
        texts = dict(field.partition("=")[::2] for field in given["fields"])
        return _do(
            studio, _named("start_finetune"), {key: yaml.safe_load(text) for key, text in texts.items()}, language
        )
    operation: Operation = given["operation"]
    fields = operation.request.model_fields
    values = {name: _read(given.get(name), info) for name, info in fields.items()}
    answer = _do(studio, operation, {name: value for name, value in values.items() if value is not None}, language)
    return json.dumps(answer, ensure_ascii=False) if given.get("json") and isinstance(answer, str) else answer


def _named(name: str) -> Operation:
    return next(operation for operation in operations("cli") if operation.name == name)


def _do(studio: Studio, operation: Operation, values: dict[str, Any], language: Language) -> Any:
    return operation.plain(operation.run(studio, operation.checked(values), language))


def _read(value: Any, info: FieldInfo) -> Any:
    """A word of the command line as a value: text and paths as they are, all else as YAML."""
    if not isinstance(value, str) or info.annotation in (str, Path):
        return value
    return yaml.safe_load(value)


def show(answer: Any) -> None:
    """Print text as it is and all else as JSON."""
    print(answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False, indent=2))


if __name__ == "__main__":
    sys.exit(main())
