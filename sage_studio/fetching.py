"""Fetches a hub model into the Hugging Face cache, with progress, stop and resume.

``huggingface_hub`` 2.4 keeps nothing of a file that was broken off (each download writes a file of its own and deletes
it in the end), so an unfinished file lies here under a name that the next attempt finds; the requests, the addresses
and the cache's layout are the library's. For a process that does nothing else: it sets the library's chunk size.
"""

import hashlib
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from sage_studio import hub
from sage_studio.errors import HubUnavailable, StorageFull, naming_full_disk
from sage_studio.files import write_atomically
from sage_studio.hub import HubFile, Plan
from sage_studio.models.model_folder import cache_entry, cache_folder, snapshot
from sage_studio.text import Text

CHUNK = 1 << 20
"""Bytes read at once: at most so much is lost when a process is killed."""
TELL_SECONDS, RATE_SECONDS = 0.5, 10.0
SPARE = 256 << 20
"""Bytes that are to stay free on the disk."""
UNFINISHED = ".sage-studio.incomplete"
LOCK = "sage-studio.lock"


@dataclass(frozen=True, slots=True)
class Transfer:
    """How far a download is.

    Attributes:
        done, total: bytes; what was there before counts as done.
        per_second: bytes a second, of the last seconds; None before that is known.
        seconds_left: at that rate.
    """

    name: str
    done: int
    total: int
    per_second: float | None = None
    seconds_left: float | None = None


Tell = Callable[[Transfer], None]


