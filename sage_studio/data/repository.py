"""A local copy of the documentation, replaced only by a good one.

Knows the kinds of addresses and the folder of the copy. How git clones is `clone`'s; knows nothing of Markdown or rows.
"""

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from time import time

from sage_studio.data.clone import CloneFailed, clone
from sage_studio.data.dataset import OnProgress, ignore_progress
from sage_studio.errors import DocsUnavailable, InvalidSetting, naming_full_disk
from sage_studio.files import write_atomically
from sage_studio.settings import PREFIX, Settings
from sage_studio.text import NOTHING, Text

MARKER = ".sage_studio.json"
SUFFIXES = (".md", ".markdown")
CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")


@dataclass(frozen=True, slots=True)
class Copy:
    """What lies in the copy.

    Attributes:
        address: where it came from, without credentials.
        commit: of a git repository; ``sha256:…`` of the content of a plain folder.
        fetched_at: Unix seconds.
    """

    address: str
    branch: str
    folder: str
    commit: str
    fetched_at: float


class DocsRepository:
    """The copy of the documentation that the settings name, under ``settings.docs_dir``."""

    def __init__(self, settings: Settings) -> None:
        self.address = CREDENTIALS.sub("", settings.docs_repo.strip())
        self.folder = settings.docs_dir
        self._given = settings.docs_repo.strip()
        self._branch = settings.docs_branch.strip()
        self._inside = settings.docs_folder.strip().strip("/") or "."

    def copy(self) -> Copy | None:
        """What is there of the address, branch and folder now configured; None when nothing is."""
        try:
            found = Copy(**json.loads((self.folder / MARKER).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        wanted = (self.address, self._branch, self._inside)
        return found if (found.address, found.branch, found.folder) == wanted else None

    def documents(self, root: Path | None = None) -> Iterator[tuple[str, bytes]]:
        """The Markdown files as (path inside the repository, content) pairs, sorted; links are not followed."""
        root = root or self.folder
        inside = root / self._inside
        for path in sorted(_markdown_files(inside if inside.is_dir() else root)):
            yield path.relative_to(root).as_posix(), path.read_bytes()

    def fetch(self, accept: Callable[[Path, str], None], on_progress: OnProgress = ignore_progress) -> Copy:
        """Fetch anew and, once that succeeded, take the place of the copy before.

        Args:
            accept: called with the new folder and its commit before it replaces the old; what it raises keeps the old.
            on_progress: the share fetched.

        Raises:
            InvalidSetting: ``docs_folder`` leads out of the repository.
            DocsUnavailable: naming the address, the cause and the remedy.
        """
        self._check_inside()
        self._clear_up()
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with naming_full_disk(self.folder):
            new = Path(tempfile.mkdtemp(prefix=f"{self.folder.name}.new-", dir=self.folder.parent))
            try:
                commit = self._fill(new / "copy", on_progress)
                accept(new / "copy", commit)
                copy = Copy(self.address, self._branch, self._inside, commit, time())
                write_atomically(new / "copy" / MARKER, json.dumps(asdict(copy)))
                self._swap(new / "copy")
            finally:
                shutil.rmtree(new, ignore_errors=True)
        return copy

    def unavailable(self, cause: str, remedy: Text = NOTHING) -> DocsUnavailable:
        """The error for documentation that cannot be had, naming the copy that can."""
        cause = CREDENTIALS.sub("", cause)
        hint = remedy or Text(
            "Check that git is installed, the network and git's proxy settings, "
            f"or set {PREFIX}DOCS_REPO to a mirror, a local folder or a git bundle.",
            "请检查是否已安装 git、网络和 git 代理设置，"
            f"或将 {PREFIX}DOCS_REPO 设为镜像地址、本地文件夹或 git bundle 文件。",
        )
        copy = self.copy()
        if copy is not None:
            day = datetime.fromtimestamp(copy.fetched_at).strftime("%Y-%m-%d %H:%M")
            hint = Text(
                f"{hint.en} The copy of {day} (commit {copy.commit[:14]}) is still there: "
                "prepare without refreshing to use it.",
                f"{hint.zh}{day} 的副本（提交 {copy.commit[:14]}）仍然可用：不勾选重新下载即可使用。",
            )
        return DocsUnavailable(
            Text(
                f"The documentation at {self.address} cannot be fetched: {cause}",
                f"无法从 {self.address} 获取文档：{cause}",
            ),
            hint,
        )

    def _check_inside(self) -> None:
        path = PurePosixPath(self._inside.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or path.as_posix().startswith("-"):
            raise InvalidSetting(
                Text(
                    f"docs_folder = {self._inside!r} leads out of the repository.",
                    f"docs_folder = {self._inside!r} 指向仓库之外。",
                ),
                Text(
                    f"Set {PREFIX}DOCS_FOLDER to a folder inside it, without '..'.",
                    f"请将 {PREFIX}DOCS_FOLDER 设为仓库内的文件夹，不含 “..”。",
                ),
            )

    def _clear_up(self) -> None:
        """After a crash: put back a copy that was moved aside, remove what was never finished."""
        aside = self._aside
        if aside.exists() and not self.folder.exists():
            aside.rename(self.folder)
        for left in (aside, *self.folder.parent.glob(f"{self.folder.name}.new-*")):
            shutil.rmtree(left, ignore_errors=True)

    @property
    def _aside(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.old")

    def _swap(self, new: Path) -> None:
        if self.folder.exists():
            self.folder.rename(self._aside)
        new.rename(self.folder)
        shutil.rmtree(self._aside, ignore_errors=True)

    def _fill(self, new: Path, on_progress: OnProgress) -> str:
        local = local_path(self._given)
        if local is not None and local.is_dir() and not is_repository(local):
            return self._fill_from_folder(local, new)
        try:
            commit = clone(str(local or self._given), self._branch, self._inside, new, on_progress)
        except CloneFailed as error:
            raise self.unavailable(str(error)) from error
        if not (new / self._inside).is_dir():
            raise self.unavailable(
                f"it has no folder {self._inside}",
                Text(
                    f"Set {PREFIX}DOCS_FOLDER to the folder that holds the Markdown.",
                    f"请将 {PREFIX}DOCS_FOLDER 设为存放 Markdown 的文件夹。",
                ),
            )
        return commit

    def _fill_from_folder(self, source: Path, new: Path) -> str:
        """Copy the Markdown of a plain folder; where it has no ``docs_folder``, it is itself that folder."""
        inside = source / self._inside
        digest = hashlib.sha256()
        new.mkdir()
        for path in sorted(_markdown_files(inside if inside.is_dir() else source)):
            name, content = path.relative_to(source), path.read_bytes()
            digest.update(f"{name.as_posix()}\0{len(content)}\0".encode() + content)
            target = new / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        return f"sha256:{digest.hexdigest()[:40]}"


def local_path(address: str) -> Path | None:
    """The existing local path that an address names, or None."""
    if "://" in address and not address.startswith("file://"):
        return None
    path = Path(address.removeprefix("file://")).expanduser()
    return path.absolute() if path.exists() else None


def is_repository(folder: Path) -> bool:
    """Whether git takes a local folder: a work tree or a bare repository."""
    return (folder / ".git").exists() or ((folder / "HEAD").is_file() and (folder / "objects").is_dir())


def _markdown_files(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder, followlinks=False):
        folders[:] = [name for name in folders if name != ".git" and not Path(parent, name).is_symlink()]
        for name in files:
            path = Path(parent, name)
            if path.suffix.lower() in SUFFIXES and path.is_file() and not path.is_symlink():
                yield path
