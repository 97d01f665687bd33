"""Rehearses the engine's start on GPUs that are not here: the real GPU pins, our own command line, a faked GPU.

Run by the studio's Python, with an environment that holds ``requirements-gpu.txt`` (4.2 GB to download, 8.5 GB on
disk; no driver and no GPU are needed)::

    uv venv gpuenv --python 3.11 && uv pip install --python gpuenv --no-deps -r requirements-gpu.txt
    .venv/bin/python scripts/gpu_rehearsal.py gpuenv/bin/python

For each GPU and each amount of memory that a desktop uses, the studio plans as it would there. Its command line and
environment then go through vLLM's own parser and engine configuration, which choose data type, attention backend,
sampler and kernels by the faked GPU, and through ``request_memory``, vLLM's own verdict on the share. A ``libcuda``
that answers "no device" lets the real extensions load. What this cannot show: a kernel's result, speed, real memory.

The table is written to ``docs/figures/gpu-rehearsal.md``; the exit status is 1 where vLLM refuses what was not said.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent
FIGURES = PROJECT / "docs" / "figures" / "gpu-rehearsal.md"
GIB = 2**30
CHILD_SECONDS = 900
DESKTOPS = (0.0, 1.0, 2.0, 3.0)
WORKER_CONTEXT_GB = 0.25
"""What vLLM's own CUDA context holds when it looks at what is free."""
FIXED_SHARE = 0.8
"""What 0.1 asked for on every GPU."""
STUB = "".join(
    f"int {name}(void){{return 100;}}\n"
    for name in (
        *("cuCtxGetCurrent", "cuCtxSetCurrent", "cuDeviceGetAttribute", "cuDevicePrimaryCtxRetain", "cuGetErrorString"),
        *("cuGetProcAddress", "cuGetProcAddress_v2", "cuMemAddressFree", "cuMemAddressReserve", "cuMemCreate"),
        *("cuMemGetAllocationGranularity", "cuMemMap", "cuMemRelease", "cuMemSetAccess", "cuMemUnmap"),
        *("cuPointerGetAttribute", "cuTensorMapEncodeTiled", "cuInit", "cuDriverGetVersion", "cuDeviceGetCount"),
    )
)
"""A driver library in which every call fails with CUDA_ERROR_NO_DEVICE."""


@dataclass(frozen=True)
class Gpu:
    """A machine's GPUs.

    Attributes:
        smi_mb: memory of each as `nvidia-smi` counts, in MiB.
        cuda_gb: the same as CUDA counts, in GiB.
    """

    label: str
    name: str
    capability: tuple[int, int]
    smi_mb: int
    cuda_gb: float
    count: int = 1
    processors: int = 40
    others: tuple[str, ...] = ()


GPUS = (
    Gpu("RTX 3060 12 GB", "NVIDIA GeForce RTX 3060", (8, 6), 12288, 11.63, others=("3B", "7B")),
    Gpu("8 GB", "NVIDIA GeForce RTX 4060", (8, 9), 8188, 7.65, others=("3B", "7B")),
    Gpu("6 GB", "NVIDIA GeForce RTX 3060 Laptop GPU", (8, 6), 6144, 5.77, others=("1.5B", "3B")),
    Gpu("T4", "Tesla T4", (7, 5), 15360, 14.58, others=("3B", "7B")),
    Gpu("RTX 4090", "NVIDIA GeForce RTX 4090", (8, 9), 24564, 23.53, processors=128, others=("7B", "14B")),
    Gpu("H100", "NVIDIA H100 80GB HBM3", (9, 0), 81559, 79.19, processors=132, others=("7B", "14B")),
    Gpu("2 x RTX 3090", "NVIDIA GeForce RTX 3090", (8, 6), 24576, 23.57, count=2, processors=82, others=("7B", "14B")),
)

