"""Git repositories: shallow clones with a deadline, and the documents in one."""

import contextlib
import contextvars
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from time import time
from typing import Any

from sage_studio.child_environment import Needs, child_environment
from sage_studio.data.dataset import OnProgress, ignore_progress
from sage_studio.data.readers.documents import DocumentFile, folder_documents
from sage_studio.errors import DocsUnavailable, InvalidInput, naming_full_disk
from sage_studio.files import path_of
from sage_studio.paths import public_host
from sage_studio.text import Text

CLONE_SECONDS = 900.0
STALLED_SECONDS = 30
NEVER_ASK = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "",
    "SSH_ASKPASS": "false",
    "SSH_ASKPASS_REQUIRE": "force",
    "GIT_LFS_SKIP_SMUDGE": "1",
    "GIT_HTTP_LOW_SPEED_LIMIT": "500",
    "GIT_HTTP_LOW_SPEED_TIME": str(STALLED_SECONDS),
    "LANGUAGE": "C",
    "LC_ALL": "C",
}
NO_OWNER = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_SSH_COMMAND": "false",
    "SSH_AUTH_SOCK": "",
    "GIT_ALLOW_PROTOCOL": "http:https:file",
}
"""Git for somebody else than the studio's owner: without the owner's configuration, credentials and keys."""
THRIFTY = ("--depth=1", "--filter=blob:none")
CANNOT_BE_THRIFTY = re.compile(r"shallow|filter|sparse", re.IGNORECASE)
COMMIT = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
TELLING = re.compile(r"(fatal|error|ssh):")
WORDS = Text("Fetching the documentation")


class CloneFailed(Exception):
    """Git's error message, in one line."""


def clone(
    address: str,
    branch: str,
    inside: str,
    to: Path,
    on_progress: OnProgress,
    seconds: float = CLONE_SECONDS,
    *,
    shared: bool = False,
) -> str:
    """Clone one folder of a repository.

    Args:
        address: anything git takes, a bundle file included.
        branch: a branch or a tag; empty for the default.
        inside: the folder to check out; ``.`` for all.
        to: must not exist; its parent must.
        on_progress: called in the caller's context, though from another thread.
        seconds: most it may take.
        shared: somebody else than the owner asks: without the owner's credentials, and from public hosts only.

    Returns:
        The commit checked out.

    Raises:
        CloneFailed: git is not installed, refuses, fails or takes too long.
    """
    try:
        import git
    except ImportError as error:
        raise CloneFailed("git is not installed") from error
    environment = {**NEVER_ASK, **(without_owner(address, to.parent) if shared else {})}
    job = _Clone(address, branch, inside, to, on_progress, time() + seconds, environment)
    try:
        if not Path(address).exists():
            git.Git.check_unsafe_protocols(address)  # ext:: and the like run commands
        options = () if Path(address).is_file() else THRIFTY
        try:
            return job.clone(options)
        except git.GitCommandError as error:
            if not options or not CANNOT_BE_THRIFTY.search(str(error.stderr)):
                raise
        shutil.rmtree(to, ignore_errors=True)
        return job.clone(())
    except (git.GitError, OSError) as error:
        raise CloneFailed(_cause(str(getattr(error, "stderr", None) or error))) from error


class _Clone:
    """One clone; all its commands share one deadline."""

    def __init__(
        self,
        address: str,
        branch: str,
        inside: str,
        to: Path,
        on_progress: OnProgress,
        deadline: float,
        environment: Mapping[str, str],
    ) -> None:
        self._environment = dict(environment)
        self._address, self._inside, self._to = address, inside, to
        self._branch = [f"--branch={branch}"] if branch else []
        self._report, self._deadline, self._furthest = on_progress, deadline, 0.0
        self._context = contextvars.copy_context()  # gradio finds the event it reports to in the context

    def clone(self, options: tuple[str, ...]) -> str:
        sparse = bool(options) and self._inside != "."  # a sparse clone begins with the files of the top folder alone
        options = (*options, "--sparse") if sparse else options
        command = ["clone", "--progress", "--no-checkout", *options, *self._branch, "--", self._address, str(self._to)]
        self._run(self._to.parent, command, begin=0.0)
        if sparse:
            self._run(self._to, ["sparse-checkout", "set", self._inside], begin=0.5)
        self._run(self._to, ["checkout", "--progress"], begin=0.5)
        said: list[str] = []
        self._run(self._to, ["rev-parse", "HEAD"], begin=1.0, output=said.append)
        return next(line.strip() for line in said if COMMIT.fullmatch(line.strip()))  # not one of its warnings

    def tell(self, share: float, message: str) -> None:
        """Report progress; git restarts its count for each step, the reported fraction never decreases."""
        self._furthest = max(self._furthest, share)
        detail = f" ({message})" if message else ""
        self._context.run(self._report, self._furthest, Text("{words}{detail}", words=WORDS, detail=detail))

    def _run(
        self, folder: Path, command: list[str], begin: float, output: Callable[[str], None] = lambda _: None
    ) -> None:
        """Run git, and not by GitPython, which would hand it all of this process's environment."""
        import git

        lines: list[str] = []
        parse = self._progress(begin).new_message_handler()
        process = subprocess.Popen(
            ["git", *command],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=child_environment(Needs.NETWORK, self._environment),
            start_new_session=True,
        )
        timer = threading.Timer(max(0.1, self._deadline - time()), _kill, (process,))
        timer.start()
        try:
            assert process.stdout is not None
            for line in process.stdout:
                lines.append(line)
                output(line)
                parse(line)
            status = process.wait()
        finally:
            timer.cancel()
            _kill(process)
            process.communicate()
        if time() >= self._deadline:
            raise git.GitCommandError(command[0], 124, "fatal: no end after the time allowed")
        if status:
            raise git.GitCommandError(command[0], status, "".join(lines))

    def _progress(self, begin: float) -> Any:
        import git

        tell = self.tell

        class Relay(git.RemoteProgress):  # type: ignore[misc]  # GitPython's class is untyped here
            def update(self, op_code: int, cur_count: Any, max_count: Any = None, message: str = "") -> None:
                share = min(1.0, float(cur_count) / float(max_count)) if max_count else 0.0
                tell(begin + share / 2, message)

        return Relay()


