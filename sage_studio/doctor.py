"""Checks what this machine can do, and names the command that mends what it cannot.

    make doctor        python3 -m sage_studio.doctor [--json]

Standard library only, for `make run` asks it before anything is installed. `look` collects the facts, `diagnose` judges
them; so the advice is tested on recorded machines.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from sage_studio.child_environment import Needs, child_environment
from sage_studio.hardware import (
    NVIDIA_SMI,
    OLDEST_CAPABILITY,
    OLDEST_DRIVER,
    VISIBLE,
    WSL_NVIDIA_SMI,
    Gpu,
    Unusable,
    parse_gpus,
    query_gpus,
    sort_gpus,
)
from sage_studio.text import NOTHING, Language, Text, language_of, verbatim

GIB = 2**30
PROJECT = Path(__file__).resolve().parent.parent
OLDEST_PYTHON, NEWEST_PYTHON = (3, 11), (3, 14)
OLDEST_GLIBC = (2, 31)
OLDEST_MACOS = (14, 0)
DISK_GB = {"gpu": (4.2, 8.5), "cpu": (1.3, 4.3), "neutral": (1.2, 3.5)}
"""What installing downloads and what then lies in ``.venv``, in GB; measured with the pinned sets."""
WORKING_DISK_GB = 5.0
"""For a small model, its dataset and two checkpoints."""
LEAST_GPU_GB = 3.0
"""Free GPU memory with which a model of half a billion parameters can be trained and served."""
LEAST_SHM_GB = 1.0
TORCH_SECONDS = 120.0
NVIDIA, AMD = "0x10de", "0x1002"
TORCH = """
import json, torch
found = {"version": torch.__version__, "cuda": torch.version.cuda or "", "devices": torch.cuda.device_count()}
print(json.dumps(found))
"""


class Level(StrEnum):
    """How bad a finding is. `PROBLEM`: something that the studio is for does not work; `BLOCKING`: nothing does."""

    OK = "ok"
    NOTE = "note"
    PROBLEM = "problem"
    BLOCKING = "blocking"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One thing that was looked at.

    Attributes:
        check: what was looked at: ``python``, ``git``, ``disk``, ``compiler``, ``driver``, ``gpu`` …
        found: what is there.
        consequence: what will not work; empty where all is well.
        remedy: the one command or step that mends it; empty where there is none, or nothing to mend.
    """

    check: str
    level: Level
    found: Text
    consequence: Text = NOTHING
    remedy: Text = NOTHING


@dataclass(frozen=True, slots=True)
class Facts:
    """A machine as it describes itself: raw outputs, so that another one's can be recorded.

    Attributes:
        system, machine, release: as `platform` tells them, e.g. ``Linux``, ``x86_64``, ``6.8.0-45-generic``.
        distribution: ``ID`` and ``ID_LIKE`` of ``/etc/os-release``.
        glibc, macos: version; empty elsewhere.
        compiler: path of ``cc``, ``gcc`` or ``clang``; python_header: whether ``Python.h`` is there.
        nvidia_smi: what it printed for our query; nvidia_smi_error: what it printed where it failed.
        pci: vendors of the display controllers, as hexadecimal numbers.
        visible: ``CUDA_VISIBLE_DEVICES``; None where it is not set.
        torch: its version, CUDA version and number of devices; None before it is installed.
        disk_free_gb: where the studio is installed; home_free_gb: where it keeps its data.
        shm_gb: size of ``/dev/shm``; memory_gb: main memory; 0 where unknown.
        installed: whether ``.venv`` holds the packages already.
    """

    system: str = "Linux"
    machine: str = "x86_64"
    release: str = ""
    distribution: str = ""
    glibc: str = ""
    macos: str = ""
    python: tuple[int, ...] = (3, 11, 0)
    git: str = ""
    compiler: str = ""
    python_header: bool = False
    cpu_flags: tuple[str, ...] = ()
    nvidia_smi: str = ""
    nvidia_smi_error: str = ""
    pci: tuple[str, ...] = ()
    visible: str | None = None
    torch: dict[str, Any] | None = None
    disk_free_gb: float = 0.0
    home_free_gb: float = 0.0
    shm_gb: float = 0.0
    memory_gb: float = 0.0
    installed: bool = False
    container: bool = False
    gpus: tuple[Gpu, ...] = field(init=False, default=())

    def __post_init__(self) -> None:
        object.__setattr__(self, "gpus", parse_gpus(self.nvidia_smi))

    @property
    def wsl(self) -> bool:
        """Whether this is Linux inside Windows."""
        return "microsoft" in self.release.lower()

    @property
    def kind(self) -> str:
        """The set of packages that fits: ``gpu``, ``cpu``, or ``neutral`` where vLLM has no build."""
        if sort_gpus(self.gpus, None)[0] and self.system == "Linux":
            return "gpu"
        recent = self.machine in ("aarch64", "arm64") or "avx2" in self.cpu_flags
        return "cpu" if self.system == "Linux" and recent else "neutral"


