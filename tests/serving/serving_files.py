"""Adapter folders and safetensors files written by hand, right and wrong."""

import json
from pathlib import Path

import numpy as np

from sage_studio.hardware import Gpu, Hardware

ROOMY = Hardware((), 64.0, 8.0, 8)
"""Memory for two engines."""
NARROW = Hardware((), 8.0, 6.0, 2)
"""Memory for one."""
GPU = Hardware((Gpu(0, "NVIDIA GeForce RTX 3060", 12.0, 10.0),), 64.0, 8.0, 8)
"""A GPU that the engine holds."""
FAKE = Path(__file__).with_name("fake_engine.py")


def write_adapter(folder: Path, base: str, values: np.ndarray | None = None, **config) -> None:
    settings = {"peft_type": "LORA", "r": 8, "bias": "none", "base_model_name_or_path": base, **config}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    data = np.ones(16, dtype=np.float32) if values is None else values
    write_safetensors(folder / "adapter_model.safetensors", {"layer.lora_A.weight": data})


def write_safetensors(path: Path, tensors: dict[str, np.ndarray], dtype: str = "") -> None:
    """A safetensors file; ``dtype`` overrides the type's name, as for BF16, which numpy does not have."""
    header, data = {}, b""
    names = {"float32": "F32", "float16": "F16", "float64": "F64", "int64": "I64"}
    for name, values in tensors.items():
        raw = values.tobytes()
        kind = dtype or names[str(values.dtype)]
        header[name] = {"dtype": kind, "shape": list(values.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    head = json.dumps(header).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head + data)
