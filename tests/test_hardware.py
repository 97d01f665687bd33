"""Which GPUs are there, which of them count, and why the others do not: on recorded outputs of ``nvidia-smi``."""

import pytest

from sage_studio import hardware
from sage_studio.hardware import Gpu, Unusable, detect_hardware, parse_gpus, sort_gpus, visible_gpus

TWO = (
    "0, NVIDIA GeForce RTX 3090, 24576, 1200, 3, 580.95.05, GPU-1111aaaa, 8.6\n"
    "1, NVIDIA GeForce RTX 3090, 24576, 4, 0, 580.95.05, GPU-2222bbbb, 8.6\n"
)


@pytest.mark.parametrize(
    ("visible", "indices"),
    [
        (None, [0, 1]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("1", [1]),
        ("1,0", [1, 0]),
        (" 0 , 1 ", [0, 1]),
        ("0,7,1", [0]),
        ("GPU-2222", [1]),
        ("GPU-2222bbbb,GPU-1111aaaa", [1, 0]),
        ("GPU-", []),
        ("0,0", [0]),
    ],
)
def test_cuda_visible_devices_is_read_as_cuda_reads_it(visible, indices):
    assert [gpu.index for gpu in visible_gpus(parse_gpus(TWO), visible)] == indices


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("0, NVIDIA GeForce RTX 3060, 12288, 512, 3, 580.95.05, GPU-a, 8.6", None),
        ("0, Tesla T4, 15360, 2, 0, 580.65.06, GPU-a, 7.5", None),
        ("0, NVIDIA GeForce RTX 3060, 12288, 512, 3, 550.120, GPU-a, 8.6", Unusable.OLD_DRIVER),
        ("0, NVIDIA GeForce GTX 1080 Ti, 11264, 300, 0, 580.65.06, GPU-a, 6.1", Unusable.OLD_GPU),
        ("0, Tesla V100-SXM2-16GB, 16384, 0, 0, 580.65.06, GPU-a, 7.0", Unusable.OLD_GPU),
        ("0, NVIDIA GeForce GTX 1060, 6144, 300, 0, 470.256, GPU-a", Unusable.OLD_DRIVER),
        ("0, NVIDIA GB10, [N/A], [N/A], 0, 580.95.05, GPU-a, 12.1", Unusable.NO_MEMORY_FIGURE),
    ],
)
def test_a_gpu_that_our_builds_cannot_use_never_counts(line, reason):
    usable, others = sort_gpus(parse_gpus(line), None)
    assert [why for _, why in others] == ([reason] if reason else [])
    assert len(usable) == (reason is None)


def test_beside_a_cpu_build_of_torch_no_gpu_counts(monkeypatch):
    monkeypatch.setattr(hardware, "query_gpus", lambda: TWO)
    monkeypatch.setattr(hardware, "torch_has_cuda", lambda: False)
    found = detect_hardware({})
    assert not found.has_gpu
    assert {why for _, why in found.set_aside} == {Unusable.CPU_TORCH}


def test_a_hidden_gpu_is_listed_as_hidden(monkeypatch):
    monkeypatch.setattr(hardware, "query_gpus", lambda: TWO)
    monkeypatch.setattr(hardware, "torch_has_cuda", lambda: True)
    found = detect_hardware({hardware.VISIBLE: "1"})
    assert [gpu.index for gpu in found.gpus] == [1]
    assert [(gpu.index, why) for gpu, why in found.set_aside] == [(0, Unusable.HIDDEN)]


def test_memory_is_told_in_gib_and_unknown_load_as_none():
    (gpu,) = parse_gpus("0, NVIDIA A2, 15356, 4, [N/A], 580.95.05, GPU-a, 8.6")
    assert gpu == Gpu(0, "NVIDIA A2", 15356 / 1024, 4 / 1024, None, (8, 6), "580.95.05", "GPU-a")
    assert gpu.free_gb == pytest.approx(15352 / 1024)
