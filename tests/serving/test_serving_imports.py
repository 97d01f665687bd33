"""Importing one module of serving does not bring the others along."""

import subprocess
import sys

import pytest

from sage_studio.settings import PROJECT

COSTLY = {"sage_studio.serving.registry", "httpx", "filelock"}


@pytest.mark.parametrize("module", ["capacity", "types", "adapter_compat"])
def test_pure_modules_bring_neither_the_registry_nor_http(module):
    script = f"import sys, sage_studio.serving.{module}; print(*({COSTLY!r} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=PROJECT)
    assert done.stdout.split() == []


def test_the_documented_import_gives_one_registry():
    script = (
        "from sage_studio.serving import vllm_registry, VLLMRegistry\n"
        "import sage_studio.serving\n"
        "assert sage_studio.serving.vllm_registry is vllm_registry and isinstance(vllm_registry, VLLMRegistry)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=PROJECT)
