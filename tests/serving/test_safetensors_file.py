"""Safetensors files read without torch: complete, finite, zero."""

import numpy as np
import pytest
from serving_files import write_safetensors

from sage_studio import safetensors_file
from sage_studio.errors import InvalidModel
from sage_studio.safetensors_file import check_finite, is_complete, is_zero, read_tensors


@pytest.mark.parametrize(
    ("bits", "finite"), [(0x7FC0, False), (0x7F80, False), (0xFF80, False), (0x7F7F, True), (0, True)]
)
def test_bfloat16_is_read_by_its_bits(tmp_path, bits, finite):
    path = tmp_path / "x.safetensors"
    write_safetensors(path, {"w": np.array([0x3F80, bits], dtype=np.uint16)}, dtype="BF16")
    if finite:
        return check_finite(path, read_tensors(path))
    with pytest.raises(InvalidModel):
        check_finite(path, read_tensors(path))


@pytest.mark.parametrize("kept", [0, 5, 30, -1])
def test_a_file_that_was_cut_off_is_not_complete(tmp_path, kept):
    path = tmp_path / "x.safetensors"
    write_safetensors(path, {"w": np.ones(8, np.float32)})
    assert is_complete(path)
    path.write_bytes(path.read_bytes()[:kept])
    assert not is_complete(path)
    assert not is_complete(tmp_path / "missing.safetensors")


@pytest.mark.parametrize(
    ("values", "dtype", "zero"),
    [
        (np.zeros(5, np.float32), "", True),
        (np.array([0, 0, 0, 0, 1e-30], np.float32), "", False),
        (np.array([0x8000, 0], np.uint16), "BF16", True),
        (np.array([0, 1], np.uint16), "BF16", False),
        (np.array([0, 0, 1], np.int64), "", False),
    ],
)
def test_a_tensor_is_zero_only_if_every_value_is(tmp_path, monkeypatch, values, dtype, zero):
    monkeypatch.setattr(safetensors_file, "CHUNK_BYTES", 8)
    path = tmp_path / "x.safetensors"
    write_safetensors(path, {"before": np.ones(3, np.float32), "w": values}, dtype)
    assert is_zero(path, read_tensors(path)[1]) is zero
