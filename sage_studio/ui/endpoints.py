"""The named endpoints for ``gradio_client``: the same verbs as the routes, with real parameter names.

Knows names and parameters. Knows nothing of widgets: these endpoints have none.
"""

import functools
import inspect
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.events import api
from gradio.utils import get_upload_folder

from sage_studio.doctor import as_json
from sage_studio.errors import InvalidName, StudioError
from sage_studio.evaluation.arena import Reply
from sage_studio.models.model_folder import ModelTask
from sage_studio.retrieval_views import RetrieverView, SourceView
from sage_studio.run_views import ForecastView, TaskComparisonView
from sage_studio.services.rag import PASSAGES
from sage_studio.serving_views import BackendView, DownloadView, HubModelView, ModelView, ReplyView
from sage_studio.studio import Studio
from sage_studio.tasks.task import Task
from sage_studio.text import Text
from sage_studio.training.recipes import RECIPES
from sage_studio.training.recipes.base import OTHER_NAMES
from sage_studio.ui.curation_endpoints import curation_verbs
from sage_studio.ui.intake_endpoints import intake_verbs
from sage_studio.views import DatasetView, RowView, TaskView

UNLIMITED = ("chat", "compare", "list_datasets", "list_tasks", "get_task", "task_logs")
"""May run as often at the same time as they are asked for."""


def register(studio: Studio) -> None:
    """Add every named endpoint to the Blocks under construction."""
    groups = (_data_verbs, curation_verbs, _task_verbs, _run_verbs, _model_verbs, _hub_verbs, _retrieval_verbs)
    for verb in chain.from_iterable(group(studio) for group in groups):
        limit = None if verb.__name__ in UNLIMITED else 1
        api(_bilingual(verb), api_name=verb.__name__, concurrency_limit=limit)


def _data_verbs(studio: Studio) -> list[Callable[..., Any]]:
    def prepare_sage_docs(force_refresh: bool = False) -> dict[str, Any]:
        """Fetch the SAGE documentation and make it a dataset."""
        return DatasetView.of(studio.datasets.prepare_sage_docs(force_refresh)).model_dump()

    def preview_dataset(dataset_id: str, offset: int = 0, limit: int = 20, search: str = "") -> dict[str, Any]:
        """Some rows of a dataset."""
        page = studio.datasets.preview(dataset_id, int(offset), int(limit), search)
        rows = zip(page.rows, page.numbers, strict=True)
        return {"total": page.total, "rows": [RowView.of(row, number).model_dump() for row, number in rows]}

    def list_datasets() -> list[dict[str, Any]]:
        """All datasets, newest first."""
        return [DatasetView.of(dataset).model_dump() for dataset in studio.datasets.list()]

    def delete_dataset(dataset_id: str) -> dict[str, str]:
        """Delete a dataset; refused while a task needs it."""
        studio.datasets.delete(dataset_id)
        return {"status": "success", "dataset_id": dataset_id}

    return [prepare_sage_docs, *intake_verbs(studio, _uploaded), list_datasets, preview_dataset, delete_dataset]


def _task_verbs(studio: Studio) -> list[Callable[..., Any]]:
    def shown(task_id: str) -> dict[str, Any]:
        return TaskView.of(studio.tasks.get(task_id), studio.tasks.progress(task_id)).model_dump()

    def start_finetune(**values: Any) -> dict[str, Any]:
        """Queue a training; the parameters are the recipe's fields."""
        return shown(studio.training.start(values).id)

    def list_tasks() -> list[dict[str, Any]]:
        """All tasks, newest first."""
        return [TaskView.of(*pair).model_dump() for pair in studio.tasks.list_with_progress()]

    def get_task(task_id: str) -> dict[str, Any]:
        """One task and where it stands."""
        return shown(task_id)

    def task_logs(task_id: str, limit: int = 100) -> str:
        """The last lines of a task's log."""
        return "\n".join(studio.tasks.logs(task_id, limit=int(limit)).lines)

    def stop_task(task_id: str) -> dict[str, Any]:
        """Stop a task, keeping a checkpoint to resume from."""
        return shown(studio.tasks.stop(task_id).id)

    def resume_task(task_id: str) -> dict[str, Any]:
        """Go on from the newest checkpoint."""
        return shown(studio.tasks.resume(task_id).id)

    def delete_task(task_id: str) -> dict[str, str]:
        """Delete a task and its folder."""
        studio.tasks.delete(task_id)
        return {"status": "success", "task_id": task_id}

    return [_with_fields(start_finetune), list_tasks, get_task, task_logs, stop_task, resume_task, delete_task]


