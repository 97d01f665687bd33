"""The CPU server's adapters: the same sums as token by token, and none for a token that asked for none."""

import importlib.util
import subprocess
import sys

import pytest
from waiting import ENGINE, patient

from sage_studio.serving.vllm import CPU_SERVER

CHECK = """
import importlib.util, sys
import torch

spec = importlib.util.spec_from_file_location("vllm_cpu", sys.argv[1])
server = importlib.util.module_from_spec(spec)
spec.loader.exec_module(server)

torch.manual_seed(0)
down = tuple(torch.randn(3, 1, 4, 6) for _ in range(2))
up = tuple(torch.randn(3, 1, width, 4) for width in (5, 2))
wrapper = object.__new__(server.GroupedAdapters)
wrapper.joined = {}


def check(slots):
    x, before = torch.randn(len(slots), 6), torch.randn(len(slots), 7)
    wrapper.groups = server.grouped(slots)
    y = before.clone()
    wrapper.add_lora_linear(y, x, down, up, 0.5, (5, 2))
    wanted = before.clone()
    for at, slot in enumerate(slots):
        if slot >= 0:
            parts = [0.5 * (b[slot, 0] @ (a[slot, 0] @ x[at])) for a, b in zip(down, up)]
            wanted[at] += torch.cat(parts)
    torch.testing.assert_close(y, wanted)


BATCHES = ([0, 0, 0], [-1, -1], [2, -1, 0, 2], [1], [0] * 60, [2, -1] * 60, [0] * 60 + [1])
with torch.inference_mode():
    for slots in BATCHES:
        check(slots)



class Manager:
    lora_index_to_id = [7, None, None]
    punica_wrapper_mapping = {"language": wrapper}

    def activate_adapter(self, lora_id):
        if lora_id in self.lora_index_to_id:
            return False
        self.lora_index_to_id[2] = lora_id
        down[0][2], up[1][2, 0] = torch.randn(1, 4, 6), torch.randn(2, 4)
        return True


activate = server.forgetting(Manager.activate_adapter)
with torch.inference_mode():
    kept = dict(wrapper.joined)
    assert activate(Manager(), 8)
    assert not activate(Manager(), 7)
    assert wrapper.joined.keys() == kept.keys() - {2}
    for slots in BATCHES:
        check(slots)
assert server.LoRAModelManager.activate_adapter.__qualname__.startswith("forgetting")
assert server.grouped([]) == ()
assert server.punica_cpu.PunicaWrapperCPU is server.GroupedAdapters
print("equal")
"""


@pytest.mark.engine
def test_tokens_are_multiplied_by_adapter_and_those_without_one_are_left_alone():
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("vLLM is not installed here")
    done = subprocess.run(
        [sys.executable, "-P", "-c", CHECK, str(CPU_SERVER)], capture_output=True, text=True, timeout=patient(ENGINE)
    )
    assert done.stdout.strip().endswith("equal"), done.stderr[-2000:]
