"""A large JSONL validated and kept as a dataset, against ``datasets.load_dataset("json")`` on the same file.

    python -m benchmarks.ingest [SIZE_MB] [ROUNDS]

Writes a file of SIZE_MB (1024 without) of rows like those of a documentation, half of them Chinese, every hundredth one
twice. Each way has a process of its own, in turn; printed are the wall-clock and CPU seconds of it and of all that it
starts, and the most memory that they had resident together, by the fastest of ROUNDS (1 without), and the median of
the rounds' ratios. The studio reads, checks, counts and writes every row; the library reads and writes its own cache.
Then the dataset can be used; how long its SHA-256 takes, which the studio computes behind, is printed besides.
"""

import contextlib
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil

LINES = (
    "A window groups records by time or by count; late records are dropped unless a grace period is set.",
    "The scheduler places operators by free memory and moves them when a machine is lost.",
    "```python\nstream.window(seconds=10).map(count).sink(print)\n```",
    "窗口按照时间或者数量对记录进行分组，没有设置宽限期的时候迟到的记录会被丢弃。",
    "检索器先把问题编码成向量，再在索引中查找最相近的片段，片段的长度决定取舍。",
)
WAYS = ("studio", "datasets")


def main() -> None:
    """Write the file, run both, print the table."""
    size = int(sys.argv[1]) if len(sys.argv) > 1 else 1024
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        rows = write_rows(path, size << 20)
        print(f"{rows:,} rows, {path.stat().st_size / 2**20:,.0f} MiB")
        found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
        for _ in range(rounds):
            for way in WAYS:
                found[way].append(measured(way, path, Path(folder)))
        best = {way: min(figures, key=lambda each: each["seconds"]) for way, figures in found.items()}
        for way, figures in best.items():
            print(
                f"{way:10}{figures['seconds']:8.1f} s   {figures['cpu']:8.1f} s of CPU   "
                f"{figures['peak_mb']:8.0f} MB resident at most   {figures['rows']:12,.0f} rows"
            )
        ratios = [ours["seconds"] / theirs["seconds"] for ours, theirs in zip(*found.values(), strict=True)]
        print(
            f"the studio needs {best['studio']['seconds'] / best['datasets']['seconds']:.2f} x the library's time "
            f"by the fastest of each, {statistics.median(ratios):.2f} x by the median of {rounds}; "
            f"the SHA-256 takes {best['studio']['behind']:.1f} s behind"
        )


def write_rows(path: Path, size: int) -> int:
    """Rows until the file has the size; how many there are."""
    pick, rows, written = random.Random(1), 0, 0
    with path.open("wb") as file:
        while written < size:
            rows += 1
            answer = "\n\n".join(pick.choices(LINES, k=pick.randint(4, 20)))
            question = f"Explain part {rows} of SAGE." if rows % 2 else f"请介绍 SAGE 的第 {rows} 部分"
            line = (
                json.dumps({"instruction": question, "input": "", "output": answer}, ensure_ascii=False).encode()
                + b"\n"
            )
            for _ in range(2 if rows % 100 == 0 else 1):
                written += file.write(line)
            rows += rows % 100 == 0
    return rows


def measured(way: str, path: Path, folder: Path) -> dict[str, float]:
    """One run in a process of its own."""
    with tempfile.TemporaryDirectory(dir=folder) as home:
        command = [sys.executable, "-m", "benchmarks.ingest", "--run", way, str(path), home]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as running:
            peak = peak_of(running)
            said = running.communicate()[0]
        if running.returncode:
            raise subprocess.CalledProcessError(running.returncode, command)
        return {**json.loads(said.splitlines()[-1]), "peak_mb": peak}


def peak_of(running: "subprocess.Popen[str]") -> float:
    """The most MiB that a process and its children had resident together, looked at ten times a second."""
    process, most = psutil.Process(running.pid), 0
    while running.poll() is None:
        now = 0
        for each in (process, *process.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                now += each.memory_info().rss
        most = max(most, now)
        time.sleep(0.1)
    return most / 2**20


def run(way: str, path: Path, home: Path) -> None:
    """Read the file one way, and print the figures as JSON."""
    take = take_studio if way == "studio" else take_datasets
    begin, cpu = time.monotonic(), time.process_time()
    rows, follow = take(path, home)
    seconds, used = time.monotonic() - begin, time.process_time() - cpu
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    used += children.ru_utime + children.ru_stime
    begin = time.monotonic()
    follow()
    print(json.dumps({"seconds": seconds, "cpu": used, "rows": rows, "behind": time.monotonic() - begin}))


def take_studio(path: Path, home: Path) -> tuple[int, Callable[[], object]]:
    """As an upload, up to the kept dataset with its statistics; and what follows behind."""
    from sage_studio.data.sources.local import UploadSource
    from sage_studio.data.store import DatasetStore
    from sage_studio.database import Database

    store = DatasetStore(Database(home / "studio.db"), home / "datasets")
    dataset = store.add(UploadSource(path, max_bytes=1 << 40))
    return dataset.stats.total_samples, lambda: store.hashed(dataset)


def take_datasets(path: Path, home: Path) -> tuple[int, Callable[[], object]]:
    """As anyone would with the library."""
    from datasets import load_dataset

    rows = load_dataset("json", data_files=str(path), split="train", cache_dir=str(home / "cache"))
    return int(rows.num_rows), lambda: None


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        run(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]))
    else:
        main()
