"""The named endpoints for ``gradio_client``: the table of operations, and the two that stream."""

import inspect
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any, get_origin

import gradio as gr
from gradio.events import api
from gradio.utils import get_upload_folder
from pydantic.fields import FieldInfo

from sage_studio.errors import InvalidName, StudioError
from sage_studio.evaluation.arena import Reply
from sage_studio.operations import operations
from sage_studio.operations.chat import ReplyView
from sage_studio.operations.operation import Operation
from sage_studio.operations.rag import SourceView
from sage_studio.studio import Studio
from sage_studio.text import Text

PLAIN = (str, int, float, bool, type(None))


def register(studio: Studio) -> None:
    """Add every named endpoint to the Blocks under construction."""
    for operation in operations("client"):
        limit = None if operation.parallel else 1
        api(_endpoint(studio, operation), api_name=operation.name, concurrency_limit=limit)
    for verb in (chat_endpoint(studio), compare_endpoint(studio)):
        api(verb, api_name=verb.__name__, concurrency_limit=None)


def _endpoint(studio: Studio, operation: Operation) -> Callable[..., Any]:
    """A function with the signature that gradio is to read. Errors are told in both languages."""
    fields = operation.request.model_fields
    upload = operation.file_parameter

    def endpoint(*args: Any, **kwargs: Any) -> Any:
        values = {**dict(zip(fields, args, strict=False)), **kwargs}
        try:
            if upload is not None:
                values[upload] = uploaded(values[upload])
            return operation.plain(operation.run(studio, operation.checked(values)))
        except StudioError as error:
            raise _shown(error) from error

    shown: Any = endpoint
    shown.__name__ = operation.name
    shown.__doc__ = operation.description
    answer: Any = str if operation.response is str else list if get_origin(operation.response) is list else dict
    parameters = [_parameter(name, info, upload) for name, info in fields.items()]
    shown.__signature__ = inspect.Signature(parameters, return_annotation=answer)
    shown.__annotations__ = {each.name: each.annotation for each in parameters} | {"return": answer}
    return endpoint


def _parameter(name: str, info: FieldInfo, upload: str | None) -> inspect.Parameter:
    """None stands for a default that JSON could not say as it is."""
    default = inspect.Parameter.empty if info.is_required() else info.get_default(call_default_factory=True)
    if default is not inspect.Parameter.empty and not isinstance(default, PLAIN):
        default = None
    annotation = dict if name == upload else info.annotation
    return inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=annotation)


def chat_endpoint(studio: Studio) -> Callable[..., Any]:
    """The endpoint ``/chat``."""

    @_bilingual
    def chat(
        message: str,
        history: list[dict[str, str]] | None = None,
        model: str | None = None,
        temperature: float = 0.7,
        max_tokens: int = 512,
        documents: bool | str = False,
        expand: bool = False,
    ) -> Iterator[dict[str, Any]]:
        """Ask the current model; the answer grows as it comes, the last one carries the figures and the sources."""
        messages: list[Any] = [*(history or []), {"role": "user", "content": message}]
        text = ""
        sampling = {"temperature": temperature, "max_tokens": int(max_tokens)}
        for chunk in studio.chat.answer(messages, model, documents, expand, **sampling):
            text += chunk.text
            sources = [SourceView.of(source).model_dump() for source in chunk.sources]
            figures = {"tokens_per_second": chunk.tokens_per_second, "sources": sources, "look_ups": chunk.look_ups}
            yield {"response": text, "model": chunk.model, **figures}

    return chat


def compare_endpoint(studio: Studio) -> Callable[..., Any]:
    """The endpoint ``/compare``."""

    @_bilingual
    def compare(
        message: str,
        models: list[str],
        history: list[dict[str, str]] | None = None,
        temperature: float = 0.7,
        max_tokens: int = 512,
    ) -> Iterator[list[dict[str, Any]]]:
        """Ask two to four models the same; the answers grow side by side, the last ones carry the figures."""
        messages: list[Any] = [*(history or []), {"role": "user", "content": message}]
        replies = [ReplyView.of(Reply(name)) for name in models]
        for piece in studio.chat.compare(messages, models, temperature=temperature, max_tokens=int(max_tokens)):
            replies[piece.column] = ReplyView.of(piece.reply)
            yield [reply.model_dump() for reply in replies]

    return compare


def _bilingual(stream: Callable[..., Iterator[Any]]) -> Callable[..., Iterator[Any]]:
    """Say a `StudioError` in both languages: a script has told nobody which it wants."""

    @wraps(stream)
    def streaming(*args: Any, **kwargs: Any) -> Iterator[Any]:
        try:
            yield from stream(*args, **kwargs)
        except StudioError as error:
            raise _shown(error) from error

    return streaming


def _shown(error: StudioError) -> gr.Error:
    return gr.Error(f"{error.say('zh')} / {error.say('en')}", print_exception=False)


def uploaded(file: Any) -> Path:
    """The uploaded file's path; a path that the client merely named is refused."""
    path = Path(str(file.get("path", "") if isinstance(file, dict) else file)).resolve()
    if not path.is_relative_to(Path(get_upload_folder()).resolve()):
        raise InvalidName(
            Text("{path} was not uploaded.", path=path),
            Text("Send the file with handle_file(path)."),
        )
    return path