# Looking


def look(project: Path, home: Path, ask_torch: bool = True) -> Facts:
    """Describe this machine.

    Args:
        project: the folder of ``app.py``; ``.venv`` lies in it.
        home: the studio's home; it need not exist yet.
        ask_torch: whether a child process may import torch (seconds) where there is a GPU.
    """
    printed, error = query_gpus(), ""
    if not printed:
        error = _nvidia_smi_error()
    python = project / ".venv" / "bin" / "python"
    found_gpu = bool(printed or error)
    return Facts(
        system=platform.system(),
        machine=platform.machine(),
        release=platform.release(),
        distribution=_os_release(),
        glibc=platform.libc_ver()[1] if platform.system() == "Linux" else "",
        macos=platform.mac_ver()[0],
        python=tuple(sys.version_info[:3]),
        git=_first_line(["git", "--version"]),
        compiler=next((path for name in ("cc", "gcc", "clang") if (path := shutil.which(name))), ""),
        python_header=(Path(sysconfig.get_paths()["include"]) / "Python.h").is_file(),
        cpu_flags=_cpu_flags(),
        nvidia_smi=printed,
        nvidia_smi_error=error,
        pci=_display_controllers(),
        visible=os.environ.get(VISIBLE),
        torch=_ask_torch(python) if ask_torch and found_gpu and python.exists() else None,
        disk_free_gb=_free_gb(project),
        home_free_gb=_free_gb(home),
        shm_gb=shutil.disk_usage("/dev/shm").total / GIB if Path("/dev/shm").is_dir() else 0.0,
        memory_gb=_memory_gb(),
        installed=(project / ".venv" / ".installed-studio").is_file(),
        container=Path("/.dockerenv").exists() or Path("/run/.containerenv").exists(),
    )


def _nvidia_smi_error() -> str:
    command = shutil.which(NVIDIA_SMI) or shutil.which(WSL_NVIDIA_SMI)
    if command is None:
        return ""
    try:
        done = subprocess.run(
            [command],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
            env=child_environment(Needs.SYSTEM),
        )
    except (subprocess.TimeoutExpired, OSError) as error:
        return str(error)
    return (done.stdout + done.stderr).strip() if done.returncode else "No devices were found"


def _ask_torch(python: Path) -> dict[str, Any] | None:
    try:
        done = subprocess.run(
            [str(python), "-W", "ignore", "-c", TORCH],
            capture_output=True,
            text=True,
            timeout=TORCH_SECONDS,
            check=False,
            env=child_environment(Needs.LIBRARIES),
        )
        found: dict[str, Any] = json.loads(done.stdout.strip().rpartition("\n")[2])
    except (subprocess.TimeoutExpired, OSError, ValueError):
        return None
    return found


def _display_controllers() -> tuple[str, ...]:
    """Vendors of the display controllers (PCI class 03) that Linux lists."""
    found = []
    for device in sorted(Path("/sys/bus/pci/devices").glob("*")):
        try:
            if (device / "class").read_text().startswith("0x03"):
                found.append((device / "vendor").read_text().strip())
        except OSError:
            continue
    return tuple(found)


def _os_release() -> str:
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return ""
    return f"{release.get('ID', '')} {release.get('ID_LIKE', '')}".strip()