def _run_verbs(studio: Studio) -> list[Callable[..., Any]]:
    def shown(task: Task) -> dict[str, Any]:
        return TaskView.of(task, studio.tasks.progress(task.id)).model_dump()

    def estimate_memory(**values: Any) -> dict[str, Any]:
        """What a training would take, without starting it; the parameters are the recipe's fields."""
        return ForecastView.of(studio.estimates.estimate(values)).model_dump()

    def retry_task(task_id: str) -> dict[str, Any]:
        """Do what is to be done next about a stopped or failed task."""
        return shown(studio.training.retry(task_id))

    def reproduce_task(task_id: str) -> dict[str, Any]:
        """Queue the very run of a completed task again."""
        return shown(studio.training.reproduce(task_id))

    def compare_tasks(task_ids: list[str]) -> dict[str, Any]:
        """Two to eight runs beside each other: curves, and the settings that differ."""
        return TaskComparisonView.of(studio.tasks.compare(task_ids)).model_dump()

    return [_with_fields(estimate_memory), retry_task, reproduce_task, compare_tasks]


def _model_verbs(studio: Studio) -> list[Callable[..., Any]]:
    def use_as_backend(task_id: str) -> dict[str, Any]:
        """Let a completed task's model answer the chat."""
        return BackendView.of(studio.serving.use_task(task_id)).model_dump()

    def list_models() -> list[dict[str, Any]]:
        """Models that can answer."""
        return [ModelView.of(model).model_dump() for model in studio.serving.models()]

    def switch_model(model_name: str) -> dict[str, Any]:
        """Make a model the one that answers; a base model's id goes back to it."""
        return BackendView.of(studio.serving.switch(model_name)).model_dump()

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
        messages = [*(history or []), {"role": "user", "content": message}]
        text = ""
        sampling = {"temperature": temperature, "max_tokens": int(max_tokens)}
        for chunk in studio.chat.answer(messages, model, documents, expand, **sampling):  # type: ignore[arg-type]
            text += chunk.text
            sources = [SourceView.of(source).model_dump() for source in chunk.sources]
            figures = {"tokens_per_second": chunk.tokens_per_second, "sources": sources, "look_ups": chunk.look_ups}
            yield {"response": text, "model": chunk.model, **figures}

    def compare(
        message: str,
        models: list[str],
        history: list[dict[str, str]] | None = None,
        temperature: float = 0.7,
        max_tokens: int = 512,
    ) -> Iterator[list[dict[str, Any]]]:
        """Ask two to four models the same; the answers grow side by side, the last ones carry the figures."""
        messages = [*(history or []), {"role": "user", "content": message}]
        replies = [ReplyView.of(Reply(name)) for name in models]
        for piece in studio.chat.compare(messages, models, temperature=temperature, max_tokens=int(max_tokens)):  # type: ignore[arg-type]
            replies[piece.column] = ReplyView.of(piece.reply)
            yield [reply.model_dump() for reply in replies]

    def doctor() -> list[dict[str, Any]]:
        """What this machine can and cannot do, in both languages."""
        return [as_json(finding) for finding in studio.doctor()]

    return [use_as_backend, list_models, switch_model, chat, compare, doctor]