QWEN = {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "vocab_size": 151936, "rope_theta": 1000000.0}
QWEN3 = {**QWEN, "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "max_position_embeddings": 40960}
QWEN3 |= {"head_dim": 128, "tie_word_embeddings": True}
MODELS: dict[str, tuple[int, dict[str, Any]]] = {
    # id: parameters, and what its public config.json says: hidden, inner, layers, heads, heads of keys and values
    "SmolLM2-135M-Instruct": (
        134515008,
        {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": 49152,
            "max_position_embeddings": 8192,
            "tie_word_embeddings": True,
            "dims": (576, 1536, 30, 9, 3),
        },
    ),
    "Qwen/Qwen3-0.6B": (596049920, {**QWEN3, "dims": (1024, 3072, 28, 16, 8)}),
    "Qwen/Qwen3-1.7B": (1720574976, {**QWEN3, "dims": (2048, 6144, 28, 16, 8)}),
    "Qwen/Qwen3-4B": (4022468096, {**QWEN3, "dims": (2560, 9728, 36, 32, 8)}),
    "Qwen/Qwen2.5-0.5B-Instruct": (494032768, {**QWEN, "tie_word_embeddings": True, "dims": (896, 4864, 24, 14, 2)}),
    "Qwen/Qwen2.5-Coder-1.5B-Instruct": (
        1543714304,
        {**QWEN, "tie_word_embeddings": True, "dims": (1536, 8960, 28, 12, 2)},
    ),
    "Qwen/Qwen2.5-3B-Instruct": (3085938688, {**QWEN, "tie_word_embeddings": True, "dims": (2048, 11008, 36, 16, 2)}),
    "Qwen/Qwen2.5-7B-Instruct": (7615616512, {**QWEN, "vocab_size": 152064, "dims": (3584, 18944, 28, 28, 4)}),
    "Qwen/Qwen2.5-14B-Instruct": (14770033664, {**QWEN, "vocab_size": 152064, "dims": (5120, 13824, 48, 40, 8)}),
}
OTHERS = {"1.5B": "Qwen/Qwen2.5-Coder-1.5B-Instruct"} | {
    size: f"Qwen/Qwen2.5-{size}-Instruct" for size in ("0.5B", "3B", "7B", "14B")
}


def main() -> int:
    """Rehearse all GPUs and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("python", help="Python of an environment with requirements-gpu.txt")
    parser.add_argument("--out", type=Path, default=FIGURES)
    parser.add_argument("--answers", type=Path, help="folder in which vLLM's answers are kept, to go on after a stop")
    parser.add_argument("--only", default="", help="rehearse only GPUs whose label holds this")
    given = parser.parse_args()
    sys.path.insert(0, str(PROJECT))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stub = build_stub(folder / "stub")
        versions = json.loads(run_child(given.python, stub, {"versions": True}, folder))
        rows = []
        for gpu in GPUS:
            if given.only in gpu.label:
                print(f"{gpu.label} …", flush=True)
                rows += rehearse(gpu, given.python, stub, folder, given.answers)
    table = report(rows, versions)
    if not given.only:
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(table, encoding="utf-8")
    print(table)
    return int(any(row["refusal"] for row in rows))


def build_stub(folder: Path) -> Path:
    """Compile the driver library that has no device."""
    folder.mkdir()
    (folder / "stub.c").write_text(STUB, encoding="utf-8")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", folder / "libcuda.so.1", folder / "stub.c"], check=True)
    return folder


def write_model(folder: Path, name: str) -> Path:
    """A folder with a model's config and a file as large as its weights, all holes: nothing here reads them."""
    if name not in MODELS:
        raise SystemExit(f"Add {name}'s sizes to MODELS in {__file__}: it is the default somewhere.")
    parameters, facts = MODELS[name]
    target = folder / name.rpartition("/")[2]
    if target.is_dir():
        return target
    target.mkdir()
    hidden, inner, layers, heads, groups = facts["dims"]
    config = {
        "max_position_embeddings": 32768,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "bos_token_id": 1,
        "eos_token_id": 2,
        **{key: value for key, value in facts.items() if key != "dims"},
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
    }
    (target / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (target / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 32768}), encoding="utf-8")
    tensor = {"dtype": "BF16", "shape": [parameters], "data_offsets": [0, 2 * parameters]}
    header = json.dumps({"weights": tensor}).encode()
    with (target / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + 2 * parameters)
    return target