def without_owner(address: str, home: Path) -> dict[str, str]:
    """The variables of git for somebody else than the owner.

    The host is looked up once, here, and git takes the same addresses: a name that changes its address in between leads
    nowhere else, and neither does a redirection.

    Raises:
        InvalidInput: the address is neither local nor of a public host.
    """
    config = [("credential.helper", ""), ("http.followRedirects", "false")]
    if "://" in address and not address.startswith("file://"):
        host, port, addresses = public_host(address)
        if addresses:
            config.append(("http.curloptResolve", f"{host}:{port}:{','.join(addresses)}"))
    numbered = {
        f"GIT_CONFIG_{part}_{number}": value
        for number, entry in enumerate(config)
        for part, value in zip(("KEY", "VALUE"), entry, strict=True)
    }
    return {**NO_OWNER, "HOME": str(home), "GIT_CONFIG_COUNT": str(len(config)), **numbered}


def _kill(process: "subprocess.Popen[str]") -> None:
    """End git and the helpers that it started: they are in its session."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _cause(output: str) -> str:
    """The line of git's output that says what went wrong."""
    lines = [line.strip(" '\n").removeprefix("stderr: '") for line in output.splitlines() if line.strip(" '\n")]
    return next((line for line in lines if TELLING.match(line)), lines[0] if lines else "unknown")


CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")


def local_path(address: str) -> Path | None:
    """The existing local path that an address names, or None."""
    if not address or ("://" in address and not address.startswith("file://")):
        return None
    path = path_of(address.removeprefix("file://"), "address")
    return path.absolute() if path.exists() else None


def is_repository(folder: Path) -> bool:
    """Whether git takes a local folder: a work tree or a bare repository."""
    return (folder / ".git").exists() or ((folder / "HEAD").is_file() and (folder / "objects").is_dir())


class RepositoryDocuments:
    """A repository's documents.

    Args:
        address: anything git takes, or a local folder.
        branch: a branch or a tag; empty for the default.
        folder: inside the repository; empty for all of it.
        work_dir: where the copy lies while it is read.
        shared: as of `clone`.
    """

    def __init__(
        self,
        address: str,
        branch: str,
        folder: str,
        work_dir: Path,
        on_progress: OnProgress = ignore_progress,
        *,
        shared: bool = False,
    ) -> None:
        self._shared = shared
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
        self.check()
        local = local_path(self._given)
        if local is not None and local.is_dir() and not is_repository(local):
            yield from self._below(local)
            return
        self._work_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._work_dir, prefix="repository-") as folder:
            copy = Path(folder) / "copy"
            try:
                with naming_full_disk(copy):
                    self.commit = clone(
                        str(local or self._given),
                        self._branch,
                        self._inside,
                        copy,
                        self._on_progress,
                        shared=self._shared,
                    )
            except CloneFailed as error:
                raise self._unavailable(CREDENTIALS.sub("", str(error))) from error
            yield from self._below(copy)

    def _below(self, root: Path) -> Iterator[DocumentFile]:
        folder = root / self._inside
        if not folder.is_dir() or not folder.resolve().is_relative_to(root.resolve()):
            raise self._unavailable(f"it has no folder {self._inside}")
        yield from folder_documents(root, folder)

    def check(self) -> None:
        """Whether it can be meant. Raises `InvalidInput` without an address, or for a folder that leads out of it."""
        for field, given in (("address", self._given), ("branch", self._branch), ("folder", self._inside)):
            path_of(given, field)
        path = PurePosixPath(self._inside.replace("\\", "/"))
        if not self._given:
            raise InvalidInput(
                Text("No address was given."),
                Text("Give the repository's address."),
            )
        if path.is_absolute() or ".." in path.parts or path.as_posix().startswith("-"):
            raise InvalidInput(
                Text("{inside!r} leads out of the repository.", inside=self._inside),
                Text("Give a folder inside it, without '..'."),
            )

    def _unavailable(self, cause: str) -> DocsUnavailable:
        return DocsUnavailable(
            Text("The repository {address} cannot be read: {cause}", address=self.address, cause=cause),
            Text("Check address, branch and folder, and the network; a local folder or a git bundle works offline."),
        )
