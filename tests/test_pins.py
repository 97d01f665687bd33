"""What the pinned sets must keep to, whatever the next ``make lock`` brings."""

import re

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from sage_studio.settings import PROJECT

SETS = ["requirements.txt", "requirements-cpu.txt", "requirements-gpu.txt"]
CUDA_COMPILER = {"nvidia-cuda-cccl", "nvidia-cuda-crt", "nvidia-cuda-nvcc", "nvidia-nvvm"}


def pins(name: str) -> dict[str, Version]:
    """Each package of a requirements file with its version."""
    found = {}
    for line in (PROJECT / name).read_text(encoding="utf-8").splitlines():
        if re.match(r"\w", line):
            requirement = Requirement(line)
            (only,) = requirement.specifier
            assert only.operator == "==", line
            found[requirement.name] = Version(only.version)
    return found


def test_the_cuda_compiler_fits_the_cuda_headers():
    """nvcc 13.5 beside 13.0's headers stops with "CUDA compiler and CUDA toolkit headers are incompatible"."""
    pinned = pins("requirements-gpu.txt")
    assert {name: pinned[name].release[:2] for name in CUDA_COMPILER} == dict.fromkeys(CUDA_COMPILER, (13, 0))
    assert pinned["nvidia-cuda-runtime"].release[:2] == pinned["cuda-toolkit"].release[:2] == (13, 0)


@pytest.mark.parametrize("name", SETS)
def test_pydantic_is_one_that_the_mcp_extra_of_gradio_accepts(name):
    """A Space's builder installs ``gradio[oauth,mcp]``, and that caps pydantic."""
    assert pins(name)["pydantic"] <= Version("2.12.5")