def _cpu_flags() -> tuple[str, ...]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return ()
    return tuple(flag for flag in ("avx2", "avx512f", "avx512_bf16") if f" {flag} " in text.replace("\n", " "))


def _memory_gb() -> float:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    except (ValueError, OSError, AttributeError):
        return 0.0


def _free_gb(path: Path) -> float:
    path = path.expanduser().absolute()
    return shutil.disk_usage(next(each for each in (path, *path.parents) if each.exists())).free / 1e9


def _first_line(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=10, check=False, env=child_environment(Needs.SYSTEM)
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip().partition("\n")[0] if done.returncode == 0 else ""


# Judging


def diagnose(facts: Facts) -> list[CheckResult]:
    """Every check's finding, in the order in which a person would mend them."""
    checks = (_python, _system, _git, _disk, _other_gpus, _driver, _gpus, _torch, _build_tools, _shm, _wsl)
    return [finding for check in checks for finding in check(facts)]


def _python(facts: Facts) -> Iterator[CheckResult]:
    version = ".".join(map(str, facts.python))
    found = verbatim(f"Python {version}")
    if facts.python[:2] < OLDEST_PYTHON:
        yield CheckResult(
            "python",
            Level.BLOCKING,
            found,
            Text("The studio needs Python 3.11 or newer."),
            _run(_package(facts, "python3.11 python3.11-venv", "python3.11", "python", "python@3.11")),
        )
    elif facts.python[:2] > NEWEST_PYTHON:
        yield CheckResult(
            "python",
            Level.PROBLEM,
            found,
            Text("Some of the pinned packages have no build for it yet."),
            _run("PYTHON=python3.12 make run"),
        )
    else:
        yield CheckResult("python", Level.OK, found)


def _system(facts: Facts) -> Iterator[CheckResult]:
    name = verbatim(f"{facts.system} {facts.release} {facts.machine}")
    if facts.system == "Darwin":
        yield from _mac(facts)
    elif facts.system == "Windows":
        yield CheckResult(
            "system",
            Level.BLOCKING,
            name,
            Text("The trainer needs POSIX process groups."),
            _run("wsl --install -d Ubuntu-24.04"),
        )
    elif facts.glibc and _version(facts.glibc) < OLDEST_GLIBC:
        yield CheckResult(
            "system",
            Level.BLOCKING,
            verbatim(f"glibc {facts.glibc}"),
            Text("Some of the pinned packages are built for glibc 2.31 and newer (Ubuntu 20.04, Debian 11, RHEL 9)."),
            Text("Use a newer distribution."),
        )
    elif facts.kind == "neutral":
        yield CheckResult(
            "system",
            Level.NOTE,
            Text("{name}, without AVX2", name=name),
            Text("vLLM has no build for this processor: the chat uses the slower transformers engine."),
        )
    else:
        yield CheckResult("system", Level.OK, name)


def _mac(facts: Facts) -> Iterator[CheckResult]:
    found = verbatim(f"macOS {facts.macos} {facts.machine}")
    if facts.machine == "x86_64":
        yield CheckResult(
            "system",
            Level.BLOCKING,
            found,
            Text("torch 2.13 has no build for Intel Macs."),
            Text("Use an Apple silicon Mac or Linux."),
        )
    elif facts.macos and _version(facts.macos) < OLDEST_MACOS:
        yield CheckResult(
            "system",
            Level.BLOCKING,
            found,
            Text("bitsandbytes needs macOS 14 or newer."),
            _run("softwareupdate --install --all"),
        )
    else:
        yield CheckResult(
            "gpu",
            Level.NOTE,
            Text("{found}: the Apple GPU is not used", found=found),
            Text("Training and chat run on the CPU; models above 1 B parameters are slow."),
        )


def _git(facts: Facts) -> Iterator[CheckResult]:
    if facts.git:
        yield CheckResult("git", Level.OK, verbatim(facts.git))
        return
    yield CheckResult(
        "git",
        Level.PROBLEM,
        Text("git is not installed"),
        Text("The SAGE documentation and Git repositories cannot be fetched."),
        _run(_package(facts, "git", "git", "git", "git")),
    )


def _disk(facts: Facts) -> Iterator[CheckResult]:
    download, installed = DISK_GB[facts.kind]
    need = WORKING_DISK_GB if facts.installed else download + installed + WORKING_DISK_GB
    free = min(facts.disk_free_gb, facts.home_free_gb)
    found = Text("{free:.0f} GB of disk are free", free=free)
    if free >= need:
        yield CheckResult("disk", Level.OK, found)
        return
    what = (
        Text("A small model with its checkpoints needs about {need:.0f} GB.", need=need)
        if facts.installed
        else Text(
            "{need:.0f} GB are needed: {download:g} GB to download, {installed:g} GB installed, "
            "{working_disk_gb:g} GB to work with.",
            need=need,
            download=download,
            installed=installed,
            working_disk_gb=WORKING_DISK_GB,
        )
    )
    yield CheckResult(
        "disk",
        Level.PROBLEM if facts.installed else Level.BLOCKING,
        found,
        what,
        Text("Free some space, e.g. `pip cache purge`, or clone onto a larger disk and set SAGE_STUDIO_HOME there."),
    )


def _other_gpus(facts: Facts) -> Iterator[CheckResult]:
    if facts.system == "Linux" and not (facts.gpus or facts.nvidia_smi_error or {AMD, NVIDIA} & set(facts.pci)):
        yield CheckResult(
            "gpu",
            Level.NOTE,
            Text("No NVIDIA GPU"),
            Text("Training and chat run on the CPU; models above 1 B parameters are slow."),
        )
    if AMD in facts.pci and not facts.gpus:
        yield CheckResult(
            "gpu",
            Level.NOTE,
            Text("An AMD GPU is there and is not used"),
            Text("The pinned torch and vLLM are CUDA and CPU builds, without ROCm: all runs on the CPU."),
        )


def _driver(facts: Facts) -> Iterator[CheckResult]:
    if facts.gpus:
        old = [gpu for gpu in facts.gpus if gpu.driver and _version(gpu.driver)[0] < OLDEST_DRIVER]
        version = facts.gpus[0].driver
        found = Text("NVIDIA driver {version}", version=version)
        if not old:
            yield CheckResult("driver", Level.OK, found)
        else:
            yield CheckResult(
                "driver",
                Level.PROBLEM,
                found,
                Text(
                    "torch and vLLM are built for CUDA 13, which needs driver {oldest_driver} or newer. Until "
                    "then no GPU is used.",
                    oldest_driver=OLDEST_DRIVER,
                ),
                _driver_remedy(facts),
            )
    elif facts.nvidia_smi_error or NVIDIA in facts.pci:
        message = facts.nvidia_smi_error.partition("\n")[0][:200]
        mismatch = "mismatch" in facts.nvidia_smi_error
        yield CheckResult(
            "driver",
            Level.PROBLEM,
            Text("nvidia-smi does not work: {said}", said=message)
            if message
            else Text("An NVIDIA GPU is there, without a driver"),
            Text("The GPU is not used; all runs on the CPU."),
            _run("sudo reboot") if mismatch else _driver_remedy(facts),
        )


def _driver_remedy(facts: Facts) -> Text:
    if facts.wsl:
        return Text("Install the NVIDIA driver 580 or newer on Windows, then run `wsl --shutdown` there.")
    if facts.container:
        return Text("Update the driver on the host, and start the container with --gpus all.")
    if "ubuntu" in facts.distribution:
        return _run("sudo ubuntu-drivers install nvidia:580 && sudo reboot")
    if _family(facts) == "arch":
        return _run("sudo pacman -S nvidia-open && sudo reboot")
    return Text(
        "Install NVIDIA's driver {oldest_driver} or newer for your distribution, then reboot.",
        oldest_driver=OLDEST_DRIVER,
    )


def _gpus(facts: Facts) -> Iterator[CheckResult]:
    usable, others = sort_gpus(facts.gpus, facts.visible)
    for gpu in usable:
        yield _gpu(gpu)
    for gpu, why in others:
        if why is not Unusable.OLD_DRIVER:  # said once, of the driver
            yield _set_aside(gpu, why, facts)


def _gpu(gpu: Gpu) -> CheckResult:
    found = Text(
        "GPU {index}: {name}, {free_gb:.1f} of {memory_gb:.1f} GB free",
        index=gpu.index,
        name=gpu.name,
        free_gb=gpu.free_gb,
        memory_gb=gpu.memory_gb,
    )
    if gpu.free_gb >= LEAST_GPU_GB:
        return CheckResult("gpu", Level.OK, found)
    return CheckResult(
        "gpu",
        Level.PROBLEM,
        found,
        Text(
            "Even the smallest model needs about {least_gpu_gb:g} GB to be trained and served.",
            least_gpu_gb=LEAST_GPU_GB,
        ),
        Text("Close what uses the GPU: `nvidia-smi` lists it."),
    )


def _set_aside(gpu: Gpu, why: Unusable, facts: Facts) -> CheckResult:
    name = Text("GPU {index}: {name} is not used", index=gpu.index, name=gpu.name)
    oldest = ".".join(map(str, OLDEST_CAPABILITY))
    capability = ".".join(map(str, gpu.capability or ()))
    reasons = {
        Unusable.OLD_GPU: (
            Level.PROBLEM,
            Text(
                "Its compute capability is {capability}; torch 2.13 and vLLM 0.32 have kernels from "
                "{oldest} on (RTX 20xx, T4 and newer).",
                capability=capability,
                oldest=oldest,
            ),
            Text("Use a newer GPU. Training and chat run on the CPU until then."),
        ),
        Unusable.HIDDEN: (
            Level.NOTE,
            Text("{visible}={facts_visible} hides it.", visible=VISIBLE, facts_visible=facts.visible),
            _run(f"unset {VISIBLE}"),
        ),
        Unusable.NO_MEMORY_FIGURE: (
            Level.PROBLEM,
            Text(
                "The driver does not tell its memory (GB10 and Jetson share the machine's), so nothing can be planned."
            ),
            Text("Such machines are not supported yet."),
        ),
        Unusable.CPU_TORCH: (
            Level.PROBLEM,
            Text("The CPU build of torch is installed."),
            _run("rm -rf .venv && make run"),
        ),
    }
    level, consequence, remedy = reasons[why]
    return CheckResult("gpu", level, name, consequence, remedy)


def _torch(facts: Facts) -> Iterator[CheckResult]:
    usable, _ = sort_gpus(facts.gpus, facts.visible)
    if facts.torch is None or not usable:
        return
    version, devices = facts.torch["version"], facts.torch["devices"]
    found = Text("torch {version} sees {devices} GPU(s)", version=version, devices=devices)
    if devices >= len(usable):
        yield CheckResult("torch", Level.OK, found)
    elif not facts.torch["cuda"]:
        yield CheckResult(
            "torch",
            Level.PROBLEM,
            found,
            Text("It is the CPU build: the GPU is not used."),
            _run("rm -rf .venv && make run"),
        )
    else:
        yield CheckResult(
            "torch",
            Level.PROBLEM,
            found,
            Text("nvidia-smi lists the GPU, but CUDA cannot open it: trainings are refused."),
            Text("Start the container with --gpus all, or reboot after a driver update."),
        )


def _build_tools(facts: Facts) -> Iterator[CheckResult]:
    if facts.kind != "gpu":
        return
    parts = ((Text("a C compiler"), facts.compiler), (verbatim("Python.h"), facts.python_header))
    missing = [name for name, there in parts if not there]
    if not missing:
        yield CheckResult("compiler", Level.OK, verbatim(f"{facts.compiler}, Python.h"))
        return
    version = ".".join(map(str, facts.python[:2]))
    yield CheckResult(
        "compiler",
        Level.PROBLEM,
        Text("Missing: {missing}", missing=missing),
        Text("Triton compiles its driver at the first step: training on the GPU and vLLM fail without."),
        _run(
            _package(
                facts, f"build-essential python{version}-dev", f"gcc python{version}-devel", "base-devel", "python"
            )
        ),
    )


def _shm(facts: Facts) -> Iterator[CheckResult]:
    if facts.kind == "gpu" and facts.system == "Linux" and facts.shm_gb < LEAST_SHM_GB:
        yield CheckResult(
            "shm",
            Level.PROBLEM if len(facts.gpus) > 1 else Level.NOTE,
            Text("/dev/shm has {shm_gb:.0f} MB", shm_gb=facts.shm_gb * 1024),
            Text("Several GPUs exchange data through it: NCCL and vLLM fail below 1 GB."),
            _run("docker run --shm-size=8g …" if facts.container else "sudo mount -o remount,size=8G /dev/shm"),
        )


def _wsl(facts: Facts) -> Iterator[CheckResult]:
    if facts.wsl and facts.gpus:
        yield CheckResult(
            "wsl",
            Level.NOTE,
            Text("WSL 2 with {memory_gb:.0f} GB of memory", memory_gb=facts.memory_gb),
            Text(
                "Windows limits pinned memory, and memory used by Windows counts as used on the GPU. The chat engine "
                "stops during a training instead of sleeping."
            ),
            Text("More memory for WSL: set memory=… under [wsl2] in %UserProfile%\\.wslconfig."),
        )


def _family(facts: Facts) -> str:
    words = set(facts.distribution.split())
    for family, names in (
        ("debian", {"debian", "ubuntu"}),
        ("fedora", {"fedora", "rhel", "centos", "rocky", "almalinux"}),
        ("arch", {"arch", "manjaro"}),
        ("suse", {"suse", "opensuse"}),
    ):
        if words & names:
            return family
    return "mac" if facts.system == "Darwin" else "debian"


def _package(facts: Facts, debian: str, fedora: str, arch: str, mac: str) -> str:
    commands = {
        "debian": f"sudo apt install {debian}",
        "fedora": f"sudo dnf install {fedora}",
        "arch": f"sudo pacman -S {arch}",
        "suse": f"sudo zypper install {fedora}",
        "mac": f"brew install {mac}",
    }
    return commands[_family(facts)]


def _run(command: str) -> Text:
    return Text("Run: {command}", command=command)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2] if part.isdigit()) or (0,)


