"""Merges an adapter into its base model, once, in a child process.

The merged folder is reused while nothing changes.

torch is imported only in the child, `sage_studio.serving.merge_child`.
"""

import hashlib
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from sage_studio.errors import EngineUnavailable, InvalidModel, naming_full_disk, storage_full
from sage_studio.files import complete_lines, write_atomically
from sage_studio.models.model_folder import CHAT_TEMPLATE, TOKENIZER_CONFIG, read_config, read_json
from sage_studio.processes import POLL_SECONDS, last_words
from sage_studio.serving.adapter_compat import CONFIG, WEIGHTS, check_full_model, size_on_disk
from sage_studio.serving.types import RegisteredModel
from sage_studio.settings import PROJECT
from sage_studio.text import NOTHING, Text

MERGED = "merged"
MANIFEST = "merged.json"
STOP_SECONDS = 5.0
DOING = {
    "loading": Text("loading the base model", "加载基座模型"),
    "merging": Text("adding the adapter", "合入适配器"),
    "saving": Text("saving", "保存"),
    "saved": Text("checking", "检查"),
}
MakeCommand = Callable[[Path, str, Path, Path], list[str]]
"""Adapter, base, destination and progress file -> the child's command line."""


def merge_command(adapter: Path, base: str, dest: Path, progress: Path) -> list[str]:
    """The command line of the child that merges."""
    return [sys.executable, "-m", "sage_studio.serving.merge_child", str(adapter), base, str(dest), str(progress)]


class Merger:
    """Merges one adapter at a time; callers hold the `SwitchLock`.

    Attributes:
        message: what it is doing now, for the status bar; empty while it does nothing.
    """

    def __init__(self, folder: Path, outputs: Path, seconds: float, command: MakeCommand = merge_command) -> None:
        self._folder = folder
        self._outputs = outputs
        self._seconds = seconds
        self._command = command
        self._child: subprocess.Popen[bytes] | None = None
        self._closing = threading.Event()
        self.message = NOTHING

    def merged(self, model: RegisteredModel, why: str) -> Path:
        """The folder of the model that an adapter and its base make; made now unless it is there already.

        Args:
            model: an adapter that was found whole.
            why: what the engine cannot serve, for the status and the errors.

        Raises:
            InvalidModel: the two cannot be merged; the message quotes the child.
            StorageFull: no room for it.
            EngineUnavailable: it took too long, or the studio closes.
        """
        dest, digest = self.place(model), _digest(model)
        if _manifest(dest).get("sha256") == digest:
            check_full_model(dest)
            return dest
        _check_base(model)
        _check_room(dest, model.base)
        try:
            self._run(model, dest, why)
        finally:
            self.message = NOTHING
            shutil.rmtree(f"{dest}.part", ignore_errors=True)
        check_full_model(dest)
        write_atomically(dest / MANIFEST, json.dumps({"sha256": digest, "adapter": model.path, "base": model.base}))
        return dest

    def place(self, model: RegisteredModel) -> Path:
        """Where a merged model lies: with its task, or in the home if the adapter is from elsewhere."""
        folder = Path(model.path)
        if folder.is_relative_to(self._outputs):
            return folder / MERGED
        return self._folder / MERGED / hashlib.sha256(model.path.encode()).hexdigest()[:16]

    def close(self) -> None:
        """End the child, if there is one."""
        self._closing.set()

    def open(self) -> None:
        """Allow merging again after `close`."""
        self._closing.clear()

    def _run(self, model: RegisteredModel, dest: Path, why: str) -> None:
        log, progress = self._folder / "merge.log", self._folder / "merge.jsonl"
        with naming_full_disk(dest):
            for folder in (self._folder, dest.parent):
                folder.mkdir(parents=True, exist_ok=True)
            progress.write_bytes(b"")
            command = self._command(Path(model.path), model.base, dest, progress)
            if model.config.get("trust_remote_code"):
                command.append("--trust-remote-code")
            with log.open("wb") as output:
                self._child = subprocess.Popen(
                    command, cwd=PROJECT, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
                )
        self._watch(self._child, model.name, why, progress)
        if self._child.returncode:
            raise _failed(model, why, log, dest)

    def _watch(self, child: "subprocess.Popen[bytes]", name: str, why: str, progress: Path) -> None:
        deadline = time.monotonic() + self._seconds
        while child.poll() is None:
            self.message = _message(name, why, _last_step(progress))
            if self._closing.is_set() or time.monotonic() > deadline:
                _end(child)
                raise EngineUnavailable(
                    Text(
                        f"{name} was not merged into its base: studio closing, or more than {self._seconds:.0f} s.",
                        f"{name} 未能合并进基座：工作室正在关闭，或已超过 {self._seconds:.0f} 秒。",
                    ),
                    Text("Raise SAGE_STUDIO_ENGINE_START_SECONDS.", "请增大 SAGE_STUDIO_ENGINE_START_SECONDS。"),
                )
            time.sleep(POLL_SECONDS)


def _digest(model: RegisteredModel) -> str:
    """What a merged model depends on: the adapter's bytes, its tokenizer's template, and which base it is."""
    found = hashlib.sha256(f"{model.base}\n{size_on_disk(Path(model.base))}\n".encode())
    for name in (CONFIG, WEIGHTS, CHAT_TEMPLATE, TOKENIZER_CONFIG):
        path = Path(model.path) / name
        if path.is_file():
            with path.open("rb") as file:
                found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()


def _manifest(dest: Path) -> dict[str, str]:
    return read_json(dest / MANIFEST)  # none, or cut off: merged again


def _check_base(model: RegisteredModel) -> None:
    if read_config(model.base).get("quantization_config"):  # of a broken one the child says what is wrong
        raise InvalidModel(
            Text(
                f"The base {model.base} is quantized: adapters cannot be merged into it.",
                f"基座 {model.base} 以量化形式存储，无法合并适配器。",
            ),
            Text("Register the adapter with the bf16 base.", "请以 bf16 基座注册该适配器。"),
        )


def _check_room(dest: Path, base: str) -> None:
    parent = next(folder for folder in dest.parents if folder.is_dir())
    if shutil.disk_usage(parent).free < 1.1 * size_on_disk(Path(base)):
        raise storage_full(dest)


def _last_step(progress: Path) -> dict[str, object]:
    """The last whole line that the child wrote; empty before the first."""
    step: dict[str, object] = json.loads([b"{}", *complete_lines(progress)][-1])
    return step


def _message(name: str, why: str, step: Mapping[str, object]) -> Text:
    share, doing = float(str(step.get("share", 0.0))), DOING[str(step.get("doing", "loading"))]
    return Text(
        f"Merging {name} into its base ({why}): {doing.en}, {share:.0%}.",
        f"正在将 {name} 合并进基座（{why}）：{doing.zh}，{share:.0%}。",
    )


def _end(child: "subprocess.Popen[bytes]") -> None:
    child.terminate()
    try:
        child.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _failed(model: RegisteredModel, why: str, log: Path, dest: Path) -> Exception:
    words = last_words(log)
    if "No space left" in words:
        return storage_full(dest)
    return InvalidModel(
        Text(
            f"The engine cannot serve {model.name} as an adapter ({why}), and merging it failed: {words}",
            f"引擎无法以适配器形式加载 {model.name}（{why}），合并也失败了：{words}",
        ),
        Text(f"Free memory, or read {log}.", f"请释放内存，或查看 {log}。"),
    )