def rehearse(gpu: Gpu, python: str, stub: Path, folder: Path, kept: Path | None) -> list[dict[str, Any]]:
    """All rows of a machine: its default model beside each desktop, then other models beside 1 GB of desktop."""
    cases = [plan_row(gpu, used, "", folder) for used in DESKTOPS]
    cases += [plan_row(gpu, 1.0, OTHERS[size], folder) for size in gpu.others]
    asked = {
        "capability": gpu.capability,
        "name": gpu.name,
        "cuda_gb": gpu.cuda_gb,
        "processors": gpu.processors,
        "cases": [{key: case[key] for key in ("argv", "env", "used", "head_size")} for case in cases if case["argv"]],
    }
    answers = iter(json.loads(answer_to(asked, python, stub, folder, kept)))
    for case in cases:
        case["vllm"] = next(answers) if case["argv"] else {}
        case["refusal"] = refusal(case)
    return cases


def plan_row(gpu: Gpu, used: float, model: str, folder: Path) -> dict[str, Any]:
    """What the studio decides for a model (the default one if empty) beside a desktop of so many GiB."""
    from sage_studio.catalog import Catalog
    from sage_studio.hardware import Gpu as DetectedGpu
    from sage_studio.hardware import Hardware
    from sage_studio.services.models import suits_hardware
    from sage_studio.serving.engine_factory import servable_for
    from sage_studio.serving.types import Base
    from sage_studio.serving.vllm import vllm_launch, vllm_rank
    from sage_studio.settings import load_settings

    settings = load_settings(home=folder / "home", engine="auto", vllm_python="python", sleep_mode=True)
    gpus = tuple(
        DetectedGpu(index, gpu.name, gpu.smi_mb / 1024, used if index == 0 else 0.0, 0.0, gpu.capability, "580.95.05")
        for index in range(gpu.count)
    )
    hardware = Hardware(gpus, 64.0, 8.0, 16)
    if not model:
        model = Catalog(settings).default(has_gpu=True, suits=lambda entry: suits_hardware(settings, hardware, entry))
    location = str(write_model(folder, model))
    served = servable_for(settings, hardware, location)
    row: dict[str, Any] = {"gpu": gpu, "used": used, "model": model, "served": served, "argv": [], "launch": None}
    if served.engine == "vllm":
        base = Base(location, "m", rank=vllm_rank(settings, hardware, 0))
        launch = vllm_launch(settings, hardware, "python", base, Path("/tmp/sage-x/engine.sock"))
        facts = MODELS[model][1]
        head_size = facts.get("head_dim") or facts["dims"][0] // facts["dims"][3]
        row |= {"launch": launch, "argv": launch.command, "env": launch.env, "head_size": head_size}
    return row


def refusal(row: dict[str, Any]) -> str:
    """What vLLM refuses though the studio said that it serves; empty if nothing."""
    answer = row["vllm"]
    if not row["argv"]:
        return ""  # another engine serves it, or the studio said that none does
    found = [answer.get("error", ""), answer.get("memory_error", "")]
    if answer.get("sampler_needs_compiler"):
        found.append("the sampler needs nvcc")
    return "; ".join(filter(None, found))


def answer_to(asked: dict[str, Any], python: str, stub: Path, folder: Path, kept: Path | None) -> str:
    """The child's answer, or the kept one to the same question (but for where the models' folders were)."""
    if kept is None:
        return run_child(python, stub, asked, folder)
    question = json.dumps(asked).replace(str(folder), "FOLDER")
    path = kept / f"{hashlib.sha256(question.encode()).hexdigest()[:16]}.json"
    if not path.is_file():
        answer = run_child(python, stub, asked, folder)
        kept.mkdir(parents=True, exist_ok=True)
        path.write_text(answer, encoding="utf-8")
    return path.read_text(encoding="utf-8")


