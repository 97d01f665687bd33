"""Whether a ``.safetensors`` file is whole and its numbers finite, read without torch.

Knows the file format: eight bytes of length, a JSON header of tensors, then their bytes. Knows nothing of models.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sage_studio.errors import InvalidModel
from sage_studio.text import Text

MAX_HEADER = 100 << 20
PIECE = 1 << 24
BF16_EXPONENT = np.uint16(0x7F80)
FLOATS: dict[str, np.dtype[Any]] = {
    "BF16": np.dtype("<u2"),
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
}


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of a file: name, type (``BF16``, …), shape, and its bytes, counted from the file's start."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def read_tensors(path: Path) -> tuple[Tensor, ...]:
    """The tensors of a file, after checking that all their bytes are there.

    Raises:
        InvalidModel: the file is missing, cut off, or no safetensors file.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(MAX_HEADER, size - 8):
                raise _damaged(path)
            header = json.loads(file.read(length))
        tensors = tuple(_tensor(name, facts, 8 + length) for name, facts in header.items() if name != "__metadata__")
    except FileNotFoundError as error:
        raise InvalidModel(
            Text(f"The weights {path} are missing.", f"缺少权重文件 {path}。"),
            Text("Restore the file, or train again.", "请恢复该文件，或重新训练。"),
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path) from error
    if not tensors or max(tensor.end for tensor in tensors) != size:
        raise _damaged(path)
    return tensors


def check_finite(path: Path, tensors: tuple[Tensor, ...]) -> None:
    """Raise `InvalidModel` naming the first tensor with NaN or infinity. Integers and 8-bit types are passed over."""
    for tensor in tensors:
        if not _is_finite(path, tensor):
            raise InvalidModel(
                Text(
                    f"{path.name} holds NaN or infinite weights (first in {tensor.name}): the training diverged.",
                    f"{path.name} 含有 NaN 或无穷大的权重（首个：{tensor.name}）：训练已发散。",
                ),
                Text("Train again with a lower learning rate.", "请降低学习率后重新训练。"),
            )


def _tensor(name: str, facts: dict[str, list[int]], data: int) -> Tensor:
    begin, end = facts["data_offsets"]
    if not 0 <= begin <= end:
        raise ValueError("offsets run backwards")
    return Tensor(name, str(facts["dtype"]), tuple(facts["shape"]), data + begin, data + end)


def _is_finite(path: Path, tensor: Tensor) -> bool:
    kind = FLOATS.get(tensor.dtype)
    if kind is None or tensor.begin == tensor.end:
        return True
    values = np.memmap(path, dtype=np.uint8, mode="r", offset=tensor.begin, shape=(tensor.end - tensor.begin,))
    for start in range(0, values.size, PIECE):
        piece = np.frombuffer(values[start : start + PIECE].tobytes(), dtype=kind)
        finite = (piece & BF16_EXPONENT) != BF16_EXPONENT if tensor.dtype == "BF16" else np.isfinite(piece)
        if not bool(finite.all()):
            return False
    return True


def _damaged(path: Path) -> InvalidModel:
    return InvalidModel(
        Text(f"{path} is cut off or damaged.", f"{path} 不完整或已损坏。"),
        Text("Copy it again, or train again.", "请重新复制该文件，或重新训练。"),
    )
