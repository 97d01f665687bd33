"""Cloning with git: shallow, partial and sparse where the other side can, never asking, never without an end.

Knows git's options, its progress and its complaints. Knows nothing of what is cloned. GitPython is imported when it is
first used: the web process starts without it.
"""

import contextvars
import re
import shutil
from pathlib import Path
from time import time
from typing import Any

from sage_studio.data.dataset import OnProgress
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
}
THRIFTY = ("--depth=1", "--filter=blob:none", "--sparse")
CANNOT_BE_THRIFTY = re.compile(r"shallow|filter|sparse", re.IGNORECASE)
TELLING = re.compile(r"(fatal|error|ssh):")
WORDS = Text("Fetching the documentation", "正在下载文档")


class CloneFailed(Exception):
    """Git's own reason, in one line."""


def clone(
    address: str, branch: str, inside: str, to: Path, on_progress: OnProgress, seconds: float = CLONE_SECONDS
) -> str:
    """Clone one folder of a repository.

    Args:
        address: anything git takes, a bundle file included.
        branch: a branch or a tag; empty for the default.
        inside: the folder to check out; ``.`` for all.
        to: must not exist; its parent must.
        on_progress: called in the caller's context, though from another thread.
        seconds: most it may take.

    Returns:
        The commit checked out.

    Raises:
        CloneFailed: git is not installed, refuses, fails or takes too long.
    """
    try:
        import git
    except ImportError as error:
        raise CloneFailed("git is not installed") from error
    job = _Job(address, branch, inside, to, on_progress, time() + seconds)
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


class _Job:
    """One clone, its commands running against one deadline."""

    def __init__(
        self, address: str, branch: str, inside: str, to: Path, on_progress: OnProgress, deadline: float
    ) -> None:
        self._address, self._inside, self._to = address, inside, to
        self._branch = [f"--branch={branch}"] if branch else []
        self._report, self._deadline, self._furthest = on_progress, deadline, 0.0
        self._context = contextvars.copy_context()  # gradio finds the event it reports to in the context

    def clone(self, options: tuple[str, ...]) -> str:
        import git

        command = ["clone", "--progress", "--no-checkout", *options, *self._branch, "--", self._address, str(self._to)]
        self._run(self._to.parent, command, begin=0.0)
        if options and self._inside != ".":
            self._run(self._to, ["sparse-checkout", "set", self._inside], begin=0.5)
        self._run(self._to, ["checkout", "--progress"], begin=0.5)
        commit: str = git.Git(self._to).rev_parse("HEAD")
        return commit

    def tell(self, share: float, message: str) -> None:
        """Say how far the clone is; git counts anew for each thing that it does, the clone never goes back."""
        self._furthest = max(self._furthest, share)
        detail = f" ({message})" if message else ""
        self._context.run(self._report, self._furthest, Text(f"{WORDS.en}{detail}", f"{WORDS.zh}{detail}"))

    def _run(self, folder: Path, command: list[str], begin: float) -> None:
        import git
        from git.cmd import handle_process_output

        left = self._deadline - time()
        process = git.Git(folder).execute(["git", *command], as_process=True, env=NEVER_ASK, universal_newlines=True)
        lines: list[str] = []
        parse = self._progress(begin).new_message_handler()

        def read(line: str) -> None:
            lines.append(line)
            parse(line)

        handle_process_output(process, None, read, decode_streams=False, kill_after_timeout=max(0.1, left))
        if time() >= self._deadline:
            raise git.GitCommandError(command[0], 124, "fatal: no end after the time allowed")
        if status := process.proc.wait():
            raise git.GitCommandError(command[0], status, "".join(lines))

    def _progress(self, begin: float) -> Any:
        import git

        tell = self.tell

        class Relay(git.RemoteProgress):  # type: ignore[misc]  # GitPython's class is untyped here
            def update(self, op_code: int, cur_count: Any, max_count: Any = None, message: str = "") -> None:
                share = min(1.0, float(cur_count) / float(max_count)) if max_count else 0.0
                tell(begin + share / 2, message)

        return Relay()


def _cause(output: str) -> str:
    """The line of git's output that says what went wrong."""
    lines = [line.strip(" '\n").removeprefix("stderr: '") for line in output.splitlines() if line.strip(" '\n")]
    return next((line for line in lines if TELLING.match(line)), lines[0] if lines else "unknown")