def _hub_verbs(studio: Studio) -> list[Callable[..., Any]]:
    def search_models(text: str, task: str = "generative") -> list[dict[str, Any]]:
        """The hub's models whose names have a text in them; ``task`` is generative or embedding."""
        kind: ModelTask = "embedding" if task == "embedding" else "generative"
        return [HubModelView.of(model).model_dump() for model in studio.models.search(text, kind)]

    def download_model(model_name: str) -> dict[str, Any]:
        """Begin to fetch a hub model, or go on with it."""
        return DownloadView.showing(studio.models.download(model_name)).model_dump()

    def cancel_download(model_name: str) -> dict[str, Any]:
        """Break a download off; what was fetched is kept."""
        return DownloadView.showing(studio.models.cancel_download(model_name)).model_dump()

    def list_downloads() -> list[dict[str, Any]]:
        """Downloads of hub models, the newest first."""
        return [DownloadView.showing(each).model_dump() for each in studio.models.downloads()]

    return [search_models, download_model, cancel_download, list_downloads]


def _retrieval_verbs(studio: Studio) -> list[Callable[..., Any]]:
    def use_as_retriever(task_id: str = "", model_name: str = "", dataset_id: str = "") -> dict[str, Any]:
        """Let a completed embedding task's model, or a base embedder, look things up."""
        return RetrieverView.of(studio.rag.use(task_id, model_name, dataset_id)).model_dump()

    def get_retriever() -> dict[str, Any]:
        """What looks things up, and how far its index is."""
        return RetrieverView.of(studio.rag.status()).model_dump()

    def retrieve(query: str, count: int = PASSAGES, dataset_id: str = "") -> list[dict[str, Any]]:
        """The passages of a dataset that answer a question best."""
        return [SourceView.of(source).model_dump() for source in studio.rag.retrieve(query, int(count), dataset_id)]

    return [use_as_retriever, get_retriever, retrieve]


def _with_fields(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Give ``verb(**values)`` the fields of all recipes as parameters, for gradio to read; None is "the default".

    A field's other names are parameters too.
    """
    fields = {name: info for recipe in RECIPES.values() for name, info in recipe.model_fields.items()}
    fields |= {name: fields[field] for name, field in OTHER_NAMES.items() if name not in fields}
    parameters = [
        inspect.Parameter(
            name,
            inspect.Parameter.POSITIONAL_OR_KEYWORD,
            default=_common_default(name),
            annotation=info.annotation,
        )
        for name, info in sorted(fields.items(), key=lambda field: not field[1].is_required())
    ]

    @functools.wraps(verb)
    def named(*args: Any, **kwargs: Any) -> Any:
        values = dict(zip([parameter.name for parameter in parameters], args, strict=False))
        return verb(**{name: value for name, value in {**values, **kwargs}.items() if value is not None})

    described: Any = named
    described.__signature__ = inspect.Signature(parameters, return_annotation=dict[str, Any])
    described.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    described.__annotations__["return"] = dict[str, Any]
    del described.__wrapped__  # else the types are read from the function within
    return named


def _common_default(name: str) -> Any:
    """The default that all methods give a field; None where they differ, where one has no such field or none at all."""
    infos = [recipe.model_fields.get(name) for recipe in RECIPES.values()]
    defaults = [None if info is None or info.is_required() else info.default for info in infos]
    return defaults[0] if all(default == defaults[0] for default in defaults) else None


def _bilingual(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Say a `StudioError` in both languages: a script has told nobody which it wants."""
    if inspect.isgeneratorfunction(verb):

        @functools.wraps(verb)
        def streaming(*args: Any, **kwargs: Any) -> Iterator[Any]:
            try:
                yield from verb(*args, **kwargs)
            except StudioError as error:
                raise _shown(error) from error

        return streaming

    @functools.wraps(verb)
    def calling(*args: Any, **kwargs: Any) -> Any:
        try:
            return verb(*args, **kwargs)
        except StudioError as error:
            raise _shown(error) from error

    return calling


def _shown(error: StudioError) -> gr.Error:
    return gr.Error(f"{error.say('zh')} / {error.say('en')}", print_exception=False)


def _uploaded(file: dict[str, Any]) -> Path:
    """The uploaded file's path; a path that the client merely named is refused."""
    path = Path(str(file.get("path", ""))).resolve()
    if not path.is_relative_to(Path(get_upload_folder()).resolve()):
        raise InvalidName(
            Text(f"{path} was not uploaded.", f"{path} 不是上传的文件。"),
            Text("Send the file with handle_file(path).", "请用 handle_file(path) 发送文件。"),
        )
    return path