# Telling


MARKS = {Level.OK: "✓", Level.NOTE: "·", Level.PROBLEM: "✗", Level.BLOCKING: "✗"}


def report(findings: Sequence[CheckResult], language: Language, quiet: bool = False) -> str:
    """Lines for a terminal: each finding with its consequence and remedy; ``quiet`` leaves out what is well."""
    lines = []
    for finding in findings:
        if quiet and finding.level is Level.OK:
            continue
        lines.append(f"{MARKS[finding.level]} {finding.found.in_(language)}")
        lines += [f"    {text.in_(language)}" for text in (finding.consequence, finding.remedy) if text]
    return "\n".join(lines)


def as_json(finding: CheckResult, language: Language | None = None) -> dict[str, Any]:
    """A finding as plain JSON: in one language, or with both where none is given."""

    def shown(text: Text) -> str | dict[str, str]:
        return text.in_(language) if language else text.translations()

    return {
        "check": finding.check,
        "level": str(finding.level),
        "found": shown(finding.found),
        "consequence": shown(finding.consequence),
        "remedy": shown(finding.remedy),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the report. Returns 0 if the studio can do its job here, 1 if something does not work."""
    parser = argparse.ArgumentParser(prog="make doctor", description="Check whether this machine can run the studio.")
    parser.add_argument("--json", action="store_true", help="print the facts and findings as JSON")
    given = parser.parse_args(arguments)
    facts = look(PROJECT, Path(os.environ.get("SAGE_STUDIO_HOME", "~/.sage")))
    findings = diagnose(facts)
    if given.json:
        kept = {name: value for name, value in asdict(facts).items() if name != "gpus"}
        print(json.dumps({"facts": kept, "findings": list(map(as_json, findings))}, indent=2, ensure_ascii=False))
    else:
        print(report(findings, language_of(os.environ.get("LC_ALL") or os.environ.get("LANG"))))
    return int(any(finding.level in (Level.PROBLEM, Level.BLOCKING) for finding in findings))


if __name__ == "__main__":
    sys.exit(main())