def run_child(python: str, stub: Path, asked: dict[str, Any], folder: Path) -> str:
    """Run this file in the GPU environment; the last line that it prints."""
    found = os.environ.get("LD_LIBRARY_PATH", "")
    env = {**os.environ, "LD_LIBRARY_PATH": f"{stub}:{found}", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
    env |= {"REHEARSAL_CHILD": json.dumps(asked), "VLLM_LOGGING_LEVEL": "ERROR"}
    done = subprocess.run(
        [python, __file__], env=env, cwd=folder, capture_output=True, text=True, check=False, timeout=CHILD_SECONDS
    )
    if done.returncode:
        raise SystemExit(f"The child in {python} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    return done.stdout.strip().splitlines()[-1]


# The table


def report(rows: list[dict[str, Any]], versions: dict[str, str]) -> str:
    """The page with both tables."""
    first = [row for row in rows if row["used"] in DESKTOPS]
    split = {gpu.label: [row for row in first if row["gpu"] is gpu] for gpu in GPUS}
    mains = [row for group in split.values() for row in group[: len(DESKTOPS)]]
    others = [row for group in split.values() for row in group[len(DESKTOPS) :]]
    refused = [row for row in rows if row["refusal"]]
    fixed = [row for row in mains if row["vllm"].get("fixed_share_refused")]
    stands = ", ".join(f"{name} {version}" for name, version in versions.items())
    return "\n".join(
        [
            "# GPU rehearsal",
            "",
            "Made by `scripts/gpu_rehearsal.py`: the studio plans for a faked GPU; its command line goes through the",
            f"engine configuration of the real GPU pins ({stands}). No kernel runs, and memory is an estimate.",
            "",
            "- *form*: in which form, and by which engine, the model is served; *needs*: estimated GiB of each GPU,",
            "  and the room that the share gives.",
            "- *vLLM's memory check*: the verdict of its own `request_memory`, with 0.25 GiB for its CUDA context;",
            "  *with 0.8*: the same for the fixed share of 0.1.",
            f"- Refusals that were not said before: **{len(refused)}** of {len(rows)}. "
            f"A fixed share of 0.8 is refused in {len(fixed)} of {len(mains)}.",
            "",
            "## The default model",
            "",
            *_table(mains),
            "",
            "## Other models beside 1 GB of desktop",
            "",
            *_table(others),
            "",
            "## What the form says",
            "",
            *[f"- {row['gpu'].label}, {_short(row['model'])}: {row['served'].message.en}" for row in others],
            "",
        ]
    )


COLUMNS = (
    *("GPU", "desktop", "model", "form", "needs", "share", "context", "sequences, graphs", "dtype", "attention"),
    *("sampler", "8-bit kernel", "engine configuration", "vLLM's memory check", "with 0.8"),
)


def _table(rows: list[dict[str, Any]]) -> list[str]:
    lines = [" | ".join(COLUMNS), " | ".join("---" for _ in COLUMNS), *(" | ".join(_cells(row)) for row in rows)]
    return [f"| {line} |" for line in lines]


def _cells(row: dict[str, Any]) -> list[str]:
    served, answer = row["served"], row["vllm"]
    start = [row["gpu"].label, f"{row['used']:.0f} GB", _short(row["model"]), f"{served.engine or '-'} {served.form}"]
    if not row["argv"]:
        return [*start, f"{served.memory_gb:.1f}", *["-"] * (len(COLUMNS) - 5)]
    plan = row["launch"].plan
    count = f" on {len(plan.gpus)} GPUs" if len(plan.gpus) > 1 else f" on GPU {plan.gpus[0].index}"
    where = count if row["gpu"].count > 1 else ""
    return [
        *start[:3],
        start[3] + where,
        f"{plan.need_gb:.1f} of {plan.available_gb:.1f}",
        str(plan.memory_share),
        str(plan.context),
        f"{answer.get('sequences')}, {answer.get('graphs')}",
        str(answer.get("dtype")),
        str(answer.get("attention")),
        "needs nvcc" if answer.get("sampler_needs_compiler") else "no compiler",
        str(answer.get("kernel") or "-"),
        f"refused: {answer['error']}" if answer.get("error") else "accepted",
        f"refused: {answer['memory_error']}" if answer.get("memory_error") else "ok",
        "refused" if answer.get("fixed_share_refused") else "ok",
    ]


def _short(model: str) -> str:
    return model.rpartition("/")[2].removesuffix("-Instruct")


# In the GPU environment


def child(asked: dict[str, Any]) -> object:
    """Let vLLM decide for a faked GPU; one answer for each case."""
    import importlib.metadata

    if asked.get("versions"):
        return {name: importlib.metadata.version(name) for name in ("vllm", "torch", "flashinfer-python")}
    import torch
    import vllm  # noqa: F401  # its platform is replaced before its parts are imported
    from vllm import platforms

    platforms._current_platform = faked_platform(asked)
    import vllm.config.vllm as config_module

    config_module.HAS_TRITON = True
    import triton
    from vllm.triton_utils import triton as placeholder

    placeholder.Config = triton.Config  # without a driver vLLM puts a function here; on Hopper it reads its fields
    torch.accelerator.current_device_index = lambda: 0
    return [decide(asked, case) for case in asked["cases"]]


def faked_platform(asked: dict[str, Any]) -> Any:
    """vLLM's CUDA platform with a GPU that is not here."""
    from vllm.platforms.cuda import CudaPlatformBase
    from vllm.platforms.interface import DeviceCapability

    class Faked(CudaPlatformBase):  # type: ignore[misc]  # vllm's types are not read
        @classmethod
        def get_device_capability(cls, device_id: int = 0) -> Any:
            return DeviceCapability(*asked["capability"])

        @classmethod
        def has_device_capability(cls, capability: Any, device_id: int = 0) -> bool:
            wanted = capability if isinstance(capability, int) else 10 * capability[0] + capability[1]
            return bool(cls.get_device_capability().to_int() >= wanted)

        @classmethod
        def get_device_name(cls, device_id: int = 0) -> str:
            return str(asked["name"])

        @classmethod
        def get_device_total_memory(cls, device_id: int = 0) -> int:
            return int(asked["cuda_gb"] * GIB)

        @classmethod
        def is_fully_connected(cls, ids: Any) -> bool:
            return False

        @classmethod
        def device_count(cls) -> int:
            return len(os.environ["CUDA_VISIBLE_DEVICES"].split(","))

        def is_cumem_allocator_available(self) -> bool:
            return True

        @classmethod
        def is_integrated_gpu(cls, device_id: int = 0) -> bool:
            return False

        @classmethod
        def num_compute_units(cls, device_id: int = 0) -> int:
            return int(asked["processors"])

    return Faked()


def decide(asked: dict[str, Any], case: dict[str, Any]) -> dict[str, Any]:
    """vLLM's decisions for one command line."""
    os.environ.update({name: value for name, value in case["env"].items() if name != "PATH"})
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
    from vllm.usage.usage_lib import UsageContext
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    script, arguments = Path(case["argv"][case["argv"].index("-P") + 1]), case["argv"][case["argv"].index("-P") + 2 :]
    if not script.is_file():
        return {"error": f"there is no {script}"}
    try:
        args = make_arg_parser(FlexibleArgumentParser()).parse_args(arguments)
        validate_parsed_serve_args(args)
        config = AsyncEngineArgs.from_cli_args(args).create_engine_config(UsageContext.OPENAI_API_SERVER)
    except (ValueError, RuntimeError, ImportError, SystemExit, AssertionError) as error:
        return {"error": f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"}
    return {
        "dtype": str(config.model_config.dtype).removeprefix("torch."),
        "sequences": config.scheduler_config.max_num_seqs,
        "graphs": len(config.compilation_config.cudagraph_capture_sizes or ()),
        "attention": attention(config, case["head_size"]),
        "kernel": kernel(config) if config.model_config.quantization else "",
        "sampler_needs_compiler": sampler_needs_compiler(asked),
        **memory(asked, case, config),
    }


def attention(config: Any, head_size: int) -> str:
    """The attention backend that vLLM chooses."""
    from vllm.config import set_current_vllm_config
    from vllm.v1.attention.selector import get_attn_backend

    with set_current_vllm_config(config):
        return str(get_attn_backend(head_size, config.model_config.dtype, None).get_name())


def kernel(config: Any) -> str:
    """The kernel that multiplies weights in 8 bits."""
    import torch
    from vllm.config import set_current_vllm_config
    from vllm.model_executor.kernels.linear import init_fp8_linear_kernel
    from vllm.model_executor.layers.quantization.online.fp8 import Fp8PerTensorOnlineLinearMethod as Method
    from vllm.model_executor.layers.quantization.utils.quant_utils import kFp8StaticTensorSym

    half = config.model_config.dtype
    torch.set_default_dtype(half)
    with set_current_vllm_config(config):
        chosen = init_fp8_linear_kernel(
            activation_quant_key=Method.activation_quant_key,
            weight_quant_key=kFp8StaticTensorSym,
            weight_shape=torch.Size((2048, 2048)),
            input_dtype=half,
            out_dtype=half,
        )
    torch.set_default_dtype(torch.float32)
    return type(chosen).__name__.removesuffix("ScaledMMLinearKernel")


def sampler_needs_compiler(asked: dict[str, Any]) -> bool:
    """Whether the sampler that vLLM chooses has to be compiled on a machine that has no CUDA toolkit."""
    import torch
    from vllm.v1.sample.ops.topk_topp_sampler import flashinfer_sample, flashinfer_sampler_supported

    os.environ.setdefault("FLASHINFER_CUDA_ARCH_LIST", ".".join(map(str, asked["capability"])))
    if not flashinfer_sampler_supported():
        return False
    try:
        flashinfer_sample(torch.randn(2, 100), torch.tensor([50, 50], dtype=torch.int32), torch.tensor([0.9, 0.9]))
    except RuntimeError as error:
        return "nvcc" in str(error) or "cuda_home" in str(error).lower()
    return False


def memory(asked: dict[str, Any], case: dict[str, Any], config: Any) -> dict[str, Any]:
    """vLLM's verdict on the share, and on the fixed one of 0.1."""
    from types import SimpleNamespace

    from vllm.v1.worker.utils import request_memory

    total = asked["cuda_gb"]
    # On a machine with several GPUs the desktop is on the first.
    used = case["used"] if "0" in os.environ["CUDA_VISIBLE_DEVICES"].split(",") else 0.0
    free = total - used - WORKER_CONTEXT_GB
    snapshot = SimpleNamespace(total_memory=int(total * GIB), free_memory=int(free * GIB), device_="cuda:0")

    def refused(share: float) -> str:
        try:
            request_memory(snapshot, SimpleNamespace(gpu_memory_utilization=share))
        except ValueError as error:
            return str(error).splitlines()[0]
        return ""

    return {
        "memory_error": refused(config.cache_config.gpu_memory_utilization),
        "fixed_share_refused": bool(refused(FIXED_SHARE)),
    }


if __name__ == "__main__":
    if "REHEARSAL_CHILD" in os.environ:
        print("\n" + json.dumps(child(json.loads(os.environ["REHEARSAL_CHILD"]))))
    else:
        sys.exit(main())
