"""From whatever ended a run to its class and a sentence for a person.

Knows how the libraries say "no memory" and "no room", and which of our own errors means what. Prints nothing: the
traceback is the caller's to log.
"""

import errno
from collections.abc import Iterator

from sage_studio.errors import (
    Conflict,
    GpuUnavailable,
    HubUnavailable,
    InvalidDataset,
    InvalidModel,
    InvalidRecipe,
    NotFound,
    StorageFull,
    StudioError,
)
from sage_studio.text import Text
from sage_studio.training.health import Unhealthy
from sage_studio.training.progress import LOG, Reason

NO_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "cuda_error_out_of_memory")
NO_ROOM = ("no space left on device", "disk quota exceeded", "os error 28", "os error 122", "inline_container")
"""``inline_container`` is torch.save on a full disk: it names its source file and not the cause."""

REASONS: tuple[tuple[type[StudioError], Reason], ...] = (
    (InvalidDataset, Reason.DATA),
    (InvalidModel, Reason.MODEL),
    (InvalidRecipe, Reason.SETTINGS),
    (NotFound, Reason.DATA),
    (HubUnavailable, Reason.NETWORK),
    (GpuUnavailable, Reason.GPU),
    (Unhealthy, Reason.UNHEALTHY),
    (StorageFull, Reason.DISK),
    (Conflict, Reason.DISK),
)


def explain(error: BaseException) -> tuple[Reason, Text, Text]:
    """The class of a failure, what happened and what to do about it."""
    chain = tuple(_chain(error))
    if any(isinstance(link, MemoryError) or _says(link, NO_MEMORY) for link in chain):
        return Reason.MEMORY, _memory(error), SMALLER
    if any(_is_full_disk(link) for link in chain) and not isinstance(error, StorageFull):
        return Reason.DISK, DISK, MAKE_ROOM
    if isinstance(error, StudioError):
        reason = next((reason for kind, reason in REASONS if isinstance(error, kind)), Reason.BUG)
        return reason, error.message, error.hint
    return Reason.BUG, _bug(error), SEE_LOG


def is_expected(error: BaseException) -> bool:
    """Whether a person can mend it, so that a traceback would only be noise."""
    return explain(error)[0] is not Reason.BUG


SMALLER = Text(
    "Use a smaller batch or max_length, turn on gradient checkpointing, or load the model in 8 or 4 bits.",
    "请减小批大小或最大长度，开启梯度检查点，或以 8 位/4 位加载模型。",
)
DISK = Text("The disk is full: the run could not be saved.", "磁盘已满：无法保存训练结果。")
MAKE_ROOM = Text(
    "Delete old tasks or datasets, then resume: whole checkpoints were kept.",
    "请删除旧任务或数据集后继续训练：完整的检查点已保留。",
)
SEE_LOG = Text(f"The details are at the end of {LOG}; please report them.", f"详情见 {LOG} 末尾，请反馈该问题。")


def _memory(error: BaseException) -> Text:
    card = "cuda" in f"{type(error).__module__} {error}".lower()
    if card:
        return Text("The graphics card's memory was not enough.", "显存不足。")
    return Text("The machine's memory was not enough.", "内存不足。")


def _bug(error: BaseException) -> Text:
    name = type(error).__name__
    return Text(f"The training broke off with an unexpected {name}.", f"训练因意外的 {name} 中断。")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _is_full_disk(error: BaseException) -> bool:
    if isinstance(error, StorageFull):
        return True
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return not isinstance(error, StudioError) and _says(error, NO_ROOM)


def _says(error: BaseException, phrases: tuple[str, ...]) -> bool:
    said = str(error).lower()
    return any(phrase in said for phrase in phrases)