def fetch(name: str, trust_remote_code: bool = False, tell: Tell = lambda _: None) -> Path:
    """Fetch what is missing of a hub model; of two processes the second waits for the first, and reports its progress.

    Args:
        name: ``owner/name``.
        trust_remote_code: take the model's own Python files too.
        tell: called twice a second.

    Returns:
        The folder with the model's files, in the cache.

    Raises:
        InvalidModel: no such model, a gated one, or one without weights.
        HubUnavailable: the hub does not answer, or broke off; what was fetched is kept.
        StorageFull: there is not room enough for the rest; said before anything is fetched.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils.tqdm import disable_progress_bars

    here = snapshot(name)
    if here is not None:
        return here
    constants.DOWNLOAD_CHUNK_SIZE = CHUNK
    disable_progress_bars()
    planned = hub.plan(name, trust_remote_code)
    folder = cache_entry(name)
    with naming_full_disk(folder), _alone(planned, folder, tell):
        return _fetch_all(planned, folder, tell)


def bytes_here(planned: Plan, folder: Path) -> int:
    """How much of a model is on this machine, unfinished files included."""
    return sum(min(file.size, _size_here(file, planned, folder)) for file in planned.files)


class _Meter:
    """Counts bytes and tells how it goes."""

    def __init__(self, planned: Plan, done: int, tell: Tell) -> None:
        self._name, self._total, self._done, self._tell = planned.name, planned.total, done, tell
        self._seen: deque[tuple[float, int]] = deque([(time.monotonic(), done)])
        self._told = 0.0
        self.say()

    def add(self, count: int) -> None:
        self.reach(self._done + count)

    def reach(self, done: int) -> None:
        self._done, now = done, time.monotonic()
        if now - self._told >= TELL_SECONDS:
            self.say()

    def say(self) -> None:
        self._told = now = time.monotonic()
        self._seen.append((now, self._done))
        while len(self._seen) > 2 and now - self._seen[0][0] > RATE_SECONDS:
            self._seen.popleft()
        (began, first), left = self._seen[0], self._total - self._done
        rate = (self._done - first) / (now - began) if now - began > TELL_SECONDS else 0.0
        known = (rate, max(0, left) / rate) if rate > 0 else (None, None)
        self._tell(Transfer(self._name, min(self._done, self._total), self._total, *known))


class _Counted:
    """A file that tells its meter what is written to it and what is cut off."""

    def __init__(self, file: BinaryIO, meter: _Meter) -> None:
        self._file, self._meter = file, meter

    def write(self, chunk: bytes) -> int:
        written = self._file.write(chunk)
        self._meter.add(written)
        return written

    def truncate(self, size: int | None = None) -> int:
        before = self._file.seek(0, os.SEEK_END)
        after = self._file.truncate(before if size is None else size)
        self._meter.add(after - before)
        return after

    def seek(self, place: int, whence: int = os.SEEK_SET) -> int:
        place = self._file.seek(place, whence)
        return place

    def tell(self) -> int:
        return self._file.tell()


@contextmanager
def _alone(planned: Plan, folder: Path, tell: Tell) -> Iterator[None]:
    """Hold the model for this process; while another has it, report what that one has fetched."""
    place = cache_folder() / ".locks" / folder.name
    place.mkdir(parents=True, exist_ok=True)
    lock, meter = FileLock(place / LOCK), None
    while not lock.is_locked:
        try:
            lock.acquire(timeout=TELL_SECONDS if meter else 0)
        except Timeout:
            done = bytes_here(planned, folder)
            meter = meter or _Meter(planned, done, tell)
            meter.reach(done)
    try:
        yield
    finally:
        lock.release()


def _fetch_all(planned: Plan, folder: Path, tell: Tell) -> Path:
    done = bytes_here(planned, folder)
    _check_room(planned, folder, planned.total - done)
    meter = _Meter(planned, done, tell)
    for file in planned.files:
        try:
            _fetch_file(planned, file, folder, meter)
        except OSError as error:
            raise hub.explained(planned.name, error) from error
    (folder / "refs").mkdir(exist_ok=True)
    write_atomically(folder / "refs" / "main", planned.commit)
    meter.say()
    return folder / "snapshots" / planned.commit


def _fetch_file(planned: Plan, file: HubFile, folder: Path, meter: _Meter) -> None:
    from huggingface_hub import constants, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import FileMetadataError
    from huggingface_hub.file_download import get_hf_file_metadata

    if (folder / "snapshots" / planned.commit / file.path).exists():
        return
    url = hf_hub_url(planned.name, file.path, revision=planned.commit, endpoint=constants.ENDPOINT)
    with hub.asking(planned.name):
        found = get_hf_file_metadata(url, retry_on_errors=True)
        if not found.etag or not found.commit_hash:
            raise FileMetadataError(f"{url} does not say which content it has")
    blob = folder / "blobs" / found.etag
    if not blob.exists():
        blob.parent.mkdir(parents=True, exist_ok=True)
        part = blob.with_name(f"{blob.name}{UNFINISHED}")
        _fetch_bytes(planned.name, found, url, part, meter)
        _check_content(planned.name, part, found.etag)
        part.replace(blob)
    with hub.asking(planned.name):
        hf_hub_download(planned.name, file.path, revision=planned.commit)  # links it into the snapshot


def _fetch_bytes(name: str, found: Any, url: str, part: Path, meter: _Meter) -> None:
    """Append what is missing of a file."""
    from huggingface_hub import HfApi
    from huggingface_hub.file_download import http_get

    headers = HfApi()._build_hf_headers()
    if urlsplit(found.location).netloc not in (urlsplit(url).netloc, ""):
        headers.pop("authorization", None)  # a storage server's address is signed: the token is for the hub alone
    part.touch()
    with part.open("r+b") as file:
        have = file.seek(0, os.SEEK_END)
        if found.size is not None and have > found.size:
            have = _Counted(file, meter).truncate(0)
            file.seek(0)
        counted = cast("BinaryIO", _Counted(file, meter))
        with hub.asking(name):
            http_get(found.location, counted, resume_size=have, headers=headers, expected_size=found.size)


def _check_content(name: str, part: Path, etag: str) -> None:
    """Raise `HubUnavailable`, and forget the file, where it is not what its name says."""
    with part.open("rb") as file:
        if len(etag) == 64:
            right = hashlib.file_digest(file, "sha256").hexdigest() == etag
        elif len(etag) == 40:  # a file that git itself keeps
            digest = hashlib.sha1(f"blob {part.stat().st_size}\0".encode(), usedforsecurity=False)
            while chunk := file.read(CHUNK):
                digest.update(chunk)
            right = digest.hexdigest() == etag
        else:
            right = True
    if not right:
        part.unlink()
        raise HubUnavailable(
            Text("A file of {name} arrived damaged.", name=name),
            Text("Continue: only this file is fetched again."),
        )


def _check_room(planned: Plan, folder: Path, missing: int) -> None:
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(existing).free
    if missing + SPARE > free:
        need, left = f"{missing / 1e9:.1f} GB", f"{free / 1e9:.1f} GB"
        raise StorageFull(
            Text(
                "{name} needs {need} more on the disk that holds {existing}; {left} are free.",
                name=planned.name,
                need=need,
                existing=existing,
                left=left,
            ),
            Text("Make room there, or set HF_HOME to a folder on a larger disk and restart the studio."),
        )


def _size_here(file: HubFile, planned: Plan, folder: Path) -> int:
    blob = folder / "blobs" / (file.etag or "-")
    for place in (folder / "snapshots" / planned.commit / file.path, blob, blob.with_name(f"{blob.name}{UNFINISHED}")):
        if place.is_file():
            return place.stat().st_size
    return 0
