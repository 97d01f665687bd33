"""A trainer that trains nothing but follows the protocol of the files. What it does stands in job.json's data_path.

Runs by itself, from the standard library alone, so that it starts in milliseconds; never longer than `LONGEST` seconds.

    complete   three steps, then a result
    wait       one step, then waits for a file "go" in its folder; SIGTERM ends it with a "stopped" result
    deaf       like wait, but ignores SIGTERM, and so does a grandchild that it starts
    finish     like wait, but answers SIGTERM by completing
    die        writes a line to its log and leaves without a result
    fail       ends with a failed result of its own
    greedy     fails for want of memory unless the batch is of one row
    linger     writes a result at once, but does not leave
    orphan     like complete, but leaves a grandchild behind
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

LONGEST = 3600.0
SLEEPER = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"


def main(folder: Path) -> int:
    act = json.loads((folder / "job.json").read_text())["data_path"]
    job = json.loads((folder / "job.json").read_text())
    told: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
    print(f"pid {os.getpid()} resume {job['resume']}")
    event(folder, phase="starting", total_steps=3)
    if act == "die":
        print("the last thing it said")
        return 3
    if act == "fail":
        return result(folder, "failed", reason="memory", message=["Too big.", "太大。"], hint=["Smaller.", "小些。"])
    if act in ("deaf", "orphan"):
        grandchild = subprocess.Popen([sys.executable, "-c", SLEEPER])
        (folder / "grandchild").write_text(str(grandchild.pid))
    if act == "greedy" and "per_device_train_batch_size: 1\n" not in (folder / "recipe.yaml").read_text():
        return result(folder, "failed", reason="memory", message=["Too big.", "太大。"], hint=["Smaller.", "小些。"])
    first = 2 if job["resume"] else 1
    event(folder, phase="training", step=first, loss=3.0 - first, learning_rate=0.1)
    if act == "linger":
        result(folder, "completed")
        act = "deaf"
    if act in ("wait", "deaf", "finish"):
        if act == "finish":
            (folder / "ready").touch()
        if not job["resume"] and wait(folder, told, deaf=act == "deaf") and act == "wait":
            return result(folder, "stopped", steps=1)
    for step in range(first, 4):
        event(folder, phase="training", step=step, loss=3.0 - step, learning_rate=0.1)
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    (folder / "training_args.json").write_text("{}")
    return result(folder, "completed", steps=3)


def wait(folder: Path, told: list[int], deaf: bool) -> bool:
    """Until told to go on or, unless deaf, to stop. True for the latter."""
    deadline = time.monotonic() + LONGEST
    while not (folder / "go").exists():
        if time.monotonic() > deadline:
            sys.exit("nobody came")
        if told and not deaf:
            return True
        time.sleep(0.005)
    return False


def event(folder: Path, **fields: object) -> None:
    with (folder / "progress.jsonl").open("a") as file:
        file.write(json.dumps({"time": time.time(), **fields}) + "\n")


def result(folder: Path, status: str, **fields: object) -> int:
    part = folder / "result.part"
    part.write_text(json.dumps({"status": status, "total_steps": 3, **fields}))
    part.replace(folder / "result.json")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
