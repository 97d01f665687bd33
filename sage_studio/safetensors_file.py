"""Safetensors files, read without torch: complete, finite, all zero.

The format: eight bytes with the header's length, a JSON header of tensors, then their bytes.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sage_studio.errors import InvalidModel
from sage_studio.text import Text

MAX_HEADER = 100 << 20
CHUNK_BYTES = 1 << 24
BF16_EXPONENT, BF16_MAGNITUDE = np.uint16(0x7F80), np.uint16(0x7FFF)
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
            Text("The weights {path} are missing.", path=path),
            Text("Restore the file, or train again."),
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(path) from error
    if not tensors or max(tensor.end for tensor in tensors) != size:
        raise _damaged(path)
    return tensors


def is_complete(path: Path) -> bool:
    """Whether a file is there with all bytes of its tensors."""
    try:
        return bool(read_tensors(path))
    except InvalidModel:
        return False


def check_finite(path: Path, tensors: tuple[Tensor, ...]) -> None:
    """Raise `InvalidModel` naming the first tensor with NaN or infinity. Integers and 8-bit types are passed over."""
    for tensor in tensors:
        if not is_finite(path, tensor):
            raise InvalidModel(
                Text(
                    "{name} holds NaN or infinite weights (first in {tensor_name}): the training diverged.",
                    name=path.name,
                    tensor_name=tensor.name,
                ),
                Text("Train again with a lower learning rate."),
            )


def is_finite(path: Path, tensor: Tensor) -> bool:
    """Whether a tensor holds neither NaN nor infinity; True for integers and 8-bit types, which are not looked at."""
    kind = FLOATS.get(tensor.dtype)
    if kind is None:
        return True
    for chunk in _chunks(path, tensor):
        values = np.frombuffer(chunk, dtype=kind)
        finite = (values & BF16_EXPONENT) != BF16_EXPONENT if tensor.dtype == "BF16" else np.isfinite(values)
        if not bool(finite.all()):
            return False
    return True


def is_zero(path: Path, tensor: Tensor) -> bool:
    """Whether every value of a tensor is zero; a negative zero of floats counts as zero, too."""
    kind = FLOATS.get(tensor.dtype, np.dtype(np.uint8))
    mask = BF16_MAGNITUDE if tensor.dtype == "BF16" else None
    for chunk in _chunks(path, tensor):
        values = np.frombuffer(chunk, dtype=kind)
        if bool(np.any(values if mask is None else values & mask)):
            return False
    return True


def _chunks(path: Path, tensor: Tensor) -> Iterator[bytes]:
    """A tensor's bytes, `CHUNK_BYTES` at a time."""
    with path.open("rb") as file:
        file.seek(tensor.begin)
        for start in range(tensor.begin, tensor.end, CHUNK_BYTES):
            yield file.read(min(CHUNK_BYTES, tensor.end - start))


def _tensor(name: str, facts: dict[str, list[int]], data: int) -> Tensor:
    begin, end = facts["data_offsets"]
    if not 0 <= begin <= end:
        raise ValueError("offsets run backwards")
    return Tensor(name, str(facts["dtype"]), tuple(facts["shape"]), data + begin, data + end)


def _damaged(path: Path) -> InvalidModel:
    return InvalidModel(
        Text("{path} is cut off or damaged.", path=path),
        Text("Copy it again, or train again."),
    )
