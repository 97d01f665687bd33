"""The Hugging Face hub: search models, list the files of one, explain errors.

Reads ``HF_ENDPOINT``, ``HF_TOKEN`` and ``HF_HUB_OFFLINE`` as the library does. ``huggingface_hub`` is imported only
when something is asked, for a child process sets its variables first. `sage_studio.fetching` does the download.
"""

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from sage_studio.errors import HubUnavailable, InvalidModel, StudioError, storage_full
from sage_studio.models.model_folder import HUB_TAGS, WEIGHT_SUFFIXES, ModelTask, cache_folder
from sage_studio.text import Text

SECONDS = 5.0
"""Longest wait for an answer of the hub about a model."""
BUILT_IN = "SmolLM2-135M-Instruct"
SMALL = (".json", ".txt", ".jinja", ".model", ".tiktoken", ".vocab", ".merges")
SKIPPED = re.compile(
    r"(^|/)(\.|original/|onnx/|openvino/|gguf/|coreml/|assets/|examples?/|figures/|runs/|checkpoint-)"
    r"|(^|/)(training_args|optimizer|scheduler|rng_state|scaler)\S*$|(^|/)(README|LICENSE)[^/]*$",
    re.IGNORECASE,
)
MODULE = re.compile(r"(\d+_\w+)/[\w.-]+")
"""A file of a part of a sentence-transformers model: ``1_Pooling/config.json``."""
PICKLES = re.compile(r"pytorch_model(-\d+-of-\d+)?\.bin")
MOST_FOUND = 20


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a model: its path, its size in bytes and the name of its content, by which the cache keeps it."""

    path: str
    size: int
    etag: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be fetched of a model, at one commit."""

    name: str
    commit: str
    files: tuple[HubFile, ...]

    @property
    def total(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


@dataclass(frozen=True, slots=True)
class HubModel:
    """A model that a search has found.

    Attributes:
        parameters: how many, where the hub knows.
        gated: whether its terms have to be accepted on the hub first.
        downloads: in the last month.
    """

    name: str
    task: ModelTask
    parameters: int | None
    gated: bool
    downloads: int


# On the hub


def endpoint() -> str:
    """The hub's address: ``HF_ENDPOINT``, or huggingface.co."""
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


def plan(name: str, trust_remote_code: bool = False) -> Plan:
    """Ask the hub which files of a model are needed.

    Args:
        name: ``owner/name``.
        trust_remote_code: take the model's own Python files too.

    Raises:
        InvalidModel: there is no such model, or it holds no weights that can be loaded.
        HubUnavailable: no answer.
    """
    from huggingface_hub import HfApi

    with asking(name):
        info = HfApi().model_info(name, files_metadata=True, timeout=4 * SECONDS)
    sizes = {each.rfilename: each for each in info.siblings or []}
    files = tuple(_file(sizes[path]) for path in needed(list(sizes), trust_remote_code))
    commit = str(info.sha or "")
    if not commit or not any(file.path.endswith(WEIGHT_SUFFIXES) for file in files):
        raise InvalidModel(
            Text("{name} holds no weights as safetensors or PyTorch files.", name=name),
            Text("Choose the repository of the original model, not a GGUF or ONNX copy of it."),
        )
    return Plan(name, commit, tuple(sorted(files, key=lambda file: (file.path.endswith(WEIGHT_SUFFIXES), file.path))))


def needed(paths: Sequence[str], trust_remote_code: bool = False) -> list[str]:
    """The files of a model's repository that training and serving read: one copy of the weights, and what is small."""
    kept = [path for path in paths if not SKIPPED.search(path) and (_is_top(path) or MODULE.fullmatch(path))]
    small = [path for path in kept if path.endswith(SMALL) or (trust_remote_code and path.endswith(".py"))]
    return [*small, *_weights([path for path in kept if path.endswith(WEIGHT_SUFFIXES)])]


def _is_top(path: str) -> bool:
    return "/" not in path or path.startswith("additional_chat_templates/")


def _weights(paths: list[str]) -> list[str]:
    """Of each folder the safetensors, without the copy that Mistral ships besides; else PyTorch's own files."""
    chosen: list[str] = []
    for folder in dict.fromkeys(str(PurePosixPath(path).parent) for path in paths):
        here = [path for path in paths if str(PurePosixPath(path).parent) == folder]
        safe = [path for path in here if path.endswith(".safetensors")]
        usual = [path for path in safe if not PurePosixPath(path).name.startswith("consolidated")]
        pickled = [path for path in here if PICKLES.fullmatch(PurePosixPath(path).name)]
        chosen += usual or safe or pickled
    return chosen


def _file(sibling: Any) -> HubFile:
    lfs = sibling.lfs
    etag = str(lfs.sha256) if lfs is not None else str(sibling.blob_id or "")
    return HubFile(sibling.rfilename, int(sibling.size or 0), etag)


def search(
    text: str, task: ModelTask = "generative", limit: int = MOST_FOUND, seconds: float = SECONDS
) -> list[HubModel]:
    """The hub's models whose names have a text in them, the most used first.

    Args:
        task: what they are to be for.
        seconds: longest wait for the answer.

    Raises:
        HubUnavailable: no answer in that time.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.utils._http import get_session, hf_raise_for_status

    if len(text.strip()) < 2:
        return []
    found: dict[str, HubModel] = {}
    fields = [("search", text.strip()[:100]), ("sort", "downloads"), ("limit", str(limit))]
    fields += [("expand", name) for name in ("downloads", "gated", "safetensors")]
    for tag in (tag for tag, meant in HUB_TAGS.items() if meant == task):
        with asking(text):
            answer = get_session().get(  # not list_models, which tries again for half a minute
                f"{endpoint()}/api/models",
                params=[*fields, ("pipeline_tag", tag)],
                headers=HfApi()._build_hf_headers(),
                timeout=seconds,
            )
            hf_raise_for_status(answer)
            listed = answer.json()
        if not isinstance(listed, list) or not all(isinstance(each, dict) and "id" in each for each in listed):
            raise _no_hub(text)
        found |= {each["id"]: _found(each, task) for each in listed}
    return sorted(found.values(), key=lambda each: -each.downloads)[:limit]


def _found(info: dict[str, Any], task: ModelTask) -> HubModel:
    counted = (info.get("safetensors") or {}).get("total")
    return HubModel(
        str(info["id"]),
        task,
        int(counted) if counted else None,
        bool(info.get("gated")),
        int(info.get("downloads") or 0),
    )


# What goes wrong


@contextmanager
def asking(name: str) -> Iterator[None]:
    """Turns what a call of ``huggingface_hub`` raises into a `StudioError` about a model.

    Only calls of the library belong inside: it raises ``ValueError``, ``KeyError`` and ``TypeError`` where what answers
    is no hub (a proxy's page, say), so an error of our own would be reported as an unreachable hub.

    Raises:
        InvalidModel: the hub has no such model, or does not let this account use it.
        HubUnavailable: no answer, or none of a hub.
        StorageFull: no room in the cache.
    """
    try:
        yield
    except _faults() as error:
        raise explained(name, error) from error


def _faults() -> tuple[type[Exception], ...]:
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    none_there = (HfHubHTTPError, OfflineModeIsEnabled, httpx2.HTTPError, httpx2.InvalidURL, OSError)
    return (*none_there, ValueError, KeyError, TypeError)


def explained(name: str, error: Exception) -> StudioError:
    """A fault of ``huggingface_hub`` about a model as what it means and what to do about it."""
    import httpx2
    from huggingface_hub.errors import (
        FileMetadataError,
        GatedRepoError,
        HfHubHTTPError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
    )

    cause = error.__cause__ if isinstance(error.__cause__, Exception) else None
    if isinstance(error, StudioError):
        return error
    if isinstance(error, GatedRepoError):
        return _gated(name)
    if isinstance(error, RepositoryNotFoundError):
        return unknown(name)
    if isinstance(error, OfflineModeIsEnabled):
        return HubUnavailable(
            Text("{name} is not on this machine, and HF_HUB_OFFLINE forbids to fetch it.", name=name),
            Text(
                "Unset HF_HUB_OFFLINE and restart the studio, or choose a model that is on this machine, "
                "such as {built_in}.",
                built_in=BUILT_IN,
            ),
        )
    if isinstance(error, HfHubHTTPError):
        return _refused(name, error.response.status_code)
    if isinstance(error, OSError) and error.errno in (28, 122):
        return storage_full(cache_folder())
    if isinstance(error, FileMetadataError) or not isinstance(error, httpx2.HTTPError | httpx2.InvalidURL | OSError):
        return _no_hub(name)
    if cause is not None and cause is not error and isinstance(error, FileNotFoundError):
        return explained(name, cause)  # the library says only that the file is not in its cache
    message = str(error) or type(error).__name__
    return _unavailable(name, message[:200], message[:200])


def unknown(name: str) -> InvalidModel:
    """The error for a name that means no model."""
    return InvalidModel(
        Text("There is no model {name!r}.", name=name) if name else Text("No model was named."),
        Text(
            "Choose one from the list, or give a hub id (owner/name) or the full path of a model folder; "
            "for a private model set HF_TOKEN."
        ),
    )


def _gated(name: str) -> InvalidModel:
    from huggingface_hub import get_token

    page = f"{endpoint()}/{name}"
    if get_token():
        return InvalidModel(
            Text("{name} is gated, and the account of HF_TOKEN may not use it yet.", name=name),
            Text("Accept the terms at {page} with that account, and start again once access is granted.", page=page),
        )
    return InvalidModel(
        Text("{name} is gated: its owner asks for an agreement first.", name=name),
        Text("Accept the terms at {page}, set HF_TOKEN to a token of that account, and restart the studio.", page=page),
    )


def _refused(name: str, status: int) -> HubUnavailable:
    if status in (401, 403):
        return HubUnavailable(
            Text(
                "The hub at {endpoint} refuses to give {name} (HTTP {status}).",
                endpoint=endpoint(),
                name=name,
                status=status,
            ),
            Text(
                "Check that HF_TOKEN is valid and may read this model, and that HF_ENDPOINT is right; or "
                "choose {built_in}, which is built in.",
                built_in=BUILT_IN,
            ),
        )
    if status == 429:
        return HubUnavailable(
            Text("The hub at {endpoint} asks to wait (HTTP 429).", endpoint=endpoint()),
            Text("Try again in some minutes; with HF_TOKEN set the limits are wider."),
        )
    return _unavailable(name, f"HTTP {status}", f"HTTP {status}")


def _no_hub(name: str) -> HubUnavailable:
    return HubUnavailable(
        Text(
            "What answers at {endpoint} is no model hub, so {name} cannot be looked up.", endpoint=endpoint(), name=name
        ),
        Text(
            "Correct HF_ENDPOINT, log in to the network's proxy, give a local folder, or choose "
            "{built_in}, which is built in.",
            built_in=BUILT_IN,
        ),
    )


def _unavailable(name: str, why: str, why_zh: str) -> HubUnavailable:
    return HubUnavailable(
        Text(
            "The model hub at {endpoint} cannot be reached for {name}, which is not on this machine: {why}",
            endpoint=endpoint(),
            name=name,
            why=why,
            why_zh=why_zh,
        ),
        Text(
            "Check the network, set HF_ENDPOINT to a mirror, give a local folder, or choose {built_in}, "
            "which is built in. What was fetched is kept.",
            built_in=BUILT_IN,
        ),
    )


class Lookups:
    """What the hub said about models, for a while: a click does not wait for the same answer twice."""

    KEPT_SECONDS = 600.0

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], tuple[float, ModelTask | None]] = {}

    def task_of(self, name: str) -> ModelTask | None:
        """Ask whether the hub has a model, and what it is for, if the hub tells.

        Raises:
            InvalidModel: the hub has no such model, or it needs a token.
            HubUnavailable: no answer.
        """
        from huggingface_hub import HfApi

        key, now = (endpoint(), name), time.monotonic()
        at, task = self._known.get(key, (None, None))
        if at is not None and now - at < self.KEPT_SECONDS:
            return task
        with asking(name):
            info = HfApi().model_info(name, timeout=SECONDS)
        task = HUB_TAGS.get(info.pipeline_tag or "")
        self._known[key] = now, task
        return task
