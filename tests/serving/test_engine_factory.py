"""Which engine, and with which options, on recorded hardware."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from serving_files import FAKE
from waiting import wait_until

from sage_studio.database import Database
from sage_studio.errors import EngineUnavailable, InvalidSetting
from sage_studio.hardware import Gpu, Hardware, parse_gpus
from sage_studio.processes import last_words
from sage_studio.serving import engine_factory
from sage_studio.serving.capacity import (
    Architecture,
    ModelFacts,
    lora_rank_for,
    model_shape,
    plan,
    tensor_parallel_size,
)
from sage_studio.serving.client import EngineClient
from sage_studio.serving.engine_factory import choose_engine
from sage_studio.serving.registry import VLLMRegistry
from sage_studio.serving.types import Base
from sage_studio.serving.vllm import CPU_SERVER, cpu_threads, vllm_command, vllm_environment, vllm_rank
from sage_studio.settings import load_settings

SOCKET = Path("/tmp/e.sock")
RTX_3060 = "0, NVIDIA GeForce RTX 3060, 12288, 512, 3, 580.95.05, GPU-rtx_3060, 8.6\n"
RTX_2060 = "0, NVIDIA GeForce RTX 2060, 6144, 300, 0, 580.95.05, GPU-rtx_2060, 7.5\n"
RTX_4060 = "0, NVIDIA GeForce RTX 4060, 8188, 300, 0, 580.95.05, GPU-rtx_4060, 8.9\n"
RTX_4090 = "0, NVIDIA GeForce RTX 4090, 24564, 300, 0, 580.95.05, GPU-rtx_4090, 8.9\n"
H100 = "0, NVIDIA H100 80GB HBM3, 81559, 0, 0, 580.95.05, GPU-h100, 9.0\n"
"""As ``nvidia-smi`` 580 printed it on a real one."""
TWO_A100 = "0, NVIDIA A100, 81920, 4, 0, 580.95.05, GPU-a, 8.0\n1, NVIDIA A100, 81920, 4, 0, 580.95.05, GPU-b, 8.0\n"


def machine(nvidia_smi: str, memory_gb: float = 24) -> Hardware:
    return Hardware(parse_gpus(nvidia_smi), memory_gb, 2, 2)


def test_what_a_real_gpu_says_of_itself_is_read():
    assert parse_gpus(H100) == (
        Gpu(0, "NVIDIA H100 80GB HBM3", 81559 / 1024, 0.0, 0.0, (9, 0), "580.95.05", "GPU-h100"),
    )
    assert machine(H100).has_gpu


def command(nvidia_smi: str, **base) -> list[str]:
    settings = load_settings()
    gpus = plan(machine(nvidia_smi), settings.gpu_memory_utilization)
    return vllm_command(settings, gpus, "python", Base("/models/small", "small", rank=64, **base), SOCKET, 16)


def option(line: list[str], name: str) -> str | None:
    return line[line.index(name) + 1] if name in line else None


@pytest.mark.parametrize(
    ("nvidia_smi", "context", "share", "gpus"),
    [
        ("", "2048", None, None),
        (RTX_2060, "2048", "0.8", None),
        (RTX_4060, "4096", "0.8", None),
        (RTX_3060, "4096", "0.8", None),
        (RTX_4090, "8192", "0.8", None),
        (TWO_A100, "8192", "0.8", None),
        (RTX_2060 + RTX_4090.replace("0,", "1,", 1), "8192", "0.8", None),
    ],
)
def test_the_documented_options_by_hardware(nvidia_smi, context, share, gpus):
    line = command(nvidia_smi)
    assert option(line, "--max-model-len") == context
    assert option(line, "--gpu-memory-utilization") == share
    assert option(line, "--tensor-parallel-size") == gpus
    assert ("--enforce-eager" in line) == (nvidia_smi == "")


def test_the_whole_command_line_on_a_cpu():
    assert " ".join(command("")) == (
        f"python -P {CPU_SERVER} --model /models/small --served-model-name small"
        " --uds /tmp/e.sock --max-model-len 2048 --enable-lora --max-loras 17 --max-cpu-loras 17"
        " --max-lora-rank 64 --enforce-eager --max-num-seqs 16"
    )
    assert "--trust-remote-code" in command("", trust_remote_code=True)


def test_the_environment():
    base = Base("/models/small", "small")
    cpu = vllm_environment(plan(machine(""), 0.8), 2, base)
    assert cpu["VLLM_CPU_KVCACHE_SPACE"] == "1"
    assert cpu["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == cpu["VLLM_NO_USAGE_STATS"] == cpu["HF_HUB_OFFLINE"] == "1"
    gpu = vllm_environment(plan(machine(RTX_3060), 0.8), 2, Base("owner/name", "owner/name"))
    assert not {"VLLM_CPU_KVCACHE_SPACE", "OMP_NUM_THREADS", "HF_HUB_OFFLINE"} & set(gpu)
    assert (gpu["CUDA_VISIBLE_DEVICES"], gpu["CUDA_DEVICE_ORDER"]) == ("0", "PCI_BUS_ID")


@pytest.mark.parametrize(
    ("cores", "size", "threads"), [(2, 1 << 20, 1), (1, 1 << 20, 1), (8, 1 << 20, 7), (2, 3 << 30, 2), (2, None, 2)]
)
def test_a_small_model_computes_with_one_thread_less(tmp_path, cores, size, threads):
    if size is not None:
        with (tmp_path / "model.safetensors").open("wb") as file:
            file.truncate(size)
    assert cpu_threads(cores, str(tmp_path)) == threads
    environment = vllm_environment(plan(machine(""), 0.8), cores, Base(str(tmp_path), "small"))
    assert environment["OMP_NUM_THREADS"] == str(threads)


def test_a_model_is_never_given_more_than_it_was_made_for(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"max_position_embeddings": 512, "num_attention_heads": 12}))
    shape = model_shape(str(tmp_path))
    assert shape == Architecture(context=512, heads=12)
    assert plan(machine(RTX_4090), 0.8, ModelFacts(shape=shape)).context == 512
    (tmp_path / "config.json").write_text("{")
    assert model_shape(str(tmp_path)) == Architecture()


@pytest.mark.parametrize(
    ("count", "shape", "used"),
    [
        (3, Architecture(), 3),
        (3, Architecture(heads=12, kv_heads=2), 2),
        (4, Architecture(heads=14, kv_heads=2), 2),
        (8, Architecture(heads=32), 8),
    ],
)
def test_a_model_is_spread_over_as_many_gpus_as_its_heads_allow(count, shape, used):
    assert tensor_parallel_size(count, shape) == used


@pytest.mark.parametrize(("rank", "allowed"), [(1, 1), (2, 8), (16, 16), (17, 32), (257, 320), (512, 512), (600, 512)])
def test_ranks_are_rounded_up_to_what_vllm_takes(rank, allowed):
    assert lora_rank_for(rank) == allowed


def test_the_rank_grows_as_needed_on_a_cpu_only():
    settings = load_settings()
    assert [vllm_rank(settings, machine(""), rank) for rank in (0, 16, 24, 64)] == [16, 16, 32, 64]
    assert vllm_rank(settings, machine(RTX_3060), 8) == 64


def test_auto_takes_vllm_where_it_is(monkeypatch):
    monkeypatch.setattr(engine_factory, "vllm_installed", lambda: True)
    assert choose_engine(load_settings()).kind == "vllm"
    monkeypatch.setattr(engine_factory, "vllm_installed", lambda: False)
    assert choose_engine(load_settings()).kind == "transformers"
    elsewhere = choose_engine(load_settings(vllm_python="/opt/vllm/bin/python"))
    assert elsewhere.kind == "vllm"
    assert elsewhere.launch(Base("/models/small", "small", rank=16), SOCKET).command[0] == "/opt/vllm/bin/python"
    with pytest.raises(EngineUnavailable, match="not installed"):
        choose_engine(load_settings(engine="vllm"))


def test_the_fallback_runs_in_this_python():
    made = choose_engine(load_settings(engine="transformers")).launch(Base("/models/small", "small"), SOCKET)
    assert made.command[:3] == [sys.executable, "-m", "sage_studio.serving.transformers_server"]


@pytest.mark.parametrize("url", ["", "example.com/v1"])
def test_someone_elses_server_needs_an_address(url):
    with pytest.raises(InvalidSetting, match="engine_url"):
        choose_engine(load_settings(engine="openai", engine_url=url))


def test_a_python_that_is_not_there_is_named(home):
    home.settings = load_settings(home=home.folder / "home", engine="vllm", vllm_python="/nowhere/python")
    registry = home.registry()
    registry.configure(home.settings, Database(home.settings.database_path))
    registry.register_model("small", str(home.base()), {"kind": "base"})
    with pytest.raises(EngineUnavailable, match="/nowhere/python"):
        registry.switch_model("small")


def test_someone_elses_server_is_used_and_left_alone(home):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-S", str(FAKE), "--model", "small", "--served-model-name", "small"]
    command += ["--journal", str(home.journal), "--port", str(port)]
    theirs = subprocess.Popen(command, env={**os.environ, "VLLM_API_KEY": "theirs"})
    url = f"http://127.0.0.1:{port}/v1"
    client = EngineClient(url, "theirs")
    wait_until(lambda: client.models(quick=True))

    settings = load_settings(home=home.folder / "guest", engine="openai", engine_url=url, engine_api_key="theirs")
    guest = VLLMRegistry()
    guest.configure(settings, Database(settings.database_path))
    guest.adopt()
    assert guest.current_model.name == "small"
    assert guest.current_model.kind == "external"
    assert guest.generate("hello") == "small: hello "
    assert guest.status().url == url
    guest.register_model("other", "other", {"kind": "external"})
    with pytest.raises(EngineUnavailable, match="no model other"):
        guest.switch_model("other")
    assert guest.generate("hello") == "small: hello "
    assert guest.metrics_endpoint().key == "theirs"
    guest.close()
    assert client.models() == ["small"], "it goes on"
    client.close()
    theirs.kill()
    theirs.wait()


@pytest.mark.parametrize(
    ("log", "words"),
    [
        (
            "(EngineCore pid=1) ERROR 11-22 00:00:01 [core.py:1] ValueError: No available memory\nbye\n",
            "ValueError: No",
        ),
        (
            "OSError: [Errno 98] Address already in use\nRuntimeError: Engine core initialization failed.\n",
            "OSError: [Errno 98]",
        ),
        ("loading\n\n", "loading"),
        ("", ""),
    ],
)
def test_the_log_line_that_says_why(tmp_path, log, words):
    path = tmp_path / "engine.log"
    path.write_text(log)
    assert last_words(path).startswith(words)


def test_gpus_are_plain_facts():
    assert machine(RTX_3060).gpus == (
        Gpu(0, "NVIDIA GeForce RTX 3060", 12.0, 0.5, 3.0, (8, 6), "580.95.05", "GPU-rtx_3060"),
    )


def test_importing_the_registry_is_light():
    code = """
import sys, sage_studio.serving
print([name for name in ("torch", "vllm", "transformers", "peft", "fastapi", "gradio") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
