"""The documents in a folder of a Git repository, or of this machine, fetched for one reading.

Knows addresses and folders. How git clones is `clone`'s; knows nothing of what is in a document.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from sage_studio.data.clone import CloneFailed, clone
from sage_studio.data.dataset import OnProgress, ignore_progress
from sage_studio.data.files.document_files import DocumentFile, documents_below
from sage_studio.data.repository import CREDENTIALS, is_repository, local_path
from sage_studio.errors import DocsUnavailable, InvalidInput, naming_full_disk
from sage_studio.text import Text


class RepositoryDocuments:
    """A repository's documents.

    Args:
        address: anything git takes, or a local folder.
        branch: a branch or a tag; empty for the default.
        folder: inside the repository; empty for all of it.
        work_dir: where the copy lies while it is read.
    """

    def __init__(
        self, address: str, branch: str, folder: str, work_dir: Path, on_progress: OnProgress = ignore_progress
    ) -> None:
        self._given, self._branch = address.strip(), branch.strip()
        self._inside = folder.strip().strip("/") or "."
        self._work_dir, self._on_progress = work_dir, on_progress
        self.address = CREDENTIALS.sub("", self._given)
        self.commit: str | None = None

    @property
    def name(self) -> str:
        """The repository's last name, and the folder's."""
        last = PurePosixPath(self.address.replace("\\", "/").rstrip("/")).name.removesuffix(".git").rpartition(":")[2]
        return f"{last or 'documents'}{'' if self._inside == '.' else '-' + PurePosixPath(self._inside).name}"

    def files(self) -> Iterator[DocumentFile]:
        """The documents, sorted by path; the copy is gone afterwards.

        Raises:
            InvalidInput: no address, or a folder that leads out of the repository.
            DocsUnavailable: it cannot be fetched, or has no such folder.
        """
        self._check()
        local = local_path(self._given)
        if local is not None and local.is_dir() and not is_repository(local):
            yield from self._below(local)
            return
        self._work_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._work_dir, prefix="repository-") as folder:
            copy = Path(folder) / "copy"
            try:
                with naming_full_disk(copy):
                    self.commit = clone(str(local or self._given), self._branch, self._inside, copy, self._on_progress)
            except CloneFailed as error:
                raise self._unavailable(CREDENTIALS.sub("", str(error))) from error
            yield from self._below(copy)

    def _below(self, root: Path) -> Iterator[DocumentFile]:
        folder = root / self._inside
        if not folder.is_dir() or not folder.resolve().is_relative_to(root.resolve()):
            raise self._unavailable(f"it has no folder {self._inside}")
        yield from documents_below(root, folder)

    def _check(self) -> None:
        path = PurePosixPath(self._inside.replace("\\", "/"))
        if not self._given:
            raise InvalidInput(
                Text("No address was given.", "没有填写地址。"),
                Text("Give the repository's address.", "请填写仓库地址。"),
            )
        if path.is_absolute() or ".." in path.parts or path.as_posix().startswith("-"):
            raise InvalidInput(
                Text(f"{self._inside!r} leads out of the repository.", f"{self._inside!r} 指向仓库之外。"),
                Text("Give a folder inside it, without '..'.", "请填写仓库内的文件夹，不含 “..”。"),
            )

    def _unavailable(self, cause: str) -> DocsUnavailable:
        return DocsUnavailable(
            Text(f"The repository {self.address} cannot be read: {cause}", f"无法读取仓库 {self.address}：{cause}"),
            Text(
                "Check address, branch and folder, and the network; a local folder or a git bundle works offline.",
                "请检查地址、分支、文件夹和网络；离线时可用本地文件夹或 git bundle。",
            ),
        )
